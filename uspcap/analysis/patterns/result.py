"""The result of `patterns`."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, OneIn, Quantity, Ratio, Record, Share, SourceName, Span

Chance = Annotated[
    float, Quantity("chance", "Probability that it is there by chance; 1 is certainty.", minimum=0, maximum=1)
]
Frequency = Annotated[float, Quantity("frequency", "Times a second.", minimum=0)]


class Period(Record):
    """A period in the arrivals of one timestamp source."""

    source: SourceName
    period_ns: Span
    uncertainty_ns: Annotated[Span, "Uncertainty of the period, either way."]
    frequency_hz: Frequency
    p_value: Chance
    coherence: Annotated[Share, "Share of the frames that keep to the period."]
    harmonics: Annotated[Count, "Number of harmonics added up."]
    cycles: Annotated[Ratio, "Cycles of the period in the window."]
    slot_ns: Annotated[Span, "Width of the slots that frames were counted in."]
    window_ns: Annotated[Span, "The time examined, from the first timestamp on."]


class BusyPhase(Record):
    """A stretch of a second or a millisecond with more frames than chance explains."""

    start_ns: Span
    end_ns: Span
    frames: Count
    share: Annotated[Share, "Of all frames."]
    share_by_chance: Annotated[Share, "The share that it would have of evenly distributed frames."]
    periods_hit: Annotated[Count, "Seconds or milliseconds with a frame in it."]
    p_value: Chance


class Phases(Record):
    """Busier phases of the second or the millisecond, of one timestamp source."""

    source: SourceName
    period_ns: Annotated[Span, "A second or a millisecond."]
    bin_ns: Annotated[Span, "Width of the bins that frames were counted in."]
    periods: Annotated[Count, "Periods in the capture."]
    tested: bool
    why_not: Annotated[str | None, "Null where it was tested."]
    found: Annotated[tuple[BusyPhase, ...], "Most frames first."]


class Heartbeat(Record):
    """A flow whose frames, or whose shortest ones, are sent at regular intervals."""

    flow: str
    source: SourceName
    frames: Count
    period_ns: Span
    between_ns: Annotated[tuple[Span, Span], "The shortest and the longest gap that count as regular, by bucket."]
    gaps: Count
    regular_gaps: Count
    regular_share: Annotated[Share, "Of the gaps."]
    p_value: Chance
    frame_bytes: Annotated[
        Bytes | None, "Wire length of the flow's shortest frames where only they are regular; null for all."
    ]
    of_all_frames: Annotated[Share, "Share of the flow's frames that were examined."]


class PatternsResult(Result):
    """Recurring patterns, each with its p-value; empty lists where nothing was found."""

    periods: Annotated[tuple[Period, ...], "In order of how many frames keep to them."]
    period_test: str
    phases: tuple[Phases, ...]
    phase_test: str
    heartbeats: Annotated[tuple[Heartbeat, ...], "The most significant first."]
    heartbeat_test: str
    flows_tracked: Count
    sampled_one_in: OneIn
