"""The result of `sequence`."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.records import WHERE_GIVEN, Bytes, Count, FrameNumber, Instant, OneIn, Quantity, Record, Step
from uspcap.stats.histogram import HistogramSummary

SequenceNumber = Annotated[
    int, Quantity("sequence_number", "The value of its field.", minimum=0, maximum=18446744073709551615)
]
Numbered = Annotated[str, Quantity("numbered", "What numbers count.", one_of=("messages", "packets", "bytes"))]


class MissingNumbers(Record):
    """A gap: numbers that were skipped."""

    first: SequenceNumber
    last: SequenceNumber
    count: Count
    start_ns: Annotated[Instant, "Of the last packet before."]
    end_ns: Annotated[Instant, "Of the packet that revealed the gap."]
    before_frame: FrameNumber
    after_frame: FrameNumber
    filled: Annotated[Count, "Numbers that arrived late."]
    filled_after_ns: Annotated[Step | None, "From `end_ns` to the last packet that filled it."]
    undetermined: Annotated[bool, "The capture itself lost frames there, or bytes of TCP."]


class UnconfirmedNumber(Record):
    """An implausible jump ahead, neither confirmed nor refuted before the stream ends."""

    number: SequenceNumber | None
    expected: SequenceNumber | None
    at_ns: Instant
    frame: FrameNumber


class StreamNumbers(Record):
    """The numbers of a stream."""

    first: SequenceNumber | None
    last: SequenceNumber | None
    lost: Count
    late: Count
    duplicate: Count
    overlap: Annotated[Count, "Packets that held new numbers and old ones."]
    resets: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames, or bytes of TCP."]
    implausible: Annotated[Count, "Packets with an implausible jump ahead, refuted by the packets after them."]
    unconfirmed: Annotated[
        Count, "Packets with an implausible jump ahead, neither confirmed nor refuted before the stream ends."
    ]
    before_joined: Annotated[Count, "Packets from before the first captured one."]
    joined_at: SequenceNumber | None
    ended: bool
    largest_extent: Annotated[Count, "RFC 4737, 4.2.1, in packets of the stream."]
    gap_count: Count
    coalesced: Annotated[
        Count, "Packets behind the highest number, after too many others in a row to be examined individually."
    ]
    not_followed: Annotated[Count, "Packets after the last run of numbers that is kept; of first copies, numbers."]


class StreamCounts(StreamNumbers, inherited_after="excluded"):
    """Counts of a stream."""

    protocol: str
    flow: str
    key: Annotated[str, "Session and channel."]
    packets: Count
    messages: Count
    heartbeats: Count
    excluded: Annotated[Count, "Snapshots, retransmissions, requests: not of the live stream."]
    holes: Annotated[Count | None, WHERE_GIVEN, "Of its direction of the connection; messages in TCP only."] = None
    missing_bytes: Annotated[Bytes | None, WHERE_GIVEN, "In these; messages in TCP only."] = None


class FollowedStream(StreamCounts):
    """A stream of the protocol."""

    gaps: Annotated[tuple[MissingNumbers, ...], "The first ones."]
    unconfirmed_jumps: tuple[UnconfirmedNumber, ...]


class RefusedStream(StreamCounts):
    """A stream that is not of the protocol, as its numbers show."""

    evidence: str


class SequenceResult(Result):
    """Sequence numbers of one feed protocol; lost and late are of what numbers count."""

    protocol: str
    chosen_by: str
    numbers: Numbered
    verified: Annotated[bool, "A specification or a capture confirms how the protocol numbers."]
    unverified_rules: tuple[str, ...]
    lost: Count
    late: Count
    duplicate: Count
    overlap: Annotated[Count, "Packets that held new numbers and old ones."]
    resets: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames, or bytes of TCP."]
    implausible: Annotated[
        Count, "Packets with an implausible jump ahead, refuted by the packets after them; not counted as a gap."
    ]
    unconfirmed: Annotated[
        Count, "Packets with an implausible jump ahead, neither confirmed nor refuted before the stream ends."
    ]
    packets: Count
    messages: Count
    excluded: Annotated[Count, "Snapshots, retransmissions, requests: not of the live stream."]
    not_followed: Annotated[Count, "Packets of streams that are not followed to their end, as they have too many runs."]
    coalesced: Annotated[Count, "Packets behind the highest number that were not examined individually."]
    foreign: Annotated[Count, "UDP packets that are not of this protocol; messages without a number."]
    of_untracked_flows: Annotated[Count, "Packets of streams that are not in the sample."]
    complete: Annotated[bool, "Nothing was left out."]
    sampled_one_in: OneIn
    capture_drops: Annotated[Count, "Frames that the capture itself lost."]
    fragments: Annotated[
        IpFragments | None, "UDP datagrams in IP fragments, of all the frames; null for what TCP carries."
    ]
    lateness: Annotated[HistogramSummary, "From the detection of a gap to the packet that fills it."]
    streams: tuple[FollowedStream, ...]
    refused: Annotated[
        tuple[RefusedStream, ...],
        "Streams that are not of the protocol, as their numbers show; in none of the totals.",
    ]
    holes: Annotated[
        Count | None, WHERE_GIVEN, "Places where bytes of TCP streams are missing; messages in TCP only."
    ] = None
    missing_bytes: Annotated[Bytes | None, WHERE_GIVEN, "Bytes missing there; messages in TCP only."] = None
    cut_connections: Annotated[
        Count | None, WHERE_GIVEN, "Read separately, as the bound on what is kept was reached; messages in TCP only."
    ] = None
    dropped_log_bytes: Annotated[
        Bytes | None, WHERE_GIVEN, "Not read, as the bound on what is kept was reached; messages in TCP only."
    ] = None
