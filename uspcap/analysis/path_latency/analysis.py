"""Path latency: from a frame's timestamp to user space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.path_latency.loop import GROUPS, LEFT_OUT, PATH_TRACK_DTYPE, RING_GROUPS, track_paths
from uspcap.analysis.path_latency.result import Path, PathLatencyResult, RingPath, SourcePath
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.stats.buckets import Cells, CellsByFlow
from uspcap.stats.histogram import Histogram

DEFINITION = (
    "from the frame's timestamp to CLOCK_REALTIME as it was read in the visit to the ring that took the frame, after "
    "the frame was found there; the time that it waited on the ring is included, its processing by uspcap is not"
)


class PathLatency(Analysis):
    """Histograms of the time from timestamp to reading, by timestamp source and by ring.

    A frame that was timestamped by its reading has no path, and one that came from no ring no reading: such frames are
    counted apart, and so are negative times, which only clocks that differ or step can make.
    """

    name = "path_latency"

    def __init__(self) -> None:
        super().__init__()
        self._tracks = np.zeros(GROUPS, PATH_TRACK_DTYPE)
        self._cells = Cells()
        self._left_out = np.zeros(len(LEFT_OUT), np.uint64)

    def _update(self, batch: FrameBatch) -> None:
        track_paths(batch, self._shift(batch), self._tracks, self._cells, self._left_out)

    def _merge(self, later: PathLatency) -> None:
        mine, others = self._tracks, later._tracks
        first = (mine["frames"] == 0) & (others["frames"] > 0)
        larger = first | ((others["frames"] > 0) & (others["highest_ns"] > mine["highest_ns"]))
        mine["highest_frame"][larger] = others["highest_frame"][larger] + self.frames_read
        mine["highest_ns"][larger] = others["highest_ns"][larger]
        smaller = first | ((others["frames"] > 0) & (others["lowest_ns"] < mine["lowest_ns"]))
        mine["lowest_ns"][smaller] = others["lowest_ns"][smaller]
        mine["most_negative_ns"] = np.minimum(mine["most_negative_ns"], others["most_negative_ns"])
        mine["sum_low"] += others["sum_low"]
        mine["sum_high"] += others["sum_high"] + (mine["sum_low"] < others["sum_low"])
        for field in ("frames", "negative"):
            mine[field] += others[field]
        self._left_out += later._left_out
        self._cells.absorb(later._cells, np.arange(GROUPS, dtype=np.int32))
        later._cells = Cells()

    def result(self) -> PathLatencyResult:
        cells = self._cells.by_flow()
        left_out = dict(zip(LEFT_OUT, map(int, self._left_out), strict=True))
        return PathLatencyResult(
            definition=DEFINITION,
            frames_without_timestamp=left_out["frames_without_timestamp"],
            frames_without_reading=left_out["frames_without_reading"],
            frames_timestamped_on_reading=left_out["frames_timestamped_on_reading"],
            sources={
                TimestampSource(source).name: self._path(cells, groups).extended(
                    SourcePath,
                    rings=tuple(
                        self._path(cells, [group]).extended(RingPath, ring=int(group) % RING_GROUPS) for group in groups
                    ),
                )
                for source, groups in self._groups().items()
            },
        )

    def _groups(self) -> dict[int, NDArray[Any]]:
        """Return the groups that have frames, by timestamp source."""
        met = np.flatnonzero(self._tracks["frames"] + self._tracks["negative"])
        return {int(source): met[met // RING_GROUPS == source] for source in np.unique(met // RING_GROUPS)}

    def _histogram(self, cells: CellsByFlow, groups: Any) -> Histogram:
        """Return the histogram of some groups together."""
        tracks = self._tracks[groups]
        counted = tracks[tracks["frames"] > 0]
        histogram = Histogram()
        for group in groups:
            buckets, counts = cells.histogram_of(int(group))
            histogram.counts[buckets] += counts.astype(np.uint64)
        if len(counted):
            histogram.lowest_ns, histogram.highest_ns = (
                int(counted["lowest_ns"].min()),
                int(counted["highest_ns"].max()),
            )
            histogram.sum_ns = sum(int(track["sum_high"]) << 64 | int(track["sum_low"]) for track in counted)
        return histogram

    def _path(self, cells: CellsByFlow, groups: Any) -> Path:
        tracks = self._tracks[groups]
        counted = tracks[tracks["frames"] > 0]
        highest = counted[counted["highest_ns"] == counted["highest_ns"].max()] if len(counted) else counted
        return (
            self._histogram(cells, groups)
            .summary()
            .extended(
                Path,
                max_frame=int(highest["highest_frame"].min()) if len(highest) else 0,
                negative=int(tracks["negative"].sum()),
                most_negative_ns=int(tracks["most_negative_ns"].min()),
            )
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of each timestamp source, by its name."""
        cells = self._cells.by_flow()
        return {
            TimestampSource(source).name: self._histogram(cells, groups) for source, groups in self._groups().items()
        }

    def tables(self) -> dict[str, Table]:
        cells = self._cells.by_flow()
        columns: dict[str, list[Any]] = {"source": [], "ring": [], "lowest_ns": [], "highest_ns": [], "count": []}
        for source, groups in self._groups().items():
            for group in groups:
                part = self._histogram(cells, [group]).table()
                columns["source"] += [TimestampSource(source).name] * len(part["count"])
                columns["ring"] += [int(group) % RING_GROUPS] * len(part["count"])
                for column, values in part.items():
                    columns[column] += values
        return {"histogram": columns}
