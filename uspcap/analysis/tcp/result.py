"""The result of `tcp`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, FrameNumber, OneIn, Quantity, Record, SourceName, Span
from uspcap.stats.histogram import HistogramSummary

ROLES = ("initiator", "responder")
KINDS = ("data_ack", "timestamps", "handshake")
"""What is measured on each side, in the order of the compiled tracks' measures; after them the whole handshake."""
SIDES = tuple(f"{role}_side" for role in ROLES)

Kind = Annotated[str, Quantity("round_trip", "What is measured; see `definitions`.", one_of=KINDS)]
Side = Annotated[str, Quantity("side", "Which side of the capture point; `whole` is both.", one_of=(*SIDES, "whole"))]


class SegmentCounts(Record):
    """Counts of the segments, or of the data, of one end of TCP connections."""

    segments: Annotated[Count, "With a TCP header, including those without data."]
    payload_bytes: Annotated[Bytes, "Bytes of data, retransmitted ones included."]
    syns: Annotated[Count, "SYNs without ACK that began a connection."]
    retransmissions: Annotated[Count, "Segments with a byte that was captured before, and repeated SYNs."]
    retransmitted_bytes: Annotated[Bytes, "Bytes of data that had been captured before."]
    fast_retransmissions: Annotated[
        Count, "Retransmitted or out of order segments that begin where three duplicate acks wait."
    ]
    out_of_order: Annotated[Count, "Segments that arrived after later ones, none of whose bytes was captured before."]
    before_join: Annotated[Count, "Segments from before the first captured one of a stream joined in the middle."]
    keep_alives: Annotated[Count, "At most one byte, the one before the next number, where all data are acknowledged."]
    duplicate_acks: Annotated[Count, "As of RFC 5681, section 2; sent by this end."]
    zero_windows: Annotated[Count, "Segments without SYN, FIN or RST that offer no window."]
    resets: Annotated[Count, "Segments with RST."]
    gaps: Annotated[Count, "Segments that leave a hole before them."]
    uncaptured_bytes: Annotated[Bytes, "Bytes that were acknowledged, or skipped by many more, but not captured."]
    restarts: Annotated[Count, "Sequence numbers so far from the expected one that the stream restarted."]
    ambiguous: Annotated[Count, "Acks of this end's data without a time: bytes retransmitted, out of order or missing."]
    unmatched: Annotated[Count, "Acks of this end's data whose segment is not kept."]
    different_sources: Annotated[Count, "Times whose ends have timestamps of different sources, or none."]
    negative: Annotated[Count, "Times that end before they begin."]
    crowded_holes: Annotated[Count, "Holes given up for newer ones."]
    after_acknowledgment: Annotated[
        Count, "Segments with bytes not captured before but acknowledged before: a sign of two clocks."
    ]


class RoundTrips(HistogramSummary):
    """All times of one kind on one side."""

    max_frame: Annotated[FrameNumber | None, "The frame that ended the longest time."]


class BothSides(Record):
    """All times of one kind."""

    initiator_side: RoundTrips
    responder_side: RoundTrips


class Handshakes(BothSides):
    """All times of handshakes."""

    whole: Annotated[RoundTrips, "From SYN to the end of the handshake."]


class SourceRoundTrips(Record):
    """All times by one timestamp source."""

    data_ack: BothSides
    timestamps: BothSides
    handshake: Handshakes


class ConnectionRoundTrips(Record):
    """The times of one connection, of one kind on one side."""

    count: Count
    min_ns: Span
    mean_ns: Span
    p50_ns: Annotated[Span | None, "Null where there are too few."]
    max_ns: Span
    max_frame: FrameNumber


class Connection(Record):
    """Two endpoints, however often they connect."""

    initiator: str
    responder: str
    roles_by_ports: Annotated[bool, "Without a SYN: the end with the lower port is taken for the responder."]
    first_frame: FrameNumber
    last_frame: FrameNumber
    from_initiator: SegmentCounts
    from_responder: SegmentCounts
    round_trips: Annotated[
        Mapping[SourceName, Mapping[Kind, Mapping[Side, ConnectionRoundTrips]]],
        "By timestamp source, kind and side, where there are any.",
    ]


class Connections(Record):
    """How many connections there are."""

    followed: Annotated[Count, "Pairs of endpoints, however often they connect."]
    estimated: Annotated[Count, "All connections, followed or not."]
    sampled_one_in: OneIn
    roles_by_ports: Annotated[Count, "Without a SYN: the end with the lower port is taken for the responder."]


class Directions(Record):
    """Counts of all connections."""

    from_initiator: SegmentCounts
    from_responder: SegmentCounts
    total: SegmentCounts


class TcpResult(Result):
    """TCP connections: round trips on both sides of the capture point; losses and retransmissions."""

    definitions: Mapping[str, str]
    segments: Count
    segments_followed: Count
    undecoded: Annotated[Count, "Segments left out: their header is truncated or inconsistent."]
    fragments: Annotated[Count, "Segments of which only the first IP fragment is read."]
    connections: Connections
    counts: Directions
    sources: Annotated[Mapping[SourceName, SourceRoundTrips], "By timestamp source, kind and side."]
    listed: Annotated[tuple[Connection, ...], "Connections, those with most segments first."]
    unsettled_connections: Annotated[Count, "Connections not known exactly where parts of the capture were joined."]
