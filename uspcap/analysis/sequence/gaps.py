"""Gaps of a numbered stream, from its runs: a high-water mark, and the numbers missing below it.

A late packet fills a gap and never moves the mark back. A gap is found when a packet, or an announcement of the next
number, comes from beyond the mark; the first packet of a stream is never one.

A number that is implausible, more than `MOST_DROPPED` beyond the mark, moves the mark and makes a gap only once what
follows confirms it (RFC 3550, A.1, does the same): the next packet goes on with it, an announcement says the same, or
one of the next `CONFIRMED_WITHIN` packets begins near its end. Where these are from elsewhere the packet is passed
over; where the stream ends before they have come it is unconfirmed. All runs of a stream are at hand when it is worked
out, so that what follows is looked at ahead, and cutting a capture changes nothing.

Where numbers begin again after the highest, they are taken as those that are nearest to the mark, and so stand for
numbers that never do; `StreamGaps.shown` turns these into what the field holds. Python's integers have no end, so that
no number and no sum is too large.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from operator import itemgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.sequence.numbered_runs import KIND_DATA, KIND_END, KIND_FILL, KIND_HOLE, KIND_RESET
from uspcap.saturating import clipped_ns

FIRST_NUMBER: Final = 1
"""A packet numbered up to this, `RESET_DISTANCE` and more below the mark, restarts the stream."""

RESET_DISTANCE: Final = 1000

MOST_DROPPED: Final = 3000
MOST_MISORDERED: Final = 100
"""How far numbers go on and come back without needing confirmation, as in RFC 3550, A.1."""

CONFIRMED_WITHIN: Final = 16
"""Packets that may come from elsewhere before one that confirms a jump."""

NEAR_BY_CHANCE: Final = 1024
"""Where numbers begin again, no more than one in so many is near the end of a jump, either way."""

_INTERVALS_A_BLOCK: Final = 512


@dataclass(slots=True)
class SequenceGap:
    """Numbers that were missing when later ones arrived.

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
    filled : int
        How many came late.
    filled_ns : int
        When the last of these came, at the gap's end where timestamps say before.
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
    filled: int = 0
    filled_ns: int = 0
    torn: bool = False

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class _Missing:
    """Numbers that are missing, each with its gap: rising intervals, in blocks, so that few are moved at a time."""

    def __init__(self) -> None:
        self._blocks: list[list[tuple[int, int, SequenceGap]]] = []
        self._firsts: list[int] = []

    def append(self, gap: SequenceGap) -> None:
        """Add a gap that lies above all others."""
        if not self._blocks or len(self._blocks[-1]) >= _INTERVALS_A_BLOCK:
            self._blocks.append([])
            self._firsts.append(gap.first)
        self._blocks[-1].append((gap.first, gap.last, gap))

    def take_out(self, first: int, last: int) -> list[tuple[SequenceGap, int]]:
        """Remove the numbers from `first` to `last`; return the gaps they were in, and how many were in each."""
        taken: list[tuple[SequenceGap, int]] = []
        at = max(0, bisect_right(self._firsts, first) - 1)
        while at < len(self._blocks) and self._firsts[at] <= last:
            block = self._blocks[at]
            low = max(0, bisect_right(block, first, key=itemgetter(0)) - 1)
            high = bisect_right(block, last, key=itemgetter(0))
            left: list[tuple[int, int, SequenceGap]] = []
            for begin, end, gap in block[low:high]:
                if end < first:
                    left.append((begin, end, gap))
                    continue
                taken.append((gap, min(end, last) - max(begin, first) + 1))
                if begin < first:
                    left.append((begin, first - 1, gap))
                if end > last:
                    left.append((last + 1, end, gap))
            block[low:high] = left
            at = self._settle(at)
        return taken

    def _settle(self, at: int) -> int:
        """Bring a block to a size again; return which one is next."""
        block = self._blocks[at]
        if not block:
            del self._blocks[at], self._firsts[at]
            return at
        self._firsts[at] = block[0][0]
        if len(block) > 2 * _INTERVALS_A_BLOCK:
            self._blocks.insert(at + 1, block[_INTERVALS_A_BLOCK:])
            self._firsts.insert(at + 1, block[_INTERVALS_A_BLOCK][0])
            del block[_INTERVALS_A_BLOCK:]
            at += 1
        return at + 1


class _Run(NamedTuple):
    """A row of `RUN_DTYPE`, as far as it matters here."""

    kind: int
    first: int
    length: int
    packets: int
    first_ns: int
    last_ns: int
    seen_ns: int
    first_frame: int
    seen_frame: int
    first_end: int

    @property
    def announced(self) -> bool:
        return self.kind not in (KIND_DATA, KIND_FILL)

    @property
    def is_confirmed(self) -> bool:
        """More than one packet, or an announcement as well, confirm the position of the stream at its end."""
        return self.packets > 1 or self.seen_frame > self.first_frame


@dataclass(frozen=True, slots=True)
class UnconfirmedJump:
    """A packet near the end of a stream whose number is implausible and which nothing confirms or refutes.

    Attributes
    ----------
    number, expected : int
        The packet's first number, or the number that it announces; what the stream had led to.
    at_ns, frame : int
    """

    number: int
    expected: int
    at_ns: int
    frame: int


class _Verdict(Enum):
    """The verdict of the packets after a jump."""

    CONFIRMED = auto()
    REFUTED = auto()
    OPEN = auto()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Packets that are examined together: mostly one."""

    begin: int
    end: int
    packets: int
    at_ns: int


class PacketEnds:
    """Where packets of runs end.

    Parameters
    ----------
    ends : ndarray of PACKET_END_DTYPE
    """

    def __init__(self, ends: NDArray[np.void]) -> None:
        self._ends = ends
        self._columns: tuple[list[int], list[int], list[int]] | None = None

    def of(self, first: int) -> Iterator[tuple[int, int]]:
        """Yield the ends of a run, whose first it is: numbers of the run up to there, and when that packet came."""
        if self._columns is None:
            after, at_ns, following = (self._ends[name].tolist() for name in ("after", "at_ns", "next"))
            self._columns = after, at_ns, following
        after, at_ns, following = self._columns
        while first >= 0:
            yield after[first], at_ns[first]
            first = following[first]


@dataclass(frozen=True, slots=True)
class _Epoch:
    """Where a stream was when it seemed to restart."""

    mark: int
    lowest: int
    resets: int
    gaps_before: int
    mark_ns: int
    mark_frame: int
    missing: _Missing


@dataclass(slots=True)
class StreamGaps:
    """A stream's account.

    Parameters
    ----------
    modulus : int
        Numbers begin again after so many; 0 where they do not.
    far : int
        What is farther than this from the mark restarts the stream, and what says so with the number that the stream
        has begun with already may only say it again; 0: numbers that fall to 1 do, where they never begin again.

    Attributes
    ----------
    joined_at : int or None
        The first number that was seen.
    mark : int
        The next number that is expected.
    lowest : int
        The first number of this epoch.
    late, duplicate, overlap, resets, before_joined : int
        Numbers that were late and duplicate, packets that held both new numbers and old ones, resets, numbers from
        before the first that was seen.
    coalesced : int
        Packets below the mark that were taken together, as they followed too many others: `overlap` has none of them,
        and `extents` and `lateness_ns` have the last one only.
    packets : int
    repeated : int
        Packets that brought nothing but numbers that had come before.
    implausible : int
        Packets that were passed over: their numbers jumped, and those after them refuted that.
    unconfirmed : list of UnconfirmedJump
        Packets, or announcements, at the end of the stream of which that is not known.
    extents, lateness_ns : list of int
        Of each packet that filled something: how many packets of the stream came between the gap's end and it (RFC
        4737, 4.2.1), and how long it was, none where timestamps say that it came before.
    gaps : list of SequenceGap
        In the order in which they were found, of all epochs.
    gaps_before : int
        How many of these are of epochs before this one.
    """

    modulus: int = 0
    far: int = 0
    joined_at: int | None = None
    mark: int = 0
    lowest: int = 0
    late: int = 0
    duplicate: int = 0
    overlap: int = 0
    resets: int = 0
    before_joined: int = 0
    coalesced: int = 0
    packets: int = 0
    repeated: int = 0
    implausible: int = 0
    first: int | None = None
    last: int | None = None
    ended: bool = False
    extents: list[int] = field(default_factory=list)
    lateness_ns: list[int] = field(default_factory=list)
    gaps: list[SequenceGap] = field(default_factory=list)
    unconfirmed: list[UnconfirmedJump] = field(default_factory=list)
    gaps_before: int = 0
    _missing: _Missing = field(default_factory=_Missing)
    _mark_ns: int = 0
    _mark_frame: int = 0
    _torn: bool = False
    _left: _Epoch | None = None

    def shown(self, number: int) -> int:
        """Return a number as its field has it."""
        return number % self.modulus if self.modulus else number

    def nearest(self, number: int) -> int:
        """Return the position of a field's number: where numbers wrap, the one nearest to the mark."""
        if not self.modulus or self.joined_at is None:
            return number
        ahead = (number - self.mark) % self.modulus
        return self.mark + ahead - (self.modulus if 2 * ahead >= self.modulus else 0)

    def take(self, runs: NDArray[np.void], ends: PacketEnds) -> None:
        """Take the stream's runs, rows of `RUN_DTYPE` in their order."""
        in_order = [*map(_Run._make, zip(*(runs[name].tolist() for name in _Run._fields), strict=True))]
        for at, run in enumerate(in_order):
            if run.kind == KIND_HOLE:
                self._torn = True
                continue
            announced = run.announced
            begin = self._begin_of(run)
            if run.kind == KIND_FILL:
                if self.joined_at is not None:
                    for piece in self._pieces(run, begin, ends):
                        old = max(piece.begin, self.lowest), min(piece.end, self.mark)
                        self._take_old(*old, again=True, piece=piece)
                continue
            if run.kind == KIND_RESET:
                self._reset(begin, run.first_ns, run.first_frame, may_repeat=self.far > 0)
                continue
            if self._is_passed_over(run, begin, in_order, at):
                continue
            if self._left is not None:
                self._return_to(self._left, begin)
            if self.joined_at is None:
                self.joined_at = self.mark = self.lowest = begin
            elif self._is_reset(begin, announced=announced):
                self._restart(begin, run.first_ns, run.first_frame)
            if begin > self.mark:
                self._find_gap(begin, run.first_ns, run.first_frame)
            if announced:
                self.ended |= run.kind == KIND_END
                end = begin
            else:
                if self.first is None:
                    self.first = begin
                end = begin + run.length
                self._take_data(run, begin, end, ends)
            if end >= self.mark:
                self.mark, self._mark_ns, self._mark_frame = end, run.seen_ns, run.seen_frame
                if end > begin:
                    self.last = end - 1
            self._torn = False

    def _begin_of(self, run: _Run) -> int:
        """Return the first number of a run, or the one that it announces."""
        return self.nearest(run.first + (run.length if run.announced else 0))

    def _is_passed_over(self, run: _Run, begin: int, runs: Sequence[_Run], at: int) -> bool:
        """Tell whether a run moves nothing, as its number is implausible and nothing confirms it; count it then."""
        if self.far or run.is_confirmed:
            return False
        if self.joined_at is None:
            passed = self._is_refuted_start(run, begin, runs, at)
        elif begin - self.mark <= MOST_DROPPED:
            return False
        else:
            verdict = self._verdict(run, begin, runs, at)
            passed = verdict is _Verdict.REFUTED
            if verdict is _Verdict.OPEN:
                self.unconfirmed.append(UnconfirmedJump(begin, self.mark, run.first_ns, run.first_frame))
                self.packets += run.packets
                return True
        if passed:
            self.implausible += max(1, run.packets)
            self.packets += run.packets
        return passed

    def _following(self, runs: Sequence[_Run], at: int) -> Iterator[_Run]:
        """Yield the runs after one, as far as they may confirm it."""
        left = CONFIRMED_WITHIN
        for later in range(at + 1, len(runs)):
            following = runs[later]
            if following.kind == KIND_RESET or left <= 0:
                return
            if following.kind not in (KIND_FILL, KIND_HOLE):
                yield following
                left -= max(1, following.packets)

    def _confirms(self, following: _Run, run: _Run, begin: int) -> bool:
        """Return whether a later run continues near the end of one that begins there, and is no copy of it."""
        if following.kind == run.kind == KIND_DATA and following.first == run.first:
            return False
        ahead = self._begin_of(following) - begin - (0 if run.announced else run.length)
        if not self.modulus:
            return -MOST_MISORDERED <= ahead <= MOST_DROPPED
        # Where numbers are few, one of several may well be near by chance.
        few = self.modulus // NEAR_BY_CHANCE
        back = min(MOST_MISORDERED, few)
        return (ahead + back) % self.modulus <= back + min(MOST_DROPPED, few)

    def _verdict(self, run: _Run, begin: int, runs: Sequence[_Run], at: int) -> _Verdict:
        """Return the verdict of the packets after a jump to `begin`."""
        passed = 0
        for following in self._following(runs, at):
            if self._confirms(following, run, begin):
                return _Verdict.CONFIRMED
            passed += max(1, following.packets)
        return _Verdict.REFUTED if passed >= CONFIRMED_WITHIN else _Verdict.OPEN

    def _is_refuted_start(self, run: _Run, begin: int, runs: Sequence[_Run], at: int) -> bool:
        """Tell whether the packets after the first one of a stream show that its number is none of the stream's."""
        for following in self._following(runs, at):
            if self._confirms(following, run, begin):
                return False
            number = self._begin_of(following)
            is_below = bool(self.modulus) or FIRST_NUMBER < number < begin - MOST_DROPPED
            if following.kind == KIND_DATA and following.packets > 1:
                return is_below
        return False

    def _is_reset(self, begin: int, *, announced: bool) -> bool:
        if self.far:
            return abs(begin - self.mark) > self.far
        return not self.modulus and not announced and begin <= FIRST_NUMBER and self.mark - begin > RESET_DISTANCE

    def _take_data(self, run: _Run, begin: int, end: int, ends: PacketEnds) -> None:
        """Take the packets of a run, those that begin below the mark one by one."""
        left = run.packets
        if begin < self.mark:
            for piece in self._pieces(run, begin, ends):
                if piece.begin >= self.mark:
                    break
                self.packets += piece.packets
                left -= piece.packets
                self._take_old(piece.begin, min(piece.end, self.mark), beyond=piece.end > self.mark, piece=piece)
        self.packets += left

    def _pieces(self, run: _Run, begin: int, ends: PacketEnds) -> Iterator[_Piece]:
        """Yield the packets of a run that begins there: one by one as far as it is known where they end."""
        at, left = begin, run.packets
        for after, at_ns in ends.of(run.first_end):
            yield _Piece(at, begin + after, 1, at_ns)
            at, left = begin + after, left - 1
        yield _Piece(at, begin + run.length, left, run.last_ns)

    def _reset(self, at: int, at_ns: int, frame: int, *, may_repeat: bool) -> None:
        """Restart as announced; or the reset is a repeated one, which the next packet will show."""
        left = self._left
        if may_repeat and left is None and self.joined_at is not None and at == self.lowest:
            left = _Epoch(
                self.mark, self.lowest, self.resets, self.gaps_before, self._mark_ns, self._mark_frame, self._missing
            )
        self._restart(at, at_ns, frame)
        self._left = left if left is not None and at == left.lowest else None

    def _return_to(self, left: _Epoch, begin: int) -> None:
        """Go on where the stream was before it seemed to restart, if the packet is from there or beyond."""
        self._left = None
        if begin >= left.mark:
            self.mark, self.lowest, self._missing = left.mark, left.lowest, left.missing
            self.resets, self.gaps_before = left.resets, left.gaps_before
            self._mark_ns, self._mark_frame = left.mark_ns, left.mark_frame

    def _restart(self, at: int, at_ns: int, frame: int) -> None:
        self.resets += self.joined_at is not None
        if self.joined_at is None:
            self.joined_at = at
        self._missing = _Missing()
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
            self.packets,
            torn=self._torn,
        )
        self.gaps.append(gap)
        self._missing.append(gap)

    def _take_old(self, begin: int, end: int, *, beyond: bool = False, again: bool = False, piece: _Piece) -> None:
        """Take numbers from below the mark: missing ones are late, the rest duplicate.

        Parameters
        ----------
        beyond : bool
            There were numbers from the mark on as well.
        again : bool
            The packet is marked as a retransmission: what came before is no duplicate.
        """
        filled = 0
        touched: SequenceGap | None = None
        if begin < end:
            for gap, came in self._missing.take_out(begin, end - 1):
                gap.filled += came
                gap.filled_ns = max(piece.at_ns, gap.end_ns)
                filled += came
                touched = touched or gap
        self.late += filled
        self.repeated += 0 if filled or beyond or again else piece.packets
        alone = piece.packets == 1
        self.coalesced += 0 if alone else piece.packets
        if not again:
            before = max(0, min(end, self.lowest) - begin)
            double = end - begin - filled - before
            self.duplicate += double
            self.before_joined += before
            if double and (filled or beyond) and alone:
                self.overlap += 1
        if touched is not None:
            # A retransmitted packet is not one of the stream's.
            self.extents.append(self.packets - touched.after_packet - (0 if again else 1))
            # By timestamps it may have come before: where a capture is not in the order of time.
            self.lateness_ns.append(clipped_ns(max(0, piece.at_ns - touched.end_ns)))
