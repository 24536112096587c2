"""The result of `arbitration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.analysis.sequence.result import MissingNumbers, Numbered, StreamNumbers
from uspcap.records import Count, OneIn, Record, SourceName, Step
from uspcap.stats.histogram import HistogramSummary, Percentile


class LineNumbers(StreamNumbers, inherited_after="heartbeats"):
    """The numbers of one line."""

    destination: str
    packets: Count
    messages: Count
    heartbeats: Count
    brought_first: Annotated[Count, "Numbers received first on this line, by timestamp; of those compared."]
    brought_alone: Annotated[Count, "Numbers received on this line only."]


class FirstCopies(StreamNumbers, inherited_after="messages"):
    """The feed after arbitration: the first copy of each number."""

    messages: Count


class LineSkew(Record):
    """By how much either line leads, by one timestamp source."""

    first_by: Annotated[Mapping[str, HistogramSummary], "By line, how much it leads by."]
    ties: Annotated[Count, "Numbers received on both lines at the same time."]
    percentiles_ns: Annotated[Mapping[Percentile, Step | None], "Of the first line's timestamps minus the second's."]


class ArbitratedPair(Record):
    """Two lines that carry one feed, under one key."""

    pair: str
    key: Annotated[str, "Session and channel."]
    compared: Annotated[Count, "Numbers received on both lines, timestamped by one source."]
    ties: Annotated[Count, "Of these, received at the same time."]
    other_clock: Annotated[Count, "Numbers received on both lines, but not timestamped by one source."]
    too_late: Annotated[Count, "Numbers that arrived too late to be compared."]
    too_many: Annotated[Count, "Packets with more numbers than can be compared at once."]
    lines: Mapping[str, LineNumbers]
    arbitrated: FirstCopies
    skew: Mapping[SourceName, LineSkew]
    recovery: Annotated[HistogramSummary, "How long it took to fill gaps on both lines."]
    gaps: Annotated[tuple[MissingNumbers, ...], "The first gaps on both lines."]


class ArbitrationResult(Result):
    """Two lines that carry one feed: lost is what neither carried, recovered what arrived after a gap was detected."""

    protocol: str
    numbers: Numbered
    definition: str
    compared_within: Annotated[Count, "In numbers: a copy that is further behind is too late."]
    given_pairs: Annotated[tuple[Mapping[str, str], ...], "Name and lines, by label."]
    without_packets: Annotated[tuple[str, ...], "Pairs without packets."]
    lost: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames."]
    recovered: Count
    excluded: Annotated[Count, "Snapshots, retransmissions, requests: not of the live stream."]
    foreign: Annotated[Count, "Packets on the lines that are not of this protocol."]
    not_followed: Annotated[Count, "Packets left out, as the memory limit was reached."]
    complete: Annotated[bool, "Nothing was left out."]
    sampled_one_in: OneIn
    capture_drops: Annotated[Count, "Frames that the capture itself lost."]
    fragments: IpFragments
    pairs: tuple[ArbitratedPair, ...]
