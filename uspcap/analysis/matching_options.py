"""Options of the analyses that match requests, triggers and responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uspcap.analysis.declaration import TOP
from uspcap.declared_options import Given, Kind, Option
from uspcap.errors import UsageError
from uspcap.frames import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_NS: Final = 5 * NANOSECONDS
"""The timeout where none is given."""

LONGEST_TIMEOUT_NS: Final = 1 << 60

MOST_REPLIES: Final = 32


def _quorum(text: str) -> int | str:
    """Return how many replies make a quorum: a number, or `majority`."""
    if text == "majority":
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_REPLIES):
        raise ValueError(f"{text!r} is not a quorum; give a number of replies up to {MOST_REPLIES}, or majority")
    return int(text)


REQUEST: Final = Option(
    flag="--request",
    argument="requests",
    kind=Kind.TEXT,
    repeated=True,
    default=(),
    metavar="RULE",
    help="Filter for requests, with a key.",
)

TRIGGER: Final = Option(
    flag="--trigger",
    argument="trigger",
    kind=Kind.TEXT,
    metavar="RULE",
    help="Filter for incoming packets, for tick_to_trade.",
)

RESPONSE: Final = Option(
    flag="--response",
    argument="responses",
    kind=Kind.TEXT,
    repeated=True,
    default=(),
    metavar="RULE",
    help="Filter for the responses to either.",
)

MATCH: Final = Option(
    flag="--match",
    argument="match",
    kind=Kind.CHOICE,
    choices=("flow", "client", "key"),
    help="What must match besides the keys of rules.",
)

QUORUM: Final = Option(
    flag="--quorum",
    argument="quorum",
    kind=Kind.OTHER,
    read=_quorum,
    metavar="N|majority",
    help="Replies that make a quorum: a number, or majority.",
)

TIMEOUT: Final = Option(
    flag="--timeout",
    argument="timeout_ns",
    kind=Kind.DURATION,
    help="How long to wait for a response; 5s if not given.",
)


def shared_arguments(given: Given) -> dict[str, Any]:
    """Return timeout and rows as `make` of either analysis takes them, where they are given.

    Raises
    ------
    UsageError
        The timeout is none.
    """
    timeout_ns, shown = given.get(TIMEOUT.parameter), given.get(TOP.parameter)
    if timeout_ns is not None and not 1 <= timeout_ns <= LONGEST_TIMEOUT_NS:
        raise UsageError("--timeout takes 1ns to 36 years; give another, as 500ms")
    found = {"timeout_ns": timeout_ns, "shown": shown}
    return {name: value for name, value in found.items() if value is not None}


def check_responses(given: Given) -> Sequence[str]:
    """Return the rules of `--response`.

    Raises
    ------
    UsageError
        They answer to nothing.
    """
    responses: Sequence[str] = given.get(RESPONSE.parameter) or ()
    if responses and not given.get(REQUEST.parameter) and given.get(TRIGGER.parameter) is None:
        raise UsageError("--response needs what it responds to: add --request RULE or --trigger RULE")
    return responses
