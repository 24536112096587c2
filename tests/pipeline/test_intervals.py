"""Intervals: whatever the clock does, together they are the whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import Frame, batch_of, streams

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.errors import CaptureError
from uspcap.pipeline.intervals import LARGEST_SHARE, LONGEST_PACED_NS, SHORTEST_PACED_NS, Intervals
from uspcap.pipeline.keeping import HereKeeper, Interval, IntervalReporter, Keeper

ALL = Settings(registry.default_names(live=True))
UTC_NS = 1_700_000_000_000_000_000


class Rig(IntervalReporter):
    """Intervals whose clock the test sets, and what was reported."""

    def __init__(self, length_ns: int = 100, chosen: Settings = ALL, *, paced: bool = False) -> None:
        self.now_ns = 1_000
        self.cpu_ns = self.cost_ns = 0
        self.statistics = SourceStatistics()
        self.unread_ns: int | None = None
        self.reported: list[tuple[int, int]] = []
        self.counts: list[tuple[int, int, dict[str, int]]] = []
        self.unread: list[int | None] = []
        self.whole: Interval | None = None
        self.keeper = BusyKeeper(chosen, self, cpu_clock=lambda: self.cpu_ns)
        self.intervals = Intervals(
            chosen,
            length_ns,
            statistics=self.copied,
            keeper=self.keeper,
            recent_unread_ns=lambda: self.unread_ns,
            paced=paced,
            clock=lambda: self.now_ns,
            utc=lambda: UTC_NS,
        )

    def copied(self) -> SourceStatistics:
        return SourceStatistics(received=self.statistics.received, dropped=dict(self.statistics.dropped))

    def report(self, interval: Interval) -> None:
        self.reported.append((interval.start_ns - UTC_NS, interval.end_ns - UTC_NS))
        self.counts.append((interval.suite.summary.result()["packets"], interval.received, interval.dropped))
        self.unread.append(interval.longest_unread_ns)
        self.cpu_ns += self.cost_ns

    def sum_up(self, whole: Interval) -> None:
        self.whole = whole

    def after(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.intervals.look()


class BusyKeeper(HereKeeper):
    """A keeper that is busy for as long as the test sets."""

    is_busy = False

    @property
    def busy(self) -> bool:
        return self.is_busy


def results(suite: Suite | None) -> dict[str, Any]:
    assert suite is not None
    return {name: (analysis.result(), analysis.tables()) for name, analysis in suite.analyses.items()}


@settings(deadline=None, max_examples=50)
@given(streams(), st.lists(st.integers(0, 250), min_size=1, max_size=12), st.integers(1, 9))
def test_intervals_merge_into_the_whole(frames: list[Frame], steps_ns: list[int], batch_frames: int) -> None:
    rig, whole = Rig(), Suite(ALL)
    for at in range(0, len(frames), batch_frames):
        for taker in (rig.intervals, whole):
            taker.update(batch_of(frames[at : at + batch_frames], at + 1))
        rig.after(steps_ns[at // batch_frames % len(steps_ns)])
    rig.intervals.end()
    assert results(rig.intervals.total) == results(whole)
    assert sum(packets for packets, _, _ in rig.counts) == len(frames)
    assert rig.reported[0][0] == 0
    assert [end for _, end in rig.reported[:-1]] == [start for start, _ in rig.reported[1:]]
    assert rig.reported[-1][1] == rig.now_ns - 1_000


def test_interval_ends_with_the_first_look_after_its_time() -> None:
    rig = Rig(length_ns=100)
    for step_ns in (60, 39, 1, 99, 1, 350, 49, 1, 99):
        rig.after(step_ns)
    # The third interval is looked at late; the next still ends at a multiple of the length.
    assert rig.reported == [(0, 100), (100, 200), (200, 550), (550, 600)]
    rig.intervals.end()
    assert rig.reported[-1] == (600, 699)


def test_interval_counts_what_came_and_was_lost_in_it() -> None:
    rig = Rig(length_ns=100)
    rig.statistics = SourceStatistics(received=10, dropped={"ring full": 2})
    rig.after(100)
    rig.statistics = SourceStatistics(received=17, dropped={"ring full": 2, "malformed block": 1})
    rig.after(100)
    assert rig.counts == [(0, 10, {"ring full": 2}), (0, 7, {"malformed block": 1})]
    assert rig.whole is not None
    assert (rig.whole.start_ns - UTC_NS, rig.whole.end_ns - UTC_NS) == (0, 200)
    assert (rig.whole.received, rig.whole.dropped) == (17, {"ring full": 2, "malformed block": 1})


def test_interval_has_the_longest_unread_ring_in_it_and_the_whole_that_of_all() -> None:
    rig = Rig(length_ns=100)
    for rig.unread_ns in (5, 9, None, 3):
        rig.after(100)
    assert rig.unread == [5, 9, None, 3]
    assert rig.whole is not None
    assert rig.whole.longest_unread_ns == 9


def test_interval_is_longer_where_the_one_before_is_not_dealt_with_yet() -> None:
    rig = Rig(length_ns=100)
    rig.after(100)
    rig.keeper.is_busy = True
    for _ in range(3):
        rig.after(90)
    rig.keeper.is_busy = False
    rig.after(5)
    rig.after(24)
    rig.after(1)
    assert rig.reported == [(0, 100), (100, 375), (375, 400)]


def test_intervals_nobody_asked_for_grow_with_what_they_cost() -> None:
    rig = Rig(length_ns=SHORTEST_PACED_NS, paced=True)
    for rig.cost_ns in (0, 50_000_000, 50_000_000, 10**9, 0, 0):
        rig.after(rig.intervals.length_ns)
    # What an interval has cost is known when the next one ends.
    lengths = (*[SHORTEST_PACED_NS] * 3, *[LARGEST_SHARE * 50_000_000] * 2, LONGEST_PACED_NS)
    assert tuple(end - start for start, end in rig.reported) == lengths


def test_frames_of_an_interval_that_could_not_be_reported_are_in_the_whole() -> None:
    class Refusing(IntervalReporter):
        def report(self, interval: Interval) -> None:
            raise CaptureError("nobody listens")

    keeper: Keeper = HereKeeper(ALL, Refusing())
    intervals = Intervals(ALL, 10**18, statistics=SourceStatistics, keeper=keeper)
    intervals.update(batch_of([Frame(UTC_NS, 60, 1)]))
    with pytest.raises(CaptureError, match="nobody listens"):
        intervals.end()
    assert intervals.total is not None
    assert intervals.total.summary.result()["packets"] == 1
