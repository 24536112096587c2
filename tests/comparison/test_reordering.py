"""Reordering against a slow reference written from RFC 4737."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uspcap.comparison.reordering import REMEMBERED, Reordering


def reference(numbers: list[int]) -> list[tuple[int, int, int]]:
    """Number, extent and degree of each reordered packet (RFC 4737, 3.3, 4.2.1, 5.2)."""
    found = []
    next_expected = 0
    for at, number in enumerate(numbers):
        if number >= next_expected:
            next_expected = number + 1
            continue
        earliest = next(place for place in range(at) if numbers[place] > number)
        degree = 0
        while degree < at and numbers[at - 1 - degree] > number:
            degree += 1
        found.append((number, at - earliest, degree))
    return found


@given(numbers=st.permutations(range(1, 40)), cut=st.integers(0, 39))
def test_any_order_is_described_as_the_rfc_does(numbers: list[int], cut: int) -> None:
    reordering = Reordering()
    found = []
    for part in (numbers[:cut], numbers[cut:]):
        found += [tuple(map(int, row)) for row in reordering.update(np.array(part, np.int64)).tolist()]
    assert found == reference(numbers)
    assert (reordering.arrivals, reordering.reordered, reordering.clipped) == (39, len(found), 0)


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3), max_size=40), st.integers(0, 40))
def test_times_of_any_sign_are_ordered_too_and_equal_ones_are_not_reordered(times: list[int], cut: int) -> None:
    reordering = Reordering()
    found = []
    for part in (times[:cut], times[cut:]):
        found += [tuple(map(int, row)) for row in reordering.update(np.array(part, np.int64)).tolist()]
    expected = []
    for at, time in enumerate(times):
        later = [place for place in range(at) if times[place] > time]
        if later:
            before = next((back for back in range(at) if times[at - 1 - back] <= time), at)
            expected.append((time, at - later[0], before))
    assert found == expected


def test_examples_of_the_rfc_hold() -> None:
    # RFC 4737, table 4: packet 4 comes late, behind 7 and 8.
    (row,) = Reordering().update(np.array([1, 2, 3, 7, 8, 4, 9, 10], np.int64)).tolist()
    assert row == (4, 2, 2)


def test_what_is_longer_ago_than_is_remembered_is_clipped_and_counted() -> None:
    reordering = Reordering()
    late = reordering.update(np.array([*range(2, REMEMBERED + 100), 1], np.int64))
    assert late["extent"].tolist() == [REMEMBERED]
    assert late["degree"].tolist() == [REMEMBERED]
    assert reordering.clipped == 1
