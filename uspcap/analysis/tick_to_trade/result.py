"""The result of `tick_to_trade`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from uspcap.analysis.base import Result
from uspcap.analysis.ip_fragments import IpFragments
from uspcap.analysis.requests.result import (
    AnsweredRequest,
    PairCounts,
    ReplyMeasures,
    UnansweredRequest,
    UnsolicitedResponse,
)
from uspcap.records import Count, SourceName, Span


class TickToTradeResult(Result, PairCounts, inherited_after="matched_by"):
    """From incoming triggers to outgoing responses."""

    definition: str
    timeout_ns: Span
    fragments: IpFragments
    trigger: Annotated[str, "The rule for incoming triggers."]
    response: Annotated[str, "The rule for outgoing responses."]
    matched_by: Literal["id", "nearest trigger"]
    triggers: Count
    responses: Count
    triggers_followed: Count
    responses_followed: Count
    repeated_triggers: Count
    further_responses: Annotated[Count, "After the first to a trigger."]
    with_several_responses: Annotated[Count, "Triggers with more than one response."]
    responses_without_trigger: Count
    sources: Mapping[SourceName, ReplyMeasures]
    slowest: tuple[AnsweredRequest, ...]
    first_unanswered: tuple[UnansweredRequest, ...]
    first_unsolicited: tuple[UnsolicitedResponse, ...]
