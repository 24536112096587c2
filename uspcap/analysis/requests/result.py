"""The result of `requests`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.records import WHERE_GIVEN, Count, FrameNumber, Instant, OneIn, Quantity, Record, SourceName, Span, Step
from uspcap.stats.histogram import HistogramSummary

Replies = Annotated[int, Quantity("replies", minimum=1)]
Majority = Annotated[str, Quantity("majority", "More than half of the responders.", one_of=("majority",))]


class ReplyTimes(HistogramSummary):
    """From requests to their responses."""

    max_frame: Annotated[FrameNumber, "The request with the longest time."]


class ReplyMeasures(Record):
    """Response times by one timestamp source."""

    from_first: Annotated[ReplyTimes, "From the first transmission of the request."]
    from_last: Annotated[
        ReplyTimes | None,
        WHERE_GIVEN,
        "From the last transmission of the request; missing where none was retransmitted.",
    ]


class PrecedingResponses(Record):
    """Responses without a request that a request with their key follows within the timeout."""

    exchanges: Count
    least_ns: Annotated[Span, "From such a response to the request: the shortest."]
    most_ns: Span


class PairCounts(Record):
    """Counts of requests or triggers and their responses."""

    name: str
    sampled_one_in: Annotated[
        OneIn, "One key in so many was followed, as more were open at a time than the bound allows; 1 is all."
    ]
    answered: Count
    unanswered: Count
    across_clocks: Annotated[Count, "Pairs with timestamps of two sources: left out of all times."]
    negative: Annotated[Count, "Pairs whose response is timestamped before the request."]
    without_timestamp: Count
    without_key: Count
    matched_both: Annotated[Count, "Frames that both rules match; they count as requests."]
    preceding: Annotated[
        PrecedingResponses | None,
        "A sign of two clocks, or of directions not captured in order. Null where there are none, or no keys.",
    ]


class AnsweredRequest(Record):
    """A request and its response."""

    request_frame: FrameNumber
    request_ns: Instant
    last_request_frame: FrameNumber
    response_frame: FrameNumber
    latency_from_first_ns: Annotated[Step | None, "Null where two sources timestamped them."]
    latency_from_last_ns: Annotated[Step | None, "Null where two sources timestamped them."]
    requests: Annotated[Count, "Transmissions of the request."]
    responses: Count
    source: SourceName


class UnansweredRequest(Record):
    """A request without a response."""

    request_frame: FrameNumber
    request_ns: Instant
    requests: Annotated[Count, "Transmissions of the request."]
    source: SourceName


class UnsolicitedResponse(Record):
    """A response without a request, the first of several."""

    response_frame: FrameNumber
    response_ns: Instant
    responses: Count
    source: SourceName


class RoundMeasures(Record):
    """Times of rounds by one timestamp source."""

    first_reply: ReplyTimes
    quorum_reply: Annotated[ReplyTimes | None, "Null where there is no quorum."]
    last_reply: ReplyTimes


class Rounds(Record):
    """Requests with several responders; times are from the first transmission of the request."""

    quorum_wanted: Replies | Majority
    quorum: Annotated[Replies | None, "Null where the number of responders is not known."]
    responders: Count
    more_responders: Annotated[bool, "There are more responders than can be counted."]
    rounds: Count
    reached: Annotated[Count | None, "Rounds that reached the quorum."]
    never_reached: Count | None
    by_replies: Annotated[tuple[Count, ...], "Rounds by how many responders replied, from none on."]
    too_many_responders: Annotated[
        Count,
        "Rounds with more responders than are followed; not in by_replies, nor in the times of the last reply.",
    ]
    replies_before_request: Count
    sources: Mapping[SourceName, RoundMeasures]


class RequestRule(PairCounts):
    """Requests and responses of one rule."""

    rule: str
    requests: Annotated[Count, "Frames with a timestamp, whether followed or not."]
    responses: Count
    requests_followed: Count
    responses_followed: Count
    retransmitted_requests: Count
    duplicate_responses: Count
    unsolicited_responses: Count
    sources: Mapping[SourceName, ReplyMeasures]
    slowest: tuple[AnsweredRequest, ...]
    first_unanswered: tuple[UnansweredRequest, ...]
    first_unsolicited: tuple[UnsolicitedResponse, ...]
    rounds: Annotated[Rounds | None, "Null where no quorum is asked for."]


class RequestsResult(Result):
    """Requests and their responses, by rule."""

    definition: str
    timeout_ns: Span
    fragments: IpFragments
    rules: tuple[RequestRule, ...]
