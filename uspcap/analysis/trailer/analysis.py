"""Timestamps from taps and switches: what was found, by device and port, and what the capturing host added."""

from __future__ import annotations

import numpy as np

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.trailer.result import (
    Detection,
    Difference,
    FormatEvidence,
    FramesByStatus,
    PortTimestamps,
    TrailerResult,
)
from uspcap.frames import NANOSECONDS, FrameBatch
from uspcap.records import table
from uspcap.stats.buckets import BUCKETS
from uspcap.stats.histogram import Histogram
from uspcap.timestamps.trailer_decoding import (
    MARK_COUNT,
    STATUS_COUNT,
    PortCounts,
    TrailerFormat,
    TrailerMark,
    TrailerRows,
    TrailerStatus,
    tally,
)
from uspcap.timestamps.trailers import TrailerChoice

DEFINITION = (
    "the file's timestamp minus the trailer's: the time from the tap to the capturing host's timestamp, including the "
    "offset of the two clocks; negative values are counted separately, and in no histogram"
)

FAR_NS = NANOSECONDS // 2
"""Clocks that are so far apart are not both right."""

_NEVER = (np.iinfo(np.int64).max, 0, 0)


class Trailer(Analysis):
    """What became of looking for timestamps in frames, and a histogram of the difference from the file's timestamps.

    Parameters
    ----------
    choice : TrailerChoice, optional
        What was looked for; without it no batch holds anything.
    maximum_ports : int
        Bound on the devices and ports counted one by one; beyond it a sample.
    """

    name = "trailer"

    def __init__(self, choice: TrailerChoice | None = None, *, maximum_ports: int = 2048) -> None:
        super().__init__()
        self.choice = choice
        self._by_status = np.zeros(STATUS_COUNT, np.uint64)
        self._by_mark = np.zeros(MARK_COUNT, np.uint64)
        self._counts = np.zeros(BUCKETS, np.uint64)
        self._sums = np.zeros(4, np.uint64)
        self._extremes = np.array(_NEVER, np.int64)
        self._ports = PortCounts(maximum_ports)
        self._file_resolution_ns = 0

    def _update(self, batch: FrameBatch) -> None:
        if isinstance(batch.trailers, TrailerRows):
            for interface in batch.interfaces:
                coarsest = NANOSECONDS // interface.ticks_per_second
                self._file_resolution_ns = max(self._file_resolution_ns, coarsest)
            tally(
                batch.trailers,
                batch,
                self._by_status,
                self._by_mark,
                self._counts,
                self._sums,
                self._extremes,
                self._ports,
            )

    def _merge(self, later: Trailer) -> None:
        self._by_status += later._by_status
        self._by_mark += later._by_mark
        self._counts += later._counts
        low = self._sums[0] + later._sums[0]
        carried = np.uint64(low < self._sums[0])
        self._sums += later._sums
        self._sums[1] += carried
        mine, others = self._extremes, later._extremes
        self._extremes = np.array([min(mine[0], others[0]), max(mine[1], others[1]), min(mine[2], others[2])], np.int64)
        self._ports.absorb(later._ports)
        self._file_resolution_ns = max(self._file_resolution_ns, later._file_resolution_ns)

    def _histogram(self) -> Histogram:
        if not self._counts.any():
            return Histogram(self._counts.copy())
        return Histogram(
            self._counts.copy(),
            sum_ns=int(self._sums[1]) << 64 | int(self._sums[0]),
            lowest_ns=int(self._extremes[0]),
            highest_ns=int(self._extremes[1]),
        )

    def _port_rows(self) -> tuple[PortTimestamps, ...]:
        kind = None if self.choice is None else self.choice.format
        rows = []
        for row in self._ports.rows():
            device, port = _device_and_port(kind, int(row["key"]))
            rows.append(
                PortTimestamps(
                    device=device,
                    port=port,
                    frames=int(row["frames"]),
                    degraded=int(row["degraded"]),
                    duplicates=int(row["duplicates"]),
                    bad_fcs=int(row["bad_fcs"]),
                    negative=int(row["negative"]),
                    lowest_difference_ns=int(row["lowest_ns"]),
                    highest_difference_ns=int(row["highest_ns"]),
                )
            )
        return tuple(rows)

    def _marked(self, mark: TrailerMark) -> int:
        return int(self._by_mark[int(mark).bit_length() - 1])

    def _warnings(self, histogram: Histogram) -> list[str]:
        """Say what a reader of any other analysis must know about these timestamps."""
        warnings = []
        found, negative = int(self._by_status[TrailerStatus.FOUND]), int(self._sums[2])
        frames = int(self._by_status.sum()) - int(self._by_status[TrailerStatus.PADDING])
        if frames > found:
            warnings.append(
                f"{frames - found} of {frames} frames have no timestamp of this format; they keep the file's, and "
                f"times "
                "are never compared across the two"
            )
        if found and self._marked(TrailerMark.DEGRADED):
            warnings.append(
                f"{self._marked(TrailerMark.DEGRADED)} timestamps are degraded: the tap's clock was not synchronised"
            )
        if self.choice is not None and self.choice.anchors and self._marked(TrailerMark.EXTENDED):
            warnings.append(
                f"{self._marked(TrailerMark.EXTENDED)} timestamps count from an unknown moment: the first "
                "frame of each ERSPAN session has the file's timestamp, and only differences between timestamps of one "
                "session are measured"
            )
        if negative:
            most_ns = -int(self._extremes[2])
            why = "the two clocks differ by at least that"
            if most_ns < self._file_resolution_ns:
                why = f"less than the resolution of the file's timestamps ({self._file_resolution_ns} ns)"
            warnings.append(f"{negative} trailers are later than the file's timestamp, by up to {most_ns} ns: {why}")
        if 2 * (found - negative) > found and histogram.value_at("50") >= FAR_NS:
            warnings.append(
                f"half of the file's timestamps are {histogram.value_at('50') / NANOSECONDS:.3f} s or more after the "
                "trailer's: one of the clocks is not on UTC"
            )
        elif 2 * negative > found and -int(self._extremes[2]) >= FAR_NS:
            warnings.append("most trailers are far later than the file's timestamps: one of the clocks is not on UTC")
        return warnings

    def result(self) -> TrailerResult:
        histogram = self._histogram()
        choice = self.choice
        return TrailerResult(
            format=None if choice is None or choice.format is None else choice.format.name.lower(),
            detection=None if choice is None else _detection(choice),
            frames=FramesByStatus(**{one.name.lower(): int(self._by_status[one]) for one in TrailerStatus}),
            degraded=self._marked(TrailerMark.DEGRADED),
            duplicates=self._marked(TrailerMark.DUPLICATE),
            bad_fcs=self._marked(TrailerMark.BAD_FCS),
            finer_than_ns=self._marked(TrailerMark.FINER),
            from_tai=self._marked(TrailerMark.TAI),
            seconds_extended=self._marked(TrailerMark.EXTENDED),
            truncated=self._marked(TrailerMark.TRUNCATED),
            dropped_by_capture=int(self._sums[3]),
            difference=histogram.summary().extended(
                Difference,
                definition=DEFINITION,
                negative=int(self._sums[2]),
                most_negative_ns=int(self._extremes[2]),
            ),
            ports=self._port_rows(),
            ports_sampled_one_in=1 << self._ports.level,
            warnings=tuple(self._warnings(histogram)),
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the differences."""
        return {"difference": self._histogram()}

    def tables(self) -> dict[str, Table]:
        ports = self._port_rows()
        return {
            "ports": table(PortTimestamps, ports) if ports else {},
            "difference": self._histogram().table(),
        }


def _device_and_port(kind: TrailerFormat | None, key: int) -> tuple[str | None, int | None]:
    """Return what a key names in a format: VSS has ports only, Arista's header says no more than a series."""
    if kind == TrailerFormat.ARISTA:
        return {0: "R/R2 series", 1: "R3 series"}.get(key, f"hardware {key}"), None
    if kind == TrailerFormat.VSS:
        return None, key
    return str(key >> 8), key & 0xFF


def _detection(choice: TrailerChoice) -> Detection | None:
    detection = choice.detection
    if detection is None:
        return None
    return Detection(
        frames_looked_at=detection.frames,
        formats=tuple(
            FormatEvidence(
                format=one.format.name.lower(),
                possible=one.possible,
                found=one.found,
                share=round(one.share, 6),
                backward_steps=one.backward,
            )
            for one in detection.evidence
        ),
    )
