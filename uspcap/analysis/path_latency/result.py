"""The result of `path_latency`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from uspcap.analysis.base import Result
from uspcap.records import Count, FrameNumber, SourceName, Span, StepBack
from uspcap.stats.histogram import HistogramSummary


class Path(HistogramSummary):
    """Path latencies of some frames."""

    max_frame: Annotated[FrameNumber, "The frame that took longest."]
    negative: Annotated[Count, "Frames whose timestamp is later than their read: counted here only."]
    most_negative_ns: StepBack


class RingPath(Path, inherited_after="ring"):
    """Path latencies of one ring."""

    ring: Annotated[Count, "Receive queue of AF_XDP, ring of PACKET_MMAP; 255 stands for 255 and all above."]


class SourcePath(Path):
    """Path latencies by one timestamp source."""

    error_bound_ns: Annotated[
        Span | None,
        "By how much each time may be off because the timestamps are from another clock; null where they are not.",
    ] = None
    rings: tuple[RingPath, ...]


class PathLatencyResult(Result):
    """From a frame's timestamp to its read from the ring."""

    definition: str
    longest_unread_ns: Annotated[
        Span | None,
        "The longest time for which a ring was not read: frames that arrived then waited as long; null where it is "
        "unknown.",
    ] = None
    frames_without_timestamp: Count
    frames_without_reading: Annotated[Count, "Frames that did not come from a ring."]
    frames_timestamped_on_reading: Annotated[Count, "Timestamp source USER."]
    sources: Mapping[SourceName, SourcePath]

    def with_run(self, source: Mapping[str, Any], longest_unread_ns: int | None) -> Self:
        """Return it with the error bound of the NIC's timestamps, and how long a ring went unread."""
        sources, clocks = dict(self.sources), source.get("clocks", ())
        if "HARDWARE" in sources and clocks:
            bound_ns = max(clock["error_bound_ns"] for clock in clocks)
            sources["HARDWARE"] = replace(sources["HARDWARE"], error_bound_ns=bound_ns)
        return replace(self, sources=sources, longest_unread_ns=longest_unread_ns)
