"""Options of analyses that match requests, triggers and responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from uspcap.analysis.match_settings import MatchSettings
from uspcap.commands.options import DurationType
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.protocols.rules import RulePair

    _QuorumType = click.ParamType[int | str]
else:
    # Before click 8.4 it takes no type.
    _QuorumType = click.ParamType

MOST_REPLIES = 32


class QuorumType(_QuorumType):
    """How many replies make a quorum: a number, or `majority`."""

    name = "quorum"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or `majority`."""
        text = str(value)
        if text == "majority":
            return text
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_REPLIES):
            self.fail(f"{value!r} is no quorum; write a number of replies up to {MOST_REPLIES}, or majority", param)
        return int(text)


_OPTIONS = (
    click.option("--request", "requests", multiple=True, metavar="RULE", help="What asks, for requests."),
    click.option("--trigger", metavar="RULE", help="What comes in, for tick_to_trade."),
    click.option("--response", "responses", multiple=True, metavar="RULE", help="What answers either."),
    click.option(
        "--match", type=click.Choice(["flow", "client", "key"]), help="What must agree beside the keys of rules."
    ),
    click.option("--quorum", type=QuorumType(), help="Replies that make a quorum: a number, or majority."),
    click.option("--timeout", type=DurationType(), help="How long an answer is waited for; 5s if not said."),
)


def match_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `match_settings` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def match_settings(
    names: Sequence[str],
    asked_with: str,
    requests: tuple[str, ...],
    trigger: str | None,
    responses: tuple[str, ...],
    match: str | None,
    quorum: int | str | None,
    timeout: int | None,
) -> MatchSettings:
    """Read the options of `match_options`.

    Parameters
    ----------
    names : sequence of str
        Analyses that were asked for.
    asked_with : str
        The option that names analyses.

    Raises
    ------
    UsageError
        They do not go together, or a rule is none.
    """
    _check(names, asked_with, requests, trigger, responses, match, quorum, timeout)
    if not (requests or trigger):
        return MatchSettings() if timeout is None else MatchSettings(timeout_ns=timeout)

    from uspcap.protocols.rules import named_pairs, pair_rules, parse_rule

    pairs: tuple[RulePair, ...] = ()
    if requests:
        pairs = named_pairs(requests, responses, match or ("flow" if quorum is None else "key"))
    triggered = None
    if trigger is not None:
        triggered = pair_rules(
            parse_rule(trigger, "--trigger"),
            parse_rule(responses[0], "--response"),
            name="tick_to_trade",
            match="key",
            options=("--trigger", "--response"),
        )
    given = {} if timeout is None else {"timeout_ns": timeout}
    return MatchSettings(pairs=pairs, trigger=triggered, quorum=quorum, **given)


def _check(
    names: Sequence[str],
    asked_with: str,
    requests: tuple[str, ...],
    trigger: str | None,
    responses: tuple[str, ...],
    match: str | None,
    quorum: int | str | None,
    timeout: int | None,
) -> None:
    """Refuse options that go with nothing, and rules without their other half."""
    if (requests or match or quorum is not None) and "requests" not in names:
        raise UsageError(f"--request, --match and --quorum are about requests; add {asked_with} requests")
    if trigger is not None and "tick_to_trade" not in names:
        raise UsageError(f"--trigger is about tick_to_trade; add {asked_with} tick_to_trade")
    if (responses or timeout is not None) and not {"requests", "tick_to_trade"} & set(names):
        raise UsageError(
            f"--response and --timeout are about requests and tick_to_trade; name one of them in {asked_with}"
        )
    if responses and not requests and trigger is None:
        raise UsageError("--response says what answers, but not to what: add --request RULE or --trigger RULE")
    if requests and len(requests) != len(responses):
        raise UsageError(
            f"--request is given {len(requests)} times and --response {len(responses)} times; give a response for each"
        )
    if trigger is not None and len(responses) != 1:
        raise UsageError(f"--trigger takes one --response, and {len(responses)} are given")
    if "tick_to_trade" in names and trigger is None:
        raise UsageError("tick_to_trade needs --trigger RULE, what comes in, and --response RULE, what goes out")
    if not requests and (match or quorum is not None):
        raise UsageError("--match and --quorum are about rules; add --request RULE and --response RULE")
    if timeout is not None and not 1 <= timeout <= 1 << 60:
        raise UsageError("--timeout takes 1ns to 36 years; write another, as 500ms")
