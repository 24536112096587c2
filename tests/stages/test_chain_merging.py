"""Chains merged by time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chains import ONE_INTERFACE, START_NS, WINDOW_NS, courses, merged
from support.order_of_time import straightened

from uspcap.frames import FrameBatch
from uspcap.stages.chain_merging import ENDED, Merger
from uspcap.stages.ordering import Chain


@given(st.lists(courses(40), min_size=1, max_size=5), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_chains_are_merged_by_time_and_none_loses_a_frame_or_changes_its_own_order(inputs, sizes):
    _, out = merged(inputs, sizes)
    first = 1
    for times in inputs:
        own = [number for number, _, _ in out if first <= number < first + len(times)]
        assert [number - first for number in own] == straightened(times, WINDOW_NS, 1 << 16).order
        first += len(times)
    assert len(out) == sum(map(len, inputs))


@given(st.lists(st.lists(st.integers(0, 500), max_size=50), min_size=1, max_size=5))
def test_chains_in_order_are_merged_into_one_in_order(inputs):
    inputs = [sorted(START_NS + t for t in times) for times in inputs]
    times = [t for one in inputs for t in one]
    _, out = merged(inputs)
    assert [times[number - 1] for number, _, _ in out] == sorted(times)


def test_equal_times_go_by_the_frames_and_not_by_which_chain_is_first():
    times = [START_NS] * 3
    one, other = merged([times, times])[1], merged([times, times], sizes=(1,))[1]
    assert one == other
    frames = [b"a", b"b"]
    for order in ([0, 1], [1, 0]):
        chains = [Chain(window_ns=0, most_frames=10, most_bytes=1000) for _ in frames]
        for chain, at in zip(chains, order, strict=True):
            chain.push(FrameBatch.from_frames([frames[at]], [START_NS]), ONE_INTERFACE, 0)
            chain.finish()
        out = FrameBatch(8)
        out.set_data(np.empty(64, np.uint8))
        merger = Merger(chains)
        merger.begin(out)
        assert merger.fill(out) == ENDED
        first = out.frame_bytes(0)
        assert {first, out.frame_bytes(1)} == {b"a", b"b"}
        if order == [0, 1]:
            expected = first
    assert first == expected


def test_nothing_to_merge_is_refused():
    with pytest.raises(ValueError, match="no chain"):
        Merger([])
