"""What two lines of one feed come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.analysis.sequence.result import MissingNumbers, Numbered, StreamNumbers
from uspcap.records import Count, OneIn, Record, SourceName, Step
from uspcap.stats.histogram import HistogramSummary, Percentile


class LineNumbers(StreamNumbers, inherited_after="heartbeats"):
    """What one line brought."""

    destination: str
    packets: Count
    messages: Count
    heartbeats: Count
    brought_first: Annotated[Count, "By their timestamps; of numbers compared."]
    brought_alone: Annotated[Count, "Numbers that the other line never brought."]


class FirstCopies(StreamNumbers, inherited_after="messages"):
    """What taking the first copy of each number makes of the two lines."""

    messages: Count


class LineSkew(Record):
    """By how much either line was first, by one timestamp source."""

    first_by: Annotated[Mapping[str, HistogramSummary], "Line to by how much it was first."]
    ties: Annotated[Count, "Numbers that both brought at once."]
    percentiles_ns: Annotated[Mapping[Percentile, Step | None], "Of the first line's timestamps less the second's."]


class ArbitratedPair(Record):
    """Two lines that carry one feed, under one key."""

    pair: str
    key: Annotated[str, "Session and channel."]
    compared: Annotated[Count, "Numbers that both lines brought, timestamped by one source."]
    ties: Annotated[Count, "Of these, brought at once."]
    other_clock: Annotated[Count, "Brought by both, but not timestamped by one source."]
    too_late: Annotated[Count, "Numbers that came too far behind others to be compared."]
    too_many: Annotated[Count, "Packets with more numbers than are compared at once."]
    lines: Mapping[str, LineNumbers]
    arbitrated: FirstCopies
    skew: Mapping[SourceName, LineSkew]
    recovery: Annotated[HistogramSummary, "How long gaps of both were open, of what filled them."]
    gaps: Annotated[tuple[MissingNumbers, ...], "Of both, the first ones."]


class ArbitrationResult(Result):
    """Two lines that carry one feed: lost is what neither brought, recovered what came after a gap was seen."""

    protocol: str
    numbers: Numbered
    definition: str
    compared_within: Annotated[Count, "Numbers; what one line brings later than that is too late."]
    given_pairs: Annotated[tuple[Mapping[str, str], ...], "Name and lines, by label."]
    without_packets: Annotated[tuple[str, ...], "Pairs of which nothing came."]
    lost: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames."]
    recovered: Count
    excluded: Annotated[Count, "Snapshots, retransmissions, requests: not of the live stream."]
    foreign: Annotated[Count, "Packets on the lines that are not of this protocol."]
    not_followed: Annotated[Count, "Packets for which there was no room."]
    complete: Annotated[bool, "Nothing was left out."]
    sampled_one_in: OneIn
    capture_drops: Annotated[Count, "Frames that the capture itself lost."]
    fragments: IpFragments
    pairs: tuple[ArbitratedPair, ...]
