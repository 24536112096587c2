"""Inputs that overlap in time, cut at times that all of them have in common, so that all cores read them at once.

Each slice merges its stretch of every input, by the rule by which inputs as a whole are merged
(frame_order.pxd), and slices follow each other: the frames are those of `uspcap.stages.straightening`, in
the same order. That rests on three things. Where a slice begins in a file is a guess, which the reader of the slice
before proves by arriving exactly there (`uspcap.formats.parts`). The times of an input never fall, nor leave those of
its slice. And inputs begin and end when their first and last frames say that they do. All three are checked once the
slices are read; where one does not hold, inputs are straightened instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.parts import SMALLEST_PART
from uspcap.formats.reader import BATCH_FRAMES, CaptureReader
from uspcap.formats.waking import Wake
from uspcap.frames import FrameBatch, Interface, SourceFacts
from uspcap.stages.chains import MOST_OPEN, InterfaceNumbers, Piece, Straight, chained, merged_batches, overlapping
from uspcap.stages.frame_numbers import Origins, Spool
from uspcap.stages.order import NO_TIMESTAMP, Order, OrderCheck, Sorting, bounds
from uspcap.stages.ordering import LONGEST_RUN
from uspcap.stages.reading import PlannedInput
from uspcap.stages.run_merging import MOST_INPUTS, RunMerger
from uspcap.stages.selection import FrameSelection

Progress = Callable[[int, int], None]
"""Called with the bytes and frames read since the last call."""

SMALL_FILE: Final = 1 << 20
"""Bytes up to which a file is looked at whole."""

HEAD_BYTES: Final = 1 << 20
"""An input whose first timestamps do not come within these bytes is not cut."""

TAIL_BYTES: Final = (1 << 16, 1 << 20)
"""Looked at for an input's last timestamps: the first of these, then the next."""

NARROW_BYTES: Final = 1 << 18
"""Bytes that are walked through to the frame with a time."""

MOST_READERS: Final = 1024
"""Files that all slices together have at hand: of more that overlap, fewer cores merge, which keeps memory bounded."""

PLACES: Final = 256
"""Looked at in all inputs together, to cut slices of like size."""

EARLIEST: Final = -(1 << 63)
LATEST: Final = (1 << 63) - 1


class NotInOrder(Exception):
    """What slices rest on does not hold."""


@dataclass(slots=True)
class Surveyed:
    """An input, and what was seen at its beginning and its end.

    Attributes
    ----------
    input : Straight
    ends : OrderCheck
        Of the first and last frames, and those between of a small file.
    interfaces : list of Interface
    numbers : ndarray of uint16
        Number of each of them among those of all inputs.
    size : int
    """

    input: Straight
    ends: OrderCheck
    interfaces: list[Interface]
    size: int
    numbers: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))

    @property
    def planned(self) -> PlannedInput:
        """What is read of which file."""
        return self.input.planned

    @property
    def end(self) -> int:
        """Byte at which what is read of it ends."""
        return min(self.planned.end, self.size)


@dataclass(slots=True)
class Survey:
    """Inputs that can be cut.

    Attributes
    ----------
    inputs : list of Surveyed
        In order of their first times.
    chains : list of list of int
        Numbers of inputs that follow each other in time.
    known : InterfaceNumbers
    order : Order
        What will have been found where all that slices rest on holds, but for the number of frames.
    """

    inputs: list[Surveyed]
    chains: list[list[int]]
    known: InterfaceNumbers
    order: Order
    window_ns: int

    @property
    def overlaps(self) -> bool:
        """Whether any inputs overlap in time."""
        return len(self.chains) > 1

    @property
    def is_tidy(self) -> bool:
        """Whether each chain, as far as was seen, is in order without a jump close to an end."""
        return _are_tidy(self, lambda entry: entry.ends)


def survey(
    inputs: Sequence[PlannedInput], sorting: Sorting, wake: Wake | None = None, pool: Executor | None = None
) -> Survey | None:
    """Find out from their first and last frames which inputs overlap in time.

    Parameters
    ----------
    inputs : sequence of PlannedInput
        None of which can be read only once.
    sorting : Sorting
    wake : Wake, optional
    pool : Executor, optional
        To look at them side by side.

    Returns
    -------
    Survey or None
        None where that cannot be known without reading them.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be opened.
    """
    found = []
    for entry in (pool.map if pool is not None else map)(partial(_look_at, wake), inputs):
        if entry is None:
            return None
        found.append(entry)
    window_ns = bounds(sorting).window_ns
    for entry in found:
        entry.input.pieces = [Piece(entry.input, extent=entry.ends.extent(window_ns))]
    found.sort(key=lambda entry: entry.input.begins)
    known = InterfaceNumbers()
    for entry in found:
        entry.numbers = known.of(entry.interfaces, entry.numbers, entry.planned.taps)
    chains = chained([entry.input.pieces[0] for entry in found], window_ns)
    numbers = {id(entry.input): at for at, entry in enumerate(found)}
    order = Order(sorting, window_ns, overlapping(chains))
    by_number = [[numbers[id(piece.input)] for piece in pieces] for pieces in chains]
    return Survey(found, by_number, known, order, window_ns)


def first_time(planned: PlannedInput, wake: Wake | None = None) -> int | None:
    """Return the time of an input's first frame, as far as it stands near its beginning; raises as `survey`."""
    selection = planned.selection()
    with planned.open(wake) as reader:
        for batch in reader.batches():
            selection.apply_interfaces(batch)
            times = batch.timestamp_ns[batch.timestamp_source < NO_TIMESTAMP]
            if len(times) or reader.position > HEAD_BYTES:
                return int(times[0]) if len(times) else None
    return None


def _look_at(wake: Wake | None, planned: PlannedInput) -> Surveyed | None:
    """Look at the first and last frames of an input; None where they do not say when it begins and ends."""
    straight = Straight(planned)
    selection = planned.selection()
    head = OrderCheck()
    with planned.open(wake) as reader:
        if not reader.source.seekable_plain or reader.size is None:
            return None
        straight.format = reader.format
        for batch in reader.batches():
            selection.apply_interfaces(batch)
            head.update(batch)
            is_enough = head.timestamped > LONGEST_RUN or reader.stopped_at > planned.begin + HEAD_BYTES
            if is_enough and reader.size > planned.begin + SMALL_FILE:
                break
        else:
            return None if head.falls else Surveyed(straight, head, list(reader.facts.interfaces), reader.size)
        seen = Surveyed(straight, head, list(reader.facts.interfaces), reader.size)
        if not head.timestamped:
            return None
        read_to = reader.record_at(batch, batch.count - 1) + 1 if batch.count else reader.stopped_at
        for length in TAIL_BYTES:
            offset = max(seen.end - length, read_to)
            tail = _tail(reader, offset, planned)
            if tail is not None and (tail.timestamped > LONGEST_RUN or offset == read_to):
                head.merge(tail)
                return None if head.falls else seen
    return None


def _tail(reader: CaptureReader, offset: int, planned: PlannedInput) -> OrderCheck | None:
    """Return what is seen from an offset to an input's end."""
    selection = planned.selection()
    tail = OrderCheck()
    if not reader.jump_near(offset):
        return None
    for batch in reader.batches():
        selection.apply_interfaces(batch)
        tail.update(batch)
    return tail


def _are_tidy(surveyed: Survey, check_of: Callable[[Surveyed], OrderCheck]) -> bool:
    """Whether there is nothing to put in order but by merging chains."""
    return not any(check_of(entry).begins_unset for entry in surveyed.inputs) and all(
        _joined(check_of(surveyed.inputs[at]) for at in chain).is_tidy for chain in surveyed.chains
    )


def _joined(checks: Iterator[OrderCheck]) -> OrderCheck:
    whole = OrderCheck()
    for check in checks:
        whole.merge(check)
    return whole


@dataclass(slots=True)
class Stretch:
    """What a slice reads of an input, and what was seen of it.

    Attributes
    ----------
    number : int
        Of the input.
    begin, end : int
        Bytes.
    began_at, stopped_at, known_before, known_after : int
        Where reading began and stopped, and what the reader knew there.
    ended : bool
        At the end of the file, or at damage.
    frames, kept : int
        Frames, and how many of them are of interfaces that are wanted.
    numbers : Spool or None
        Their numbers, 8 bytes each, where some are not.
    """

    number: int
    begin: int
    end: int
    began_at: int = 0
    stopped_at: int = 0
    known_before: int = 0
    known_after: int = 0
    ended: bool = False
    frames: int = 0
    kept: int = 0
    numbers: Spool | None = None
    check: OrderCheck = field(default_factory=OrderCheck)
    facts: SourceFacts = field(default_factory=SourceFacts)
    selection: FrameSelection = field(default_factory=FrameSelection)

    def proves(self, later: Stretch) -> bool:
        """Whether reading this proves where another begins."""
        return not self.ended and self.stopped_at == later.began_at and self.known_after == later.known_before

    def take(self, batch: FrameBatch) -> None:
        """Take in the next batch, and take frames of other interfaces out of it."""
        self.frames += batch.frames_read
        self.selection.apply_interfaces(batch)
        self.check.update(batch)
        self.kept += batch.count
        if self.numbers is not None:
            self.numbers.write(batch.frame_number.data)

    def number_of(self, rank: int) -> int:
        """Return the number in the stretch of a frame that so many wanted ones come before."""
        return rank + 1 if self.numbers is None else int.from_bytes(self.numbers.read(8 * rank, 8), "little")


@dataclass(slots=True)
class Slice:
    """What one core reads.

    Attributes
    ----------
    survey : Survey
    chains : list of list of Stretch
        Of each chain, one after the other.
    from_ns, before_ns : int
        Times of its frames.
    slices : int
        How many there are.
    before : list of int
        Frames before it by input, counted through all inputs in their order; known once all slices are read.
    """

    survey: Survey
    chains: list[list[Stretch]]
    from_ns: int = EARLIEST
    before_ns: int = LATEST
    slices: int = 1
    before: list[int] = field(default_factory=list)
    _left_out: int = 0
    _origins: Origins | None = None

    @property
    def stretches(self) -> list[Stretch]:
        """All that it reads."""
        return [stretch for chain in self.chains for stretch in chain]

    @property
    def places(self) -> int:
        """Frames, those left out included."""
        return 0 if self._origins is None else self._origins.places

    def number_of(self, place: int) -> int | None:
        """Return the number, through all inputs, of the frame at a place in the slice; None for no frame."""
        found = None if self._origins is None else self._origins.of(place)
        if found is None:
            return None
        chain, rank = found
        for stretch in self.chains[chain]:
            if rank < stretch.kept:
                return self.before[stretch.number] + stretch.number_of(rank)
            rank -= stretch.kept
        return None

    def batches(self, wake: Wake | None, progress: Progress) -> Iterator[FrameBatch]:
        """Yield its frames in order, numbered by their place; the same batch each time, refilled.

        Parameters
        ----------
        wake : Wake or None
        progress : callable

        Raises
        ------
        NotInOrder
            Frames are not as the survey has it.
        CaptureFileError, ReadingEnded
            As readers raise.
        """
        has_options = any(entry.input.format == "pcapng" for entry in self.survey.inputs)
        merger = RunMerger(len(self.chains), has_options=has_options)
        kept = self._origins = Origins(len(self.chains), self.slices)
        origins = np.empty(BATCH_FRAMES, np.uint16)
        feeds = [self._feed(merger, at, stretches, wake, progress) for at, stretches in enumerate(self.chains)]

        def feed(what: int) -> None:
            if next(feeds[what], None) is None:
                merger.finish(what)

        try:
            yield from merged_batches(
                merger,
                lambda batch: merger.fill(batch, origins),
                feed,
                self._take_left_out,
                self.survey.known,
                lambda batch: kept.take(batch, origins),
            )
        finally:
            for one in feeds:
                one.close()

    def _take_left_out(self) -> int:
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _feed(
        self, merger: RunMerger, at: int, stretches: Sequence[Stretch], wake: Wake | None, progress: Progress
    ) -> Generator[bool, None, None]:
        """Load one batch after the other of a chain; yields after each."""
        among = self.slices * len(self.chains)
        for stretch in stretches:
            surveyed = self.survey.inputs[stretch.number]
            stretch.selection = surveyed.planned.selection()
            if surveyed.planned.interfaces:
                stretch.numbers = Spool(among)
            with surveyed.planned.open_range(stretch.begin, stretch.end, wake, among) as reader:
                stretch.began_at, stretch.known_before = reader.began_at, reader.initial_knowledge
                position = reader.position
                for batch in reader.batches():
                    progress(reader.position - position, batch.frames_read)
                    position = reader.position
                    stretch.take(batch)
                    self._left_out += batch.frames_read - batch.count
                    self._check(stretch.check, len(batch.interfaces) - len(surveyed.numbers))
                    merger.load(at, batch, surveyed.numbers, batch.big_endian_options)
                    if among > MOST_OPEN:
                        reader.source.park()
                    yield True
                stretch.stopped_at, stretch.known_after = reader.stopped_at, reader.knowledge
                stretch.ended = reader.ended
                stretch.facts = reader.facts
                self._check(stretch.check, len(reader.facts.interfaces) - len(surveyed.numbers))

    def _check(self, check: OrderCheck, more_interfaces: int) -> None:
        """Raise NotInOrder where frames are not as they must be in this slice."""
        if more_interfaces > 0 or check.falls:
            raise NotInOrder
        if check.timestamped and not (self.from_ns <= check.head[0] and check.latest_ns < self.before_ns):
            raise NotInOrder


def cut(surveyed: Survey, most: int, wake: Wake | None = None, pool: Executor | None = None) -> list[Slice]:
    """Cut inputs into up to so many slices of similar size.

    Raises
    ------
    NotInOrder
        So many cannot be merged.
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be opened.
    """
    inputs = surveyed.inputs
    if len(surveyed.chains) > MOST_INPUTS:
        raise NotInOrder
    size = sum(entry.end - entry.planned.begin for entry in inputs)
    most = min(most, size // SMALLEST_PART, MOST_READERS // max(len(surveyed.chains), 1))
    times = _cut_times(surveyed, most, wake, pool)
    run = pool.map if pool is not None else map
    offsets = list(run(partial(_offsets, times, wake), inputs))
    slices = []
    edges = [EARLIEST, *times, LATEST]
    for number, (from_ns, before_ns) in enumerate(pairwise(edges)):
        chains = [
            [
                Stretch(at, begin, end)
                for at in chain
                for begin, end in [offsets[at][number : number + 2]]
                # What is read of an input that is not cut is read in the first slice, even nothing.
                if begin < end
            ]
            for chain in surveyed.chains
        ]
        slices.append(Slice(surveyed, chains, from_ns, before_ns, len(edges) - 1))
    return slices


def _offsets(times: Sequence[int], wake: Wake | None, entry: Surveyed) -> list[int]:
    """Return where an input is cut: its begin, the first frame of each time, and its end."""
    planned = entry.planned
    found = [planned.begin]
    with planned.open(wake) as reader:
        for time_ns in times:
            found.append(_offset_of(reader, entry, found[-1], time_ns))
    return [*found, planned.end]


def _offset_of(reader: CaptureReader, entry: Surveyed, low: int, time_ns: int) -> int:
    """Return where the record of the first frame begins that is not before a time; the input's end if there is none."""
    planned = entry.planned
    ends = entry.ends
    if low >= entry.end or not ends.timestamped or ends.latest_ns < time_ns:
        return planned.end
    if int(ends.head[0]) >= time_ns:
        return low
    high = entry.end
    while high - low > NARROW_BYTES:
        middle = low + (high - low) // 2
        found = _first_time(reader, middle, entry)
        if found is None or found[0] >= time_ns:
            high = middle
        else:
            low = found[1]
    with planned.open_range(low, planned.end) as walker:
        selection = planned.selection()
        for batch in walker.batches():
            selection.apply_interfaces(batch)
            rows = np.flatnonzero((batch.timestamp_ns >= time_ns) & (batch.timestamp_source < NO_TIMESTAMP))
            if len(rows):
                return walker.record_at(batch, int(rows[0]))
    return planned.end


def _first_time(reader: CaptureReader, offset: int, entry: Surveyed) -> tuple[int, int] | None:
    """Return the first time behind an offset, and where that record begins; None where there is none."""
    selection = entry.planned.selection()
    if not reader.jump_near(offset) or reader.began_at >= entry.end:
        return None
    for batch in reader.batches():
        selection.apply_interfaces(batch)
        rows = np.flatnonzero(batch.timestamp_source < NO_TIMESTAMP)
        if len(rows):
            return int(batch.timestamp_ns[rows[0]]), reader.record_at(batch, int(rows[0]))
    return None


def _cut_times(surveyed: Survey, slices: int, wake: Wake | None, pool: Executor | None) -> list[int]:
    """Return times between which about as many bytes lie."""
    if slices < 2:
        return []
    timed = [entry for entry in surveyed.inputs if entry.ends.timestamped]
    places = max(PLACES // max(len(timed), 1), 2)
    run = pool.map if pool is not None else map
    courses = list(run(partial(_course, places, wake), timed))
    times = np.unique(np.concatenate([course[0] for course in courses]))
    # Times as differences from the first: those of today have more digits than a float.
    begin = int(times[0])
    totals = np.zeros(len(times))
    for its_times, its_offsets in courses:
        totals += np.interp((times - begin).astype(float), (its_times - begin).astype(float), its_offsets)
    wanted = totals[0] + (totals[-1] - totals[0]) * np.arange(1, slices) / slices
    found = begin + np.interp(wanted, totals, (times - begin).astype(float)).astype(np.int64)
    return [time_ns for time_ns in sorted({*found.tolist()}) if time_ns > begin]


def _course(places: int, wake: Wake | None, entry: Surveyed) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rising times of an input and where in it they are met."""
    begin, end = entry.planned.begin, entry.end
    times, offsets = [int(entry.ends.head[0])], [begin]
    if end - begin > places * NARROW_BYTES:
        with entry.planned.open(wake) as reader:
            for number in range(1, places):
                found = _first_time(reader, begin + (end - begin) * number // places, entry)
                if found is not None and found[0] > times[-1]:
                    times.append(found[0])
                    offsets.append(found[1])
    if entry.ends.latest_ns > times[-1]:
        times.append(entry.ends.latest_ns)
        offsets.append(end)
    return np.array(times, np.int64), np.array(offsets, np.float64)


def conclude(surveyed: Survey, slices: Sequence[Slice]) -> None:
    """Check what slices rest on, now that they are read, and complete what is known of the inputs.

    Raises
    ------
    NotInOrder
        It does not hold.
    """
    stretches: list[list[Stretch]] = [[] for _ in surveyed.inputs]
    for slice_ in slices:
        for stretch in slice_.stretches:
            stretches[stretch.number].append(stretch)
    frames = 0
    for seen, its in zip(surveyed.inputs, stretches, strict=True):
        straight = seen.input
        if not all(earlier.proves(later) for earlier, later in pairwise(its)):
            raise NotInOrder
        straight.frames_before, straight.frames = frames, sum(entry.frames for entry in its)
        frames += straight.frames
        straight.check = _joined(entry.check for entry in its)
        straight.facts = SourceFacts()
        straight.selection = seen.planned.selection()
        for entry in its:
            straight.facts.append(entry.facts)
            straight.selection.append(entry.selection)
        straight.facts.interfaces = seen.interfaces
        if straight.check.extent(surveyed.window_ns) != straight.pieces[0].extent:
            raise NotInOrder
    if not _are_tidy(surveyed, lambda entry: entry.input.check):
        raise NotInOrder
    surveyed.order.timestamped = sum(entry.input.check.timestamped for entry in surveyed.inputs)
    before = [entry.input.frames_before for entry in surveyed.inputs]
    for slice_ in slices:
        slice_.before = list(before)
        for stretch in slice_.stretches:
            before[stretch.number] += stretch.frames
