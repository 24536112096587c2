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

from uspcap._native.feed_runs import KIND_DATA, KIND_END, KIND_RESET, RESET_DISTANCE

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

    @property
    def count(self) -> int:
        return self.last - self.first + 1


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
    _open: list[SequenceGap] = field(default_factory=list)
    _packets: int = 0
    _mark_ns: int = 0
    _mark_frame: int = 0

    def take(self, runs: NDArray[np.void], *, modulus: int = 0) -> None:
        """Take the stream's runs, rows of `RUN_DTYPE` in their order.

        Parameters
        ----------
        modulus : int
            Numbers begin again after so many; 0 where they do not.
        """
        # tolist() turns unsigned numbers into Python's.
        for _, kind, first, after, packets, _, first_ns, last_ns, first_frame, last_frame in runs.tolist():
            begin, end = first, after
            if modulus and self.joined_at is not None:
                begin += round((self.mark - begin) / modulus) * modulus
                end = begin + (after - first)
            if kind == KIND_RESET:
                self._begin_anew(begin, first_ns, first_frame)
            elif kind == KIND_DATA:
                self._take_data(begin, end, packets, first_ns, last_ns, first_frame, last_frame)
            else:
                self.ended |= kind == KIND_END
                if self.joined_at is None:
                    self.joined_at = self.mark = self.lowest = begin
                elif begin > self.mark:
                    self._find_gap(begin, first_ns, first_frame)
                if begin >= self.mark:
                    self.mark, self._mark_ns, self._mark_frame = begin, last_ns, last_frame

    def _take_data(
        self, begin: int, end: int, packets: int, first_ns: int, last_ns: int, first_frame: int, last_frame: int
    ) -> None:
        if self.joined_at is None:
            self.joined_at = self.mark = self.lowest = self.first = begin
        elif begin <= FIRST_NUMBER and self.mark - begin > RESET_DISTANCE:
            self._begin_anew(begin, first_ns, first_frame)
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

    def _begin_anew(self, at: int, at_ns: int, frame: int) -> None:
        self.resets += self.joined_at is not None
        if self.joined_at is None:
            self.joined_at = at
        self._open = []
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
        )
        self.gaps.append(gap)
        self._open.append(gap)

    def _take_old(self, begin: int, end: int, *, beyond: bool, at_ns: int) -> None:
        """Take numbers from below the mark: what was missing came late, the rest came before."""
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
        before = max(0, min(end, self.lowest) - begin)
        again = end - begin - filled - before
        self.late += filled
        self.duplicate += again
        self.before_joined += before
        if again and (filled or beyond):
            self.overlap += 1
        if touched is not None:
            self.extents.append(self._packets - 1 - touched.after_packet)
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
