"""Response times of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, on_use
from uspcap.analysis.matching_options import (
    MATCH,
    QUORUM,
    REQUEST,
    RESPONSE,
    TIMEOUT,
    check_responses,
    shared_arguments,
)
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.declaration import Asked
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    responses, requests = check_responses(given), given.get(REQUEST.parameter) or ()
    match, quorum = given.get(MATCH.parameter), given.get(QUORUM.parameter)
    if requests and len(requests) != len(responses):
        raise UsageError(
            f"--request is given {len(requests)} times and --response {len(responses)} times; give a response for each"
        )
    if not requests and (match or quorum is not None):
        raise UsageError("--match and --quorum apply to rules only; add --request RULE and --response RULE")
    if not requests:
        return shared_arguments(given)
    from uspcap.protocols.rules import named_pairs

    pairs = named_pairs(requests, responses, match or ("flow" if quorum is None else "key"))
    return {"pairs": pairs, "quorum": quorum, **shared_arguments(given)}


ANALYSIS = Declaration(
    name="requests",
    summary="where named: response times of DNS, echo, NTP and rules of yours, quorums (`docs/requests.md`)",
    place=110,
    options=(REQUEST, RESPONSE, MATCH, QUORUM, TIMEOUT, TOP),
    prepare=_prepare,
    make=on_use("uspcap.analysis.requests.analysis:Requests"),
    result="uspcap.analysis.requests.result:RequestsResult",
    view="uspcap.analysis.requests.view",
)
