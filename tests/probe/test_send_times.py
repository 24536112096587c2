"""Schedules against exact fractions, the published generator, and the statistics of a Poisson process."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uspcap.probe.send_times import SendTimes


def splitmix64(seed: int, number: int) -> int:
    """The number-th value, from 1, as Vigna's splitmix64.c gives it."""
    mask = (1 << 64) - 1
    state = (seed + number * 0x9E3779B97F4A7C15) & mask
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


def test_splitmix64_is_that_of_its_author() -> None:
    # The first values for seed 1234567 that implementations in other languages are checked with.
    assert [splitmix64(1234567, at) for at in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.integers(1, 200))
def test_constant_times_are_exact_multiples_of_the_period(numerator: int, denominator: int, frames: int) -> None:
    times = SendTimes("constant", period_numerator=numerator, period_denominator=denominator).take(frames)
    period = Fraction(numerator, denominator)
    assert times.tolist() == [math.floor(at * period) for at in range(frames)]


def test_constant_times_end_before_they_would_overflow() -> None:
    times = SendTimes("constant", period_numerator=1 << 61).take(10)
    assert times.tolist() == [at << 61 for at in range(4)]


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_poisson_times_are_those_of_the_published_generator(seed: int) -> None:
    reached = 0.0
    expected = []
    for number in range(1, 500):
        share = ((splitmix64(seed, number) >> 11) + 1) * 2.0**-53
        reached -= 2500.5 * math.log(share)
        expected.append(reached)
    times = SendTimes("poisson", period_numerator=5001, period_denominator=2, seed=seed).take(499)
    assert np.abs(times - np.floor(expected)).max() <= 1


def test_poisson_gaps_are_exponential_and_independent() -> None:
    times = SendTimes("poisson", period_numerator=1_000_000, seed=7).take(200_000)
    gaps = np.diff(times)
    assert stats.kstest(gaps / 1_000_000, "expon").pvalue > 0.01
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 3 / math.sqrt(len(gaps))
    # Frames in a hundred mean gaps are Poisson: as much variance as mean.
    counts = np.bincount((times // 100_000_000).astype(np.int64))[:-1]
    assert abs(counts.var() / counts.mean() - 1) < 4 * math.sqrt(2 / len(counts))


def test_a_list_is_given_back_and_ends() -> None:
    times = SendTimes("list", times_ns=[0, 5, 5, 9])
    assert times.take(3).tolist() == [0, 5, 5]
    assert times.take(3).tolist() == [9]
    assert times.take(3).tolist() == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "bursty"},
        {"kind": "constant", "period_numerator": 0},
        {"kind": "constant", "period_denominator": -1},
        {"kind": "poisson", "period_numerator": 1 << 62},
        {"kind": "list", "times_ns": [3, 2]},
        {"kind": "list", "times_ns": [-1, 2]},
    ],
)
def test_schedules_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"schedule|period|send times"):
        SendTimes(**arguments)  # type: ignore[arg-type]
