"""From trigger to response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, on_use
from uspcap.analysis.matching_options import RESPONSE, TIMEOUT, TRIGGER, check_responses, shared_arguments
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.declaration import Asked
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    responses, trigger = check_responses(given), given.get(TRIGGER.parameter)
    if trigger is None:
        raise UsageError("tick_to_trade needs --trigger RULE, what comes in, and --response RULE, what goes out")
    if len(responses) != 1:
        raise UsageError(f"--trigger takes one --response, and {len(responses)} are given")
    from uspcap.protocols.rules import pair_rules, parse_rule

    pair = pair_rules(
        parse_rule(trigger, "--trigger"),
        parse_rule(responses[0], "--response"),
        name="tick_to_trade",
        match="key",
        options=("--trigger", "--response"),
    )
    return {"pair": pair, **shared_arguments(given)}


ANALYSIS = Declaration(
    name="tick_to_trade",
    summary="where named: from incoming triggers to the outgoing responses (`docs/requests.md`)",
    place=120,
    options=(TRIGGER, RESPONSE, TIMEOUT, TOP),
    prepare=_prepare,
    make=on_use("uspcap.analysis.tick_to_trade.analysis:TickToTrade"),
    result="uspcap.analysis.tick_to_trade.result:TickToTradeResult",
    view="uspcap.analysis.tick_to_trade.view",
)
