"""Requests and responses where IP fragments carry some of them: a datagram counts at its last fragment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis.ip_fragments import FragmentedStream, Kept, WaitingStretch, batch_of
from uspcap.analysis.requests.pairs import PairTrack
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams

Found = tuple[NDArray[np.uint8], NDArray[np.uint64]]
"""What frames are to one rule, and under what keys, as `Finder.find` returns it."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Frames, and their role in each rule.

    Attributes
    ----------
    times_ns : ndarray of int64, shape (n,)
    sources : ndarray of uint8, shape (n,)
    frames : ndarray of int64, shape (n,)
        Their numbers.
    found : tuple of Found
        One a rule.
    """

    times_ns: NDArray[np.int64]
    sources: NDArray[np.uint8]
    frames: NDArray[np.int64]
    found: tuple[Found, ...]

    @property
    def count(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        return 17 * self.count + sum(kinds.nbytes + keys.nbytes for kinds, keys in self.found)

    @property
    def first_frame(self) -> int:
        return int(self.frames[0])

    def moved(self, frame_shift: int) -> FoundRows:
        return replace(self, frames=self.frames + frame_shift)


class BatchFinds:
    """What the frames of a batch are to each rule.

    A finder counts what it looks at, so that it looks once at a batch, however many stretches take rows of it.
    """

    def __init__(self) -> None:
        self._found: list[Found] = []

    def rows(self, tracks: Sequence[PairTrack], frames: FrameBatch, first: int, last: int) -> list[Found]:
        """Return what rows of a batch are, of which row 0 is taken first; they may be written to."""
        if first == 0:
            rows = slice(0, frames.count)
            self._found = [
                (kinds[rows].copy(), keys[rows].copy())
                for kinds, keys in (track.finder.find(frames) for track in tracks)
            ]
        return [(kinds[first:last], keys[first:last]) for kinds, keys in self._found]


class PairsStretch(WaitingStretch[list[PairTrack], FoundRows]):
    """Requests and responses of all rules.

    What a finder counts does not depend on where it is found: all stretches of a part share theirs.

    Parameters
    ----------
    tracks : sequence of PairTrack
        Without a frame.
    kept : Kept, optional
        Given, frames wait.
    finds : BatchFinds, optional
        That of the stretches before.
    """

    needs_beginning: ClassVar[bool] = False

    def __init__(self, tracks: Sequence[PairTrack], kept: Kept | None = None, finds: BatchFinds | None = None) -> None:
        super().__init__(kept or Kept(), list(tracks) if kept is None else None)
        self._template = list(tracks)
        self._finds = finds or BatchFinds()
        self._is_first = kept is None

    def following(self, kept: Kept) -> PairsStretch:
        return PairsStretch(self._template, kept, self._finds)

    def of_whole(self) -> PairsStretch:
        return PairsStretch([track.again(track.finder.again()) for track in self._template])

    def _begun(self) -> list[PairTrack]:
        return [track.again(track.finder) for track in self._template]

    def _rows(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> Iterator[FoundRows]:
        assert isinstance(frames, FrameBatch)
        rows = slice(first, last)
        found = self._finds.rows(self._template, frames, first, last)
        if datagrams is not None and datagrams.frames.count:
            completed = datagrams.rows[: datagrams.frames.count] - first
            batch = batch_of(datagrams)
            for (kinds, keys), track in zip(found, self._template, strict=True):
                their_kinds, their_keys = track.finder.find_datagrams(batch)
                taken = their_kinds[: batch.count] != 0
                kinds[completed[taken]] = their_kinds[: batch.count][taken]
                keys[completed[taken]] = their_keys[: batch.count][taken]
        yield FoundRows(
            frames.column("timestamp_ns")[rows].copy(),
            frames.column("timestamp_source")[rows].copy(),
            frames.column("frame_number")[rows] + frame_shift,
            tuple(found),
        )

    def _rows_of_datagrams(self, datagrams: Datagrams) -> Iterator[FoundRows]:
        batch = batch_of(datagrams)
        found = [track.finder.find_datagrams(batch) for track in self._template]
        yield FoundRows(
            batch.column("timestamp_ns").copy(),
            batch.column("timestamp_source").copy(),
            batch.column("frame_number").copy(),
            tuple((kinds[: batch.count].copy(), keys[: batch.count].copy()) for kinds, keys in found),
        )

    def _play(self, state: list[PairTrack], rows: FoundRows) -> None:
        frames = FrameBatch(rows.count)
        frames.count = rows.count
        for name, column in (
            ("timestamp_ns", rows.times_ns),
            ("timestamp_source", rows.sources),
            ("frame_number", rows.frames),
        ):
            frames.storage(name)[: rows.count] = column
        frames.frames_before = rows.first_frame - 1
        frames.frames_read = int(rows.frames[-1]) - frames.frames_before
        for track, (kinds, keys) in zip(state, rows.found, strict=True):
            track.take(frames, -self.origin, kinds, keys)

    def _track(
        self,
        state: list[PairTrack],
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        assert isinstance(frames, FrameBatch)
        if datagrams is not None:
            for rows in self._rows(frames, headers, frame_shift, first, last, datagrams):
                self._play(state, rows)
            if last < frames.count:
                return
            # The batch may end with frames that a filter took out.
            self._pass(state, frames.frames_before + frames.frames_read + frame_shift - self.origin)
            return
        for track in state:
            track.update(frames, frame_shift - self.origin)

    def _join(self, state: list[PairTrack], later: list[PairTrack], frame_shift: int, frames_before: int) -> None:
        self._pass(state, frames_before)
        for mine, other in zip(state, later, strict=True):
            mine.append(other, frames_before)

    def absorb(self, later: PairsStretch, frame_shift: int) -> None:
        super().absorb(later, frame_shift)
        if later._is_first:
            for mine, other in zip(self._template, later._template, strict=True):
                mine.finder.absorb(other.finder)

    @staticmethod
    def _pass(state: Sequence[PairTrack], frames_before: int) -> None:
        """Let tracks know how many frames there were, the last of which they were not given."""
        frames = FrameBatch(1)
        frames.frames_before = frames_before
        for track in state:
            track.take(frames, 0, np.zeros(0, np.uint8), np.zeros((0, 3), np.uint64))


class FragmentedPairs(FragmentedStream[PairsStretch]):
    """Requests and responses of all rules, with datagrams in place of their fragments.

    Parameters
    ----------
    tracks : sequence of PairTrack
        Without a frame.
    """

    def __init__(self, tracks: Sequence[PairTrack]) -> None:
        super().__init__(PairsStretch(tracks))

    @property
    def tracks(self) -> list[PairTrack]:
        """The rules as they stand if nothing came before."""
        tracks = self.whole().last.state
        assert tracks is not None
        return tracks
