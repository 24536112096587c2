"""Entry points that installed packages register, read from their metadata.

`importlib.metadata` does the same and takes 30 ms to import and to ask, a quarter of what a short run takes in all; a
test holds the two equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from uspcap.notices import say

LAST: Final = 1000
"""Place of what does not say where it stands in a list: after what does, by name."""


class Declared(Protocol):
    """What is registered: with a name of its own, and a place in lists."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> int: ...


_Declared = TypeVar("_Declared", bound=Declared)


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A name for an object of a module.

    Attributes
    ----------
    name : str
    value : str
        `module:attribute`.
    """

    name: str
    value: str

    def load(self) -> Any:
        """Import the module and return the object.

        Raises
        ------
        ImportError, AttributeError
            And whatever the module raises.
        """
        module, _, attribute = self.value.partition(":")
        return attrgetter(attribute)(import_module(module))


@cache
def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, of each installed package once.

    The format is that of https://packaging.python.org/en/latest/specifications/entry-points/; packages are looked for
    in the directories of `sys.path`, the first of a name counts.
    """
    found: list[EntryPoint] = []
    for text in _metadata():
        if f"[{group}]" in text:
            found += _points(text, group)
    return tuple(found)


def registered(group: str, kind: type[_Declared], what: str) -> dict[str, _Declared]:
    """Return what is registered in a group by name, in the order of places.

    One that cannot be loaded, is of another type or has a name that is taken, is said on standard error and left out.

    Parameters
    ----------
    group : str
    kind : type
        What each is to be.
    what : str
        For messages, `analysis`.
    """
    found: dict[str, _Declared] = {}
    for point in entry_points(group):
        try:
            declared = point.load()
        except Exception as error:
            say(f"the {what} {point.name} cannot be loaded ({point.value}: {error}): fix or remove its package")
            continue
        if not isinstance(declared, kind):
            say(f"{point.value} declares no {what}: fix or remove its package")
        elif declared.name in found:
            say(f"{point.value} declares the {what} {declared.name}, which there is already: rename one of them")
        else:
            found[declared.name] = declared
    return {entry.name: entry for entry in sorted(found.values(), key=lambda entry: (entry.place, entry.name))}


@cache
def _metadata() -> tuple[str, ...]:
    """Return the text of each installed package's `entry_points.txt`."""
    texts: dict[str, str] = {}
    seen = set()
    for directory in map(Path, sys.path):
        try:
            names = sorted(entry.name for entry in directory.iterdir() if entry.suffix in (".dist-info", ".egg-info"))
        except OSError:
            continue  # an archive, or a directory that is not there
        for name in names:
            package = name.split("-")[0].lower().replace(".", "_")
            if package in seen:
                continue
            seen.add(package)
            try:
                texts[package] = (directory / name / "entry_points.txt").read_text(encoding="utf-8")
            except OSError:
                continue  # most have none
    return tuple(texts.values())


def _points(text: str, group: str) -> Iterator[EntryPoint]:
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield EntryPoint(name.strip(), value.partition("[")[0].strip())
