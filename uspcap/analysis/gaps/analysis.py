"""Gaps within a flow that are longer than a threshold, given or the flow's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.gaps.loop import GAP_DTYPE, GAP_OCTAVES, GAP_TRACK_DTYPE, keep_longest, track_gaps
from uspcap.analysis.gaps.result import Gap, GapsResult
from uspcap.frames import FrameBatch
from uspcap.protocols.flows import FlowRows, FlowTable
from uspcap.saturating import added_ns, clipped_ns, difference_ns, summed_ns

MAXIMUM_GAPS = 1 << 20
"""Bound on the gaps kept one by one, of all flows together."""

KEPT_A_FLOW = 128
"""Longest gaps kept a flow, where the threshold is automatic; halved while all together are too many."""

FIRST_BUFFER = 1 << 17

FEWEST_GAPS = 100
"""A flow with fewer gaps has no automatic threshold."""

OCTAVES_ABOVE = 3
"""The automatic threshold stands so many octaves above the one that holds the flow's 99th percentile."""

GAPS_SHOWN = 10

AUTOMATIC_RULE = (
    f"a gap of {1 << OCTAVES_ABOVE} times the next power of two (in ns, at least 32) above the flow's 99th "
    "percentile of inter-arrival times, or of 2^43 ns if that is less, exceeds the threshold; "
    f"flows with fewer than {FEWEST_GAPS} gaps have none"
)


class Gaps(Analysis):
    """Gaps by flow: start, end, length, frame numbers, and totals.

    Parameters
    ----------
    flows : FlowTable, optional
        Shared with other analyses of the same run.
    threshold_ns : int, optional
        Gaps longer than it count, in every flow; without it each flow has its own threshold by
        `AUTOMATIC_RULE`.
    maximum_gaps : int
        Bound on what is kept one by one; counts and totals are exact whatever the bound.
    shown : int
        Gaps in the result; the table holds all that are kept.
    """

    name = "gaps"

    def __init__(
        self,
        flows: FlowTable | None = None,
        *,
        threshold_ns: int | None = None,
        maximum_gaps: int = MAXIMUM_GAPS,
        kept_a_flow: int = KEPT_A_FLOW,
        shown: int = GAPS_SHOWN,
    ) -> None:
        super().__init__()
        self.flows = flows if flows is not None else FlowTable()
        self._threshold_ns = threshold_ns
        self._maximum = maximum_gaps
        self._kept_a_flow = kept_a_flow if threshold_ns is None else maximum_gaps
        self._shown = shown
        self._per_flow = FlowRows(self.flows, GAP_TRACK_DTYPE)
        self._gaps = np.zeros(min(FIRST_BUFFER, 2 * maximum_gaps), GAP_DTYPE)
        self._used = 0
        self._floors_set = 0

    def _update(self, batch: FrameBatch) -> None:
        self.flows.assign(batch)
        self._sync()
        row = 0
        while row < batch.count:
            row, self._used = track_gaps(
                batch,
                batch.headers,
                self._shift(batch),
                row,
                self._per_flow.with_spare_rows,
                -1 if self._threshold_ns is None else self._threshold_ns,
                self._gaps,
                self._used,
            )
            if self._used == len(self._gaps):
                self._prune()

    def _sync(self) -> None:
        """Follow the flow table where its ids have changed."""
        remap = self._per_flow.sync()
        if remap is not None:
            kept = self._gaps[: self._used].copy()
            kept["flow"] = remap[kept["flow"]]
            self._store(kept[kept["flow"] >= 0])
        rows = self._per_flow.rows
        if self._threshold_ns is not None and self._floors_set != len(rows):
            rows["floor_ns"] = np.maximum(rows["floor_ns"], self._threshold_ns)
            self._floors_set = len(rows)
        elif len(rows) != self._floors_set:
            rows["floor_ns"][rows["frames"] == 0] = -1
            self._floors_set = len(rows)

    def _store(self, gaps: NDArray[Any]) -> None:
        """Keep these, with room for as many again."""
        wanted = len(self._gaps)
        while wanted < 2 * len(gaps):
            wanted *= 2
        if wanted != len(self._gaps):
            self._gaps = np.zeros(wanted, GAP_DTYPE)
        self._gaps[: len(gaps)] = gaps
        self._used = len(gaps)

    def _prune(self) -> None:
        """Keep the longest of each flow, as many as the bound allows, and remember how long they must be."""
        tracks = self._per_flow.with_spare_rows
        kept = keep_longest(self._gaps[: self._used], tracks, self._kept_a_flow)
        while len(kept) > self._maximum and self._kept_a_flow > 1:
            self._kept_a_flow //= 2
            kept = keep_longest(kept, tracks, self._kept_a_flow)
        self._store(kept)

    def _merge(self, later: Gaps) -> None:
        later._sync()
        ids = self.flows.absorb(later.flows)
        self._sync()
        shift = self.frames_read
        rows, others = self._per_flow.rows, later._per_flow.rows
        for field in ("first_frame", "last_frame"):
            others[field] += shift
        flows = ids[later._gaps["flow"][: later._used]]
        # As the compiled loop: what is not longer than a flow's floor would not stay.
        wanted = flows >= 0
        wanted[wanted] = later._gaps["gap_ns"][: later._used][wanted] > rows["floor_ns"][flows[wanted]]
        theirs = later._gaps[: later._used][wanted]
        theirs["before_frame"] += shift
        theirs["after_frame"] += shift
        theirs["flow"] = flows[wanted]
        across = self._append_tracks(rows, ids, others)
        everything = np.concatenate([self._gaps[: self._used], across, theirs])
        self._kept_a_flow = min(self._kept_a_flow, later._kept_a_flow)
        self._store(everything)
        self._prune()

    def _append_tracks(self, rows: NDArray[Any], ids: NDArray[np.int32], others: NDArray[Any]) -> NDArray[Any]:
        """Append the later part's tracks; return the gaps across the cut."""
        kept = ids >= 0
        flows, later = ids[kept], others[kept]
        mine = rows[flows]
        empty = mine["frames"] == 0
        gap = difference_ns(later["first_ns"], mine["last_ns"])
        forward = ~empty & (later["frames"] > 0) & (gap >= 0)
        out = mine.copy()
        if self._threshold_ns is None:
            octaves = octave_of(gap[forward])
            at = np.flatnonzero(forward)
            out["octaves"][at, octaves, 0] += 1
            out["octaves"][at, octaves, 1] = added_ns(out["octaves"][at, octaves, 1], gap[forward])
            over = forward
        else:
            over = forward & (gap > self._threshold_ns)
            out["over"] += over.astype(np.uint64)
            out["over_ns"] = added_ns(out["over_ns"], np.where(over, gap, 0))
        for field in ("frames", "over"):
            out[field] += later[field]
        for field in ("over_ns", "octaves"):
            out[field] = added_ns(out[field], later[field])
        for field in ("last_ns", "last_frame"):
            out[field] = np.where(later["frames"] > 0, later[field], out[field])
        for field in ("first_ns", "first_frame"):
            out[field] = np.where(empty, later[field], out[field])
        rows[flows] = out
        across = np.zeros(int(over.sum()), GAP_DTYPE)
        across["flow"] = flows[over]
        across["gap_ns"] = gap[over]
        across["start_ns"] = mine["last_ns"][over]
        across["before_frame"] = mine["last_frame"][over]
        across["after_frame"] = later["first_frame"][over]
        return across

    def thresholds(self) -> NDArray[np.int64]:
        """Return each flow's threshold: ndarray of int64, shape (flows,), in ns; -1 where it has none."""
        rows = self._per_flow.rows
        if self._threshold_ns is not None:
            return np.full(len(rows), self._threshold_ns, np.int64)
        octaves = rows["octaves"][:, :, 0]
        totals = octaves.sum(axis=1)
        rank = -(-99 * totals // 100)
        octave = (np.cumsum(octaves, axis=1) < rank[:, None]).sum(axis=1)
        octave = np.minimum(octave + OCTAVES_ABOVE, GAP_OCTAVES - 2)
        return np.where(totals >= FEWEST_GAPS, (np.int64(32) << octave) - 1, -1)

    def _found(self) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the kept gaps over their thresholds, longest first; and by flow threshold, count, total."""
        self._sync()
        self._prune()
        rows, thresholds = self._per_flow.rows, self.thresholds()
        if self._threshold_ns is not None:
            counts, totals = rows["over"].astype(np.int64), rows["over_ns"]
        else:
            lowest = np.int64(16) << np.arange(GAP_OCTAVES, dtype=np.int64)
            over = (lowest[None, :] > thresholds[:, None]) & (thresholds[:, None] >= 0)
            counts = np.where(over, rows["octaves"][:, :, 0], 0).sum(axis=1)
            totals = summed_ns(np.where(over, rows["octaves"][:, :, 1], 0))
        kept = self._gaps[: self._used]
        limits = thresholds[kept["flow"]]
        kept = kept[(kept["gap_ns"] > limits) & (limits >= 0)]
        return kept[np.lexsort((kept["after_frame"], -kept["gap_ns"]))], thresholds, counts, totals

    def result(self) -> GapsResult:
        gaps, thresholds, counts, totals = self._found()
        shown = gaps[: self._shown]
        return GapsResult(
            threshold="given" if self._threshold_ns is not None else "automatic",
            threshold_ns=self._threshold_ns,
            rule="gaps longer than the threshold" if self._threshold_ns is not None else AUTOMATIC_RULE,
            count=int(counts.sum()),
            total_ns=clipped_ns(sum(totals.tolist())),
            listed=len(gaps),
            flows_with_gaps=int((counts > 0).sum()),
            flows_without_threshold=int((thresholds < 0).sum()),
            flows_tracked=len(self.flows),
            sampled_one_in=1 << self.flows.level,
            longest=tuple(
                Gap(
                    flow=str(flow),
                    gap_ns=int(gap["gap_ns"]),
                    start_ns=int(gap["start_ns"]),
                    end_ns=int(gap["start_ns"]) + int(gap["gap_ns"]),
                    before_frame=int(gap["before_frame"]),
                    after_frame=int(gap["after_frame"]),
                    threshold_ns=int(thresholds[gap["flow"]]),
                )
                for gap, flow in zip(shown, self.flows.flows(shown["flow"]), strict=True)
            ),
        )

    def tables(self) -> dict[str, Table]:
        gaps, thresholds, counts, totals = self._found()
        rows = self._per_flow.rows
        by_total = np.lexsort((np.arange(len(rows)), -totals))
        by_total = by_total[thresholds[by_total] >= 0]
        return {
            "gaps": {
                "flow": [str(flow) for flow in self.flows.flows(gaps["flow"])],
                "gap_ns": gaps["gap_ns"].tolist(),
                "start_ns": gaps["start_ns"].tolist(),
                "end_ns": (gaps["start_ns"] + gaps["gap_ns"]).tolist(),
                "before_frame": gaps["before_frame"].tolist(),
                "after_frame": gaps["after_frame"].tolist(),
                "threshold_ns": thresholds[gaps["flow"]].tolist(),
            },
            "flows": {
                "flow": [str(flow) for flow in self.flows.flows(by_total)],
                "threshold_ns": thresholds[by_total].tolist(),
                "gaps": counts[by_total].tolist(),
                "total_ns": totals[by_total].tolist(),
            },
        }


def octave_of(gaps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the octave of each gap as the compiled loop counts it: 0 below 32 ns, then one a doubling."""
    edges = np.int64(32) << np.arange(GAP_OCTAVES - 1, dtype=np.int64)
    return np.searchsorted(edges, gaps, side="right")
