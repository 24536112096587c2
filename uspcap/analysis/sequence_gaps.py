"""What is missing of a numbered stream, from its runs: a high-water mark, and what is missing below it.

A late packet fills a gap and never moves the mark back. A gap is found when a packet, or an announcement of the next
number, comes from beyond the mark; the first packet of a stream is never one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap._native.feed_runs import KIND_DATA, KIND_END, KIND_FILL, KIND_HOLE, KIND_RESET, RESET_DISTANCE

FIRST_NUMBER: Final = 1
"""A packet numbered up to this, `RESET_DISTANCE` and more below the mark, begins the stream anew."""


@dataclass(slots=True)
class SequenceGap:
    """Numbers that were missing when those after them came.

    Attributes
    ----------
    first, last : int
        Sequence numbers, both missing.
    start_ns, before_frame : int
        Of the last packet before the gap.
    end_ns, after_frame : int
        Of the first packet, or announcement, after it.
    after_packet : int
        How many packets of the stream had come by then.
    missing : list of [int, int]
        What is missing still, first and last.
    filled : int
        How many came late.
    filled_ns : int
        When the last of these came, at the gap's end where stamps say before.
    torn : bool
        Bytes of the TCP stream that carries the numbers were missing there.
    """

    first: int
    last: int
    start_ns: int
    end_ns: int
    before_frame: int
    after_frame: int
    after_packet: int
    missing: list[list[int]]
    filled: int = 0
    filled_ns: int = 0
    torn: bool = False

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class _Epoch:
    """Where a stream was when it seemed to begin anew."""

    mark: int
    lowest: int
    resets: int
    gaps_before: int
    mark_ns: int
    mark_frame: int
    open: list[SequenceGap]


@dataclass(slots=True)
class StreamGaps:
    """A stream's account.

    Attributes
    ----------
    joined_at : int or None
        The first number that was seen.
    mark : int
        The next number that is expected.
    lowest : int
        The first number of this epoch.
    late, duplicate, overlap, resets, before_joined : int
        Numbers that came late and twice, packets that held both new numbers and old ones, new beginnings, numbers from
        before the first that was seen.
    extents, lateness_ns : list of int
        Of each packet that filled something: how many packets of the stream came between the gap's end and it (RFC
        4737, 4.2.1), and how long it was, none where stamps say that it came before.
    gaps : list of SequenceGap
        In the order in which they were found, of all epochs.
    gaps_before : int
        How many of these are of epochs before this one.
    """

    joined_at: int | None = None
    mark: int = 0
    lowest: int = 0
    late: int = 0
    duplicate: int = 0
    overlap: int = 0
    resets: int = 0
    before_joined: int = 0
    first: int | None = None
    last: int | None = None
    ended: bool = False
    extents: list[int] = field(default_factory=list)
    lateness_ns: list[int] = field(default_factory=list)
    gaps: list[SequenceGap] = field(default_factory=list)
    gaps_before: int = 0
    _open: list[SequenceGap] = field(default_factory=list)
    _packets: int = 0
    _mark_ns: int = 0
    _mark_frame: int = 0
    _torn: bool = False
    _left: _Epoch | None = None

    def take(self, runs: NDArray[np.void], *, modulus: int = 0, far: int = 0) -> None:
        """Take the stream's runs, rows of `RUN_DTYPE` in their order.

        Parameters
        ----------
        modulus : int
            Numbers begin again after so many; 0 where they do not.
        far : int
            What is farther than this from the mark begins the stream anew, and what says so with the number that the
            stream has begun with already may only say it again; 0: numbers that fall to 1 do.
        """
        # tolist() turns unsigned numbers into Python's.
        for _, kind, first, after, packets, _, first_ns, last_ns, first_frame, last_frame in runs.tolist():
            if kind == KIND_HOLE:
                self._torn = True
                continue
            begin, end = first, after
            if modulus and self.joined_at is not None:
                begin += round((self.mark - begin) / modulus) * modulus
                # Below the first number that there was, runs hold them modulo 2^64.
                end = begin + (after - first) % 2**64
            if kind == KIND_FILL:
                if self.joined_at is not None:
                    self._take_old(max(begin, self.lowest), min(end, self.mark), again=True, at_ns=last_ns)
                continue
            if kind == KIND_RESET:
                self._reset(begin, first_ns, first_frame, may_repeat=far > 0)
                continue
            if self._left is not None:
                self._return_to(self._left, begin)
            if self.joined_at is not None and self._is_anew(begin, far, announced=kind != KIND_DATA):
                self._begin_anew(begin, first_ns, first_frame)
            if kind == KIND_DATA:
                self._take_data(begin, end, packets, first_ns, last_ns, first_frame, last_frame)
            else:
                self.ended |= kind == KIND_END
                if self.joined_at is None:
                    self.joined_at = self.mark = self.lowest = begin
                elif begin > self.mark:
                    self._find_gap(begin, first_ns, first_frame)
                if begin >= self.mark:
                    self.mark, self._mark_ns, self._mark_frame = begin, last_ns, last_frame
            self._torn = False

    def _is_anew(self, begin: int, far: int, *, announced: bool) -> bool:
        if far:
            return abs(begin - self.mark) > far
        return not announced and begin <= FIRST_NUMBER and self.mark - begin > RESET_DISTANCE

    def _take_data(
        self, begin: int, end: int, packets: int, first_ns: int, last_ns: int, first_frame: int, last_frame: int
    ) -> None:
        if self.joined_at is None:
            self.joined_at = self.mark = self.lowest = begin
        if self.first is None:
            self.first = begin
        if begin > self.mark:
            self._find_gap(begin, first_ns, first_frame)
        self._packets += packets
        if begin < self.mark:
            self._take_old(begin, min(end, self.mark), beyond=end > self.mark, at_ns=last_ns)
        if end >= self.mark:
            self.mark, self._mark_ns, self._mark_frame = end, last_ns, last_frame
            if end > begin:
                self.last = end - 1

    def _reset(self, at: int, at_ns: int, frame: int, *, may_repeat: bool) -> None:
        """Begin anew as is said; or say so again, which what comes next will show."""
        left = self._left
        if may_repeat and left is None and self.joined_at is not None and at == self.lowest:
            left = _Epoch(
                self.mark, self.lowest, self.resets, self.gaps_before, self._mark_ns, self._mark_frame, self._open
            )
        self._begin_anew(at, at_ns, frame)
        self._left = left if left is not None and at == left.lowest else None

    def _return_to(self, left: _Epoch, begin: int) -> None:
        """Go on where the stream was before it seemed to begin anew, if what comes now is from there or beyond."""
        self._left = None
        if begin >= left.mark:
            self.mark, self.lowest, self._open = left.mark, left.lowest, left.open
            self.resets, self.gaps_before = left.resets, left.gaps_before
            self._mark_ns, self._mark_frame = left.mark_ns, left.mark_frame

    def _begin_anew(self, at: int, at_ns: int, frame: int) -> None:
        self.resets += self.joined_at is not None
        if self.joined_at is None:
            self.joined_at = at
        self._open = []
        self._torn = False
        self.gaps_before = len(self.gaps)
        self.mark = self.lowest = at
        self._mark_ns, self._mark_frame = at_ns, frame

    def _find_gap(self, begin: int, at_ns: int, frame: int) -> None:
        gap = SequenceGap(
            self.mark,
            begin - 1,
            self._mark_ns,
            at_ns,
            self._mark_frame,
            frame,
            self._packets,
            [[self.mark, begin - 1]],
            torn=self._torn,
        )
        self.gaps.append(gap)
        self._open.append(gap)

    def _take_old(self, begin: int, end: int, *, beyond: bool = False, again: bool = False, at_ns: int) -> None:
        """Take numbers from below the mark: what was missing came late, the rest came before.

        Parameters
        ----------
        beyond : bool
            There were numbers from the mark on as well.
        again : bool
            The packet says of itself that it is sent again: what came before is no duplicate.
        """
        filled = 0
        gap: SequenceGap | None = None
        at = max(0, bisect_right(self._open, begin, key=lambda one: one.first) - 1)
        touched = None
        while at < len(self._open) and self._open[at].first < end:
            gap = self._open[at]
            came = _take_out(gap.missing, begin, end - 1)
            if came:
                gap.filled += came
                gap.filled_ns = max(at_ns, gap.end_ns)
                filled += came
                touched = touched or gap
            if gap.missing:
                at += 1
            else:
                del self._open[at]
        self.late += filled
        if not again:
            before = max(0, min(end, self.lowest) - begin)
            double = end - begin - filled - before
            self.duplicate += double
            self.before_joined += before
            if double and (filled or beyond):
                self.overlap += 1
        if touched is not None:
            # A packet that is sent again is none of the stream's.
            self.extents.append(self._packets - touched.after_packet - (0 if again else 1))
            # By stamps it may have come before: where a capture is not in the order of time.
            self.lateness_ns.append(max(0, at_ns - touched.end_ns))


def _take_out(intervals: list[list[int]], first: int, last: int) -> int:
    """Remove [first, last] from rising intervals; return how many numbers were in them."""
    taken = 0
    at = max(0, bisect_right(intervals, first, key=lambda one: one[0]) - 1)
    while at < len(intervals) and intervals[at][0] <= last:
        low, high = intervals[at]
        if high < first:
            at += 1
            continue
        taken += min(high, last) - max(low, first) + 1
        left = [[low, first - 1]] if low < first else []
        right = [[last + 1, high]] if high > last else []
        intervals[at : at + 1] = left + right
        at += len(left)
        if right:
            break
    return taken
