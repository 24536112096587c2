"""What numbers of streams come to."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.records import WHERE_GIVEN, Bytes, Count, FrameNumber, Instant, OneIn, Quantity, Record, Step
from uspcap.stats.histogram import HistogramSummary

SequenceNumber = Annotated[
    int, Quantity("sequence_number", "As its field has it.", minimum=0, maximum=18446744073709551615)
]
Numbered = Annotated[str, Quantity("numbered", "What numbers count.", one_of=("messages", "packets", "bytes"))]


class MissingNumbers(Record):
    """Numbers that did not come when they should have."""

    first: SequenceNumber
    last: SequenceNumber
    count: Count
    start_ns: Annotated[Instant, "Of the last packet before."]
    end_ns: Annotated[Instant, "Of the packet that shows the gap."]
    before_frame: FrameNumber
    after_frame: FrameNumber
    filled: Annotated[Count, "Numbers that came later."]
    filled_after_ns: Annotated[Step | None, "From `end_ns` to what filled it last."]
    undetermined: Annotated[bool, "The capture itself lost frames there, or bytes of TCP."]


class UnconfirmedNumber(Record):
    """A number that jumps far ahead, before the end of a stream that confirms or refutes nothing."""

    number: SequenceNumber | None
    expected: SequenceNumber | None
    at_ns: Instant
    frame: FrameNumber


class StreamNumbers(Record):
    """What the numbers of a stream say."""

    first: SequenceNumber | None
    last: SequenceNumber | None
    lost: Count
    late: Count
    duplicate: Count
    overlap: Annotated[Count, "Packets that held new numbers and old ones."]
    resets: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames, or bytes of TCP."]
    implausible: Annotated[Count, "Packets whose number jumps far ahead, which those after them refute."]
    unconfirmed: Annotated[
        Count, "Packets whose number jumps far ahead, before the end of a stream that confirms or refutes nothing."
    ]
    before_joined: Annotated[Count, "Packets from before the first captured one."]
    joined_at: SequenceNumber | None
    ended: bool
    largest_extent: Annotated[Count, "RFC 4737, 4.2.1, in packets of the stream."]
    gap_count: Count
    coalesced: Annotated[
        Count, "Packets behind the highest number, after too many others in a row to be looked at one by one."
    ]
    not_followed: Annotated[Count, "Packets behind the last run of numbers that is kept; of first copies, numbers."]


class StreamCounts(StreamNumbers, inherited_after="excluded"):
    """What is counted of a stream."""

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
    verified: Annotated[bool, "A specification or a capture has shown how the protocol numbers."]
    unverified_rules: tuple[str, ...]
    lost: Count
    late: Count
    duplicate: Count
    overlap: Annotated[Count, "Packets that held new numbers and old ones."]
    resets: Count
    undetermined: Annotated[Count, "Missing where the capture itself lost frames, or bytes of TCP."]
    implausible: Annotated[
        Count, "Packets whose number jumps far ahead, which those after them refute; they move nothing."
    ]
    unconfirmed: Annotated[
        Count, "Packets whose number jumps far ahead, before the end of a stream that confirms or refutes nothing."
    ]
    packets: Count
    messages: Count
    excluded: Annotated[Count, "Snapshots, retransmissions, requests: not of the live stream."]
    not_followed: Annotated[Count, "Packets of streams that are not followed to their end, as their runs are too many."]
    coalesced: Annotated[Count, "Packets behind the highest number that were not looked at one by one."]
    foreign: Annotated[Count, "UDP packets that are not of this protocol; messages without a number."]
    of_untracked_flows: Annotated[Count, "Packets of streams that are not in the sample."]
    complete: Annotated[bool, "Nothing was left out."]
    sampled_one_in: OneIn
    capture_drops: Annotated[Count, "Frames that the capture itself lost."]
    fragments: Annotated[
        IpFragments | None, "UDP datagrams in IP fragments, of all the frames; null for what TCP carries."
    ]
    lateness: Annotated[HistogramSummary, "From where a gap shows to what fills it."]
    streams: tuple[FollowedStream, ...]
    refused: Annotated[
        tuple[RefusedStream, ...],
        "Streams that are not of the protocol, as their numbers show; in none of the totals.",
    ]
    holes: Annotated[Count | None, WHERE_GIVEN, "Where bytes of TCP streams are missing; messages in TCP only."] = None
    missing_bytes: Annotated[Bytes | None, WHERE_GIVEN, "Of these, how many; messages in TCP only."] = None
    cut_connections: Annotated[
        Count | None, WHERE_GIVEN, "Read apart, as the bound on what is kept was reached; messages in TCP only."
    ] = None
    dropped_log_bytes: Annotated[
        Bytes | None, WHERE_GIVEN, "Not read, as the bound on what is kept was reached; messages in TCP only."
    ] = None
