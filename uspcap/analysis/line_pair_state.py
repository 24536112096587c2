"""What is known of two lines of one feed under one key, in parts that can be put one after the other.

A part of a capture does not know what came before it, and what its first packets mean depends on that. It therefore
keeps them (the log) until both lines have been seen and the numbers have moved on by twice the ring's length; by then
the ring holds nothing that came before, whatever that was. Merging gives the log to the earlier part as if it came
there, and takes the rest over as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap._native.arbitration import PAIR_DTYPE, SUM_DTYPE, arbitrate
from uspcap._native.feed_runs import HEAD_PACKETS, KIND_HEARTBEAT, RUN_DTYPE, STREAM_DTYPE, FeedRule
from uspcap._native.histogram import BUCKETS
from uspcap.analysis.base import grown
from uspcap.analysis.histogram import ENOUGH_BEYOND, Histogram
from uspcap.frames import TimestampSource

RING_LENGTH: Final = 1 << 15
"""Numbers within which both lines must bring one for it to be compared."""

MAXIMUM_RUNS: Final = 1 << 20
"""Bound on the runs of a pair of lines under one key, 80 bytes each."""

MAXIMUM_LOG: Final = 1 << 17
"""Bound on the log, 48 bytes an arrival."""

ARBITRATED: Final = 2
"""The stream of first copies, beside those of the lines 0 and 1."""

_COUNTS: Final = ("first", "alone", "other_clock", "too_late", "too_many")
"""Fields of `PAIR_DTYPE` that count."""

_STREAM_COUNTS: Final = ("packets", "messages", "heartbeats", "excluded")
"""Fields of `STREAM_DTYPE` that count."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """How things stood at the end of a log: what must be alike where a part is taken over.

    Attributes
    ----------
    high : int
        The number that is expected next.
    lines : tuple of (int, int) or None
        By line what it brings next, and by how many beginnings it is behind; None of one that has not been seen.
    """

    high: int
    lines: tuple[tuple[int, int] | None, ...]

    @classmethod
    def of(cls, pair: np.void) -> _Standing:
        lines = zip(pair["line_begun"].tolist(), pair["line_next"].tolist(), pair["line_epoch"].tolist(), strict=True)
        epoch = int(pair["epoch"])
        return cls(int(pair["high"]), tuple((after, epoch - mine) if begun else None for begun, after, mine in lines))

    def goes_on_as(self, later: _Standing, modulus: int) -> bool:
        """Tell whether what `later` knew is so here; where numbers wrap, modulo that."""
        modulus = modulus or 1 << 64
        known = [(self.high - later.high, 0)]
        for mine, other in zip(self.lines, later.lines, strict=True):
            if other is not None and mine is None:
                return False
            if other is not None and mine is not None:
                known.append((mine[0] - other[0], mine[1] - other[1]))
        return all(numbers % modulus == 0 and not epochs for numbers, epochs in known)


@dataclass(frozen=True, slots=True)
class Skews:
    """Who was first by how much, of numbers that both lines brought.

    Attributes
    ----------
    first, second : Histogram
        By how much line 0 was first, and line 1.
    ties : int
        How many both brought at once.
    """

    first: Histogram
    ties: int
    second: Histogram

    @property
    def both(self) -> tuple[Histogram, Histogram]:
        return self.first, self.second

    def value_at(self, percentile: int) -> int | None:
        """Return a percentile, in ns, of the first line's stamps less the second's.

        None where fewer than `ENOUGH_BEYOND` values lie beyond it.
        """
        ahead, behind = self.first.total_count, self.second.total_count
        count = ahead + self.ties + behind
        if min(percentile, 100 - percentile) * count < 100 * ENOUGH_BEYOND:
            return None
        rank = max(1, -(-percentile * count // 100))
        if rank <= ahead:
            return -self.first.value_at_rank(ahead - rank + 1)
        return 0 if rank <= ahead + self.ties else self.second.value_at_rank(rank - ahead - self.ties)


class PairState:
    """Ring, runs, skews and counts, as they stand after some arrivals."""

    def __init__(self, rule: FeedRule, ring_length: int, maximum_runs: int) -> None:
        self.rule = rule
        if rule.wraps:
            ring_length = min(ring_length, max(2, rule.modulus // 4))
        self._ring_length = ring_length
        self._maximum_runs = max(maximum_runs, ring_length + 8)
        self.pair = np.zeros(1, PAIR_DTYPE)
        self.streams = np.zeros(3, STREAM_DTYPE)
        self.streams["run"], self.streams["head"] = -1, HEAD_PACKETS
        self._stamps = np.zeros(ring_length, np.int64)
        self._marks = np.zeros(ring_length, np.uint8)
        self._runs = np.zeros(ring_length + 8, RUN_DTYPE)
        self._runs_used = 0
        self._places = np.full(len(TimestampSource), -1, np.int8)
        self._skew_counts = np.zeros((0, 2, BUCKETS), np.uint64)
        self._skew_sums = np.zeros((0, 2), SUM_DTYPE)
        self.not_followed = 0
        self.doubtful_cuts = 0

    def take(self, arrivals: NDArray[np.void]) -> None:
        """Take arrivals, rows of `ARRIVAL_DTYPE`."""
        raw = np.ascontiguousarray(arrivals).view(np.uint8)
        at = 0
        while at < len(arrivals):
            at, self._runs_used = arbitrate(
                raw,
                at,
                self.rule,
                self.pair.view(np.uint8),
                self._stamps,
                self._marks,
                self.streams.view(np.uint8),
                self._runs.view(np.uint8),
                self._runs_used,
                self._places,
                self._skew_counts.reshape(-1),
                self._skew_sums.reshape(-1).view(np.uint8),
            )
            if at == len(arrivals):
                return
            source = int(arrivals[at]["source"])
            if source < TimestampSource.NONE and self._places[source] < 0:
                self._add_place(source)
            elif len(self._runs) < self._maximum_runs:
                self._runs = grown(self._runs, self._maximum_runs)
            else:
                self.not_followed += len(arrivals) - at
                return

    def _add_place(self, source: int) -> None:
        self._places[source] = len(self._skew_sums)
        self._skew_counts = np.concatenate([self._skew_counts, np.zeros((1, 2, BUCKETS), np.uint64)])
        self._skew_sums = np.concatenate([self._skew_sums, np.zeros((1, 2), SUM_DTYPE)])

    def standing(self) -> _Standing:
        return _Standing.of(self.pair[0])

    def forget(self) -> None:
        """Keep how things stand, and nothing of what was counted."""
        for name in _COUNTS:
            self.pair[name] = 0
        for name in _STREAM_COUNTS:
            self.streams[name] = 0
        self.streams["head"] = HEAD_PACKETS
        self._skew_counts[:] = 0
        self._skew_sums = np.zeros_like(self._skew_sums)
        self.not_followed = 0
        begun = np.flatnonzero(self.streams["run"] >= 0)
        # What follows must know the number that is expected: a run of no packets says it.
        kept = self._runs[self.streams["run"][begun]].copy()
        kept["kind"], kept["packets"], kept["messages"] = KIND_HEARTBEAT, 0, 0
        kept["first"] = kept["next"]
        self._runs = np.zeros(self._ring_length + 8, RUN_DTYPE)
        self._runs[: len(kept)] = kept
        self._runs_used = len(kept)
        self.streams["run"][begun] = np.arange(len(kept))

    def take_over(self, later: PairState, standing: _Standing, frames_before: int) -> None:
        """Go on as `later` does, which forgot what it knew when things stood so."""
        if not self.standing().goes_on_as(standing, self.rule.modulus if self.rule.wraps else 0):
            self.doubtful_cuts += 1
        self.doubtful_cuts += later.doubtful_cuts
        self.not_followed += later.not_followed
        self._take_over_pair(later.pair)
        self._take_over_streams(later, frames_before)
        self._stamps, self._marks = later._stamps.copy(), later._marks.copy()
        for source in np.flatnonzero(later._places >= 0).tolist():
            if self._places[source] < 0:
                self._add_place(source)
            place, other = int(self._places[source]), int(later._places[source])
            self._skew_counts[place] += later._skew_counts[other]
            for line in (0, 1):
                self._skew_sums[place, line] = _both(self._skew_sums[place, line], later._skew_sums[other, line])

    def _take_over_pair(self, later: NDArray[np.void]) -> None:
        mine, self.pair = self.pair, later.copy()
        for name in _COUNTS:
            self.pair[name] += mine[name]
        for line in np.flatnonzero(later[0]["line_begun"] == 0).tolist():
            behind = mine[0]["epoch"] - mine[0]["line_epoch"][line]
            self.pair[0]["line_begun"][line] = mine[0]["line_begun"][line]
            self.pair[0]["line_next"][line] = mine[0]["line_next"][line]
            self.pair[0]["line_epoch"][line] = later[0]["epoch"] - behind

    def _take_over_streams(self, later: PairState, frames_before: int) -> None:
        room = self._maximum_runs - self._runs_used
        runs = later._runs[: later._runs_used]
        self.not_followed += int(runs["packets"][room:].sum())
        runs = runs[:room].copy()
        runs["first_frame"] += frames_before
        runs["last_frame"] += frames_before
        mine, self.streams = self.streams, later.streams.copy()
        begun = self.streams["run"] >= 0
        self.streams[~begun] = mine[~begun]
        for name in _STREAM_COUNTS:
            self.streams[name][begun] += mine[name][begun]
        self.streams["run"][begun] = np.minimum(self.streams["run"][begun], len(runs) - 1) + self._runs_used
        whole = np.concatenate([self._runs[: self._runs_used], runs])
        self._runs_used = len(whole)
        if self._runs_used > len(self._runs):
            self._runs = np.zeros(min(2 * self._runs_used, self._maximum_runs), RUN_DTYPE)
        self._runs[: self._runs_used] = whole

    def runs_of(self, stream: int) -> NDArray[np.void]:
        """Return the runs of line 0, line 1 or the first copies."""
        runs: NDArray[np.void] = self._runs[: self._runs_used]
        chosen: NDArray[np.void] = runs[runs["stream"] == stream]
        return chosen

    def alone(self) -> tuple[int, int]:
        """Return how many numbers only line 0, and only line 1 has brought."""
        left = np.bincount(self._marks & 3, minlength=4)
        first, second = self.pair[0]["alone"].tolist()
        return first + int(left[1]), second + int(left[2])

    def skews(self) -> dict[TimestampSource, Skews]:
        """Return who was first by how much, by stamp source."""
        return {
            TimestampSource(source): Skews(
                self._skew(int(self._places[source]), 0),
                int(self._skew_sums[self._places[source], 0]["ties"]),
                self._skew(int(self._places[source]), 1),
            )
            for source in np.flatnonzero(self._places >= 0).tolist()
        }

    def _skew(self, place: int, line: int) -> Histogram:
        counts, total = self._skew_counts[place, line].copy(), self._skew_sums[place, line]
        if not total["most_ns"]:
            return Histogram(counts)
        return Histogram(
            counts,
            sum_ns=int(total["high"]) << 64 | int(total["low"]),
            lowest_ns=int(total["least_ns"]),
            highest_ns=int(total["most_ns"]),
        )


def _both(one: np.void, other: np.void) -> NDArray[np.void]:
    """Return sum, extremes and ties of two histograms together."""
    whole = (int(one["high"]) + int(other["high"]) << 64) + int(one["low"]) + int(other["low"])
    least = [int(each["least_ns"]) for each in (one, other) if each["most_ns"]]
    both = np.zeros((), SUM_DTYPE)
    both["low"], both["high"] = whole & (1 << 64) - 1, whole >> 64
    both["least_ns"], both["most_ns"] = min(least, default=0), max(one["most_ns"], other["most_ns"])
    both["ties"] = one["ties"] + other["ties"]
    return both


class PairPart:
    """A part of the arrivals of a pair of lines under one key: its log, and what came after it.

    Parameters
    ----------
    rule : FeedRule
    ring_length, maximum_runs, maximum_log : int
        As the constants of this module say.
    """

    def __init__(
        self,
        rule: FeedRule,
        *,
        ring_length: int = RING_LENGTH,
        maximum_runs: int = MAXIMUM_RUNS,
        maximum_log: int = MAXIMUM_LOG,
    ) -> None:
        self._bounds = (rule, ring_length, maximum_runs)
        self._ring_length = ring_length
        self._maximum_log = maximum_log
        self._log: list[NDArray[np.void]] = []
        self._logged = 0
        self._first_high: tuple[int, int] | None = None
        self._state = PairState(*self._bounds)
        self._standing: _Standing | None = None

    def take(self, arrivals: NDArray[np.void]) -> None:
        """Take arrivals, rows of `ARRIVAL_DTYPE`; they are not kept, but copied."""
        self._state.take(arrivals)
        if self._standing is not None:
            return
        self._log.append(arrivals.copy())
        self._logged += len(arrivals)
        pair = self._state.pair[0]
        epoch, high = int(pair["epoch"]), int(pair["high"])
        if self._first_high is None or self._first_high[0] != epoch:
            first = int(arrivals[0]["first"]) if self._first_high is None else high
            self._first_high = (epoch, first)
        moved_on = high - self._first_high[1] >= 2 * self._ring_length and pair["line_begun"].all()
        if moved_on or self._logged >= self._maximum_log:
            self._close()

    def _close(self) -> None:
        """End the log: what comes from here on is not decided by what came before it."""
        self._standing = self._state.standing()
        self._state.forget()

    def merge(self, later: PairPart, frames_before: int) -> None:
        """Append what came directly after so many frames."""
        for arrivals in later._log:
            moved = arrivals.copy()
            moved["frame"] += frames_before
            self.take(moved)
        if later._standing is not None:
            if self._standing is None:
                self._close()
            self._state.take_over(later._state, later._standing, frames_before)

    def whole(self) -> PairState:
        """Return how things stand if nothing came before this part."""
        if self._standing is None:
            return self._state
        state = PairState(*self._bounds)
        for arrivals in self._log:
            state.take(arrivals)
        state.take_over(self._state, self._standing, 0)
        return state
