"""Options that say whose sequence numbers are followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.sequence_settings import SequenceSettings

_OPTIONS = (
    click.option(
        "--protocol", metavar="NAME", help="Feed whose numbers to follow: of 'uspcap protocols', auto, or a file.toml."
    ),
    click.option("--sequence", "numbers", metavar="RULE", help="Or where they lie: offset=4,size=4,kind=packet."),
    click.option("--unverified", is_flag=True, help="Also apply what no specification or capture has shown."),
)


def sequence_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `sequence_settings` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def sequence_settings(
    names: Sequence[str],
    files: Sequence[str],
    expression: str,
    *,
    protocol: str | None,
    numbers: str | None,
    unverified: bool,
) -> SequenceSettings | None:
    """Return what `sequence` is asked for; None where it is not asked for.

    Raises
    ------
    UsageError
        The options make no sense together, or no protocol can be told.
    CaptureFileError, NotACaptureFile, FilterError
        As `detect` does.
    """
    if "sequence" not in names:
        return None
    if protocol is not None and numbers is not None:
        raise UsageError("--protocol and --sequence both say where numbers lie: give one")
    if protocol is None and numbers is None:
        return None
    from uspcap.analysis.sequence_settings import SequenceSettings
    from uspcap.protocols.feeds import find_protocol, parse_sequence

    if numbers is not None:
        return SequenceSettings(parse_sequence(numbers))
    if protocol != "auto":
        return SequenceSettings(find_protocol(str(protocol), unverified=unverified))
    from uspcap.analysis.feed_detection import detect

    if files[0] == "-":
        raise UsageError(
            "a protocol is told from the beginning of a file, which standard input gives only once: name it"
        )
    return detect(files[0], expression, unverified=unverified)
