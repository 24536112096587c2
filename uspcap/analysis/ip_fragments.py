"""UDP datagrams in place of the IP fragments that carry them, and how they stand at a cut of the capture.

What fragments at the head of a part belong to, only the part before knows, and with it when the datagram comes that
they complete. Such fragments are kept, and what comes between two of them is kept apart: merged, all is taken in the
order in which it came (`uspcap.messages.fragments` says which fragments these are).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

import numpy as np

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.frames import FrameBatch, Interface
from uspcap.messages.fragments import Datagrams, has_fragments
from uspcap.records import Count, Record

MOST_KEPT: Final = 8192
MOST_KEPT_BYTES: Final = 1 << 24
"""Fragments, what comes between them, and bytes of that, that a part of a capture keeps for the part before."""

RAW_LINK: Final = {4: Interface(link_type=228), 6: Interface(link_type=229)}
"""Interfaces of packets without a link layer, by the version of IP."""


class IpFragments(Record):
    """Reassembly of UDP datagrams in IP fragments."""

    put_together: Annotated[Count, "Datagrams with all fragments."]
    incomplete: Annotated[Count, "Datagrams with missing fragments."]
    discarded: Annotated[Count, "Datagrams whose fragments overlap or contradict each other (RFC 5722)."]
    copies: Annotated[Count, "Fragments received before, byte by byte."]
    frames_left_out: Annotated[Count, "Frames with fragments of incomplete or discarded datagrams, without copies."]
    cut: Annotated[Count, "Fragments at the beginnings of parts of the capture that exceed what is kept."]


@dataclass(slots=True)
class Kept:
    """How much a part of a capture keeps for the part before."""

    count: int = 0
    size: int = 0

    def takes(self, size: int, count: int = 1) -> bool:
        """Return whether that many more bytes may be kept, and count them."""
        if self.count >= MOST_KEPT or self.size + size > MOST_KEPT_BYTES:
            return False
        self.count += count
        self.size += size
        return True


class Stretch(ABC):
    """Takes the frames between two fragments of a head; a monoid itself."""

    needs_beginning: ClassVar[bool] = True
    """It is another one where nothing came before."""

    @abstractmethod
    def take(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        """Take the rows from `first` to before `last`, and of fragments the datagrams that rows complete.

        Without `datagrams` no row is of a fragment, and the rows are those of the whole batch.
        """

    @abstractmethod
    def take_datagrams(self, datagrams: Datagrams) -> None:
        """Take what a fragment that was kept completes."""

    @abstractmethod
    def absorb(self, later: Self, frame_shift: int) -> None:
        """Append what came directly after, whose frame numbers are moved by so many."""

    @abstractmethod
    def following(self, kept: Kept) -> Self:
        """Return an empty stretch, for what comes behind a fragment that is kept."""

    @abstractmethod
    def of_whole(self) -> Self:
        """Return an empty stretch before which there is nothing."""

    def settle(self, frame: int) -> None:  # noqa: B027, most have nothing to do
        """Know that no fragment from a frame on is of a head."""


class Rows(Protocol):
    """Frames as they were, or what is to be known of them."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def size(self) -> int:
        """Bytes that they take."""

    @property
    def first_frame(self) -> int:
        """Number of the first."""

    def moved(self, frame_shift: int) -> Self:
        """Return them with other numbers."""


State = TypeVar("State")
R = TypeVar("R", bound=Rows)


class WaitingStretch(Stretch, Generic[State, R]):
    """A stretch that keeps what comes as it is, up to where no fragment of a head can come any more.

    For where a state for each stretch would take too much.

    Parameters
    ----------
    kept : Kept
        Where what waits is counted.
    state : State, optional
        What takes frames; None keeps them.

    Attributes
    ----------
    state : State or None
    origin : int
        Frames of the part before those that the state took.
    """

    def __init__(self, kept: Kept, state: State | None = None) -> None:
        self.state = state
        self.origin = 0
        self._kept = kept
        self._waiting: list[R] = []

    @abstractmethod
    def _begun(self) -> State:
        """Return an empty state."""

    @abstractmethod
    def _rows(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> Iterable[R]:
        """Return what is to be known of rows, as `take` has them."""

    @abstractmethod
    def _rows_of_datagrams(self, datagrams: Datagrams) -> Iterable[R]:
        """Return the same of datagrams."""

    @abstractmethod
    def _play(self, state: State, rows: R) -> None:
        """Give a state what waited."""

    @abstractmethod
    def _track(
        self,
        state: State,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        """Give a state rows, as `take` has them."""

    @abstractmethod
    def _join(self, state: State, later: State, frame_shift: int, frames_before: int) -> None:
        """Append a later state to one that has seen so many frames by then."""

    def take(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        if self.state is not None:
            self._track(self.state, frames, headers, frame_shift, first, last, datagrams)
            return
        for rows in self._rows(frames, headers, frame_shift, first, last, datagrams):
            self._put(rows)

    def take_datagrams(self, datagrams: Datagrams) -> None:
        for rows in self._rows_of_datagrams(datagrams):
            self._put(rows)

    def settle(self, frame: int) -> None:
        if self.state is None:
            self.state, self.origin = self._begun(), frame - 1

    def _put(self, rows: R) -> None:
        if self.state is None and self._kept.takes(rows.size, rows.count):
            self._waiting.append(rows)
            return
        self.settle(rows.first_frame)
        assert self.state is not None
        self._play(self.state, rows)

    def absorb(self, later: Self, frame_shift: int) -> None:
        for rows in later._waiting:
            self._put(rows.moved(frame_shift))
        if later.state is not None and not self._is_empty(later.state):
            self.settle(later.origin + frame_shift + 1)
            assert self.state is not None
            self._join(self.state, later.state, frame_shift, later.origin + frame_shift - self.origin)

    def _is_empty(self, state: State) -> bool:
        """Whether a state has taken nothing, so that there is no need for one."""
        return False


S = TypeVar("S", bound=Stretch)


class FragmentedStream(Generic[S]):
    """Frames, with UDP datagrams in place of their fragments.

    Parameters
    ----------
    first : Stretch
        Without a frame.
    is_known : bool
        Nothing comes before.

    Attributes
    ----------
    datagrams : Datagrams
    cut : int
        Fragments at the heads of parts that were left out, as more was kept already.
    """

    def __init__(self, first: S, *, is_known: bool = False) -> None:
        self._first = first
        self._between: list[tuple[bytes, S]] = []
        self._kept = Kept()
        self.datagrams = Datagrams(is_known)
        self.cut = 0
        self._whole: FragmentedStream[S] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole": None}

    @property
    def last(self) -> S:
        """What takes the next frame; of a state that keeps nothing, all there is."""
        return self._between[-1][1] if self._between else self._first

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        """Take the next batch, whose frame numbers are moved by so many."""
        if not batch.count:
            return
        self._whole = None
        headers, datagrams = batch.headers, self.datagrams
        if self._between:
            frame = int(batch.column("frame_number")[0]) + frame_shift
            if not datagrams.has_heads(frame):
                self.last.settle(frame)
        if not has_fragments(batch, headers):
            self.last.take(batch, headers, frame_shift, 0, batch.count, None)
            return
        first = 0
        while first < batch.count:
            last = datagrams.take(batch, headers, frame_shift, first)
            self.last.take(batch, headers, frame_shift, first, min(last + 1, batch.count), datagrams)
            if last < batch.count:
                self._keep(datagrams.event(batch, headers, frame_shift, last))
            first = last + 1

    def _keep(self, event: bytes) -> None:
        """Keep a fragment of a head."""
        if self._kept.takes(len(event)):
            self._between.append((event, self._first.following(self._kept)))
        else:
            self.cut += 1

    def absorb(self, later: FragmentedStream[S], frame_shift: int) -> None:
        """Append what came directly after, whose frame numbers are moved by so many."""
        self._whole = None
        self.last.absorb(later._first, frame_shift)
        for event, following in later._between:
            kept = self.datagrams.take_event(event, frame_shift)
            if kept is not None:
                self._keep(kept)
            elif self.datagrams.frames.count:
                self.last.take_datagrams(self.datagrams)
            self.last.absorb(following, frame_shift)
        self.datagrams.absorb(later.datagrams, frame_shift)
        self.cut += later.cut

    def whole(self) -> FragmentedStream[S]:
        """Return the state if nothing precedes it; this object stays unchanged."""
        if not (self._between or self._first.needs_beginning):
            return self
        if self._whole is None:
            self._whole = FragmentedStream(self._first.of_whole(), is_known=True)
            self._whole.absorb(self, 0)
        return self._whole

    def counts(self) -> IpFragments:
        """Return the counts of datagrams in fragments, of a state that keeps nothing."""
        return IpFragments(
            put_together=self.datagrams.complete,
            incomplete=self.datagrams.incomplete,
            discarded=self.datagrams.discarded,
            copies=self.datagrams.copies,
            frames_left_out=self.datagrams.left_out,
            cut=self.cut,
        )


def fragment_caveats(counts: IpFragments) -> list[str]:
    """Return the warnings about datagrams that could not be reassembled."""
    found = []
    incomplete, discarded = counts.incomplete, counts.discarded
    if incomplete or discarded:
        whole = incomplete + discarded + counts.put_together
        lack = "lacks" if incomplete == 1 else "lack"
        void = f", and {discarded:,} had fragments that contradict each other" if discarded else ""
        found.append(
            f"{incomplete:,} of {whole:,} UDP datagrams in IP fragments {lack} some{void}: their data, in "
            f"{counts.frames_left_out:,} frames, count as missing; a filter on ports drops all fragments but the first"
        )
    if counts.cut:
        found.append(
            f"{counts.cut:,} IP fragments at the beginnings of parts of the capture exceed what is kept: their "
            "data may count as missing"
        )
    return found


def batch_of(datagrams: Datagrams) -> FrameBatch:
    """Return reassembled datagrams as a batch of packets without a link layer, one row each."""
    frames = datagrams.frames
    count = frames.count
    starts, lengths = frames.column("offset").tolist(), frames.column("captured_length").tolist()
    interfaces = frames.column("interface")
    batch = FrameBatch.from_frames(
        [frames.data[start : start + length].tobytes() for start, length in zip(starts, lengths, strict=True)],
        frames.column("timestamp_ns"),
        wire_lengths=frames.column("wire_length").tolist(),
        interfaces=tuple(RAW_LINK.values()) * (int(interfaces.max(initial=0)) // 2 + 1),
    )
    batch.set_taps(np.repeat(np.arange(len(batch.interfaces) // 2, dtype=np.uint16), 2))
    for name in ("timestamp_source", "read_ns", "interface", "frame_number"):
        batch.storage(name)[:count] = frames.column(name)
    return batch
