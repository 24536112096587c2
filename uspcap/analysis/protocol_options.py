"""Options that say which protocols are followed: whose sequence numbers, whose orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from uspcap.analysis.declaration import Asked
from uspcap.declared_options import Given, Kind, Option
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.sequence.settings import SequenceSettings

ORDER_PROTOCOLS: Final = ("ouch-4.2", "ouch-5.0", "fix")
"""Protocols of order entry that `orders` reads."""

PROTOCOL: Final = Option(
    flag="--protocol",
    argument="protocol",
    kind=Kind.TEXT,
    repeated=True,
    default=(),
    metavar="NAME",
    help=f"For sequence: one of 'uspcap protocols', auto, a file.toml. For orders: {', '.join(ORDER_PROTOCOLS)}.",
)

NUMBERS: Final = Option(
    flag="--sequence",
    argument="numbers",
    kind=Kind.TEXT,
    metavar="RULE",
    help="Position of the numbers instead: offset=4,size=4,kind=packet.",
)

UNVERIFIED: Final = Option(
    flag="--unverified",
    argument="unverified",
    kind=Kind.SWITCH,
    default=False,
    help="Also apply rules that no specification or capture confirms.",
)

PAIR: Final = Option(
    flag="--pair",
    argument="pairs",
    kind=Kind.TEXT,
    repeated=True,
    default=(),
    metavar="PAIR",
    help="Lines that carry one feed, for arbitration: A=ADDRESS:PORT,B=ADDRESS:PORT, or a file.toml of pairs.",
)


def protocols_given(given: Given, named: Sequence[str] | None) -> tuple[str | None, str | None]:
    """Return whose sequence numbers and whose orders are meant by `--protocol`.

    A protocol of order entry has numbers too: it is for `orders`, unless numbers are asked for by name and nothing else
    says whose.

    Raises
    ------
    UsageError
        There are two of a kind.
    """
    names = given.get(PROTOCOL.parameter) or ()
    orders = [name for name in names if name in ORDER_PROTOCOLS]
    feeds = [name for name in names if name not in ORDER_PROTOCOLS]
    for kind in (feeds, orders):
        if len(kind) > 1:
            raise UsageError(f"--protocol names {' and '.join(kind)}, which are of one kind: give only one of them")
    feed, order_entry = feeds[0] if feeds else None, orders[0] if orders else None
    asks_for_numbers = bool({"sequence", "arbitration"} & set(named or ()))
    if order_entry is not None and feed is None and given.get(NUMBERS.parameter) is None and asks_for_numbers:
        return order_entry, order_entry if "orders" in (named or ()) else None
    return feed, order_entry


def sequence_settings(name: str, given: Given, asked: Asked) -> SequenceSettings:
    """Return whose numbers are followed, and which lines carry the same; decided once a run.

    Parameters
    ----------
    name : str
        The analysis that asks.

    Raises
    ------
    UsageError
        The options make no sense together, nothing says where numbers lie, or no protocol can be detected.
    CaptureFileError, NotACaptureFile, FilterError
        As `sequence.detection.detect` does.
    """
    protocol, _ = protocols_given(given, asked.named)
    numbers = given.get(NUMBERS.parameter)
    if protocol is not None and numbers is not None:
        raise UsageError("--protocol and --sequence both give the position of the numbers: use only one")
    if protocol is None and numbers is None:
        raise UsageError(
            f"{name} needs the position of the sequence numbers: give --protocol NAME (see 'uspcap protocols'), "
            "--protocol auto, or --sequence offset=…,size=…"
        )
    from uspcap.protocols.line_pairs import parse_pairs

    unverified = bool(given.get(UNVERIFIED.parameter))
    found: SequenceSettings = asked.once(
        "sequence", lambda: _settings_of(protocol, numbers, asked, unverified=unverified)
    )
    return replace(found, pairs=parse_pairs(given.get(PAIR.parameter) or ()))


def _settings_of(protocol: str | None, numbers: str | None, asked: Asked, *, unverified: bool) -> SequenceSettings:
    from uspcap.analysis.sequence.settings import SequenceSettings
    from uspcap.protocols.feeds import find_protocol, parse_sequence

    if numbers is not None:
        return SequenceSettings(parse_sequence(numbers))
    if protocol != "auto":
        return SequenceSettings(find_protocol(str(protocol), unverified=unverified))
    from uspcap.analysis.sequence.detection import detect

    if not asked.files or "-" in asked.files:
        raise UsageError(
            "a protocol is detected from the beginning of a file, which standard input and interfaces lack: name it"
        )
    return detect(asked.files, asked.expression, unverified=unverified)
