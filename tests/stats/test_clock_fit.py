"""The line between two clocks, from differences that lie above it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.saturating import difference_ns
from uspcap.stats.clock_fit import LowerEnvelope, _lower_hull


@given(
    offset_ns=st.integers(-(10**15), 10**15),
    drift_ppb=st.floats(-200_000, 200_000),
    seed=st.integers(0, 1000),
    step_ns=st.sampled_from([500, 10**6, 10**9]),
    pieces=st.integers(1, 5),
)
def test_line_is_within_its_bound_of_the_true_one(
    offset_ns: int, drift_ppb: float, seed: int, step_ns: int, pieces: int
) -> None:
    chance = np.random.default_rng(seed)
    times = 1_700_000_000_000_000_000 + np.arange(3000, dtype=np.int64) * step_ns
    line = offset_ns + np.rint((times - times[0]) * (drift_ppb * 1e-9)).astype(np.int64)
    differences = line + chance.exponential(5000, 3000).astype(np.int64)
    envelope = LowerEnvelope()
    for part in np.array_split(np.arange(3000), pieces):
        shuffled = chance.permutation(part)
        envelope.update(times[shuffled], differences[shuffled])
    fit = envelope.fit()
    assert fit is not None
    assert np.abs(fit.at(times) - line).max() <= fit.bound_ns + 1
    # Moved down by what the drift within a stretch of time makes, no frame comes before it was sent.
    lowest = int((differences - fit.at(times)).min())
    lowered = fit.lowered(min(lowest, 0))
    assert (differences - lowered.at(times)).min() >= 0
    assert np.abs(lowered.at(times) - line).max() <= lowered.bound_ns + 1


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30))
def test_hull_has_every_point_on_or_above_it(heights: list[int]) -> None:
    x, y = np.arange(len(heights), dtype=np.float64), np.array(heights, np.float64)
    hull = _lower_hull(x, y)
    assert hull[0] == 0
    assert hull[-1] == len(heights) - 1
    assert (np.interp(x, x[hull], y[hull]) <= y + 1e-9).all()


def test_no_frame_gives_no_line_and_one_gives_its_own() -> None:
    envelope = LowerEnvelope()
    assert envelope.fit() is None
    envelope.update(np.array([5], np.int64), np.array([-7], np.int64))
    fit = envelope.fit()
    assert fit is not None
    assert (fit.offset_ns, fit.drift_ppb, fit.at(np.array([5, 100], np.int64)).tolist()) == (-7, 0.0, [-7, -7])


def test_frames_that_come_late_are_taken_in() -> None:
    envelope = LowerEnvelope()
    times = np.array([10**12, 10**12 + 10**9], np.int64)
    envelope.update(times, np.array([100, 100], np.int64))
    envelope.update(np.array([0], np.int64), np.array([100], np.int64))
    fit = envelope.fit()
    assert fit is not None
    assert fit.origin_ns == 0
    assert abs(fit.drift_ppb) < 1e-6


ENDS = [EARLIEST_NS, EARLIEST_NS + 1, -1, 0, 1, 1_700_000_000_000_000_000, LATEST_NS - 1, LATEST_NS]


@given(st.lists(st.tuples(st.sampled_from(ENDS), st.sampled_from(ENDS)), min_size=1, max_size=30), st.integers(1, 5))
def test_a_line_is_found_through_times_at_either_end(timestamps: list[tuple[int, int]], at_once: int) -> None:
    envelope = LowerEnvelope()
    a, b = (np.array(side, np.int64) for side in zip(*timestamps, strict=True))
    differences = difference_ns(b, a)
    for start in range(0, len(a), at_once):
        envelope.update(a[start : start + at_once], differences[start : start + at_once])
    fit = envelope.fit()
    assert fit is not None
    above = difference_ns(differences, fit.at(a))
    # One that falls or rises by a second in each leaves 64 bits; others are off by what a float is.
    assert abs(fit.drift_ppb) >= 1e9 or above.min() >= -(2**63) // 2**40 - fit.bound_ns


def test_an_offset_of_years_does_not_cost_the_nanoseconds() -> None:
    envelope = LowerEnvelope()
    times = np.arange(1_000, dtype=np.int64) * 1_000_000 + 1_700_000_000_000_000_000
    envelope.update(times, 2_000_000_000_000_000_007 + np.arange(1_000) % 5)
    fit = envelope.fit()
    assert fit is not None
    assert (fit.offset_ns, fit.drift_ppb) == (2_000_000_000_000_000_007, 0.0)
