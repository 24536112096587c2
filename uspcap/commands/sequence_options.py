"""Options that say which protocols are followed: whose sequence numbers, whose orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from uspcap.analysis.names import ORDER_PROTOCOLS
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.sequence_settings import SequenceSettings

_OPTIONS = (
    click.option(
        "--protocol",
        "given_protocols",
        multiple=True,
        metavar="NAME",
        help=f"For sequence: one of 'uspcap protocols', auto, a file.toml. For orders: {', '.join(ORDER_PROTOCOLS)}.",
    ),
    click.option("--sequence", "numbers", metavar="RULE", help="Or where they lie: offset=4,size=4,kind=packet."),
    click.option(
        "--pair",
        "pairs",
        multiple=True,
        metavar="PAIR",
        help="Lines that carry one feed, for arbitration: A=ADDRESS:PORT,B=ADDRESS:PORT, or a file.toml of pairs.",
    ),
    click.option("--unverified", is_flag=True, help="Also apply what no specification or capture has shown."),
)


def sequence_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `sequence_settings` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def told_apart(
    given: Sequence[str], asked: Sequence[str] | None, *, numbers: str | None = None
) -> tuple[str | None, str | None]:
    """Return whose sequence numbers and whose orders are meant by those given.

    A protocol of order entry has numbers too: it is for `orders`, unless numbers are asked for by name and nothing else
    says whose.

    Parameters
    ----------
    given : sequence of str
    asked : sequence of str or None
        Analyses that were asked for by name.
    numbers : str or None
        A rule that says where numbers lie.

    Raises
    ------
    UsageError
        There are two of a kind.
    """
    orders = [name for name in given if name in ORDER_PROTOCOLS]
    feeds = [name for name in given if name not in ORDER_PROTOCOLS]
    for kind in (feeds, orders):
        if len(kind) > 1:
            raise UsageError(f"--protocol names {' and '.join(kind)}, which are of one kind: name one of them a run")
    feed, order_entry = feeds[0] if feeds else None, orders[0] if orders else None
    asks_for_numbers = bool({"sequence", "arbitration"} & set(asked or ()))
    if order_entry is not None and feed is None and numbers is None and asks_for_numbers:
        return order_entry, order_entry if "orders" in (asked or ()) else None
    return feed, order_entry


def sequence_settings(
    names: Sequence[str],
    files: Sequence[str],
    expression: str,
    *,
    protocol: str | None,
    numbers: str | None,
    pairs: Sequence[str],
    unverified: bool,
) -> SequenceSettings | None:
    """Return what `sequence` and `arbitration` are asked for; None where neither is asked for, or nothing is said.

    Raises
    ------
    UsageError
        The options make no sense together, or no protocol can be told.
    CaptureFileError, NotACaptureFile, FilterError
        As `detect` does.
    """
    if not {"sequence", "arbitration"} & set(names):
        return None
    if protocol is not None and numbers is not None:
        raise UsageError("--protocol and --sequence both say where numbers lie: give one")
    if protocol is None and numbers is None:
        return None
    from uspcap.protocols.line_pairs import parse_pairs

    return replace(_settings_of(protocol, numbers, files, expression, unverified=unverified), pairs=parse_pairs(pairs))


def _settings_of(
    protocol: str | None, numbers: str | None, files: Sequence[str], expression: str, *, unverified: bool
) -> SequenceSettings:
    from uspcap.analysis.sequence_settings import SequenceSettings
    from uspcap.protocols.feeds import find_protocol, parse_sequence

    if numbers is not None:
        return SequenceSettings(parse_sequence(numbers))
    if protocol != "auto":
        return SequenceSettings(find_protocol(str(protocol), unverified=unverified))
    from uspcap.analysis.feed_detection import detect

    if not files or files[0] == "-":
        raise UsageError(
            "a protocol is told from the beginning of a file, which standard input and interfaces do not keep: name it"
        )
    return detect(files[0], expression, unverified=unverified)
