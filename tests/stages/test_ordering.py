"""The order of frames in time: what the compiled loops do is what the slow reference says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chains import ONE_INTERFACE, START_NS, batch_of, courses, merged
from support.order_of_time import straightened

from uspcap.stages.ordering import MOST_LISTED, Chain, first_fall


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
    with pytest.raises(ValueError, match="not negative"):
        Chain(window_ns=-1, most_frames=1, most_bytes=1)
