"""Putting the frames of inputs in order of time, once it is known that they are not.

Every input is looked at first, by its times alone: from when to when it goes, and whether its sections and interfaces
are each in order where they are not together. What follows in time is one chain (`uspcap.stages.ordering`); chains
that overlap are merged (`uspcap.stages.chain_merging`). Inputs that can be read only once are one chain, in the order
in which they were named.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final

import numpy as np

from uspcap.formats.waking import Wake
from uspcap.frames import FrameBatch, Interface
from uspcap.stages.chain_merging import Merger
from uspcap.stages.chains import MOST_OPEN, InterfaceNumbers, Piece, Straight, chained, merged_batches, overlapping
from uspcap.stages.deduplication import Deduplicator
from uspcap.stages.forward_steps import ForwardSteps
from uspcap.stages.frame_numbers import FrameNumbers
from uspcap.stages.order import CLOCK_SET_NS, Order, OrderCheck, Outlier, PossibleStep, Sorting, Step, bounds
from uspcap.stages.ordering import Chain
from uspcap.stages.reading import PlannedInput, is_read_once

MOST_PIECES: Final = 64
"""Sections and interfaces of a file that are merged with each other; a file is read once for each."""


class Straightener:
    """Reads inputs in order of time.

    Parameters
    ----------
    inputs : sequence of PlannedInput
    sorting : Sorting
    wake : Wake, optional
    pool : Executor, optional
        To look at inputs side by side.
    progress : callable, optional
        Called with the bytes and frames read since the last call.

    Attributes
    ----------
    inputs : list of Straight
        In order of their first times.
    order : Order
        What was found; complete once `batches` is exhausted.
    """

    def __init__(
        self,
        inputs: Sequence[PlannedInput],
        sorting: Sorting = "auto",
        wake: Wake | None = None,
        pool: Executor | None = None,
        progress: Callable[[int, int], None] = lambda bytes_read, frames: None,
    ) -> None:
        self._progress = progress
        self._bounds = bounds(sorting)
        self._dedup_ns = inputs[0].dedup_ns if inputs else None
        self._wake = wake
        self._known_interfaces = InterfaceNumbers()
        self.order = Order(sorting, self._bounds.window_ns)
        self.inputs = [Straight(planned) for planned in inputs]
        if any(is_read_once(straight.planned.path) for straight in self.inputs):
            self._chains = [[Piece(straight) for straight in self.inputs]]
            self._known = False
            return
        self._known = True
        list((pool.map if pool is not None else map)(self._look_at, self.inputs))
        self.inputs.sort(key=lambda straight: straight.begins)
        frames_before = 0
        for straight in self.inputs:
            straight.frames_before = frames_before
            frames_before += straight.frames
            self._known_interfaces.of(straight.facts.interfaces, np.empty(0, np.uint16), straight.planned.taps)
        self._chains = chained([piece for straight in self.inputs for piece in straight.pieces], self._bounds.window_ns)
        self.order.merged_inputs = overlapping(self._chains)

    @property
    def interfaces(self) -> list[Interface]:
        """All interfaces met so far."""
        return self._known_interfaces.interfaces

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to put in order or leave out; where not, reading inputs in turn is as good."""
        if not self._known or self._dedup_ns is not None:
            return True
        if len(self._chains) > 1 or any(len(straight.pieces) > 1 for straight in self.inputs):
            return True
        whole = OrderCheck()
        for straight in self.inputs:
            whole.merge(straight.check)
        return not whole.is_tidy

    def _look_at(self, straight: Straight) -> None:
        """Find out from when to when an input goes, and what of it is taken as one."""
        whole = Piece(straight)
        self._scan(straight, [whole], check=straight.check)
        if whole.extent is not None and whole.extent[0] < CLOCK_SET_NS and straight.clock_is_set:
            # What came before a time of a clock that is set was taken for a time, too.
            self._scan(straight, [whole])
        straight.pieces = [whole]
        interfaces, headers = len(straight.facts.interfaces), straight.facts.headers.count
        if not whole.disorder or not 1 < interfaces * (headers + 1) <= MOST_PIECES:
            return
        pieces = [Piece(straight, header, number) for header in range(headers + 1) for number in range(interfaces)]
        straight.forward_steps = ForwardSteps(self._bounds.window_ns)
        self._scan(straight, pieces, forward_steps=straight.forward_steps)
        pieces = [piece for piece in pieces if piece.frames]
        if sum(piece.disorder for piece in pieces) < whole.disorder:
            straight.pieces = pieces

    def _scan(
        self,
        straight: Straight,
        pieces: Sequence[Piece],
        *,
        check: OrderCheck | None = None,
        forward_steps: ForwardSteps | None = None,
    ) -> None:
        chains = [self._bounds.chain(keeps_frames=False, clock_is_set=straight.clock_is_set) for _ in pieces]
        selection = straight.planned.selection()
        numbers = np.zeros(1 << 16, np.uint16)
        with straight.planned.open(self._wake) as reader:
            straight.frames, straight.format = 0, reader.format
            for batch in reader.batches():
                straight.frames += batch.frames_read
                selection.apply_interfaces(batch)
                if check is not None:
                    check.update(batch)
                if forward_steps is not None:
                    forward_steps.update(batch)
                for piece, chain in zip(pieces, chains, strict=True):
                    if piece.headers is None or piece.headers == reader.facts.headers.count:
                        chain.push(batch, numbers, 0, only_interface=-1 if piece.interface is None else piece.interface)
            straight.facts = reader.facts
        if forward_steps is not None:
            forward_steps.finish()
        for piece, chain in zip(pieces, chains, strict=True):
            chain.finish()
            piece.extent, piece.frames = chain.extent, chain.frames
            piece.disorder = chain.step_count + chain.beyond_window + chain.outlier_count
            straight.clock_is_set |= chain.saw_set_clock

    def batches(self, numbers: FrameNumbers | None = None) -> Iterator[FrameBatch]:
        """Yield all frames in order; the same batch each time, refilled.

        Parameters
        ----------
        numbers : FrameNumbers, optional
            Where numbers in the files are kept: `frame_number` is a frame's place in the order then. Without it,
            `frame_number` counts through the inputs, in their order, whatever the order of the frames.

        Raises
        ------
        CaptureFileError, NotACaptureFile, MissingFeature
            A file cannot be read.
        ReadingEnded
            The `Wake` is set.
        """
        chains = [
            self._bounds.chain(
                clock_is_set=any(piece.input.clock_is_set for piece in pieces),
                awaits_clock=any(is_read_once(piece.input.planned.path) for piece in pieces),
            )
            for pieces in self._chains
        ]
        feeds = [self._feed(pieces, chain) for pieces, chain in zip(self._chains, chains, strict=True)]
        copies = None if self._dedup_ns is None else Deduplicator(self._dedup_ns)
        self._frames_read = self._left_out = 0
        self.order = Order(self.order.sorting, self.order.window_ns, self.order.merged_inputs)

        def feed(what: int) -> None:
            if next(feeds[what], None) is None:
                chains[what].finish()

        try:
            merger = Merger(chains)
            number = None if numbers is None else numbers.take
            for batch in merged_batches(merger, merger.fill, feed, self._take_left_out, self._known_interfaces, number):
                if copies is not None:
                    _leave_out_copies(batch, copies)
                yield batch
        finally:
            for one in feeds:
                one.close()
        self._report(chains)
        self.order.copies_removed = 0 if copies is None else copies.copies

    def _take_left_out(self) -> int:
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _feed(self, pieces: Sequence[Piece], chain: Chain) -> Generator[bool, None, None]:
        """Push one batch after the other of a chain's pieces; yields after each."""
        for piece in pieces:
            straight = piece.input
            selection = straight.planned.selection()
            first_time = not self._known or piece is straight.pieces[0]
            numbers = np.empty(0, np.uint16)
            if not self._known:
                straight.frames_before = self._frames_read
            with straight.planned.open(self._wake, len(self._chains)) as reader:
                straight.format = reader.format
                position = reader.position
                for batch in reader.batches():
                    if first_time:
                        self._frames_read += batch.frames_read
                        self._progress(reader.position - position, batch.frames_read)
                        position = reader.position
                    if not self._known:
                        straight.frames += batch.frames_read
                    selection.apply_interfaces(batch)
                    if first_time:
                        self._left_out += batch.frames_read - batch.count
                    if piece.headers is None or piece.headers == reader.facts.headers.count:
                        numbers = self._known_interfaces.of(batch.interfaces, numbers, straight.planned.taps)
                        chain.push(
                            batch,
                            numbers,
                            straight.frames_before,
                            batch.big_endian_options,
                            -1 if piece.interface is None else piece.interface,
                        )
                        if len(self._chains) > MOST_OPEN:
                            reader.source.park()
                        yield True
                if first_time:
                    straight.facts = reader.facts
                    straight.selection = selection

    def _report(self, chains: Sequence[Chain]) -> None:
        order = self.order
        latest = [chain.extent[1] for chain in chains if chain.extent is not None]
        earliest = [chain.extent[0] for chain in chains if chain.extent is not None]
        for chain in chains:
            order.timestamped += chain.timestamped
            order.sorted += chain.sorted
            order.furthest_ns = max(order.furthest_ns, chain.furthest_ns)
            order.beyond_window += chain.beyond_window
            order.outlier_count += chain.outlier_count
            order.unset_count += chain.unset_count
            order.step_count += chain.step_count
            for number, ns, expected_ns, sure, frames in chain.outliers:
                file, frame = self.place_of(number)
                kind = "outlier" if sure else "undetermined"
                order.outliers.append(Outlier(file, frame, ns, expected_ns, kind, frames=frames))
            for before, after, before_ns, after_ns in chain.steps:
                order.steps.append(Step(*self.place_of(before), before_ns, *self.place_of(after), after_ns))
            # Where another input has frames beyond the jump, time did go on.
            start, end = chain.doubtful_start, chain.doubtful_end
            if start is not None and start[1] > min(earliest):
                start = None
            if end is not None and (chain.extent is None or chain.extent[1] < max(latest)):
                end = None
            for doubtful in (start, end):
                if doubtful is not None:
                    number, ns, expected_ns, frames = doubtful
                    order.outlier_count += 1
                    order.outliers.append(
                        Outlier(*self.place_of(number), ns, expected_ns, "undetermined", trusted=True, frames=frames)
                    )
        for straight in self.inputs:
            order.forward_steps += _named(straight)
        if order.is_tidy:
            order.timestamped = 0
        order.outliers.sort(key=lambda outlier: (self._place(outlier.file), outlier.frame))
        order.steps.sort(key=lambda step: (self._place(step.file), step.frame))

    def _place(self, file: str) -> int:
        return next((at for at, straight in enumerate(self.inputs) if straight.name == file), 0)

    def place_of(self, number: int) -> tuple[str, int]:
        """Return the file of a running frame number, and the frame's number in it."""
        starts = [straight.frames_before for straight in self.inputs]
        at = max(int(np.searchsorted(starts, number, side="left")) - 1, 0)
        return self.inputs[at].name, number - starts[at]


def _named(straight: Straight) -> list[PossibleStep]:
    """Return the steps forward of an input's interfaces, with their names."""
    steps = [] if straight.forward_steps is None else straight.forward_steps.found
    names = [interface.name or f"interface {number}" for number, interface in enumerate(straight.facts.interfaces)]
    return [
        PossibleStep(
            straight.name, step.before_frame, step.before_ns, straight.name, step.frame, step.timestamp_ns,
            names[step.interface],
            f"{step.others} frames of {names[step.other]}, written among those behind it, go on where time had been",
        )
        for step in steps
    ]  # fmt: skip


def _leave_out_copies(batch: FrameBatch, copies: Deduplicator) -> None:
    """Take copies of packets out of a batch; what carries packets makes no difference."""
    batch.decode_tunnels = True
    kept = np.empty(batch.count, np.uint8)
    if copies.mark(batch, batch.headers, kept):
        batch.select(kept)
    # Whoever reads the batch decides how its headers are decoded.
    batch.decode_tunnels = False
    batch.refilled()
