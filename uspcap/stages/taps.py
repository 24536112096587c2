"""Interfaces of one file that show the same packets: two taps, whose flows are kept apart.

A capture of two ports of a switch, or of both sides of a firewall, has each packet twice, once an interface. Taken for
one stream, each would be its own retransmission. Interfaces that carry opposite directions or different flows belong to
one tap. Samples decide before the file is read, so that it is the same for every part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from uspcap._native.digests import KEYS, digest
from uspcap.formats import open_capture
from uspcap.formats.parts import open_parts
from uspcap.formats.reader import CaptureReader, TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.frames import Decision, Interface
from uspcap.stages.selection import wanted_interfaces

InterfaceTaps = Literal["auto", "join", "apart"]
"""Whether interfaces of a file are one tap; auto: unless they show the same packets."""

SAMPLES: Final = 3
"""A file is looked at where it begins, and after one and two thirds."""
SAMPLE_FRAMES: Final = 8192
FEWEST_SAME: Final = 3
"""So many packets that two interfaces have in common are no chance."""
MOST_INTERFACES: Final = 64
"""Of a file with more, they are taken for one tap: each pair would have to be compared."""


@dataclass(frozen=True, slots=True)
class Taps:
    """The taps of a file's interfaces.

    Attributes
    ----------
    numbers : tuple of int
        By interface: 1 more than the number of the first interface of its tap, 0 where all are one; of further ones 0.
    each : bool
        Every interface is a tap of its own, however many there are.
    decisions : tuple of Decision
        What was found.
    """

    numbers: tuple[int, ...] = ()
    each: bool = False
    decisions: tuple[Decision, ...] = ()

    def table(self, interfaces: int) -> NDArray[np.uint16]:
        """Return the tap of each of so many interfaces, as `FrameBatch.set_taps` takes it."""
        if self.each:
            return np.arange(1, interfaces + 1, dtype=np.uint16)
        return np.array(self.numbers, np.uint16)

    def notes(self) -> list[str]:
        """Return what is to be said of the file, sentences without a full stop."""
        return [
            f"{decision.file}: {decision.why}: their flows are kept apart, and have the interface behind an @; "
            "--interfaces join takes them for one stream"
            for decision in self.decisions
        ]


ONE_TAP: Final = Taps()


@dataclass(slots=True)
class _Sample:
    """Digests of packets by interface, from one place of a file."""

    digests: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    interfaces: tuple[Interface, ...] = ()


def find_taps(path: str, wanted: Sequence[str] = (), *, unit: TimestampUnit = "auto", wake: Wake | None = None) -> Taps:
    """Find out which interfaces of a file show the same packets.

    Parameters
    ----------
    path : str
        A file that can be read more than once.
    wanted : sequence of str
        Names or numbers of the interfaces that are read; none stands for all.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        The file cannot be opened.
    """
    with open_capture(path, wake, unit=unit) as reader:
        if reader.format != "pcapng":
            return ONE_TAP
    readers = open_parts(path, SAMPLES, wake, unit=unit)
    try:
        samples = [_sampled(reader) for reader in readers]
    finally:
        for reader in readers:
            reader.close()
    interfaces = max((sample.interfaces for sample in samples), key=len)
    if not 1 < len(interfaces) <= MOST_INTERFACES:
        return ONE_TAP
    read = np.flatnonzero(wanted_interfaces(wanted, interfaces)).tolist() if wanted else range(len(interfaces))
    same = {pair: shares for pair in combinations(read, 2) if (shares := _shared(samples, *pair)) is not None}
    if not same:
        return ONE_TAP
    numbers = [0] * len(interfaces)
    for number in read:
        # Interfaces without frames in common share a tap: the directions of one port.
        others = {0, *(numbers[other] for other in range(number) if (other, number) in same)}
        numbers[number] = next(tap for tap in (*numbers[:number], number + 1) if tap not in others)
    (first, second), (common, seen) = next(iter(same.items()))
    named = " and ".join(f"{number} ({interfaces[number].name or 'unnamed'})" for number in (first, second))
    more = f", as {len(same) - 1} more pairs do" if len(same) > 1 else ""
    why = f"interfaces {named} show the same packets, {common} of {seen} that were looked at{more}"
    return Taps(tuple(numbers), decisions=(Decision(path, "--interfaces apart", why),))


def _sampled(reader: CaptureReader) -> _Sample:
    """Read some frames, and digest each packet that has an IP header."""
    sample = _Sample()
    parts: dict[int, list[NDArray[np.uint64]]] = {}
    frames = 0
    for batch in reader.batches():
        sample.interfaces = tuple(batch.interfaces)
        frames += batch.count
        if len(sample.interfaces) == 1:
            if frames >= SAMPLE_FRAMES:
                break
            continue
        digests = np.empty(batch.count, np.uint64)
        digest(batch, batch.headers, KEYS.index("network"), batch.data.size, digests)
        digests[batch.headers.column("ip_version") == 0] = 0
        for number in np.unique(batch.interface).tolist():
            parts.setdefault(number, []).append(digests[(batch.interface == number) & (digests != 0)])
        if frames >= SAMPLE_FRAMES:
            break
    sample.digests = {number: np.unique(np.concatenate(found)) for number, found in parts.items()}
    return sample


def _shared(samples: Sequence[_Sample], one: int, other: int) -> tuple[int, int] | None:
    """Return how many packets two interfaces have in common, of how many at most; None where these are too few."""
    common = seen = 0
    nothing = np.zeros(0, np.uint64)
    for sample in samples:
        mine, theirs = sample.digests.get(one, nothing), sample.digests.get(other, nothing)
        common += len(np.intersect1d(mine, theirs, assume_unique=True))
        seen += min(len(mine), len(theirs))
    return (common, seen) if common >= FEWEST_SAME and 2 * common >= seen else None
