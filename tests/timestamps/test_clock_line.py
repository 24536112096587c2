"""Putting a drifting clock on UTC, against the truth that the simulation knows."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from uspcap.timestamps.clock_line import NODES, SLEWING_NS, STATED_DRIFT, ClockLine
from uspcap.timestamps.ptp_clock import ClockSample

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class Clock:
    """A clock of constant rate, with what it shows in exact integers: `ppb` nanoseconds a second faster than UTC."""

    def __init__(self, ppb: int = 0, offset_ns: int = 0) -> None:
        self.ppb, self.offset_ns = ppb, offset_ns

    def at(self, utc_ns: int) -> int:
        return utc_ns + self.offset_ns + (utc_ns - START_NS) * self.ppb // 10**9

    def sample(self, utc_ns: int, error_ns: int = 0, half_width_ns: int = 0) -> ClockSample:
        """Sample at a moment, with UTC misread by `error_ns`, which must be within the width."""
        assert abs(error_ns) <= half_width_ns
        return ClockSample(self.at(utc_ns), utc_ns + error_ns, half_width_ns)

    def timestamps(self, *utc_ns: int) -> NDArray[np.int64]:
        return np.array([self.at(one) for one in utc_ns], np.int64)


def test_between_samples_nothing_is_lost_of_a_steady_clock() -> None:
    clock = Clock(ppb=40_000, offset_ns=37_000_000_123)
    line = ClockLine(clock.sample(START_NS))
    for ms in range(100, 1100, 100):
        line.add(clock.sample(START_NS + ms * MS))
    moments = np.arange(START_NS, START_NS + 1000 * MS, 7_654_321)
    converted = line.convert(clock.timestamps(*moments.tolist()))
    assert np.abs(converted - moments).max() <= 2


def test_after_the_last_sample_the_rate_goes_on_and_the_bound_grows_with_the_drift() -> None:
    clock = Clock(ppb=-30_000)
    line = ClockLine(clock.sample(START_NS))
    line.add(clock.sample(START_NS + 100 * MS, half_width_ns=50))
    bounds = []
    for ms in (100, 200, 1100, 11_100):
        moment = START_NS + ms * MS
        assert abs(int(line.convert(clock.timestamps(moment))[0]) - moment) <= 2
        bounds.append(line.worst_bound_ns)
    growth = 50 / (100 * MS) + STATED_DRIFT
    expected = [50 + growth * ms * MS for ms in (0, 100, 1000, 11_000)]
    assert np.allclose(bounds, expected, rtol=1e-3, atol=2)


@given(
    st.integers(-100_000, 100_000),
    st.integers(-(10**18), 10**18),
    st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 900), st.integers(-900, 900)), min_size=2, max_size=40),
    st.data(),
)
def test_every_timestamp_is_within_the_bound_and_order_is_kept(
    ppb: int, offset_ns: int, samples: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Samples at odd times with odd errors; frames that are converted before, between and after them."""
    clock = Clock(ppb, offset_ns)
    moment = START_NS
    half_width = data.draw(st.integers(0, 900))
    line = ClockLine(clock.sample(moment, data.draw(st.integers(-half_width, half_width)), half_width))
    seen: list[int] = []
    last = START_NS - 3000 * MS
    for pause_ms, half_width, error in samples:
        moment += pause_ms * MS
        sample = clock.sample(moment, max(-half_width, min(half_width, error)), half_width)
        assert not line.is_step(sample)
        line.add(sample)
        if data.draw(st.booleans()):
            moments = sorted(data.draw(st.lists(st.integers(last, moment + 50 * MS), min_size=1, max_size=5)))
            converted = line.convert(clock.timestamps(*moments))
            assert np.abs(converted - np.array(moments)).max() <= line.worst_bound_ns + 2
            seen += converted.tolist()
            last = moments[-1]
            moment = max(moment, last)
    # Later frames never come before earlier ones; 2 ns for rounding where two pieces meet.
    assert all(after >= before - 2 for before, after in itertools.pairwise(seen))


def test_timestamp_from_before_the_first_sample_is_as_uncertain_as_the_rate_is() -> None:
    clock = Clock()
    line = ClockLine(clock.sample(START_NS, 900, 900))
    line.add(clock.sample(START_NS + 100 * MS, -900, 900))
    moment = START_NS - 100 * MS
    error_ns = abs(int(line.convert(clock.timestamps(moment))[0]) - moment)
    assert error_ns > 2600
    assert error_ns <= line.worst_bound_ns < 3000


def test_timestamp_from_before_the_oldest_piece_that_is_kept_is_as_uncertain_as_its_rate() -> None:
    clock = Clock()
    line = ClockLine(clock.sample(START_NS))
    for step in range(1, NODES + 1):
        line.add(clock.sample(START_NS + step * 100 * MS, (-1) ** step * 900, 900))
    moment = START_NS
    error_ns = abs(int(line.convert(clock.timestamps(moment))[0]) - moment)
    assert error_ns > 100_000
    assert error_ns <= line.worst_bound_ns


def test_change_of_rate_is_followed_and_covered() -> None:
    """A servo that starts: 60 ppm from one moment to the next, between two samples."""
    before, moment = Clock(), START_NS + 2050 * MS
    after = Clock(ppb=60_000, offset_ns=-60_000 * 2050 // 1000)
    line = ClockLine(before.sample(START_NS))
    worst = last = 0
    for step in range(1, 300):
        now = START_NS + step * 20 * MS
        clock = after if now > moment else before
        if step % 5 == 0:
            sample = clock.sample(now)
            assert not line.is_step(sample)
            line.add(sample)
        last = abs(int(line.convert(clock.timestamps(now))[0]) - now)
        worst = max(worst, last)
    assert worst <= line.worst_bound_ns + 2
    assert worst < 10_000
    assert last < worst / 10


def test_distance_to_a_sample_is_closed_without_a_step() -> None:
    clock = Clock()
    line = ClockLine(clock.sample(START_NS))
    line.add(clock.sample(START_NS + 100 * MS))
    line.convert(clock.timestamps(START_NS + 199 * MS))
    # A sample whose error is 800 ns, after frames were converted: the line bends, it does not jump.
    line.add(clock.sample(START_NS + 200 * MS, 800, 900))
    moments = [START_NS + 200 * MS + at for at in range(0, SLEWING_NS // 2, 10 * MS)]
    errors = line.convert(clock.timestamps(*moments)) - np.array(moments)
    assert abs(errors[0]) <= 1
    assert np.abs(np.diff(errors)).max() < 100
    assert errors[-1] > 400


@given(st.integers(-(10**12), 10**12).filter(lambda step: abs(step) > 60_000))
def test_step_is_distinguished_from_drift(step_ns: int) -> None:
    clock = Clock(ppb=20_000)
    line = ClockLine(clock.sample(START_NS))
    line.add(clock.sample(START_NS + 100 * MS))
    stepped = Clock(ppb=20_000, offset_ns=step_ns)
    assert not line.is_step(clock.sample(START_NS + 200 * MS))
    assert line.is_step(stepped.sample(START_NS + 200 * MS))


def test_pieces_are_bounded_in_number_and_old_frames_still_converted() -> None:
    clock = Clock(ppb=1000)
    line = ClockLine(clock.sample(START_NS))
    for step in range(1, 3 * NODES):
        line.add(clock.sample(START_NS + step * 100 * MS))
    old = START_NS + 100 * MS
    recent = START_NS + (3 * NODES - 30) * 100 * MS + 77
    converted = line.convert(clock.timestamps(old, recent))
    assert np.abs(converted - np.array([old, recent])).max() <= 2
