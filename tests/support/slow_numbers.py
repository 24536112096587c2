"""A slow account of one numbered stream: every packet on its own, and a plain list of what has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

FALLEN_FROM = 1000
DROPPED, MISORDERED, WITHIN = 3000, 100, 16
LONGEST = 1 << 30


@dataclass(frozen=True)
class Arrival:
    """What one packet or message says of its stream's numbers.

    `kind` is data, next (announces), end, reset, fill or hole; numbers are [first, after).
    """

    kind: str
    first: int
    after: int
    frame: int
    at_ns: int
    torn: bool = False
    messages: int | None = None


@dataclass
class Gap:
    first: int
    last: int
    before: int
    after: int
    start_ns: int
    end_ns: int
    packets: int
    torn: bool


@dataclass
class Came:
    """Numbers that have come, as intervals [first, after) that rise and do not touch."""

    intervals: list[tuple[int, int]] = field(default_factory=list)

    def within(self, first: int, after: int) -> int:
        return sum(max(0, min(after, end) - max(first, begin)) for begin, end in self.intervals)

    def missing(self, first: int, after: int) -> Iterator[tuple[int, int]]:
        """Yield what of [first, after) has not come."""
        for begin, end in self.intervals:
            if first < min(begin, after):
                yield first, min(begin, after)
            first = max(first, end)
        if first < after:
            yield first, after

    def add(self, first: int, after: int) -> None:
        if first == after:
            return
        touched = [one for one in self.intervals if one[0] <= after and first <= one[1]]
        whole = min([first, *(begin for begin, _ in touched)]), max([after, *(end for _, end in touched)])
        self.intervals = sorted([*(one for one in self.intervals if one not in touched), whole])


@dataclass
class SlowNumbers:
    """What one stream's packets say, taken one by one.

    `modulus` is after how many numbers they begin again, 0 for never; `far` is what restarts the stream wherever it
    leads, 0 where falling to 1 does.
    """

    modulus: int = 0
    far: int = 0
    joined_at: int | None = None
    mark: int = 0
    lowest: int = 0
    first: int | None = None
    last: int | None = None
    packets: int = 0
    messages: int = 0
    excluded: int = 0
    heartbeats: int = 0
    late: int = 0
    duplicate: int = 0
    overlap: int = 0
    resets: int = 0
    before_joined: int = 0
    missing: int = 0
    ended: bool = False
    gaps: list[Gap] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    lateness_ns: list[int] = field(default_factory=list)
    largest_extent: int = 0
    _came: Came = field(default_factory=Came)
    _mark_frame: int = 0
    _mark_ns: int = 0
    _torn: bool = False
    implausible: int = 0
    unconfirmed: int = 0
    _expected: int | None = None
    """What the last packet led to."""

    @classmethod
    def of(cls, arrivals: Iterable[Arrival], *, modulus: int = 0, far: int = 0) -> SlowNumbers:
        """Take all that a stream says, in its order."""
        slow = cls(modulus, far)
        left = list(arrivals)
        while left:
            many = 0 if left[0].kind in ("reset", "hole", "fill") else slow._passed_over(left)
            if many:
                slow._count(left[:many])
                left = left[many:]
            elif left[0].kind == "reset":
                left = slow._take_reset(left)
            else:
                left = slow._take(left[0], left[1:])
        slow._account()
        return slow

    def _is_reset(self, one: Arrival, first: int) -> bool:
        if self.far:
            return abs(first - self.mark) > self.far
        return not self.modulus and one.kind == "data" and first <= 1 and self.mark - first > FALLEN_FROM

    def shown(self, number: int | None) -> int | None:
        return number % self.modulus if self.modulus and number is not None else number

    def _nearest(self, number: int, to: int) -> int:
        if not self.modulus or self.joined_at is None:
            return number
        turn = to // self.modulus
        candidates = [number % self.modulus + (turn + by) * self.modulus for by in (-1, 0, 1)]
        return min(candidates, key=lambda one: (abs(one - to), one))

    def _count(self, arrivals: list[Arrival]) -> None:
        """Count packets that move nothing."""
        for one in arrivals:
            self.packets += one.kind == "data"
            self.messages += (one.after - one.first if one.messages is None else one.messages) * (one.kind == "data")
            self.heartbeats += one.kind in ("next", "end")

    def _passed_over(self, arrivals: list[Arrival]) -> int:
        """Return how many packets there are from the first on that jump and that nothing bears out: 0 or 1."""
        one = arrivals[0]
        if self.far or (one.kind == "data" and one.first == self.shown(self._expected) and self.joined_at is not None):
            return 0
        first = self._nearest(one.first, self.mark)
        groups = _groups(arrivals, self.modulus)
        if len(next(groups)) > 1 or (self.joined_at is not None and first - self.mark <= DROPPED):
            return 0
        cost = 0
        after = one.after - one.first + first
        for group in groups:
            head = group[0]
            if head.kind == "reset" or cost >= WITHIN:
                break
            if head.kind in ("fill", "hole"):
                continue
            number = self._nearest(head.first, self.mark)
            ahead = number - after
            back, on = MISORDERED, DROPPED
            if self.modulus:
                ahead = min((ahead % self.modulus, ahead % self.modulus - self.modulus), key=abs)
                back, on = min(back, self.modulus // 1024), min(on, self.modulus // 1024)
            is_copy = head.kind == one.kind == "data" and head.first == one.first
            if not is_copy and -back <= ahead <= on:
                return 0
            if self.joined_at is None and sum(each.kind == "data" for each in group) > 1:
                below = self.modulus or 1 < number < first - DROPPED
                self.implausible += bool(below)
                return int(bool(below))
            cost += max(1, sum(each.kind == "data" for each in group))
        if self.joined_at is None:
            return 0
        self.implausible += cost >= WITHIN
        self.unconfirmed += cost < WITHIN
        return 1

    def _take_reset(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Take resets up to what comes after them, which may show that they only say again where the stream began."""
        at = self._nearest(arrivals[0].first, self.mark)
        if not self.far or at != self.lowest or self.joined_at is None:
            self._restart(at, arrivals[0])
            return arrivals[1:]
        many = next(
            (at for at, one in enumerate(arrivals) if one.kind != "reset" or one.first != arrivals[0].first),
            len(arrivals),
        )
        following = arrivals[many] if many < len(arrivals) and arrivals[many].kind in ("data", "next", "end") else None
        if following is None or self._nearest(following.first, at) < self.mark:
            for one in arrivals[:many]:
                self._restart(at, one)
        return arrivals[many:]

    def _restart(self, at: int, one: Arrival) -> None:
        if self.joined_at is None:
            self.joined_at = at
        else:
            self.resets += 1
            self._account()
        self._came = Came()
        self.mark = self.lowest = at
        self._mark_frame, self._mark_ns = one.frame, one.at_ns
        self._torn = False
        self._expected = at

    def _take(self, one: Arrival, left: list[Arrival]) -> list[Arrival]:
        if one.kind == "hole":
            self._torn = True
            return left
        first = self._nearest(one.first, self.mark)
        after = first + one.after - one.first
        if one.kind == "fill":
            self.excluded += 1
            if self.joined_at is not None:
                self._fill(max(first, self.lowest), min(after, self.mark), one, others=0)
            return left
        self.packets += one.kind == "data"
        self.messages += (after - first if one.messages is None else one.messages) if one.kind == "data" else 0
        self.heartbeats += one.kind in ("next", "end")
        self.ended |= one.kind == "end"
        if self.joined_at is None:
            self.joined_at = self.mark = self.lowest = first
        elif self._is_reset(one, first):
            self._restart(first, one)
        if self.first is None and one.kind == "data":
            self.first = first
        if first > self.mark:
            before = self.packets - (one.kind == "data")
            self.gaps.append(
                Gap(self.mark, first - 1, self._mark_frame, one.frame, self._mark_ns, one.at_ns, before,
                    self._torn or one.torn)
            )  # fmt: skip
        end = min(after, self.mark)
        if first < end:
            early = max(0, min(end, self.lowest) - first)
            again = self._came.within(max(first, self.lowest), end)
            self.before_joined += early
            self.duplicate += again
            self.overlap += bool(again) and (end - first > early + again or after > self.mark)
            self._fill(max(first, self.lowest), end, one, others=1)
        self._came.add(first, after)
        if after >= self.mark:
            self.mark, self._mark_frame, self._mark_ns = after, one.frame, one.at_ns
            if after > first:
                self.last = after - 1
        self._torn = False
        self._expected = one.after
        return left

    def _fill(self, first: int, after: int, one: Arrival, *, others: int) -> None:
        """Take numbers that were missing."""
        filled = list(self._came.missing(first, after)) if first < after else []
        if not filled:
            return
        self.late += sum(end - begin for begin, end in filled)
        since = self.epochs[-1] if self.epochs else 0
        gap = next(gap for gap in self.gaps[since:] if gap.first <= filled[0][0] <= gap.last)
        self.lateness_ns.append(max(0, one.at_ns - gap.end_ns))
        self.largest_extent = max(self.largest_extent, self.packets - gap.packets - others)
        self._came.add(first, after)

    def _account(self) -> None:
        self.missing += self.mark - self.lowest - self._came.within(self.lowest, self.mark)
        self.epochs.append(len(self.gaps))


def _groups(arrivals: list[Arrival], modulus: int) -> Iterator[list[Arrival]]:
    """Yield packets that go on with each other, and announcements of what is expected, together."""
    group: list[Arrival] = []
    for one in arrivals:
        joins = False
        if group and group[-1].after in (one.first, one.first + modulus):
            run = group[0].kind
            joins = run in ("data", "next") and one.kind == "next"
            joins |= run == one.kind == "end" or (run == one.kind == "data" and _is_short(one, group[0]))
        if not joins and group:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _is_short(one: Arrival, first: Arrival) -> bool:
    return max(one.after - one.first, first.after - first.first) < LONGEST


COUNTS = (
    "implausible", "unconfirmed",
    "packets", "messages", "heartbeats", "excluded", "late", "duplicate", "resets", "before_joined", "ended",
)  # fmt: skip


def assert_as_slow(
    stream: dict[str, Any], slow: SlowNumbers, *, shift: int = 0, but: Iterable[str] = (), bits: int = 64
) -> None:
    """Compare a stream of a report with the slow account, whose numbers are higher by `shift`; the field has `bits`."""

    def shown(number: int | None) -> int | None:
        return None if number is None else slow.shown(number - shift)

    for name in COUNTS:
        assert name in but or stream[name] == getattr(slow, name), name
    for name in ("first", "last"):
        assert stream[name] == shown(getattr(slow, name)), name
    joined_at = shown(slow.joined_at)
    assert stream["joined_at"] == (None if joined_at == 1 << bits else joined_at)
    assert stream["lost"] + stream["undetermined"] == slow.missing
    assert stream["gap_count"] == len(slow.gaps)
    found = [tuple(gap[name] for name in _OF_GAP) for gap in stream.get("gaps", ())]
    wanted = [
        (shown(gap.first), shown(gap.last), gap.last - gap.first + 1, gap.before, gap.after, gap.start_ns, gap.end_ns)
        for gap in slow.gaps
    ]
    assert found == wanted or "gaps" not in stream
    assert stream["largest_extent"] == slow.largest_extent
    # Of packets that are taken together it is not known which held both new numbers and old ones.
    assert stream["overlap"] == slow.overlap or stream["coalesced"]


_OF_GAP = ("first", "last", "count", "before_frame", "after_frame", "start_ns", "end_ns")
