"""Inputs that overlap in time: which follow each other and which are merged, and the numbers of their interfaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.reader import BATCH_FRAMES
from uspcap.frames import FrameBatch, Interface, SourceFacts
from uspcap.stages.chain_merging import ENDED, FULL, Merger
from uspcap.stages.forward_steps import ForwardSteps
from uspcap.stages.order import OrderCheck
from uspcap.stages.reading import PlannedInput
from uspcap.stages.run_merging import RunMerger
from uspcap.stages.selection import FrameSelection
from uspcap.stages.taps import Taps

MOST_OPEN: Final = 128
"""Files that are kept open at once; of more, each is opened again for each piece that is read of it."""

DATA_BYTES: Final = 1 << 20

Extent = tuple[int, int, int, int]
"""Earliest and latest time, and both without a few frames beyond a gap: see `Chain.extent`."""


@dataclass(slots=True)
class Piece:
    """What is taken of an input as one: all of it, or the frames of one section and interface.

    Attributes
    ----------
    input : Straight
    headers : int or None
        File headers before it, in a file that was concatenated of several.
    interface : int or None
        Its number in the file.
    extent : Extent or None
    frames, disorder : int
        Frames, and of those how many lie where they cannot be put in order, or have no timestamp to be trusted.
    """

    input: Straight
    headers: int | None = None
    interface: int | None = None
    extent: Extent | None = None
    frames: int = 0
    disorder: int = 0


@dataclass(slots=True)
class Straight:
    """An input as it is read to be put in order.

    Attributes
    ----------
    planned : PlannedInput
    frames_before : int
        In the inputs before it.
    frames : int
    format : str
    name : str
    facts : SourceFacts
        Complete once it is read.
    selection : FrameSelection
        What was found of the interfaces that were named.
    pieces : list of Piece
    check : OrderCheck
        What was seen when it was looked at.
    forward_steps : ForwardSteps or None
        Where interfaces of a file that is not in order were looked at side by side.
    clock_is_set : bool
        It has timestamps of 1980 or later.
    """

    planned: PlannedInput
    frames_before: int = 0
    frames: int = 0
    format: str = ""
    name: str = ""
    facts: SourceFacts = field(default_factory=SourceFacts)
    selection: FrameSelection = field(default_factory=FrameSelection)
    pieces: list[Piece] = field(default_factory=list)
    check: OrderCheck = field(default_factory=OrderCheck)
    forward_steps: ForwardSteps | None = None
    clock_is_set: bool = False

    def __post_init__(self) -> None:
        self.name = self.planned.path
        self.selection = self.planned.selection()

    @property
    def begins(self) -> tuple[float, float]:
        """What inputs are put in order by; those without a time come last."""
        extents = [piece.extent for piece in self.pieces if piece.extent is not None]
        if not extents:
            return float("inf"), float("inf")
        return min(extent[2] for extent in extents), max(extent[1] for extent in extents)


class InterfaceNumbers:
    """The interfaces of all inputs, each with a number; equal ones of two inputs are one.

    Attributes
    ----------
    interfaces : list of Interface
    taps : list of int
        The tap of each.
    """

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self.taps: list[int] = []
        self._numbers: dict[tuple[Interface, int, int], int] = {}

    def of(self, interfaces: Sequence[Interface], known: NDArray[np.uint16], taps: Taps) -> NDArray[np.uint16]:
        """Return the number of each of an input's interfaces; what is known of them already is returned as it is."""
        if len(interfaces) == len(known):
            return known
        met: Counter[Interface] = Counter()
        numbers = np.empty(len(interfaces), np.uint16)
        table = taps.table(len(interfaces)).tolist()
        for own, interface in enumerate(interfaces):
            tap = table[own] if own < len(table) else 0
            key = interface, met[interface], tap
            met[interface] += 1
            if key not in self._numbers:
                self._numbers[key] = len(self.interfaces)
                self.interfaces.append(interface)
                self.taps.append(tap)
            numbers[own] = self._numbers[key]
        return numbers


def merged_batches(
    merger: Merger | RunMerger,
    fill: Callable[[FrameBatch], int],
    feed: Callable[[int], None],
    left_out: Callable[[], int],
    known: InterfaceNumbers,
    number: Callable[[FrameBatch], None] | None,
) -> Iterator[FrameBatch]:
    """Yield what a merger gives; the same batch each time, refilled.

    Parameters
    ----------
    merger : Merger or RunMerger
    fill : callable
        Lets it append frames to a batch, and returns the number of an input that must be fed first, or why it stopped.
    feed : callable
        Gives the merger more of an input, or ends it.
    left_out : callable
        Returns how many frames were taken out before they came to the merger, since it was last asked.
    known : InterfaceNumbers
    number : callable, optional
        Numbers the frames of a batch by their place.
    """
    batch = FrameBatch(BATCH_FRAMES)
    batch.set_data(np.empty(DATA_BYTES, np.uint8))
    given = 0
    while True:
        merger.begin(batch)
        while (what := fill(batch)) >= 0:
            feed(what)
        if what not in (ENDED, FULL):
            batch.set_data(np.empty(2 * merger.needed, np.uint8))
            continue
        without = left_out()
        if batch.count or without:
            batch.frames_before = given
            batch.frames_read = batch.count + without
            given += batch.frames_read
            if number is not None:
                number(batch)
            batch.big_endian_options = merger.big_endian
            if len(batch.interfaces) != len(known.interfaces):
                batch.set_interfaces(known.interfaces)
                batch.set_taps(np.array(known.taps, np.uint16))
            batch.refilled()
            yield batch
        if what == ENDED:
            return


def chained(pieces: Sequence[Piece], window_ns: int) -> list[list[Piece]]:
    """Put pieces that follow each other in time behind each other, in as few chains as they overlap at most."""
    chains: list[list[Piece]] = []
    ends: list[int] = []
    timed = sorted(_when(pieces, window_ns), key=lambda one: (one[1], one[2]))
    for piece, begin, end in timed:
        fitting = [at for at, before in enumerate(ends) if before <= begin]
        if fitting:
            at = max(fitting, key=lambda at: (ends[at], -at))
            chains[at].append(piece)
            ends[at] = end
        else:
            chains.append([piece])
            ends.append(end)
    untimed = [piece for piece in pieces if piece.extent is None]
    if untimed:
        if chains:
            chains[-1] += untimed
        else:
            chains.append(untimed)
    return chains


def _when(pieces: Sequence[Piece], window_ns: int) -> list[tuple[Piece, int, int]]:
    """Return from when to when pieces go.

    A few frames beyond a gap at either end count where another piece has frames at that time; where none has, they are
    taken for what goes wrong where a capture was cut.
    """
    timed = [(piece, piece.extent) for piece in pieces if piece.extent is not None]
    earliest = np.array([extent[0] for _, extent in timed], np.int64)
    latest = np.array([extent[1] for _, extent in timed], np.int64)

    def is_shared(at: int, ns: int) -> bool:
        near = (earliest - window_ns <= ns) & (ns <= latest + window_ns)
        return int(np.count_nonzero(near)) > int(near[at])

    return [
        (
            piece,
            first if first == core_first or is_shared(at, first) else core_first,
            last if last == core_last or is_shared(at, last) else core_last,
        )
        for at, (piece, (first, last, core_first, core_last)) in enumerate(timed)
    ]


def overlapping(chains: Sequence[Sequence[Piece]]) -> int:
    """Return how many pieces overlap in time with one of another chain."""
    timed = [
        (at, *piece.extent[:2]) for at, pieces in enumerate(chains) for piece in pieces if piece.extent is not None
    ]
    if not timed:
        return 0
    number, first_ns, last_ns = np.array(timed, np.int64).T
    return sum(
        bool(np.any((number != chain) & (first_ns <= last) & (first <= last_ns))) for chain, first, last in timed
    )
