"""Bursts: the busiest sliding windows, from a microsecond to a second."""

from __future__ import annotations

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.bursts.loop import SlidingWindows, sources_in
from uspcap.analysis.bursts.result import BurstsResult, BusiestWindow
from uspcap.analysis.overhead.analysis import FCS_BYTES, GAP_BYTES, PREAMBLE_BYTES
from uspcap.frames import NANOSECONDS, FrameBatch, TimestampSource
from uspcap.records import table

WIDTHS_NS = tuple(10**power for power in range(3, 10))
"""1 us to 1 s."""

DEFINITION = (
    "each window is 1000 slots of 1/1000 of its width (1 ns for the narrowest), aligned to the epoch, and slides "
    "slot by slot: its peak is at least that of any interval one slot shorter, at most that of any of its width; "
    "a frame in an earlier slot than the frame before restarts it"
)


class Bursts(Analysis):
    """Peak bytes and frames in sliding windows, where each starts, and how it compares with the mean.

    Parameters
    ----------
    line_rate_bps : int, optional
        To compare peaks with; preamble, FCS and minimum gap (24 bytes a frame) are then added.
    widths_ns : tuple of int
        Multiples of 1000.
    """

    name = "bursts"

    def __init__(self, *, line_rate_bps: int | None = None, widths_ns: tuple[int, ...] = WIDTHS_NS) -> None:
        super().__init__()
        self._line_rate_bps = line_rate_bps
        self._widths_ns = widths_ns
        self._windows: dict[int, SlidingWindows] = {}

    def _of(self, source: int) -> SlidingWindows:
        if source not in self._windows:
            self._windows[source] = SlidingWindows(self._widths_ns)
        return self._windows[source]

    def _update(self, batch: FrameBatch) -> None:
        present = sources_in(batch)
        for source in range(TimestampSource.NONE):
            if present >> source & 1:
                self._of(source).update(batch, self._shift(batch), source)

    def _merge(self, later: Bursts) -> None:
        for source, windows in later._windows.items():
            self._of(source).join(windows, self.frames_read)

    def _rows(self) -> tuple[BusiestWindow, ...]:
        return tuple(
            self._row(source, width, peaks)
            for source in sorted(self._windows)
            for width, peaks in zip(self._widths_ns, self._windows[source].peaks(), strict=True)
        )

    def _row(
        self, source: int, width: int, peaks: tuple[tuple[int, int, int, int], tuple[int, int, int, int], int]
    ) -> BusiestWindow:
        by_bytes, by_frames, restarts = peaks
        windows = self._windows[source]
        duration_ns = windows.highest_ns - windows.lowest_ns
        peak_bps = by_bytes[0] * 8 * NANOSECONDS / width
        mean_bps = windows.bytes * 8 * NANOSECONDS / duration_ns if duration_ns else 0.0
        framing = PREAMBLE_BYTES + FCS_BYTES + GAP_BYTES
        rate = self._line_rate_bps
        return BusiestWindow(
            source=TimestampSource(source).name,
            window_ns=width,
            peak_bytes=by_bytes[0],
            peak_bytes_frames=by_bytes[1],
            peak_bytes_start_ns=by_bytes[2],
            peak_bytes_first_frame=by_bytes[3],
            peak_bits_per_second=round(peak_bps, 3),
            peak_to_mean=round(peak_bps / mean_bps, 3) if mean_bps and duration_ns >= width else None,
            line_rate_share=(
                round((by_bytes[0] + framing * by_bytes[1]) * 8 * NANOSECONDS / width / rate, 6) if rate else None
            ),
            peak_frames=by_frames[1],
            peak_frames_bytes=by_frames[0],
            peak_frames_start_ns=by_frames[2],
            peak_frames_first_frame=by_frames[3],
            restarts=restarts,
        )

    def result(self) -> BurstsResult:
        return BurstsResult(definition=DEFINITION, line_rate_bps=self._line_rate_bps, windows=self._rows())

    def tables(self) -> dict[str, Table]:
        rows = self._rows()
        return {"windows": table(BusiestWindow, rows) if rows else {}}
