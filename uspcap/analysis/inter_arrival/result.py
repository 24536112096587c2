"""The result of `inter_arrival`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, FrameNumber, Instant, OneIn, Record, SourceName, Span
from uspcap.stats.histogram import HistogramSummary


class Arrivals(HistogramSummary):
    """Times between the frames of one timestamp source."""

    max_frame: Annotated[FrameNumber, "The frame that ended the longest gap."]
    backward_steps: Annotated[Count, "They count in no histogram."]
    jitter_ns: Span


class FlowArrivals(Arrivals, inherited_after="bytes_on_wire"):
    """Times between the frames of one flow."""

    flow: str
    source_kind: SourceName
    frames: Count
    bytes_on_wire: Bytes


class LargestGap(Record):
    """A time without any frame."""

    gap_ns: Span
    start_ns: Instant
    end_ns: Instant
    before_frame: FrameNumber
    after_frame: FrameNumber
    source: SourceName


class Flows(Record):
    """How many flows there are, and some of them."""

    tracked: Count
    estimated: Annotated[Count, "All flows, tracked or not."]
    sampled_one_in: OneIn
    frames_untracked: Count
    by_count: Annotated[tuple[FlowArrivals, ...], "Flows with the most frames."]
    worst: Annotated[tuple[FlowArrivals, ...], "Flows whose `worst_by` percentile is largest."]
    worst_by: Annotated[str, "The percentile by which `worst` is ordered."]


class InterArrivalResult(Result):
    """Times between frames of a timestamp source, and within flows."""

    sources: Mapping[SourceName, Arrivals]
    jitter: Annotated[str, "How the jitter is defined."]
    largest_gaps: tuple[LargestGap, ...]
    flows: Flows
