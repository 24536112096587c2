"""Which output formats there are: ours and other people's, as packages register them.

Renderers of reports are entry points of the group `uspcap.renderers`, those of tables of `uspcap.table_renderers`; the
name of the entry point is that of the format. Names are known without loading anything; a renderer is loaded when it
is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Final, TypeVar

from uspcap.entry_points import EntryPoint, entry_points
from uspcap.errors import MissingFeature
from uspcap.notices import say
from uspcap.report.renderers.base import Renderer, TableRenderer

GROUP: Final = "uspcap.renderers"
TABLES_GROUP: Final = "uspcap.table_renderers"

DEFAULT_FORMAT: Final = "text"

_Kind = TypeVar("_Kind", Renderer, TableRenderer)


@cache
def _registered(group: str) -> dict[str, EntryPoint]:
    """Return the entry points by name, ours first; one whose name is taken is said on standard error and left out."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group), key=lambda point: not point.value.startswith("uspcap.")):
        if found.setdefault(point.name, point) != point:
            say(f"{point.value} is an output format {point.name}, which there is already: rename one of them")
    return found


def formats() -> tuple[str, ...]:
    """Return the names of all formats of reports, ours first."""
    return tuple(_registered(GROUP))


def table_formats() -> tuple[str, ...]:
    """Return the names of all formats of tables, ours first."""
    return tuple(_registered(TABLES_GROUP))


def renderer(name: str) -> Renderer:
    """Return the renderer of a format.

    Raises
    ------
    KeyError
        There is no such format.
    MissingFeature
        Its package cannot be loaded.
    """
    return _loaded(_registered(GROUP)[name], Renderer)  # type: ignore[type-abstract]


def table_renderers() -> list[TableRenderer]:
    """Return the renderers of all formats of tables.

    Raises
    ------
    MissingFeature
        A package cannot be loaded.
    """
    return [_loaded(point, TableRenderer) for point in _registered(TABLES_GROUP).values()]  # type: ignore[type-abstract]


def check(name: str) -> None:
    """See to it that a format can be had, before anything is read; ours can.

    Raises
    ------
    MissingFeature
        Its package cannot be loaded.
    """
    if not _registered(GROUP)[name].value.startswith("uspcap."):
        renderer(name)


def _loaded(point: EntryPoint, kind: type[_Kind]) -> _Kind:
    try:
        found = point.load()
    except Exception as error:
        raise MissingFeature(
            f"the output format {point.name} cannot be loaded ({point.value}: {error}): fix or remove its package"
        ) from error
    if not isinstance(found, kind):
        raise MissingFeature(f"{point.value} is no {kind.__name__}: fix or remove its package")
    return found
