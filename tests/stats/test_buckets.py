"""Buckets and counts by flow, against a Counter."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.stats.buckets import BUCKETS, FLOW_SHIFT, Cells, bucket_bounds, record_many

LARGEST = (1 << 63) - 1
VALUES = st.one_of(
    st.integers(0, 5000),
    st.integers(0, LARGEST),
    st.integers(0, 62).map(lambda bit: 1 << bit),
    st.integers(1, 63).map(lambda bit: (1 << bit) - 1),
)
CELLS = st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 70), st.integers(0, BUCKETS - 1)))


def bucket_by_shifts(value: int) -> int:
    """Of 2048 values one each, then of each octave 1024 buckets."""
    octave = max(0, value.bit_length() - 11)
    return octave * 1024 + (value >> octave)


def cells_of(talk: list[tuple[int, int]]) -> Cells:
    cells = Cells()
    cells.add_one_each(np.array([(flow + 1) << FLOW_SHIFT | bucket for flow, bucket in talk], np.uint64))
    return cells


def contents(cells: Cells) -> dict[tuple[int, int], int]:
    by_flow, found = cells.by_flow(), {}
    for flow, total in zip(by_flow.flows.tolist(), by_flow.totals.tolist(), strict=True):
        buckets, counts = by_flow.histogram_of(flow)
        assert (buckets.tolist(), int(counts.sum())) == (sorted(set(buckets.tolist())), total)
        found.update({(flow, bucket): count for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True)})
    return found


@given(values=st.lists(VALUES, max_size=50))
def test_a_value_is_counted_in_the_one_bucket_that_holds_it(values: list[int]) -> None:
    counts = np.zeros(BUCKETS, np.uint64)
    record_many(counts, np.array(values, np.int64))
    assert {int(at): int(counts[at]) for at in np.flatnonzero(counts)} == Counter(map(bucket_by_shifts, values))
    lowest, highest = bucket_bounds()
    for value in values:
        at = bucket_by_shifts(value)
        assert lowest[at] <= value <= highest[at]


def test_bounds_leave_no_hole_from_zero_to_the_largest_value() -> None:
    lowest, highest = bucket_bounds()
    assert (lowest.shape, int(lowest[0]), int(highest[-1])) == ((BUCKETS,), 0, LARGEST)
    assert (lowest[1:] == highest[:-1] + 1).all()


def test_negative_values_and_other_shapes_are_refused() -> None:
    for value in (-1, -(1 << 63)):
        with pytest.raises(ValueError, match="no negative value"):
            record_many(np.zeros(BUCKETS, np.uint64), np.array([value], np.int64))
    for rows in (0, BUCKETS - 1, BUCKETS + 1):
        with pytest.raises(ValueError, match=f"counts must have {BUCKETS} buckets"):
            record_many(np.zeros(rows, np.uint64), np.zeros(0, np.int64))


@given(talk=st.lists(CELLS, max_size=80), parts=st.integers(1, 4), pickled=st.booleans())
def test_cells_are_those_of_a_counter_however_they_are_added(
    talk: list[tuple[int, int]], parts: int, pickled: bool
) -> None:
    cells = Cells()
    for part in range(parts):
        cells.absorb(cells_of(talk[part::parts]), np.arange(6, dtype=np.int32))
    if pickled:
        cells = pickle.loads(pickle.dumps(cells))
    assert contents(cells) == contents(cells_of(talk)) == Counter(talk)
    assert cells.lines == len({(flow, bucket // 32) for flow, bucket in talk})


@given(talk=st.lists(CELLS, max_size=40), flows=st.lists(st.integers(-1, 9), max_size=6))
def test_flows_are_absorbed_where_they_are_mapped_to_or_nowhere(talk: list[tuple[int, int]], flows: list[int]) -> None:
    cells = Cells()
    cells.absorb(cells_of(talk), np.array(flows, np.int32))
    expected = Counter((flows[flow], bucket) for flow, bucket in talk if flow < len(flows) and flows[flow] >= 0)
    assert contents(cells) == expected


@given(talk=st.lists(CELLS, min_size=1, max_size=60), share=st.floats(0, 1))
def test_the_bucket_of_a_rank_is_that_of_the_sorted_values(talk: list[tuple[int, int]], share: float) -> None:
    by_flow = cells_of(talk).by_flow()
    in_order = {flow: sorted(bucket for of, bucket in talk if of == flow) for flow in sorted({of for of, _ in talk})}
    assert by_flow.flows.tolist() == list(in_order)
    ranks = [max(1, round(share * len(buckets))) for buckets in in_order.values()]
    expected = [buckets[rank - 1] for buckets, rank in zip(in_order.values(), ranks, strict=True)]
    assert by_flow.buckets_of(np.array(ranks, np.int64)).tolist() == expected
    with pytest.raises(ValueError, match="one rank"):
        by_flow.buckets_of(np.ones(len(ranks) + 1, np.int64))


@pytest.mark.parametrize("count", [(1 << 16) - 1, 1 << 16, 3 << 16])
def test_a_count_outgrows_its_16_bits(count: int) -> None:
    cells = cells_of([(2, 31)] * count + [(2, 32)])
    assert contents(cells) == {(2, 31): count, (2, 32): 1}
    doubled = pickle.loads(pickle.dumps(cells))
    doubled.absorb(cells, np.arange(3, dtype=np.int32))
    assert contents(doubled) == {(2, 31): 2 * count, (2, 32): 2}
    assert doubled.by_flow().buckets_of(np.array([2 * count + 1], np.int64)).tolist() == [32]


def test_a_flow_without_cells_has_an_empty_histogram() -> None:
    for cells in (Cells(), cells_of([(1, 5)])):
        for flow in (0, 2):
            assert [part.tolist() for part in cells.by_flow().histogram_of(flow)] == [[], []]
    assert Cells().by_flow().flows.tolist() == []
