"""Percentiles, differences and verdicts from histograms against slow references."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from uspcap.comparison.statistics import Comparison, Run, compare_paths, percentile_interval
from uspcap.errors import UsageError
from uspcap.stats.histogram import Histogram
from uspcap.stats.intervals import fewest_pairs


def runs_of(values: Sequence[NDArray[np.int64]] | NDArray[np.int64], lost: int = 0) -> list[Run]:
    return [Run(Histogram.from_values(of_run), lost) for of_run in values]


def small_numbers(seed: int, runs: int, frames: int, centre: int) -> NDArray[np.int64]:
    """Values below 2,048, which buckets hold exactly."""
    generator = np.random.default_rng(seed)
    return generator.integers(centre - 100, centre + 100, (runs, frames))


def compare(a: list[Run], b: list[Run], **settings: object) -> Comparison:
    arguments: dict[str, object] = {"seed": 1, "percentiles": ("50", "90"), "resamples": 200}
    return compare_paths({"kernel": a, "af_xdp": b}, **(arguments | settings))  # type: ignore[arg-type]


def test_a_percentile_has_order_statistics_around_it() -> None:
    values = np.arange(1_000, 2_000)
    interval = percentile_interval(Run(Histogram.from_values(values)), "50")
    # Binomial(1000, 1/2): P(B < 469) = 0.0229 and P(B < 470) = 0.0268; the same from above.
    assert (interval.low_ns, interval.value_ns, interval.high_ns) == (1_468, 1_499, 1_531)
    assert interval.confidence == pytest.approx(0.9537, abs=1e-4)


def test_a_percentile_without_ten_frames_beyond_it_is_not_given() -> None:
    assert percentile_interval(Run(Histogram.from_values(np.arange(999))), "99").value_ns is None
    assert percentile_interval(Run(Histogram.from_values(np.arange(1_000))), "99").value_ns == 989
    assert percentile_interval(Run(Histogram()), "50").value_ns is None


def test_lost_frames_are_slower_than_all_others() -> None:
    values = np.arange(1_000)
    whole = percentile_interval(Run(Histogram.from_values(values)), "90")
    partly = percentile_interval(Run(Histogram.from_values(values[:950]), lost=50), "90")
    assert (partly.count, partly.value_ns, partly.low_ns) == (1_000, whole.value_ns, whole.low_ns)
    near = percentile_interval(Run(Histogram.from_values(values[:905]), lost=95), "90")
    assert near.value_ns == whole.value_ns
    assert near.low_ns == whole.low_ns
    assert near.high_ns is None
    beyond = percentile_interval(Run(Histogram.from_values(values[:890]), lost=110), "90")
    assert (beyond.value_ns, beyond.low_ns, beyond.high_ns) == (None, None, None)


def test_a_known_shift_comes_back_exactly() -> None:
    values = small_numbers(1, 10, 400, 1_000)
    comparison = compare(runs_of(values), runs_of(values + 37))
    for difference in comparison.differences:
        assert (difference.difference_ns, difference.low_ns, difference.high_ns) == (37, 37, 37)
        assert difference.pooled.difference_ns == 37
        assert difference.verdict == "a faster"
    turned = compare(runs_of(values + 37), runs_of(values))
    assert {difference.verdict for difference in turned.differences} == {"b faster"}


def test_the_same_runs_two_times_are_not_distinguishable() -> None:
    runs = runs_of(small_numbers(2, 10, 400, 1_000))
    comparison = compare(runs, runs)
    assert {difference.verdict for difference in comparison.differences} == {"not distinguishable"}
    assert comparison.faster_frames[0].probability == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_differences_are_those_of_percentiles_taken_run_by_run(seed: int) -> None:
    a, b = small_numbers(seed, 9, 301, 1_000), small_numbers(seed + 100, 9, 301, 1_010)
    (median, tail) = compare(runs_of(a), runs_of(b)).differences
    for difference, share, confidence in ((median, 0.5, 0.95), (tail, 0.9, 0.95)):
        of_run = [np.quantile(side, share, axis=1, method="inverted_cdf") for side in (a, b)]
        by_pair = of_run[1] - of_run[0]
        walsh = sorted((one + other) / 2 for at, one in enumerate(by_pair) for other in by_pair[at:])
        assert difference.confidence == confidence
        assert difference.difference_ns == round(float(np.median(walsh)))
        # Nine pairs at 95 %: P(T <= 5) = 10 / 512, so that the sixth average from either end bounds it.
        assert difference.low_ns == int(np.floor(walsh[5]))
        assert difference.high_ns == int(np.ceil(walsh[-6]))
        pooled = [int(np.quantile(side, share, method="inverted_cdf")) for side in (a, b)]
        assert [difference.pooled.a_ns, difference.pooled.b_ns] == pooled
        assert difference.pooled.low_ns is not None
        assert difference.pooled.high_ns is not None
        assert difference.pooled.low_ns <= pooled[1] - pooled[0] <= difference.pooled.high_ns


def test_a_difference_within_a_bucket_is_not_called_and_the_interval_says_how_wide_that_is() -> None:
    # 5,000,000 lies 2,880 above the start of its bucket, which is 4,096 wide.
    values = np.full((10, 100), 5_000_000)
    for shift, verdict in ((1_000, "not distinguishable"), (3_000, "a faster"), (-3_000, "b faster")):
        (difference, _) = compare(runs_of(values), runs_of(values + shift)).differences
        assert difference.verdict == verdict
        assert difference.low_ns is not None
        assert difference.high_ns is not None
        assert difference.low_ns <= shift <= difference.high_ns
        assert difference.high_ns - difference.low_ns == 2 * 4_095


@pytest.mark.parametrize(("pairs", "median", "tail"), [(5, False, False), (6, True, False), (7, True, True)])
def test_too_few_pairs_are_insufficient_and_say_how_many_it_takes(pairs: int, median: bool, tail: bool) -> None:
    a, b = small_numbers(1, pairs, 2_000, 1_000), small_numbers(2, pairs, 2_000, 1_500)
    comparison = compare(runs_of(a), runs_of(b), percentiles=("50", "90", "99"))
    enough = [difference.verdict == "a faster" for difference in comparison.differences]
    assert enough == [median, tail, tail]
    for difference, called in zip(comparison.differences, enough, strict=True):
        assert (difference.verdict == "insufficient n") == (not called)
        assert (difference.low_ns is None) == (not called)
        assert (str(fewest_pairs(difference.confidence)) in difference.reason) == (not called)


def test_runs_too_short_for_a_percentile_are_merged_and_then_given_up() -> None:
    a, b = small_numbers(1, 20, 500, 1_000), small_numbers(2, 20, 500, 1_500)
    comparison = compare(runs_of(a), runs_of(b), percentiles=("50", "90", "99", "99.9"))
    merged = {one.percentile: (one.runs_per_replicate, one.replicates, one.verdict) for one in comparison.differences}
    assert merged["50"] == (1, 20, "a faster")
    assert merged["90"] == (1, 20, "a faster")
    assert merged["99"] == (2, 10, "a faster")
    assert merged["99.9"] == (0, 0, "insufficient n")
    thin = comparison.differences[3]
    assert "10000 frames of a path in 20 runs, 500 in the shortest" in thin.reason
    assert "7 runs, or groups of them, of at least 10000 frames each" in thin.reason
    assert thin.pooled.difference_ns is not None


def test_each_family_of_percentiles_keeps_the_error_rate() -> None:
    runs = runs_of(small_numbers(1, 12, 200, 1_000))
    settings = {"percentiles": ("50", "75", "90", "95", "99"), "seed": 1, "resamples": 200}
    three = compare_paths({"x": runs, "y": runs, "z": runs}, **settings)  # type: ignore[arg-type]
    rates = {"primary": 0.0, "others": 0.0}
    for difference in three.differences:
        rates["primary" if difference.percentile == "50" else "others"] += 1 - difference.confidence
    assert rates == {"primary": pytest.approx(0.05), "others": pytest.approx(0.05)}
    assert [(one.a, one.b) for one in three.faster_frames] == [("x", "y"), ("x", "z"), ("y", "z")]


def test_a_percentile_among_lost_frames_has_no_difference() -> None:
    values = small_numbers(1, 10, 400, 1_000)
    comparison = compare(runs_of(values), runs_of(values, lost=100))
    median, tail = comparison.differences
    assert median.difference_ns is not None
    assert tail.verdict == "insufficient n"
    assert "among the lost frames of af_xdp" in tail.reason
    assert tail.pooled.b_ns is None
    assert tail.pooled.difference_ns is None


def test_losing_the_slow_frames_does_not_make_a_path_faster() -> None:
    values = np.sort(small_numbers(1, 10, 400, 1_000), axis=1)
    whole = runs_of(values)
    dropping = runs_of(values[:, :320], lost=80)
    (median, _) = compare(whole, dropping).differences
    assert median.verdict == "not distinguishable"
    assert median.difference_ns == 0


@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=30),
    st.lists(st.integers(0, 5_000), min_size=1, max_size=30),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_the_probability_of_a_faster_frame_is_that_of_all_pairs(
    a: list[int], b: list[int], lost_a: int, lost_b: int
) -> None:
    comparison = compare([Run(Histogram.from_values(a), lost_a)], [Run(Histogram.from_values(b), lost_b)])
    # Above 2,047 a bucket is 2 wide, above 4,095 it is 4 wide.
    bucket = [value if value < 2_048 else value // 2 * 2 if value < 4_096 else value // 4 * 4 for value in a]
    other = [value if value < 2_048 else value // 2 * 2 if value < 4_096 else value // 4 * 4 for value in b]
    one = [*map(float, bucket), *[float("inf")] * lost_a]
    two = [*map(float, other), *[float("inf")] * lost_b]
    tied = sum(x == y for x in one for y in two) / (len(one) * len(two))
    faster = sum(x < y for x in one for y in two) / (len(one) * len(two)) + tied / 2
    (result,) = comparison.faster_frames
    assert result.probability == pytest.approx(faster)
    assert result.tied == pytest.approx(tied)
    assert (result.low, result.high) == (None, None)


def test_the_probability_of_a_faster_frame_is_mann_whitneys_u() -> None:
    mannwhitneyu = stats.mannwhitneyu
    a, b = small_numbers(1, 1, 300, 1_000), small_numbers(2, 1, 400, 1_030)
    (result,) = compare(runs_of(a), runs_of(b)).faster_frames
    assert result.probability == pytest.approx(mannwhitneyu(b[0], a[0]).statistic / (300 * 400))


def test_a_probability_has_an_interval_over_runs() -> None:
    a, b = small_numbers(1, 10, 300, 1_000), small_numbers(2, 10, 300, 1_030)
    (result,) = compare(runs_of(a), runs_of(b)).faster_frames
    assert result.low is not None
    assert result.high is not None
    assert 0.5 < result.low < result.probability < result.high < 1


def test_runs_without_frames_are_insufficient_and_nothing_is_made_up() -> None:
    runs = runs_of(small_numbers(1, 8, 300, 1_000))
    one_empty = [*runs[:7], Run(Histogram())]
    for a in (one_empty, [Run(Histogram())] * 8):
        comparison = compare(a, runs)
        assert {difference.verdict for difference in comparison.differences} == {"insufficient n"}
        assert all(", 0 in the shortest" in difference.reason for difference in comparison.differences)
    (faster,) = comparison.faster_frames
    assert (faster.probability, faster.low, faster.high, faster.tied) == (None, None, None, None)
    json.dumps(comparison.as_dict(), allow_nan=False)


def test_a_path_that_loses_everything_is_never_the_faster_one() -> None:
    comparison = compare([Run(Histogram(), lost=100)] * 8, runs_of(small_numbers(1, 8, 300, 1_000)))
    assert {difference.verdict for difference in comparison.differences} == {"insufficient n"}
    assert "among the lost frames of kernel" in comparison.differences[0].reason
    assert comparison.faster_frames[0].probability == 0


def test_a_seed_fixes_everything() -> None:
    a, b = runs_of(small_numbers(1, 8, 300, 1_000)), runs_of(small_numbers(2, 8, 300, 1_010))
    first, again, other = (compare(a, b, seed=seed) for seed in (1, 1, 2))
    assert first == again
    tested = [(one.low_ns, one.high_ns, one.verdict) for one in first.differences]
    assert tested == [(one.low_ns, one.high_ns, one.verdict) for one in other.differences]


def test_the_report_has_the_published_names_and_is_json() -> None:
    a, b = runs_of(small_numbers(1, 8, 300, 1_000)), runs_of(small_numbers(2, 8, 300, 1_100))
    report = json.loads(json.dumps(compare(a, b).as_dict(), allow_nan=False))
    difference = report["differences"][0]
    published = ("a", "b", "percentile", "difference_ns", "low_ns", "high_ns", "verdict")
    assert tuple(difference)[: len(published)] == published
    assert (difference["a"], difference["b"], difference["percentile"]) == ("kernel", "af_xdp", "50")
    assert difference["difference_percent"] == pytest.approx(
        100 * difference["difference_ns"] / difference["pooled"]["a_ns"], abs=1e-3
    )
    assert report["statistics"]["seed"] == 1
    assert json.loads(json.dumps(percentile_interval(a[0], "50").as_dict()))["count"] == 300


@pytest.mark.parametrize(
    "settings",
    [
        {"confidence": 1.0},
        {"confidence": 0.3},
        {"resamples": 10},
        {"percentiles": ("90", "99")},
        {"percentiles": ("50", "50")},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    runs = runs_of(small_numbers(1, 2, 10, 1_000))
    with pytest.raises(UsageError):
        compare(runs, runs, **settings)


def test_unequal_numbers_of_runs_are_refused() -> None:
    runs = runs_of(small_numbers(1, 3, 10, 1_000))
    with pytest.raises(UsageError, match="kernel 3, af_xdp 2"):
        compare(runs, runs[:2])
    with pytest.raises(UsageError):
        compare([], [])


@pytest.mark.parametrize("empty", [1, 2])
def test_resamples_without_any_frame_leave_the_pooled_interval_open(empty: int) -> None:
    """A run that was stopped at its beginning may have no frame; all picks of a resample can be of such runs."""
    frames = list(small_numbers(3, 3 - empty, 500, 1_000))
    nothing = [np.empty(0, np.int64)] * empty
    comparison = compare(runs_of([*frames, *nothing]), runs_of([*nothing, *frames]))
    for difference in comparison.differences:
        assert difference.pooled.difference_ns is not None
        assert (difference.pooled.low_ns, difference.pooled.high_ns) == (None, None)
