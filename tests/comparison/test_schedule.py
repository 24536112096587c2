"""Order of runs, and which frames of a run count."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.comparison.schedule import Trim, schedule, trim
from uspcap.errors import UsageError


def test_two_paths_alternate_as_abba_or_baab() -> None:
    order = schedule(200, ("a", "b"), seed=1)
    blocks = Counter("".join(order[at : at + 4]) for at in range(0, 400, 4))
    assert set(blocks) == {"abba", "baab"}
    # 100 fair coins; beyond 30 … 70 lies less than 1e-4.
    assert 30 <= blocks["abba"] <= 70


@given(
    runs=st.integers(1, 30),
    paths=st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=4, unique=True),
    seed=st.integers(),
)
def test_every_half_block_has_every_path_once(runs: int, paths: list[str], seed: int) -> None:
    order = schedule(runs, paths, seed)
    halves = [order[at : at + len(paths)] for at in range(0, len(order), len(paths))]
    assert len(halves) == runs
    assert all(sorted(half) == sorted(paths) for half in halves)
    assert all(second == first[::-1] for first, second in zip(halves[::2], halves[1::2], strict=False))


def test_a_seed_fixes_the_order_and_another_changes_it() -> None:
    orders = [schedule(20, ("kernel", "af_xdp"), seed) for seed in (7, 7, 8)]
    assert orders[0] == orders[1] != orders[2]


def test_every_order_of_three_paths_comes_up() -> None:
    order = schedule(400, "xyz", seed=3)
    assert len({order[at : at + 3] for at in range(0, len(order), 6)}) == 6


@pytest.mark.parametrize(("runs", "paths"), [(0, ("a", "b")), (5, ("a",)), (5, ()), (5, ("a", "a"))])
def test_what_compares_nothing_is_refused(runs: int, paths: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        schedule(runs, paths, 1)


def slow_trim(sent: list[int], settings: Trim) -> list[int]:
    """Frames that are past both conditions at either end, one by one."""
    return [
        at
        for at, time in enumerate(sent)
        if at >= settings.warm_up_frames
        and len(sent) - 1 - at >= settings.cool_down_frames
        and (not settings.warm_up_ns or time - sent[0] >= settings.warm_up_ns)
        and (not settings.cool_down_ns or sent[-1] - time >= settings.cool_down_ns)
    ]


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.builds(Trim, *(st.integers(0, 60) for _ in range(4))),
)
def test_trim_keeps_what_a_frame_by_frame_rule_keeps(steps: list[int], settings: Trim) -> None:
    sent = np.cumsum(np.array(steps, np.int64))
    kept = trim(sent, settings)
    assert list(range(len(sent)))[kept.as_slice()] == slow_trim(sent.tolist(), settings)
    parts = kept.as_dict()
    assert sum(parts.values()) == len(sent)
    assert min(parts.values()) >= 0


def test_times_that_fall_and_negative_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must not fall"):
        trim(np.array([3, 2], np.int64), Trim())
    with pytest.raises(UsageError):
        Trim(warm_up_ns=-1)
