"""Inter-arrival times: between all frames of a timestamp source, and within each flow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.gaps.loop import GAP_DTYPE
from uspcap.analysis.inter_arrival.loop import ARRIVAL_TRACK_DTYPE, JITTER_EDGE, SOURCES, join_arrivals, track_arrivals
from uspcap.analysis.inter_arrival.result import Arrivals, FlowArrivals, Flows, InterArrivalResult, LargestGap
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flows import FlowRows, FlowTable
from uspcap.stats.buckets import BUCKETS, FLOW_SHIFT, Cells, CellsByFlow
from uspcap.stats.histogram import PERCENTILES, Histogram, bounds, percentile_of_each

LARGEST_KEPT = 100
"""Largest gaps between all frames kept one by one."""

ROWS_SHOWN = 10

MAXIMUM_LINES = 1 << 19
"""Bound on the lines of 32 histogram buckets of all flows together; beyond it the flow table halves its sample."""

TAIL = "99.9"
"""Percentile that ranks the worst flows."""

JITTER = "RFC 3550 section 6.4.1 on arrival times, the sender's spacing taken as constant"


class InterArrival(Analysis):
    """Histograms of the time between frames, jitter, and the largest gaps.

    A backward step is counted, never folded into a histogram.

    Parameters
    ----------
    flows : FlowTable, optional
        Shared with other analyses of the same run.
    maximum_lines : int
        Bound on the lines of histogram buckets of all flows together.
    shown : int
        Rows in each of the result's lists, of largest gaps never more than `LARGEST_KEPT`; the tables hold all.
    """

    name = "inter_arrival"

    def __init__(
        self, flows: FlowTable | None = None, *, maximum_lines: int = MAXIMUM_LINES, shown: int = ROWS_SHOWN
    ) -> None:
        super().__init__()
        self.flows = flows if flows is not None else FlowTable()
        self._maximum_lines = maximum_lines
        self._shown = shown
        self._tracks = np.zeros(SOURCES, ARRIVAL_TRACK_DTYPE)
        self._counts = np.zeros((SOURCES, BUCKETS), np.uint64)
        self._per_flow = FlowRows(self.flows, ARRIVAL_TRACK_DTYPE)
        self._cells = Cells()
        self._largest = np.zeros(LARGEST_KEPT, GAP_DTYPE)
        self._largest_used = 0
        self._scratch = np.empty(0, np.uint64)

    def _update(self, batch: FrameBatch) -> None:
        self.flows.assign(batch)
        self._sync()
        if len(self._scratch) < batch.count:
            self._scratch = np.empty(batch.capacity, np.uint64)
        self._largest_used = track_arrivals(
            batch,
            batch.headers,
            self._shift(batch),
            self._tracks,
            self._counts,
            self._per_flow.with_spare_rows,
            self._cells,
            self._largest,
            self._largest_used,
            self._scratch,
        )
        self._keep_bound()

    def _sync(self) -> None:
        """Follow the flow table where its ids have changed."""
        remap = self._per_flow.sync()
        if remap is not None:
            cells = Cells()
            cells.absorb(self._cells, remap)
            self._cells = cells

    def _keep_bound(self) -> None:
        while self._cells.lines > self._maximum_lines and len(self.flows):
            self.flows.raise_level()
            self._sync()

    def _merge(self, later: InterArrival) -> None:
        later._sync()
        ids = self.flows.absorb(later.flows)
        self._sync()
        shift = self.frames_read
        for tracks in (later._tracks, later._per_flow.rows):
            for field in ("first_frame", "last_frame"):
                tracks[field] += shift
            tracks["highest_frame"] += np.where(tracks["gaps"] > 0, shift, 0)
        later._largest["before_frame"] += shift
        later._largest["after_frame"] += shift
        candidates = [self._largest[: self._largest_used], later._largest[: later._largest_used]]
        before = self._tracks.copy()
        across = join_arrivals(self._tracks, np.arange(SOURCES, dtype=np.int32), later._tracks)
        for source in np.flatnonzero(across >= 0):
            gap = int(across[source])
            self._counts[source, bucket_of(gap)] += 1
            first = later._tracks["first_frame"][source]
            event = (source, gap, before["last_ns"][source], before["last_frame"][source], first)
            candidates.append(np.array([event], GAP_DTYPE))
        self._counts += later._counts
        self._merge_flows(later, ids)
        largest = np.concatenate(candidates)
        largest = largest[np.lexsort((largest["after_frame"], -largest["gap_ns"]))][:LARGEST_KEPT]
        self._largest[: len(largest)] = largest
        self._largest_used = len(largest)
        self._keep_bound()

    def _merge_flows(self, later: InterArrival, ids: NDArray[np.int32]) -> None:
        gaps = join_arrivals(self._per_flow.rows, ids, later._per_flow.rows)
        stitched = gaps >= 0
        keys = (ids[stitched].astype(np.uint64) + np.uint64(1)) << np.uint64(FLOW_SHIFT)
        self._cells.add_one_each(keys | bucket_of(gaps[stitched]).astype(np.uint64))
        self._cells.absorb(later._cells, ids)
        later._cells = Cells()

    def result(self) -> InterArrivalResult:
        self._sync()
        cells = self._cells.by_flow()
        rows = self._per_flow.rows
        tracked = int(rows["frames"].sum())
        total = int(self._tracks["frames"].sum())
        flows, tails = cells.flows, self._percentile(cells, TAIL)
        by_count = self._by_count()[: self._shown]
        worst = flows[np.lexsort((flows, -tails))][: self._shown]
        worst = worst[tails[np.searchsorted(flows, worst)] >= 0]
        return InterArrivalResult(
            sources={
                TimestampSource(source).name: self._source_result(source)
                for source in range(SOURCES)
                if self._tracks["frames"][source]
            },
            jitter=JITTER,
            largest_gaps=tuple(
                LargestGap(
                    gap_ns=int(gap["gap_ns"]),
                    start_ns=int(gap["start_ns"]),
                    end_ns=int(gap["start_ns"]) + int(gap["gap_ns"]),
                    before_frame=int(gap["before_frame"]),
                    after_frame=int(gap["after_frame"]),
                    source=TimestampSource(int(gap["flow"])).name,
                )
                for gap in self._largest[: min(self._largest_used, self._shown)]
            ),
            flows=Flows(
                tracked=len(self.flows),
                estimated=self.flows.estimated_flows,
                sampled_one_in=1 << self.flows.level,
                frames_untracked=total - tracked,
                by_count=self._flow_results(by_count, cells),
                worst=self._flow_results(worst, cells),
                worst_by=f"p{TAIL}",
            ),
        )

    def _by_count(self) -> NDArray[np.int64]:
        """Return the ids of the flows that have timestamped frames, most frames first."""
        frames = self._per_flow.rows["frames"].astype(np.int64)
        order = np.lexsort((np.arange(len(frames)), -frames))
        return order[frames[order] > 0]

    def _percentile(self, cells: CellsByFlow, percentile: str) -> NDArray[np.int64]:
        """Return a percentile of each of the cells' flows: ndarray of int64, in ns, -1 where not enough."""
        highest: NDArray[np.int64] = self._per_flow.rows["highest_ns"][cells.flows]
        return np.minimum(percentile_of_each(cells, percentile), highest)

    def _source_result(self, source: int) -> Arrivals:
        track = self._tracks[source]
        return _histogram(track, self._counts[source]).summary().extended(Arrivals, **_beside(track))

    def _flow_results(self, ids: NDArray[Any], cells: CellsByFlow) -> tuple[FlowArrivals, ...]:
        results = []
        for number, flow in zip(ids, self.flows.flows(ids), strict=True):
            track = self._per_flow.rows[number]
            summary = self._flow_histogram(int(number), cells).summary()
            results.append(
                summary.extended(
                    FlowArrivals,
                    flow=str(flow),
                    source_kind=flow.timestamp_source.name,
                    frames=int(track["frames"]),
                    bytes_on_wire=int(track["bytes"]),
                    **_beside(track),
                )
            )
        return tuple(results)

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the times between all frames of each timestamp source, by its name."""
        return {
            TimestampSource(source).name: _histogram(self._tracks[source], self._counts[source].copy())
            for source in range(SOURCES)
            if self._tracks["frames"][source]
        }

    def _flow_histogram(self, flow: int, cells: CellsByFlow) -> Histogram:
        """Return the histogram of one flow's gaps, by its id."""
        histogram = Histogram.from_buckets(*cells.histogram_of(flow))
        _make_exact(histogram, self._per_flow.rows[flow])
        return histogram

    def tables(self) -> dict[str, Table]:
        self._sync()
        rows = self._per_flow.rows
        order = self._by_count()
        cells = self._cells.by_flow()
        flows = self.flows.flows(order)
        table: dict[str, Any] = {
            "flow": [str(flow) for flow in flows],
            "timestamp_source": [flow.timestamp_source.name for flow in flows],
        }
        for column in ("frames", "bytes", "gaps", "backward", "first_ns", "last_ns"):
            table[column] = rows[column][order].tolist()
        for column, field in (
            ("min_ns", "lowest_ns"),
            ("max_ns", "highest_ns"),
            ("max_frame", "highest_frame"),
        ):
            kept = zip(rows["gaps"][order].tolist(), rows[field][order].tolist(), strict=True)
            table[column] = [value if gaps else None for gaps, value in kept]
        for percentile in PERCENTILES:
            column_values = np.full(len(rows), -1, np.int64)
            column_values[cells.flows] = self._percentile(cells, percentile)
            table[f"p{percentile}_ns"] = [value if value >= 0 else None for value in column_values[order].tolist()]
        table["jitter_ns"] = _jitter_ns(rows[order]).tolist()
        histograms: dict[str, list[Any]] = {"source": [], "lowest_ns": [], "highest_ns": [], "count": []}
        for source in np.flatnonzero(self._tracks["frames"]):
            part = Histogram(self._counts[source]).table()
            histograms["source"] += [TimestampSource(int(source)).name] * len(part["count"])
            for column, part_values in part.items():
                histograms[column] += part_values
        largest = self._largest[: self._largest_used]
        return {
            "flows": table,
            "histogram": histograms,
            "largest_gaps": {
                "source": [TimestampSource(int(source)).name for source in largest["flow"]],
                "gap_ns": largest["gap_ns"].tolist(),
                "start_ns": largest["start_ns"].tolist(),
                "before_frame": largest["before_frame"].tolist(),
                "after_frame": largest["after_frame"].tolist(),
            },
        }


def bucket_of(values: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return the histogram bucket of each value."""
    return np.searchsorted(bounds()[0], values, side="right") - 1


def _jitter_ns(tracks: Any) -> Any:
    """Return the jitter of tracks, of 2^-64 ns, in whole ns: what is `JITTER_EDGE` or more is rounded up."""
    return tracks["jitter_high"].astype(np.int64) + (tracks["jitter_low"] >= JITTER_EDGE)


def _histogram(track: Any, counts: NDArray[np.uint64]) -> Histogram:
    histogram = Histogram(counts)
    _make_exact(histogram, track)
    return histogram


def _make_exact(histogram: Histogram, track: Any) -> None:
    """Set a histogram's extremes and sum to the track's, which are exact to the ns."""
    if track["gaps"]:
        histogram.lowest_ns, histogram.highest_ns = int(track["lowest_ns"]), int(track["highest_ns"])
        histogram.sum_ns = int(track["sum_high"]) << 64 | int(track["sum_low"])


def _beside(track: Any) -> dict[str, int]:
    """Return the fields of `Arrivals` besides the histogram."""
    return {
        "max_frame": int(track["highest_frame"]),
        "backward_steps": int(track["backward"]),
        "jitter_ns": int(_jitter_ns(track)),
    }
