"""Options of the analyses of particular traffic, alike for every command that runs analyses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uspcap.commands.match_options import match_options, match_settings
from uspcap.commands.sequence_options import sequence_options, sequence_settings, told_apart

if TYPE_CHECKING:
    from uspcap.analysis.suite import Settings


def traffic_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `traffic_names` and `traffic_settings` read."""
    return sequence_options(match_options(command))


def traffic_names(
    names: tuple[str, ...],
    *,
    given_protocols: Sequence[str],
    numbers: str | None,
    pairs: Sequence[str],
    named: Sequence[str] | None = None,
    **others: Any,
) -> tuple[str, ...]:
    """Return the analyses to run: `names`, and those that options bring along.

    Parameters
    ----------
    names : tuple of str
        Those that run without these options.
    named : sequence of str or None
        Those that the user has named.
    """
    feed, order_entry = told_apart(given_protocols, named, numbers=numbers)
    brought: list[str] = []
    if (feed is not None or numbers is not None) and not {"sequence", "arbitration"} & set(named or ()):
        brought.append("sequence")
    if pairs:
        brought.append("arbitration")
    if order_entry is not None:
        brought.append("orders")
    return (*names, *(name for name in brought if name not in names))


def traffic_settings(
    settings: Settings,
    files: Sequence[str],
    *,
    asked_with: str,
    named: Sequence[str] | None,
    given_protocols: Sequence[str],
    numbers: str | None,
    pairs: Sequence[str],
    unverified: bool,
    **matching: Any,
) -> Settings:
    """Return settings with what the options say of the analyses that they name.

    Parameters
    ----------
    files : sequence of str
        The first of which a protocol may be told from; empty where there is none.
    asked_with : str
        The option that names analyses.
    named : sequence of str or None
        Those that the user has named.

    Raises
    ------
    UsageError, CaptureFileError, NotACaptureFile, FilterError
        As `sequence_settings` and `match_settings` do.
    """
    feed, order_entry = told_apart(given_protocols, named, numbers=numbers)
    return replace(
        settings,
        sequence=sequence_settings(
            settings.names,
            files,
            settings.expression,
            protocol=feed,
            numbers=numbers,
            pairs=pairs,
            unverified=unverified,
        ),
        order_protocol=order_entry,
        matching=match_settings(settings.names, asked_with, **matching),
    )
