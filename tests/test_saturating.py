"""Arithmetic on arrays of int64 against whole numbers without end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch
from uspcap.saturating import (
    added_ns,
    clamped_ns,
    clipped_ns,
    difference_ns,
    exact_sum,
    median_ns,
    summed_ns,
    whole_ns,
)

LARGEST = 2**63 - 1
NUMBERS = st.one_of(
    st.integers(-(2**63), LARGEST),
    st.sampled_from([-(2**63), 1 - 2**63, -(2**62), EARLIEST_NS, -1, 0, 1, LATEST_NS, 2**62, LARGEST]),
)
INT64 = arrays.arrays(np.int64, st.integers(1, 20), elements=NUMBERS)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20).map(lambda pairs: np.array(pairs, np.int64).T)
WHOLE = arrays.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, LARGEST))


def clip(value: int) -> int:
    return max(-LARGEST, min(LARGEST, value))


@given(PAIRS)
def test_differences_and_sums_of_two_are_the_nearest_that_fit_with_either_sign(pairs: np.ndarray) -> None:
    one, other = pairs
    both = list(zip(one.tolist(), other.tolist(), strict=True))
    assert difference_ns(one, other).tolist() == [clip(a - b) for a, b in both]
    assert added_ns(one, other).tolist() == [clip(a + b) for a, b in both]


@given(INT64)
def test_a_sum_is_exact_and_a_median_too(values: np.ndarray) -> None:
    assert exact_sum(values) == sum(values.tolist())
    ordered = sorted(values.tolist())
    middle = len(ordered) // 2
    assert median_ns(values) == (ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2)


@given(WHOLE)
def test_sums_of_rows_saturate(values: np.ndarray) -> None:
    rows = np.stack([values, values[::-1], np.zeros_like(values)])
    assert summed_ns(rows).tolist() == [min(LARGEST, sum(row)) for row in rows.tolist()]


@given(st.integers())
def test_whole_numbers_are_clipped(value: int) -> None:
    assert clipped_ns(value) == clip(value)


@given(INT64)
def test_timestamps_are_clamped_alike_in_arrays_and_in_batches(values: np.ndarray) -> None:
    clamped = [max(EARLIEST_NS, min(LATEST_NS, value)) for value in values.tolist()]
    assert clamped_ns(values).tolist() == clamped
    at_an_end = sum(abs(value) == LATEST_NS for value in clamped)
    by_hand = FrameBatch(len(values))
    by_hand.storage("timestamp_ns")[:] = values
    by_hand.count = len(values)
    made = FrameBatch.from_frames([b""] * len(values), values.tolist())
    for batch in (by_hand, made):
        assert batch.clamped == at_an_end
        assert batch.timestamp_ns.tolist() == clamped


@given(arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=False)))
def test_floats_of_any_size_become_whole_numbers(values: np.ndarray) -> None:
    end = 2.0**63 - 1024
    assert whole_ns(values).tolist() == [int(max(-end, min(end, value))) for value in values.tolist()]
