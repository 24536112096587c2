"""Interfaces, of one file or several, that show the same packets: taps whose flows are kept apart.

A capture of two ports of a switch, or of both sides of a firewall, has each packet once per interface or file.
Taken for one stream, each would be its own retransmission. Interfaces that carry opposite directions or different flows
belong to one tap. Samples decide before anything is read, so that it is the same for every part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from uspcap.formats import open_capture
from uspcap.formats.parts import open_parts
from uspcap.formats.reader import TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.frames import Decision, Interface
from uspcap.protocols.digests import KEYS, digest
from uspcap.saturating import difference_ns
from uspcap.stages.selection import wanted_interfaces

InterfaceTaps = Literal["auto", "join", "apart"]
"""Whether interfaces are one tap; auto: unless they show the same packets."""

SAMPLES: Final = 3
"""A file is looked at where it begins, and after one and two thirds."""
SAMPLE_FRAMES: Final = 8192
"""So many frames at each place; of several files, all together have so many at least."""
FEWEST_SAME: Final = 3
"""So many packets that two interfaces have in common are no chance."""
NEAR_NS: Final = 1_000_000_000
"""Two taps see a packet within so long; what looks alike further apart was retransmitted."""
MOST_REMARKS: Final = 3
"""Pairs of interfaces that are said to look alike."""
MOST_INTERFACES: Final = 64
"""Where there are more, they are taken for one tap: each pair would have to be compared."""


MOST_NUMBERS: Final = 65535
"""Numbers of taps that there are."""
FEW_FILES: Final = 255
"""So many files have room for as many interfaces each."""


@dataclass(frozen=True, slots=True)
class Taps:
    """The taps of a file's interfaces.

    Attributes
    ----------
    numbers : tuple of int
        By interface: 1 more than the number of the first interface of its tap, counted through the interfaces of all
        files; 0 where all are one. Further ones have 0.
    each : bool
        Every interface is a tap of its own, however many there are.
    first : int
        The number of the first of these, counted through those of all files.
    room : int
        How many numbers there are for them; further interfaces share the last.
    decisions : tuple of Decision
        What was found, with the first of the files that it is about.
    names : str
        What numbers behind an @ mean.
    remarks : tuple of str
        What cannot be known, sentences without a full stop.
    """

    numbers: tuple[int, ...] = ()
    each: bool = False
    first: int = 0
    room: int = MOST_NUMBERS
    decisions: tuple[Decision, ...] = ()
    names: str = "the interface"
    remarks: tuple[str, ...] = ()

    def table(self, interfaces: int) -> NDArray[np.uint16]:
        """Return the tap of each of so many interfaces, as `FrameBatch.set_taps` takes it."""
        if self.each:
            return (self.first + 1 + np.minimum(np.arange(interfaces), self.room - 1)).astype(np.uint16)
        return np.array(self.numbers, np.uint16)

    def notes(self) -> list[str]:
        """Return what is to be said of the file, sentences without a full stop."""
        return [
            f"{decision.why}: their flows are kept apart, and have {self.names} behind an @; --interfaces join treats "
            "them as one stream"
            for decision in self.decisions
        ] + list(self.remarks)


ONE_TAP: Final = Taps()


def each_apart(paths: Sequence[str], has_one: Callable[[str], bool]) -> list[Taps]:
    """Return taps of files of which each interface is one.

    Parameters
    ----------
    paths : sequence of str
    has_one : callable
        Returns whether a file can have one interface only.
    """
    if len(paths) == 1:
        return [Taps(each=True)]
    room = 1 if all(map(has_one, paths)) else max(MOST_NUMBERS // max(len(paths), FEW_FILES), 1)
    taps = []
    for at, path in enumerate(paths):
        first = min(at * room, MOST_NUMBERS - room)
        remark = f"each interface of each file is a tap: those of {path} have their number and {first} behind an @"
        taps.append(Taps(each=True, first=first, room=room, remarks=(remark,) if at < MOST_REMARKS else ()))
    return taps


@dataclass(frozen=True, slots=True)
class _Shown:
    """An interface, and digests and times of the packets of which it shows one each."""

    file: int
    number: int
    name: str
    is_read: bool
    digests: NDArray[np.uint64]
    times_ns: NDArray[np.int64]

    def __str__(self) -> str:
        return f"{self.number} ({self.name or 'unnamed'})"


def find_taps(
    files: Sequence[tuple[str, Sequence[str]]], *, unit: TimestampUnit = "auto", wake: Wake | None = None
) -> list[Taps]:
    """Find out which interfaces of files show the same packets.

    Parameters
    ----------
    files : sequence of (str, sequence of str)
        Files that can be read more than once, and names or numbers of the interfaces that are read of each; none stands
        for all.

    Returns
    -------
    list of Taps
        One a file.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be opened.
    """
    joined = [ONE_TAP for _ in files]
    if len(files) > MOST_INTERFACES or not _may_differ(files, unit, wake):
        return joined
    shown: list[_Shown] = []
    firsts = []
    for at, (path, wanted) in enumerate(files):
        firsts.append(len(shown))
        shown += _shown(at, path, wanted, max(SAMPLE_FRAMES // len(files), 256), unit, wake)
    if len(shown) > MOST_INTERFACES:
        return joined
    same = {}
    remarks = []
    for one, other in combinations(range(len(shown)), 2):
        if _is_one_file(files, shown[one], shown[other]):
            continue
        near, far, seen = _shared(shown[one], shown[other])
        if near >= FEWEST_SAME and 4 * near >= 3 * seen:
            same[one, other] = near, seen
        elif far >= FEWEST_SAME and 4 * far >= 3 * seen:
            remarks.append(_look_alike(files, shown[one], shown[other], far, seen))
    if not same:
        return [replace(ONE_TAP, remarks=tuple(remarks[:MOST_REMARKS])), *joined[1:]] if remarks else joined
    by_time = _paired_by_time(shown, same)
    numbers = by_time or _paired_by_order(shown, same)
    (first, second), (common, seen) = next(iter(same.items()))
    if len(files) == 1:
        called = f"interfaces {shown[first]} and {shown[second]}"
    else:
        called = " and ".join(_called(files, shown[number]) for number in (first, second))
    more = ""
    if by_time:
        more = (
            f", as {len(same) - 1} more pairs do; their times show which are directions of one tap: by "
            "one clock, of two taps the one that sees first what goes up sees last what comes down"
        )
    elif len(same) > 1:
        # Up and down of one port have nothing in common that would say so.
        more = (
            f", as {len(same) - 1} more pairs do; which of them are directions of one tap is taken from their order, "
            "and a wrong one mixes their times: name the interfaces of one tap (FILE@NAME) to be sure"
        )
    why = f"{called} show the same packets, {common} of {seen} that were checked{more}"
    names = (
        "the interface"
        if len(files) == 1
        else ", ".join(
            f"{number} for {_called(files, shown[number])}" for number in sorted({tap - 1 for tap in numbers if tap})
        )
    )
    decision = Decision(files[shown[first].file][0], "--interfaces apart", why)
    ends = [*firsts[1:], len(shown)]
    return [
        Taps(tuple(numbers[begin:end]), decisions=(decision,) if at == shown[first].file else (), names=names)
        for at, (begin, end) in enumerate(zip(firsts, ends, strict=True))
    ]


def _paired_by_order(shown: Sequence[_Shown], same: Mapping[tuple[int, int], tuple[int, int]]) -> list[int]:
    """Return the tap of each interface: those without packets in common share one, the directions of one port."""
    numbers = [0] * len(shown)
    for number in (number for number, interface in enumerate(shown) if interface.is_read):
        others = {0, *(numbers[other] for other in range(number) if (other, number) in same)}
        numbers[number] = next(tap for tap in (*numbers[:number], number + 1) if tap not in others)
    return numbers


def _paired_by_time(shown: Sequence[_Shown], same: Mapping[tuple[int, int], tuple[int, int]]) -> list[int] | None:
    """Return the same where the times of packets say it: of one file, and of two directions that all taps show.

    What goes up passes the taps in one order, and what comes down in the other. None where times do not say which.
    """
    read = [number for number, interface in enumerate(shown) if interface.is_read]
    if len({shown[number].file for number in read}) > 1:
        # Two files may be of two clocks.
        return None
    directions: list[list[int]] = []
    for number in read:
        fitting = [one for one in directions if (one[0], number) in same]
        if len(fitting) > 1:
            return None
        if fitting:
            fitting[0].append(number)
        else:
            directions.append([number])
    if len(directions) != 2 or len(directions[0]) != len(directions[1]) or len(directions[0]) < 2:
        return None
    in_order = [_in_order_of_passing(shown, one) for one in directions]
    if in_order[0] is None or in_order[1] is None:
        return None
    up, down = in_order[0], in_order[1][::-1]
    numbers = [0] * len(shown)
    for (one, at_ns), (other, other_ns) in zip(up, down, strict=True):
        # By one clock: were the two of different taps, it would take as long either way.
        if abs(at_ns - up[0][1] + other_ns - down[0][1]) * 4 > abs(at_ns - up[0][1] - other_ns + down[0][1]) * 3:
            return None
        numbers[one] = numbers[other] = min(one, other) + 1
    return numbers


def _in_order_of_passing(shown: Sequence[_Shown], direction: Sequence[int]) -> list[tuple[int, int]] | None:
    """Return interfaces in the order in which packets pass them, each with how much later than the first named.

    None where nearly all packets do not agree on it.
    """
    later = []
    for number in direction:
        apart_ns = _apart_ns(shown[direction[0]], shown[number])
        later.append((number, int(np.median(apart_ns)) if len(apart_ns) else 0))
    later.sort(key=lambda one: one[1])
    for (before, _), (after, _) in pairwise(later):
        apart_ns = _apart_ns(shown[before], shown[after])
        if not len(apart_ns) or 10 * np.count_nonzero(apart_ns > 0) < 9 * len(apart_ns):
            return None
    return later


def _apart_ns(one: _Shown, other: _Shown) -> NDArray[np.int64]:
    """Return how much later another interface shows each packet that both show near in time."""
    _, mine, theirs = np.intersect1d(one.digests, other.digests, assume_unique=True, return_indices=True)
    apart_ns: NDArray[np.int64] = difference_ns(other.times_ns[theirs], one.times_ns[mine])
    return apart_ns[np.abs(apart_ns) <= NEAR_NS]


def _may_differ(files: Sequence[tuple[str, Sequence[str]]], unit: TimestampUnit, wake: Wake | None) -> bool:
    """Whether there can be several taps: a file of one interface shows packets once."""
    if len(files) > 1:
        return True
    with open_capture(files[0][0], wake, unit=unit) as reader:
        return reader.format == "pcapng"


def _look_alike(files: Sequence[tuple[str, Sequence[str]]], one: _Shown, other: _Shown, common: int, seen: int) -> str:
    return (
        f"{_called(files, one)} and {_called(files, other)} show the same packets more than a second apart, {common} "
        f"of {seen} that were checked: replayed traffic, or two taps whose clocks differ; they are "
        "treated as one stream, so that the second copy counts as a repetition: --interfaces apart keeps interfaces "
        "of a file apart, compare matches two files"
    )


def _is_one_file(files: Sequence[tuple[str, Sequence[str]]], one: _Shown, other: _Shown) -> bool:
    """Whether a file was named more than once."""
    return files[one.file][0] == files[other.file][0] and one.number == other.number


def _called(files: Sequence[tuple[str, Sequence[str]]], one: _Shown) -> str:
    return f"interface {one} of {files[one.file][0]}"


def _shown(
    file: int, path: str, wanted: Sequence[str], frames: int, unit: TimestampUnit, wake: Wake | None
) -> list[_Shown]:
    """Return the interfaces of a file, with digests of packets from its samples."""
    parts: dict[int, list[tuple[NDArray[np.uint64], NDArray[np.int64]]]] = {}
    interfaces: Sequence[Interface] = ()
    for reader in open_parts(path, SAMPLES, wake, unit=unit):
        with reader:
            seen = 0
            for batch in reader.batches():
                interfaces = max(interfaces, batch.interfaces, key=len)
                digests = np.empty(batch.count, np.uint64)
                digest(batch, batch.headers, KEYS.index("network"), batch.data.size, digests)
                digests[batch.headers.column("ip_version") == 0] = 0
                for number in np.unique(batch.interface).tolist():
                    rows = (batch.interface == number) & (digests != 0)
                    parts.setdefault(number, []).append((digests[rows], batch.timestamp_ns[rows]))
                seen += batch.count
                if seen >= frames:
                    break
    read = wanted_interfaces(wanted, interfaces) if wanted else np.ones(len(interfaces), np.bool_)
    nothing = [(np.zeros(0, np.uint64), np.zeros(0, np.int64))]
    return [
        _Shown(
            file, number, interface.name, bool(is_read), *_met_once(parts.get(number, nothing) if is_read else nothing)
        )
        for number, (interface, is_read) in enumerate(zip(interfaces, read.tolist(), strict=True))
    ]


def _met_once(
    parts: Sequence[tuple[NDArray[np.uint64], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the digests that came once, rising, with their times; packets that look like others tell nothing."""
    digests, times_ns = (np.concatenate(column) for column in zip(*parts, strict=True))
    met, first, times = np.unique(digests, return_index=True, return_counts=True)
    return met[times == 1], times_ns[first[times == 1]]


def _shared(one: _Shown, other: _Shown) -> tuple[int, int, int]:
    """Return how many packets two interfaces have in common, near in time and not, and of how many at most."""
    _, mine, theirs = np.intersect1d(one.digests, other.digests, assume_unique=True, return_indices=True)
    apart_ns = np.abs(difference_ns(one.times_ns[mine], other.times_ns[theirs]))
    near = int(np.count_nonzero(apart_ns <= NEAR_NS))
    return near, len(apart_ns) - near, min(len(one.digests), len(other.digests))
