"""Pairs of lines that carry one feed, as command lines and files name them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from uspcap.errors import UsageError
from uspcap.protocols.toml_tables import LONGEST_NAME, Text, refuse, tables_of

_FORM = "write A=239.1.1.1:30001,B=239.1.1.2:30001, or name a file.toml with tables of such a pair each"


MOST_PAIRS: Final = 4096
"""Of a file."""

_NAME: Final = Text(LONGEST_NAME)
_DESTINATION: Final = Text(100)
_TABLE: Final = '[unit-1], A = "239.1.1.1:30001", B = "239.1.1.2:30001"'


@dataclass(frozen=True, slots=True)
class FeedLine:
    """Where one line's packets go.

    Attributes
    ----------
    label : str
        As it was given: A, B.
    address : bytes
        16 bytes, IPv4 as ::ffff:a.b.c.d, as header columns have it.
    port : int
        UDP destination port.
    """

    label: str
    address: bytes
    port: int

    def __str__(self) -> str:
        address = ipaddress.IPv6Address(self.address)
        return f"{address.ipv4_mapped}:{self.port}" if address.ipv4_mapped else f"[{address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class LinePair:
    """Two lines of one feed.

    Attributes
    ----------
    name : str
        The table's in a file; the lines' destinations otherwise.
    lines : tuple of FeedLine and FeedLine
    """

    name: str
    lines: tuple[FeedLine, FeedLine]


def parse_pairs(texts: Iterable[str]) -> tuple[LinePair, ...]:
    """Return the pairs that are given as `A=ADDRESS:PORT,B=ADDRESS:PORT`, or in files.

    Raises
    ------
    UsageError
        An entry is not a pair, a file cannot be read, or a destination is named two times.
    """
    pairs: list[LinePair] = []
    for text in texts:
        pairs += _pairs_of_file(text) if text.endswith(".toml") else [_pair("", _parts(text), f"--pair {text}")]
    seen: set[tuple[bytes, int]] = set()
    for line in (line for pair in pairs for line in pair.lines):
        if (line.address, line.port) in seen:
            raise UsageError(f"--pair names {line} two times: a destination is one line of one pair")
        seen.add((line.address, line.port))
    return tuple(pairs)


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in text.split(","):
        label, equals, destination = part.strip().partition("=")
        if not equals or label in parts:
            raise UsageError(f"--pair {text}: {part.strip()!r} is not understood; {_FORM}")
        parts[label] = destination
    return parts


def _pairs_of_file(path: str) -> list[LinePair]:
    tables = tables_of(path)
    if not 0 < len(tables) <= MOST_PAIRS:
        raise UsageError(f"{path}: has {len(tables)} pairs; 1 to {MOST_PAIRS} are allowed; {_FORM}")
    for name, table in tables.items():
        _NAME.check(name, f"{path}: the name of one of its tables")
        if not isinstance(table, dict):
            raise refuse(table, f"{path}: {name}", f"a table of two lines, as {_TABLE}")
        for label, destination in table.items():
            _NAME.check(label, f"{path}: the name of a line of {name}")
            _DESTINATION.check(destination, f"{path}: {name}.{label}")
    return [_pair(name, table, f"{path}: {name}") for name, table in tables.items()]


def _pair(name: str, parts: Mapping[str, str], where: str) -> LinePair:
    if len(parts) != 2:
        raise UsageError(f"{where}: a pair has two lines, not {len(parts)}; {_FORM}")
    one, other = (_line(label, destination, where) for label, destination in parts.items())
    return LinePair(name or f"{one},{other}", (one, other))


def _line(label: str, destination: str, where: str) -> FeedLine:
    host, _, port = destination.strip().rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdigit() else 0
        if not 0 < number < 1 << 16 or not label or (address.version == 6) != host.startswith("["):
            raise ValueError
    except ValueError:
        raise UsageError(f"{where}: {label}={destination} is not a line; {_FORM}") from None
    packed = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    return FeedLine(label, packed, number)
