"""The result of `bursts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from uspcap.analysis.base import Result, clock_stepped
from uspcap.records import BitRate, Bytes, Count, FrameNumber, Instant, Quantity, Ratio, Record, SourceName, Span

LineRate = Annotated[int, Quantity("line_rate", "Bits a second.", minimum=0)]


class BusiestWindow(Record):
    """The busiest window of a width, of one timestamp source."""

    source: SourceName
    window_ns: Annotated[Span, "Its width."]
    peak_bytes: Annotated[Bytes, "Most bytes on the wire in any such window."]
    peak_bytes_frames: Annotated[Count, "Frames in the window with most bytes."]
    peak_bytes_start_ns: Annotated[Instant, "Where the window with most bytes begins."]
    peak_bytes_first_frame: FrameNumber
    peak_bits_per_second: Annotated[BitRate, "Of `peak_bytes`."]
    peak_to_mean: Annotated[
        Ratio | None,
        "Peak rate over the mean rate; null where the capture is shorter than the window, and where the clock stepped.",
    ]
    line_rate_share: Annotated[
        Ratio | None, "Of the line's rate, with preamble, FCS and minimum gap; null where no line rate is given."
    ]
    peak_frames: Annotated[Count, "Most frames in any such window."]
    peak_frames_bytes: Annotated[Bytes, "Bytes in the window with most frames."]
    peak_frames_start_ns: Annotated[Instant, "Where the window with most frames begins."]
    peak_frames_first_frame: FrameNumber
    restarts: Annotated[Count, "Steps backward, at which the window restarts."]


class BurstsResult(Result):
    """The busiest sliding windows."""

    definition: str
    line_rate_bps: LineRate | None
    windows: tuple[BusiestWindow, ...]

    def with_run(self, source: Mapping[str, Any], longest_unread_ns: int | None) -> Self:
        """Return it without comparisons with the mean where the clock stepped, as no time is known that all took."""
        if not clock_stepped(source):
            return self
        return replace(self, windows=tuple(replace(window, peak_to_mean=None) for window in self.windows))
