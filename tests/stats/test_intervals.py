"""Intervals against scipy, and against counting everything."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uspcap.stats.intervals import (
    fewest_pairs,
    normal_below,
    quantile_ranks,
    rank_sum_distribution,
    rank_sum_interval,
    runs_suffice,
    signed_rank_distribution,
    signed_rank_interval,
    student_below,
    student_quantile,
)

PERCENTILES = ("50", "90", "99", "99.9", "99.99", "99.999")


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("count", [1, 5, 6, 10, 59, 100, 1_000, 12_345, 1_000_000, 300_000_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_ranks_are_those_of_scipys_binomial(percentile: str, count: int, confidence: float) -> None:
    binomial = stats.binom
    share = Fraction(percentile) / 100
    ranks = quantile_ranks(count, share, confidence)
    tail = (1 - confidence) / 2
    # From the definition: the smallest k with P(B <= k) >= tail is the largest low with P(B < low) <= tail.
    low = int(binomial.ppf(tail, count, float(share)))
    high = int(binomial.ppf(1 - tail, count, float(share))) + 1
    if low < 1 or high > count:
        assert ranks is None
        return
    assert ranks is not None
    assert (ranks.low, ranks.high) == (low, high)
    held = binomial.cdf(high - 1, count, float(share)) - binomial.cdf(low - 1, count, float(share))
    assert ranks.confidence == pytest.approx(held, rel=1e-7)


@given(
    count=st.integers(1, 40),
    share=st.fractions(Fraction(1, 50), Fraction(49, 50), max_denominator=100),
    confidence=st.floats(0.5, 0.999),
)
def test_ranks_are_the_tightest_that_exact_fractions_allow(count: int, share: Fraction, confidence: float) -> None:
    from math import comb

    term = [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    tail = Fraction((1 - confidence) / 2)
    if any(abs(sum(term[:k], Fraction(0)) - tail) < 1e-12 for k in range(count + 2)):
        return  # a tie that float64 may break either way
    low = max(k for k in range(count + 2) if sum(term[:k], Fraction(0)) <= tail)
    high = min(k for k in range(count + 2) if sum(term[k:], Fraction(0)) <= tail)
    ranks = quantile_ranks(count, share, confidence)
    if low < 1 or high > count:
        assert ranks is None
    else:
        assert ranks is not None
        assert (ranks.low, ranks.high) == (low, high)
        assert ranks.confidence == pytest.approx(float(sum(term[low:high])))
        assert ranks.confidence >= confidence


def test_six_values_bound_a_median_and_five_do_not() -> None:
    ranks = quantile_ranks(6, Fraction(1, 2), 0.95)
    assert ranks is not None
    assert (ranks.low, ranks.high) == (1, 6)
    assert ranks.confidence == pytest.approx(0.96875, rel=1e-12)
    assert quantile_ranks(5, Fraction(1, 2), 0.95) is None
    assert quantile_ranks(0, Fraction(1, 2), 0.95) is None


def test_order_statistics_cover_the_quantile_of_a_heavy_tail() -> None:
    generator = np.random.default_rng(1)
    count, share, experiments = 2_000, Fraction(99, 100), 1_000
    ranks = quantile_ranks(count, share, 0.95)
    assert ranks is not None
    values = np.sort(generator.pareto(1.1, (experiments, count)), axis=1)
    true = 0.01 ** (-1 / 1.1) - 1
    covered = np.mean((values[:, ranks.low - 1] <= true) & (true <= values[:, ranks.high - 1]))
    assert abs(covered - ranks.confidence) < 3 * np.sqrt(0.05 * 0.95 / experiments)


@pytest.mark.parametrize("pairs", range(1, 13))
def test_signed_rank_distribution_is_that_of_all_signs(pairs: int) -> None:
    sums = [sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in product((0, 1), repeat=pairs)]
    counts = np.bincount(sums, minlength=pairs * (pairs + 1) // 2 + 1)
    assert np.array_equal(signed_rank_distribution(pairs), np.cumsum(counts) / 2**pairs)


@pytest.mark.parametrize("pairs", [6, 7, 10, 20])
def test_an_interval_leaves_out_exactly_what_scipys_test_rejects(pairs: int) -> None:
    wilcoxon = stats.wilcoxon
    generator = np.random.default_rng(pairs)
    for _ in range(20):
        differences = generator.standard_t(2, pairs) + 0.5
        interval = signed_rank_interval(differences, 0.95)
        assert interval is not None
        for shift in generator.normal(0.5, 2, 20):
            rejected = wilcoxon(differences - shift, method="exact").pvalue <= 0.05
            assert rejected == (not interval.low <= shift <= interval.high)


@given(st.lists(st.integers(-1000, 1000), min_size=6, max_size=12), st.integers(-500, 500))
def test_an_interval_moves_with_its_values_and_turns_with_their_sign(values: list[int], shift: int) -> None:
    differences = np.array(values, np.float64)
    interval = signed_rank_interval(differences, 0.95)
    moved = signed_rank_interval(differences + shift, 0.95)
    turned = signed_rank_interval(-differences, 0.95)
    assert interval is not None
    assert moved is not None
    assert turned is not None
    assert (moved.low, moved.centre, moved.high) == (
        interval.low + shift,
        interval.centre + shift,
        interval.high + shift,
    )
    assert (turned.low, turned.high) == (-interval.high, -interval.low)
    assert interval.low <= interval.centre <= interval.high


def test_one_stalled_run_does_not_move_an_interval_far() -> None:
    differences = np.array([90.0, 95, 98, 100, 102, 105, 110, 99])
    stalled = np.append(differences[:-1], 1e12)
    interval = signed_rank_interval(stalled, 0.95)
    assert interval is not None
    assert 90 <= interval.low <= interval.centre <= 110


def test_fewest_pairs_is_where_intervals_begin() -> None:
    for confidence in (0.5, 0.9, 0.95, 0.99, 1 - 0.05 / 15):
        fewest = fewest_pairs(confidence)
        assert signed_rank_interval(np.arange(float(fewest)), confidence) is not None
        assert signed_rank_interval(np.arange(float(fewest - 1)), confidence) is None
    assert fewest_pairs(0.95) == 6


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 19, 100])
def test_students_t_is_that_of_scipy(freedom: int) -> None:
    for share in (0.5, 0.025, 0.0005, 0.9, 0.99999):
        assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9, abs=1e-12)
        assert student_below(student_quantile(share, freedom), freedom) == pytest.approx(share, rel=1e-9)
        assert normal_below(stats.norm.ppf(share)) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(("share", "confidence"), [(Fraction(0), 0.95), (Fraction(1), 0.95), (Fraction(1, 2), 1.0)])
def test_shares_outside_the_open_interval_are_refused(share: Fraction, confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile_ranks(10, share, confidence)


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 4), (3, 5), (6, 6), (7, 4)])
def test_rank_sums_are_those_of_counting_every_choice(one: int, other: int) -> None:
    counts = np.zeros(one * other + 1)
    for chosen in combinations(range(one + other), one):
        counts[sum(chosen) - one * (one - 1) // 2] += 1
    assert np.allclose(rank_sum_distribution(one, other), np.cumsum(counts) / counts.sum(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("one", "other"), [(12, 12), (40, 100), (100, 100)])
def test_rank_sums_of_many_runs_are_symmetric_and_sum_to_one(one: int, other: int) -> None:
    cumulative = rank_sum_distribution(one, other)
    assert cumulative[-1] == pytest.approx(1, abs=1e-12)
    assert np.allclose(cumulative[:-1] + cumulative[-2::-1], 1, rtol=0, atol=1e-12)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=9),
    st.lists(st.integers(-50, 50), min_size=1, max_size=9),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_rank_sum_interval_leaves_out_zero_where_scipys_test_refuses_it(
    one: list[int], other: list[int], confidence: float
) -> None:
    # Thousandths make all values and all differences distinct.
    first = np.array(one) + np.arange(len(one)) / 1_000
    second = np.array(other) + np.arange(1, len(other) + 1) / 31_000
    interval = rank_sum_interval(first, second, confidence)
    assert (interval is None) != runs_suffice(len(first), len(second), confidence)
    if interval is None:
        return
    tested = stats.mannwhitneyu(first, second, alternative="two-sided", method="exact")
    assert (interval.low <= 0 <= interval.high) == (tested.pvalue > 1 - confidence)
    assert interval.low <= interval.centre <= interval.high
    assert interval.confidence >= confidence - 1e-12
