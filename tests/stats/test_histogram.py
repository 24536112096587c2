"""HDR histograms against numpy's exact percentiles and against the HdrHistogram package."""

import statistics
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.analysis.inter_arrival.analysis import bucket_of
from uspcap.stats.buckets import BUCKETS, FLOW_SHIFT, Cells
from uspcap.stats.histogram import (
    PERCENTILES,
    Histogram,
    bounds,
    enough_for,
    percentile_of_each,
    rank_of,
)

LARGEST = 2**63 - 1
COUNT = 200_003
"""No multiple of 1000, whose ranks numpy's floating point would round either way."""


def distributions():
    random = np.random.default_rng(20)
    return {
        "uniform": random.integers(0, 10**6, COUNT),
        "uniform over all values": random.integers(0, LARGEST, COUNT, endpoint=True),
        "lognormal": random.lognormal(9, 2, COUNT).astype(np.int64),
        "two humps": np.concatenate([random.normal(5_000, 40, COUNT), random.normal(10**8, 10**6, 500)]).astype(int),
        "a constant": np.full(COUNT, 123_456_789),
        "zeros": np.zeros(COUNT, np.int64),
        "powers of two": 1 << random.integers(0, 63, COUNT),
        "one below powers of two": (1 << random.integers(0, 63, COUNT)) - 1,
        "all small values": np.arange(10_000),
        "the largest values": LARGEST - random.integers(0, 1000, COUNT),
        "one value": np.array([2049]),
        "nineteen values": random.integers(0, 10**9, 19),
    }


def exact_percentile(values, percentile):
    return int(np.percentile(values, float(percentile), method="inverted_cdf"))


def assert_within_a_thousandth(value, exact):
    assert exact <= value <= exact + Fraction(exact, 1000)


@pytest.mark.parametrize(("name", "values"), distributions().items())
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(name, values):
    histogram = Histogram.from_values(values)
    for percentile in (*PERCENTILES, "0", "0.1", "1", "25", "75", "100"):
        assert_within_a_thousandth(histogram.value_at(percentile), exact_percentile(values, percentile))


@pytest.mark.parametrize(("name", "values"), distributions().items())
def test_extremes_and_mean_are_exact_and_the_deviation_is_close(name, values):
    result = Histogram.from_values(values).result()
    plain = values.tolist()
    assert result["count"] == len(plain)
    assert (result["min_ns"], result["max_ns"]) == (min(plain), max(plain))
    assert result["mean_ns"] == round(Fraction(sum(plain), len(plain)))
    # A value is taken for the middle of its bucket: off by at most 1/2048 of its value.
    assert abs(result["stddev_ns"] - statistics.pstdev(map(float, plain))) <= max(plain) / 2000 + 1


@given(value=st.integers(0, LARGEST), times=st.integers(1, 1000))
def test_equal_values_deviate_by_nothing(value, times):
    result = Histogram.from_values(np.full(times, value)).result()
    assert (result["mean_ns"], result["stddev_ns"]) == (value, 0)


@given(values=st.lists(st.integers(0, LARGEST), min_size=1, max_size=50))
def test_any_few_values(values):
    histogram = Histogram.from_values(values)
    ordered = sorted(values)
    for percentile in ("0", "50", "90", "99", "100"):
        rank = max(1, -(-Fraction(percentile) * len(values) // 100))
        assert_within_a_thousandth(histogram.value_at(percentile), ordered[rank - 1])
    assert histogram.result()["mean_ns"] == round(Fraction(sum(values), len(values)))


@given(left=st.lists(st.integers(0, LARGEST)), right=st.lists(st.integers(0, LARGEST)))
def test_adding_counts_is_the_histogram_of_the_concatenation(left, right):
    both = Histogram.from_values(left + right)
    added = Histogram.from_values(left).counts + Histogram.from_values(right).counts
    assert (added == both.counts).all()
    assert both.total_count == len(left) + len(right)


@given(values=st.lists(st.integers(0, LARGEST)))
def test_each_value_is_counted_in_the_bucket_that_holds_it(values):
    lowest, highest = bounds()
    table = Histogram.from_values(values).table()
    found = Counter()
    for value in values:
        (at,) = np.flatnonzero((lowest <= value) & (value <= highest))
        found[int(lowest[at]), int(highest[at])] += 1
    assert dict(zip(zip(table["lowest_ns"], table["highest_ns"], strict=True), table["count"], strict=True)) == found


def test_buckets_cover_all_values_without_holes_and_stay_narrow():
    lowest, highest = (column.tolist() for column in bounds())
    assert len(lowest) == BUCKETS
    assert (lowest[0], highest[-1]) == (0, LARGEST)
    for at in range(BUCKETS):
        assert at == 0 or lowest[at] == highest[at - 1] + 1
        assert (highest[at] - lowest[at]) * 1024 <= lowest[at]


def test_edges_of_buckets_are_counted_on_their_side():
    lowest, highest = bounds()
    for edges in (lowest, highest):
        assert (Histogram.from_values(edges).counts == 1).all()


@pytest.mark.parametrize("percentile", PERCENTILES)
def test_a_percentile_needs_ten_values_beyond_it(percentile):
    enough = int(10 / (1 - Fraction(percentile) / 100))
    for count, given_value in ((enough - 1, False), (enough, True), (enough + 1, True)):
        beyond = count * (1 - Fraction(percentile) / 100)
        assert enough_for(percentile, count) == (beyond >= 10) == given_value
        if count <= 200_000:
            result = Histogram.from_values(np.arange(count)).result()
            assert (result["percentiles_ns"][percentile] is not None) == given_value
            assert (percentile in result["insufficient"]) != given_value


def test_nothing_counted_gives_nulls_and_no_percentile():
    result = Histogram().result()
    assert result["count"] == 0
    assert {result[field] for field in ("min_ns", "max_ns", "mean_ns", "stddev_ns")} == {None}
    assert result["insufficient"] == list(PERCENTILES)
    assert set(result["percentiles_ns"].values()) == {None}


def test_without_exact_figures_the_buckets_give_them():
    values = np.random.default_rng(5).integers(0, 10**9, 10_000)
    counted = Histogram(Histogram.from_values(values).counts).result()
    assert counted["min_ns"] <= values.min() <= counted["min_ns"] * 1.001
    assert values.max() <= counted["max_ns"] <= values.max() * 1.001
    assert counted["mean_ns"] == pytest.approx(values.mean(), rel=0.001)


@given(count=st.integers(1, 10**15), percentile=st.sampled_from(PERCENTILES))
def test_rank_is_the_smallest_that_covers_the_percentile(count, percentile):
    rank = rank_of(percentile, count)
    share = Fraction(percentile) / 100
    assert 1 <= rank <= count
    assert Fraction(rank, count) >= share
    assert rank == 1 or Fraction(rank - 1, count) < share


def test_negative_values_are_refused():
    with pytest.raises(ValueError, match="negative"):
        Histogram.from_values([5, -1])


@given(
    groups=st.dictionaries(st.integers(0, 50), st.lists(st.integers(0, 10**6), min_size=1, max_size=60), max_size=6),
    percentile=st.sampled_from(["50", "90", "99"]),
)
def test_percentiles_of_many_histograms_equal_those_of_each(groups, percentile):
    cells = Cells()
    for group, values in groups.items():
        keys = ((group + 1) << FLOW_SHIFT) | bucket_of(np.array(values, np.int64))
        cells.add_one_each(keys.astype(np.uint64))
    by_flow = cells.by_flow()
    found = zip(
        by_flow.flows.tolist(), by_flow.totals.tolist(), percentile_of_each(by_flow, percentile).tolist(), strict=True
    )
    expected = []
    for group, values in sorted(groups.items()):
        value = Histogram(Histogram.from_values(values).counts).value_at(percentile)
        expected.append((group, len(values), value if enough_for(percentile, len(values)) else -1))
    assert list(found) == expected


def test_cells_count_beyond_the_bits_they_have_and_keep_it_when_moved():
    key = (3 << FLOW_SHIFT) | 77
    million = np.full(1 << 20, key, np.uint64)
    cells, expected = Cells(), Counter()
    for _ in range(33):
        cells.add_one_each(million)
        expected[key] += 1 << 20
    others = np.random.default_rng(1).integers(1 << FLOW_SHIFT, 60 << FLOW_SHIFT, 30_000).astype(np.uint64)
    cells.add_one_each(others)
    expected.update(others.tolist())
    assert contents(cells) == expected
    moved = Cells()
    remap = np.arange(60, dtype=np.int32)[::-1].copy()
    remap[7] = -1
    moved.absorb(cells, remap)
    moved.absorb(cells, remap)
    doubled = Counter()
    for old, count in expected.items():
        flow = (old >> FLOW_SHIFT) - 1
        if flow != 7:
            doubled[(int(remap[flow]) + 1) << FLOW_SHIFT | (old & 0xFFFF)] += 2 * count
    assert contents(moved) == doubled


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536, 131_070, 131_071, 131_072])
def test_cells_carry_exactly(count):
    cells = Cells()
    key = (1 << FLOW_SHIFT) | 31
    for part in (count - 3, 1, 2):
        cells.add_one_each(np.full(part, key, np.uint64))
    cells.add_one_each(np.array([key - 1, key + 1], np.uint64))
    assert contents(cells) == {key - 1: 1, key: count, key + 1: 1}
    doubled = Cells()
    for _ in range(2):
        doubled.absorb(cells, np.zeros(1, np.int32))
    assert contents(doubled) == {key - 1: 2, key: 2 * count, key + 1: 2}


def contents(cells):
    by_flow, found = cells.by_flow(), Counter()
    assert (np.diff(by_flow.flows) > 0).all()
    for flow, total in zip(by_flow.flows.tolist(), by_flow.totals.tolist(), strict=True):
        buckets, counts = by_flow.histogram_of(flow)
        assert (np.diff(buckets) > 0).all()
        assert (counts > 0).all()
        assert counts.sum() == total
        found.update(dict(zip(((flow + 1) << FLOW_SHIFT | buckets).tolist(), counts.tolist(), strict=True)))
    for rank_from in (0, 0.3, 1):
        # The slow way: repeat each bucket as often as it was counted.
        ranks = np.array([max(1, round(total * rank_from)) for total in by_flow.totals.tolist()], np.int64)
        expected = [
            value_at(*by_flow.histogram_of(flow), rank)
            for flow, rank in zip(by_flow.flows.tolist(), ranks, strict=True)
        ]
        assert by_flow.buckets_of(ranks).tolist() == expected
    return found


def value_at(buckets, counts, rank):
    for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
        rank -= count
        if rank <= 0:
            return bucket
    raise AssertionError("the rank lies beyond the last value")


@pytest.mark.parametrize(("name", "values"), distributions().items())
def test_buckets_are_those_of_the_hdrhistogram_package(name, values):
    histogram_module = pytest.importorskip("hdrh.histogram", reason="the package hdrhistogram is not installed")
    # That package stops at 2^62 - 1 or so; ours goes on in the same way.
    values = np.minimum(values, 2**61)
    theirs = histogram_module.HdrHistogram(1, 2**61, 3)
    for value in values[:3000].tolist():
        assert theirs.record_value(value)
    table = Histogram.from_values(values[:3000]).table()
    for lowest, highest, count in zip(*table.values(), strict=True):
        assert theirs.get_lowest_equivalent_value(highest) == lowest
        assert theirs.get_highest_equivalent_value(lowest) == highest
        assert theirs.get_count_at_value(lowest) == count
    assert theirs.get_total_count() == sum(table["count"])
