"""The result of `timestamps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Count, FrameNumber, Instant, Length, Record, SourceName, Span, Step


class RunLengths(Record):
    """How many runs of equal timestamps are of some length."""

    from_: Annotated[Count, "Timestamps in the shortest run of these."]
    to: Annotated[Count, "Timestamps in the longest run of these."]
    runs: Count


class SourceQuality(Record):
    """Quality of the timestamps of one source."""

    frames: Count
    first_ns: Instant
    last_ns: Instant
    earliest_ns: Instant
    latest_ns: Instant
    observed_resolution_ns: Annotated[Span, "Resolution, from the trailing decimal zeros of the timestamps."]
    common_divisor_ns: Annotated[Span, "All timestamps differ by multiples of it."]
    trailing_zeros: Annotated[tuple[Count, ...], Length(10), "Timestamps by their number of trailing decimal zeros."]
    duplicates: Annotated[Count, "Timestamps equal to the one before."]
    backward_steps: Count
    backward_largest_ns: Span
    tai_like_jumps: Annotated[Count, "Steps of 35 to 38 s, either way."]
    runs: Annotated[Count, "Runs of one or more equal timestamps."]
    longest_run: Annotated[Count, "Timestamps in the longest run."]
    longest_run_frame: Annotated[FrameNumber, "Where the longest run begins."]
    run_lengths: tuple[RunLengths, ...]


class ClockStep(Record):
    """A step backward, or a jump of 35 to 38 s."""

    frame: Annotated[FrameNumber, "The frame after the step."]
    before_ns: Instant
    after_ns: Instant
    step_ns: Step
    source: SourceName


class TimestampsResult(Result):
    """Quality of the timestamps; its warnings qualify every other analysis."""

    sources: Mapping[SourceName, SourceQuality]
    frames_without_timestamp: Count
    untrusted: Annotated[Count, "Timestamps that do not fit the others, found when frames were sorted."]
    steps: Annotated[tuple[ClockStep, ...], "The first ones."]
    warnings: tuple[str, ...]
