"""Options of analyses, on every command that runs them: all of it comes from what analyses declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from uspcap.analysis import registry
from uspcap.commands.declared_options import Decorator, click_option, give
from uspcap.commands.inside_options import tunnels_option
from uspcap.commands.options import CountType
from uspcap.errors import UsageError
from uspcap.protocols.flows import MAXIMUM_FLOWS

MOST_FLOWS = 1 << 23


def analysis_options(naming: str, parameter: str, *, live: bool = True) -> Decorator:
    """Give a command the options of all analyses, and those of what they share.

    Parameters
    ----------
    naming : str
        The option that names analyses, as `--only`.
    parameter : str
        What the command calls it.
    live : bool
        The command can run what needs frames from a ring.
    """
    options: list[Decorator] = [
        click.option(
            naming,
            parameter,
            callback=_names,
            metavar="NAME,...",
            help=f"Analyses to run: {', '.join(registry.names(live=live))}.",
        ),
        *map(click_option, registry.options()),
        tunnels_option(),
        click.option(
            "--max-flows",
            type=CountType(1, MOST_FLOWS),
            metavar="N",
            default=MAXIMUM_FLOWS,
            show_default=True,
            help="How many flows to track; of more, a sample is tracked.",
        ),
    ]

    return give(options)


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return the names of analyses that an option lists, None where it is not given."""
    if value is None:
        return None
    known = registry.names()
    names = tuple(name.strip().replace("-", "_") for name in value.split(","))
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no analysis {name!r}; there are {', '.join(known)}")
    return names


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of a command's options that are the analyses' own."""
    own = {option.parameter for option in registry.options()}
    return {name: value for name, value in options.items() if name in own}


def check_names_for_files(names: Sequence[str]) -> None:
    """Refuse analyses that frames of files do not tell enough for.

    Raises
    ------
    UsageError
        One of them needs to know when a frame was read from a ring.
    """
    live_only = [name for name in names if name not in registry.names(live=False)]
    if live_only:
        raise UsageError(
            f"{live_only[0]} needs the moment at which a frame was read from a ring, which files do not hold: leave it "
            "out, or capture on an interface with -i"
        )
