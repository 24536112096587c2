"""The result of `orders`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.protocol_options import ORDER_PROTOCOLS
from uspcap.protocols.order_entry import ANSWER_KINDS, REQUEST_KINDS
from uspcap.records import Bytes, Count, FrameNumber, Instant, OneIn, Quantity, Record, SourceName
from uspcap.stats.histogram import HistogramSummary

RequestKind = Annotated[str, Quantity("order_request", "A kind of request to a venue.", one_of=tuple(REQUEST_KINDS))]
AnswerKind = Annotated[str, Quantity("order_answer", "A kind of answer from a venue.", one_of=tuple(ANSWER_KINDS))]
FromTo = Annotated[
    str, Quantity("order_times", "From what to what, as enter_to_accepted.", pattern="^[a-z]+_to_[a-z]+$")
]
Protocol = Annotated[str, Quantity("order_protocol", one_of=ORDER_PROTOCOLS)]


class OrderTimes(HistogramSummary):
    """Times from one message to another."""

    negative: Annotated[Count, "Answers timestamped before their request: counted here only."]
    first_byte: Annotated[
        HistogramSummary | None,
        "To the first byte of the answer, instead of the last; null where that has no meaning.",
    ]


class Sample(Record):
    """The sample that was followed."""

    connections: OneIn
    requests: Annotated[OneIn, "Of the requests of those connections."]


class UnansweredRequest(Record):
    """A request without an answer."""

    request: RequestKind
    id: str
    connection: str
    first_ns: Instant
    first_frame: FrameNumber


class OrderConnection(Record):
    """A connection with messages of order entry."""

    ends: str
    protocol: Annotated[str, "soupbintcp, or the BeginString of FIX."]
    first_frame: FrameNumber
    messages: Count
    requests: Count
    answers: Count
    repeated_bytes: Bytes
    lost_bytes: Bytes
    unread_bytes: Bytes


class OrderStreams(Record):
    """The bytes of all TCP connections."""

    segments: Count
    payload_bytes: Bytes
    cut_segments: Annotated[Count, "Captured only in part."]
    repeated_bytes: Bytes
    holes: Annotated[Count, "Holes that nothing filled."]
    lost_bytes: Bytes
    restarts: Annotated[Count, "Streams that restarted."]
    resynchronisations: Annotated[Count, "Places where the next beginning of a message was searched for."]
    unread_bytes: Bytes
    messages: Count
    after_acknowledgment: Annotated[
        Count, "Segments with bytes not captured before but acknowledged before: a sign of two clocks."
    ]
    malformed: Annotated[Count, "Messages too short, or of a type unknown in this version."]
    checksum_mismatches: Annotated[Count, "FIX messages with a wrong checksum."]


class OuchVersions(Record):
    """Messages in SoupBinTCP packets, and how many have the length that their type has in each version."""

    application_messages: Count
    fit_4_2: Count
    fit_5_0: Count


class OrderBounds(Record):
    """What was lost to the bound on bytes kept for later."""

    cut_connections: Annotated[Count, "Connections cut where parts of the capture were joined."]
    dropped_bytes: Bytes


class OrdersResult(Result):
    """From requests to a venue to its answers."""

    definition: str
    venue_definition: str
    protocol: Annotated[Protocol | None, "As asked for; null where FIX is auto-detected."]
    requests: Mapping[RequestKind, Count]
    answers: Mapping[AnswerKind, Count]
    followed: Annotated[Count, "Requests that were followed individually."]
    sampled_one_in: Sample
    unanswered: Mapping[RequestKind, Count]
    unanswered_listed: Annotated[tuple[UnansweredRequest, ...], "The first requests without an answer."]
    repeated_requests: Annotated[Count, "Requests with an id that was used before; the first counts."]
    possible_duplicates: Annotated[Count, "FIX messages with 43=Y, left out."]
    answers_without_request: Annotated[Count | None, "Null where requests are a sample."]
    sources: Annotated[Mapping[SourceName, Mapping[FromTo, OrderTimes]], "By the source that timestamped both frames."]
    venue: Annotated[Mapping[FromTo, OrderTimes], "Between timestamps of the venue's clock."]
    different_sources: Annotated[Count, "Times left out: their ends have timestamps of different sources, or none."]
    connections_with_orders: Count
    connections: tuple[OrderConnection, ...]
    streams: OrderStreams
    ouch_versions: OuchVersions
    bounds: OrderBounds
