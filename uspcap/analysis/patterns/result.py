"""What recurs."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, OneIn, Quantity, Ratio, Record, Share, SourceName, Span

Chance = Annotated[float, Quantity("chance", "That there is no such thing; 1 is certainty.", minimum=0, maximum=1)]
Frequency = Annotated[float, Quantity("frequency", "Times a second.", minimum=0)]


class Period(Record):
    """A period in the arrivals of one timestamp source."""

    source: SourceName
    period_ns: Span
    uncertainty_ns: Annotated[Span, "By how much the period may be off, either way."]
    frequency_hz: Frequency
    p_value: Chance
    coherence: Annotated[Share, "Share of the frames that keep to the period."]
    harmonics: Annotated[Count, "Which were added up."]
    cycles: Annotated[Ratio, "How often the period came by in the window."]
    slot_ns: Annotated[Span, "Width of the slots that frames were counted in."]
    window_ns: Annotated[Span, "What was looked at, from the first timestamp on."]


class BusyPhase(Record):
    """A stretch of a second or a millisecond in which more frames come than chance has it."""

    start_ns: Span
    end_ns: Span
    frames: Count
    share: Annotated[Share, "Of all frames."]
    share_by_chance: Annotated[Share, "What it would hold of frames that come evenly."]
    periods_hit: Annotated[Count, "Seconds or milliseconds with a frame in it."]
    p_value: Chance


class Phases(Record):
    """Busier phases of the second or the millisecond, of one timestamp source."""

    source: SourceName
    period_ns: Annotated[Span, "A second or a millisecond."]
    bin_ns: Annotated[Span, "Width of the bins that frames were counted in."]
    periods: Annotated[Count, "How often the period came by."]
    tested: bool
    why_not: Annotated[str | None, "Null where it was tested."]
    found: Annotated[tuple[BusyPhase, ...], "Most frames first."]


class Heartbeat(Record):
    """A flow whose frames, or whose shortest ones, come at regular times."""

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
    of_all_frames: Annotated[Share, "Of the flow's frames, those that are looked at."]


class PatternsResult(Result):
    """What recurs, with the chance that it does not; empty lists where nothing was found."""

    periods: Annotated[tuple[Period, ...], "Those that most frames keep to first."]
    period_test: str
    phases: tuple[Phases, ...]
    phase_test: str
    heartbeats: Annotated[tuple[Heartbeat, ...], "The surest first."]
    heartbeat_test: str
    flows_tracked: Count
    sampled_one_in: OneIn
