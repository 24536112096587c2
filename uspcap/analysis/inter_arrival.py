"""Inter-arrival times: between all frames of a stamp source, and within each flow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._native.histogram import BUCKETS, FLOW_SHIFT, Cells, CellsByFlow
from uspcap._native.silences import SILENCE_DTYPE
from uspcap._native.timing import ARRIVAL_TRACK_DTYPE, SOURCES, track_arrivals
from uspcap.analysis.base import Analysis, Result, Table, difference_ns
from uspcap.analysis.histogram import PERCENTILES, Histogram, bounds, percentile_of_each
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flows import FlowRows, FlowTable

LARGEST_KEPT = 100
"""Largest gaps between all frames kept one by one."""

ROWS_SHOWN = 10

MAXIMUM_LINES = 1 << 19
"""Bound on the lines of 32 histogram buckets of all flows together; beyond it the flow table halves its sample."""

LARGEST_SUM_NS = 2.0**62
"""Gaps that may add up to more than an int64 holds have their mean taken from the buckets."""

TAIL = "99.9"
"""Percentile that ranks the worst flows."""

JITTER_DECAY = 15 / 16
"""What each gap leaves of the jitter before it (RFC 3550, section 6.4.1: J += (|D| - J) / 16)."""

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
        self._largest = np.zeros(LARGEST_KEPT, SILENCE_DTYPE)
        self._largest_used = 0
        self._tracks_raw = self._tracks.view(np.uint8)
        self._largest_raw = self._largest.view(np.uint8)
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
            self._tracks_raw,
            self._counts,
            self._per_flow.raw(),
            self._cells,
            self._largest_raw,
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
        both = (self._tracks["frames"] > 0) & (later._tracks["frames"] > 0)
        across = difference_ns(later._tracks["first_ns"], self._tracks["last_ns"])
        for source in np.flatnonzero(both):
            gap = int(across[source])
            if gap >= 0:
                self._counts[source] += Histogram.from_values([gap]).counts
                event = (
                    source,
                    gap,
                    self._tracks["last_ns"][source],
                    self._tracks["last_frame"][source],
                    later._tracks["first_frame"][source],
                )
                candidates.append(np.array([event], SILENCE_DTYPE))
        self._counts += later._counts
        _append(self._tracks, np.arange(SOURCES), later._tracks)
        self._merge_flows(later, ids)
        largest = np.concatenate(candidates)
        largest = largest[np.lexsort((largest["after_frame"], -largest["gap_ns"]))][:LARGEST_KEPT]
        self._largest[: len(largest)] = largest
        self._largest_used = len(largest)
        self._keep_bound()

    def _merge_flows(self, later: InterArrival, ids: NDArray[np.int32]) -> None:
        rows, others = self._per_flow.rows, later._per_flow.rows
        kept = ids >= 0
        mine, theirs = rows[ids[kept]], others[kept]
        gaps = difference_ns(theirs["first_ns"], mine["last_ns"])
        stitched = (mine["frames"] > 0) & (theirs["frames"] > 0) & (gaps >= 0)
        keys = (ids[kept][stitched].astype(np.uint64) + np.uint64(1)) << np.uint64(FLOW_SHIFT)
        self._cells.add_one_each(keys | bucket_of(gaps[stitched]).astype(np.uint64))
        self._cells.absorb(later._cells, ids)
        later._cells = Cells()
        _append(rows, ids[kept], theirs)

    def result(self) -> Result:
        self._sync()
        cells = self._cells.by_flow()
        rows = self._per_flow.rows
        tracked = int(rows["frames"].sum())
        total = int(self._tracks["frames"].sum())
        flows, tails = cells.flows, self._percentile(cells, TAIL)
        by_count = self._by_count()[: self._shown]
        worst = flows[np.lexsort((flows, -tails))][: self._shown]
        worst = worst[tails[np.searchsorted(flows, worst)] >= 0]
        return {
            "sources": {
                TimestampSource(source).name: self._source_result(source)
                for source in range(SOURCES)
                if self._tracks["frames"][source]
            },
            "jitter": JITTER,
            "largest_gaps": [
                {
                    "gap_ns": int(gap["gap_ns"]),
                    "start_ns": int(gap["start_ns"]),
                    "end_ns": int(gap["start_ns"]) + int(gap["gap_ns"]),
                    "before_frame": int(gap["before_frame"]),
                    "after_frame": int(gap["after_frame"]),
                    "source": TimestampSource(int(gap["flow"])).name,
                }
                for gap in self._largest[: min(self._largest_used, self._shown)]
            ],
            "flows": {
                "tracked": len(self.flows),
                "estimated": self.flows.estimated_flows,
                "sampled_one_in": 1 << self.flows.level,
                "frames_untracked": total - tracked,
                "by_count": self._flow_results(by_count, cells),
                "worst": self._flow_results(worst, cells),
                "worst_by": f"p{TAIL}",
            },
        }

    def _by_count(self) -> NDArray[np.int64]:
        """Return the ids of the flows that have stamped frames, most frames first."""
        frames = self._per_flow.rows["frames"].astype(np.int64)
        order = np.lexsort((np.arange(len(frames)), -frames))
        return order[frames[order] > 0]

    def _percentile(self, cells: CellsByFlow, percentile: str) -> NDArray[np.int64]:
        """Return a percentile of each of the cells' flows: ndarray of int64, in ns, -1 where not enough."""
        highest: NDArray[np.int64] = self._per_flow.rows["highest_ns"][cells.flows]
        return np.minimum(percentile_of_each(cells, percentile), highest)

    def _source_result(self, source: int) -> dict[str, Any]:
        track = self._tracks[source]
        return _histogram(track, self._counts[source]).result() | _track_result(track)

    def _flow_results(self, ids: NDArray[Any], cells: CellsByFlow) -> list[dict[str, Any]]:
        results = []
        for number, flow in zip(ids, self.flows.flows(ids), strict=True):
            track = self._per_flow.rows[number]
            results.append(
                {
                    "flow": str(flow),
                    "source_kind": flow.timestamp_source.name,
                    "frames": int(track["frames"]),
                    "bytes_on_wire": int(track["bytes"]),
                }
                | self._flow_histogram(int(number), cells).result()
                | _track_result(track)
            )
        return results

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the times between all frames of each stamp source, by its name."""
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
            table[column] = np.where(rows["gaps"][order] > 0, rows[field][order], -1).tolist()
        for percentile in PERCENTILES:
            column_values = np.full(len(rows), -1, np.int64)
            column_values[cells.flows] = self._percentile(cells, percentile)
            table[f"p{percentile}_ns"] = [value if value >= 0 else None for value in column_values[order].tolist()]
        table["jitter_ns"] = np.rint(rows["jitter_ns"][order]).astype(np.int64).tolist()
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


def bucket_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the histogram bucket of each value."""
    return np.searchsorted(bounds()[0], values, side="right") - 1


def _histogram(track: Any, counts: NDArray[np.uint64]) -> Histogram:
    histogram = Histogram(counts)
    _make_exact(histogram, track)
    return histogram


def _make_exact(histogram: Histogram, track: Any) -> None:
    """Give a histogram the extremes that its track knows to the ns, and the sum where it fits 64 bits for sure."""
    if track["gaps"]:
        histogram.lowest_ns, histogram.highest_ns = int(track["lowest_ns"]), int(track["highest_ns"])
        if histogram.approximate_sum() < LARGEST_SUM_NS:
            histogram.sum_ns = int(track["sum_ns"])


def _track_result(track: Any) -> dict[str, Any]:
    return {
        "max_frame": int(track["highest_frame"]),
        "backward_steps": int(track["backward"]),
        "jitter_ns": round(float(track["jitter_ns"])),
    }


def _append(rows: NDArray[Any], ids: NDArray[Any], later: NDArray[Any]) -> None:
    """Append the tracks in `later` to `rows[ids]`, with the gap between the two parts of each."""
    mine = rows[ids]
    empty, nothing = mine["frames"] == 0, later["frames"] == 0
    gap = difference_ns(later["first_ns"], mine["last_ns"])
    joined = ~empty & ~nothing
    forward = joined & (gap >= 0)
    out = mine.copy()
    # The gap across the cut, as the compiled loop would have added it.
    _add_gap(out, gap, later["first_frame"], forward)
    out["backward"] += (joined & ~forward).astype(np.uint64)
    # The later part's own gaps: jitter is affine in what came before, each gap after the first but shrinks it.
    more = joined & (later["gaps"] > 0)
    first = more & (out["gaps"] == 0)
    change = np.abs(later["first_gap_ns"].astype(np.float64) - out["last_gap_ns"].astype(np.float64))
    before = out["jitter_ns"] + (change - out["jitter_ns"]) / 16
    decay = np.power(JITTER_DECAY, np.maximum(later["gaps"].astype(np.float64) - 1, 0))
    after = np.where(first, later["jitter_ns"], later["jitter_ns"] + decay * before)
    out["jitter_ns"] = np.where(more, after, out["jitter_ns"])
    larger = more & (first | (later["highest_ns"] > out["highest_ns"]))
    out["highest_ns"] = np.where(larger, later["highest_ns"], out["highest_ns"])
    out["highest_frame"] = np.where(larger, later["highest_frame"], out["highest_frame"])
    smaller = more & (first | (later["lowest_ns"] < out["lowest_ns"]))
    out["lowest_ns"] = np.where(smaller, later["lowest_ns"], out["lowest_ns"])
    out["first_gap_ns"] = np.where(first, later["first_gap_ns"], out["first_gap_ns"])
    out["last_gap_ns"] = np.where(more, later["last_gap_ns"], out["last_gap_ns"])
    for field in ("gaps", "backward", "sum_ns", "frames", "bytes"):
        out[field] += later[field]
    for field in ("last_ns", "last_frame"):
        out[field] = np.where(joined, later[field], out[field])
    out[empty] = later[empty]
    rows[ids] = out


def _add_gap(tracks: NDArray[Any], gap: NDArray[np.int64], frame: NDArray[np.int64], where: NDArray[np.bool_]) -> None:
    """Add one gap to each of the tracks that `where` names."""
    first = where & (tracks["gaps"] == 0)
    change = np.abs(gap.astype(np.float64) - tracks["last_gap_ns"].astype(np.float64))
    after = where & ~first
    tracks["jitter_ns"] += np.where(after, (change - tracks["jitter_ns"]) / 16, 0)
    larger = where & (first | (gap > tracks["highest_ns"]))
    tracks["highest_ns"] = np.where(larger, gap, tracks["highest_ns"])
    tracks["highest_frame"] = np.where(larger, frame, tracks["highest_frame"])
    tracks["lowest_ns"] = np.where(where & (first | (gap < tracks["lowest_ns"])), gap, tracks["lowest_ns"])
    tracks["first_gap_ns"] = np.where(first, gap, tracks["first_gap_ns"])
    tracks["last_gap_ns"] = np.where(where, gap, tracks["last_gap_ns"])
    tracks["sum_ns"] += np.where(where, gap, 0)
    tracks["gaps"] += where.astype(np.uint64)
