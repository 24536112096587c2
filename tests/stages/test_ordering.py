"""The order of frames in time: what the compiled loops do is what the slow reference says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.order_of_time import straightened

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.stages.ordering import ENDED, FULL, MOST_LISTED, NEEDS_ROOM, Chain, Merger, first_fall

START_NS = 1_700_000_000 * 10**9
WINDOW_NS = 100

ONE_INTERFACE = np.zeros(1, np.uint16)


def batch_of(times, first=1):
    frames = [bytes([number % 251]) * (1 + number % 7) for number in range(first, first + len(times))]
    batch = FrameBatch.from_frames(frames, [0 if t is None else t for t in times], first_frame_number=first)
    batch.storage("timestamp_source")[: len(times)] = [
        TimestampSource.NONE if t is None else TimestampSource.FILE for t in times
    ]
    return batch


def merged(inputs, sizes=(7,), *, window_ns=WINDOW_NS, most_frames=1 << 16, room=(64, 1 << 12), clock_is_set=False):
    """Return the chains and (frame number, untrusted, bytes) of each frame as it came out."""
    chains = [
        Chain(window_ns=window_ns, most_frames=most_frames, most_bytes=1 << 30, clock_is_set=clock_is_set)
        for _ in inputs
    ]
    firsts = np.concatenate([[1], 1 + np.cumsum([len(times) for times in inputs])]).tolist()
    fed = [0] * len(inputs)
    merger = Merger(chains)
    out = FrameBatch(room[0])
    out.set_data(np.empty(room[1], np.uint8))
    given_out = []
    turn = 0
    while True:
        merger.begin(out)
        while (what := merger.fill(out)) >= 0:
            size = sizes[turn % len(sizes)]
            turn += 1
            times = inputs[what][fed[what] : fed[what] + size]
            if not times:
                chains[what].finish()
                continue
            chains[what].push(batch_of(times, firsts[what] + fed[what]), ONE_INTERFACE, 0)
            fed[what] += len(times)
        for row in range(out.count):
            data = out.data[out.offset[row] : out.offset[row] + out.captured_length[row]].tobytes()
            untrusted = bool(out.timestamp_source[row] & 0x80)
            given_out.append((int(out.frame_number[row]), untrusted, data))
        if what == NEEDS_ROOM:
            out.set_data(np.empty(merger.needed, np.uint8))
        elif what == ENDED:
            return chains, given_out
        else:
            assert what == FULL


@st.composite
def courses(draw, most=120):
    """Times that go on, with disorder, outliers, steps, gaps and frames without a time among them."""
    now = draw(st.sampled_from([START_NS, 0, 5 * 10**9]))
    times = []
    for _ in range(draw(st.integers(0, most))):
        now += draw(st.integers(0, 60))
        now += draw(st.sampled_from([0] * 40 + [101, 5_000, -101, -5_000, 10**12]))
        off = draw(st.sampled_from([0] * 30 + [-99, -40, 99, -150, 150, 3_600 * 10**9, -(10**9), -now, None]))
        times.append(None if off is None else now + off)
        if draw(st.integers(0, 60)) == 60:
            times += [draw(st.integers(0, 2))] * draw(st.integers(1, 40))
    return times


@given(
    courses(),
    st.lists(st.integers(1, 50), min_size=1, max_size=4),
    st.sampled_from([0, 1, 50, 100, 10_000]),
    st.sampled_from([1, 2, 5, 1 << 16]),
    st.booleans(),
)
def test_a_chain_is_straightened_as_the_slow_reference_says_however_it_is_fed(
    times, sizes, window_ns, most_frames, clock_is_set
):
    wanted = straightened(times, window_ns, most_frames, clock_is_set=clock_is_set)
    (chain,), out = merged([times], sizes, window_ns=window_ns, most_frames=most_frames, clock_is_set=clock_is_set)
    assert [number - 1 for number, _, _ in out] == wanted.order
    assert sorted(number - 1 for number, untrusted, _ in out if untrusted) == wanted.untrusted
    assert all(data == bytes([number % 251]) * (1 + number % 7) for number, _, data in out)
    listed = [(first - 1 + after) for first, _, _, sure, frames in chain.outliers if sure for after in range(frames)]
    assert listed == wanted.outliers[: len(listed)]
    assert len(listed) == len(wanted.outliers) or len(chain.outliers) == MOST_LISTED
    assert [step[1] - 1 for step in chain.steps] == wanted.steps
    assert (chain.sorted, chain.beyond_window) == (wanted.late, wanted.beyond)
    assert (chain.frames, chain.outlier_count, chain.step_count) == (
        len(times),
        len(wanted.untrusted),
        len(wanted.steps),
    )


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


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=30))
def test_a_fall_is_found_wherever_time_goes_back(times):
    timestamped = [t for t in times if t is not None]
    falls = timestamped != sorted(timestamped)
    found = first_fall(batch_of(times), -1)
    assert found == (None if falls else (max(timestamped, default=-1), len(timestamped)))


def test_a_run_of_sixteen_wrong_timestamps_is_one_of_outliers_and_a_longer_one_a_step():
    for run, outliers, steps in ((16, 16, 0), (17, 0, 1)):
        times = [START_NS + 1000 * at for at in range(100)]
        times[40 : 40 + run] = [t - 10**12 for t in times[40 : 40 + run]]
        (chain,), _ = merged([times])
        assert chain.outlier_count == outliers
        # What comes back is no step that stays.
        assert chain.step_count == 0
        assert chain.beyond_window == (17 if steps else 0)


def test_what_cannot_be_is_refused():
    chain = Chain(window_ns=0, most_frames=1, most_bytes=1)
    with pytest.raises(ValueError, match="outside"):
        chain.push(batch_of([1]), np.zeros(0, np.uint16), 0)
    chain.finish()
    with pytest.raises(ValueError, match="ended"):
        chain.push(batch_of([1]), ONE_INTERFACE, 0)
    with pytest.raises(ValueError, match="no chain"):
        Merger([])
    with pytest.raises(ValueError, match="not negative"):
        Chain(window_ns=-1, most_frames=1, most_bytes=1)
