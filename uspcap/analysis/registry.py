"""Which analyses there are: ours and other people's, as packages register them in the group `uspcap.analyses`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from uspcap.analysis.declaration import Declaration, Runs, View
from uspcap.declared_options import Option
from uspcap.entry_points import registered

GROUP = "uspcap.analyses"


@cache
def declarations() -> dict[str, Declaration]:
    """Return all analyses by name, in the order of a report.

    What `registered` says of those that it leaves out is said once.
    """
    return registered(GROUP, Declaration, "analysis")


def default_names(*, live: bool) -> tuple[str, ...]:
    """Return the analyses that run unless others are named."""
    wanted = (Runs.ALWAYS, Runs.LIVE) if live else (Runs.ALWAYS,)
    return tuple(name for name, one in declarations().items() if one.runs in wanted)


def names(*, live: bool = True) -> tuple[str, ...]:
    """Return all analyses; without `live` those that may be asked of files."""
    return tuple(name for name, one in declarations().items() if live or one.runs is not Runs.LIVE)


def options(*, live: bool = True) -> tuple[Option, ...]:
    """Return the options of all analyses, each once, in the order of the analyses.

    Raises
    ------
    ValueError
        Two analyses declare different options of one name.
    """
    found: dict[str, Option] = {}
    for name in names(live=live):
        for option in declarations()[name].options:
            if found.setdefault(option.flag, option) != option:
                raise ValueError(f"the analysis {name} declares {option.flag} again, and differently from another one")
    return tuple(found.values())


@cache
def view_of(name: str) -> View | None:
    """Return the view of an analysis; None where there is no such analysis, as in reports made elsewhere."""
    declared = declarations().get(name)
    return None if declared is None else cast(View, import_module(declared.view))
