"""The result of `gaps`."""

from __future__ import annotations

from typing import Annotated, Literal

from uspcap.analysis.base import Result
from uspcap.records import Count, FrameNumber, Instant, OneIn, Record, Span


class Gap(Record):
    """A time without frames of a flow that is longer than its threshold."""

    flow: str
    gap_ns: Span
    start_ns: Instant
    end_ns: Instant
    before_frame: FrameNumber
    after_frame: FrameNumber
    threshold_ns: Annotated[Span, "Of the flow."]


class GapsResult(Result):
    """Gaps within flows."""

    threshold: Literal["given", "automatic"]
    threshold_ns: Annotated[Span | None, "Of all flows; null where each has its own."]
    rule: str
    count: Count
    total_ns: Annotated[Span, "Of all gaps over the threshold; at most 2^63 - 1."]
    listed: Annotated[Count, "Gaps in the `gaps` table, which has all that are kept."]
    flows_with_gaps: Count
    flows_without_threshold: Annotated[Count, "With too few frames for one."]
    flows_tracked: Count
    sampled_one_in: OneIn
    longest: Annotated[tuple[Gap, ...], "The longest first."]
