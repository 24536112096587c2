"""What the order of timestamps says of their quality, against a list of them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.analysis.timestamps.loop import (
    RUN_LENGTH_CLASSES,
    SOURCES,
    STEP_DTYPE,
    TIMESTAMP_TRACK_DTYPE,
    track_timestamps,
)
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

SECOND_NS = 10**9
FILE = TimestampSource.FILE
STEPS = st.sampled_from(
    [0, 0, 0, 1, 1000, -1, -1000, SECOND_NS, 35 * SECOND_NS, 35 * SECOND_NS - 1, 38 * SECOND_NS, -38 * SECOND_NS]
)
ENDS = st.sampled_from([EARLIEST_NS, -SECOND_NS, 0, LATEST_NS])


@st.composite
def timestamps(draw: st.DrawFn, most: int = 40) -> list[int]:
    now, found = draw(ENDS), []
    for _ in range(draw(st.integers(0, most))):
        now = max(EARLIEST_NS, min(LATEST_NS, draw(st.one_of(STEPS.map(now.__add__), STEPS.map(now.__add__), ENDS))))
        found.append(now)
    return found


def tracked(rows: list[tuple[int, int]], sizes: int = 100, room: int = 100, shift: int = 0) -> tuple[Any, Any, int]:
    """Return tracks, steps and how many of these are used; rows are of timestamp and source."""
    tracks, steps, used = np.zeros(SOURCES, TIMESTAMP_TRACK_DTYPE), np.zeros(room, STEP_DTYPE), 0
    for start in range(0, len(rows), sizes):
        part = rows[start : start + sizes]
        batch = FrameBatch.from_frames([b""] * len(part), [at_ns for at_ns, _ in part], first_frame_number=1 + start)
        batch.storage("timestamp_source")[: len(part)] = [source for _, source in part]
        used = track_timestamps(batch, shift, tracks, steps, used)
    return tracks, steps, used


def zeros_of(at_ns: int) -> int:
    return next((digits for digits in range(9, 0, -1) if at_ns % 10**digits == 0), 0)


@given(times=timestamps(), sizes=st.sampled_from([1, 7, 100]))
def test_a_track_says_what_the_list_of_its_timestamps_says(times: list[int], sizes: int) -> None:
    tracks, _, _ = tracked([(at_ns, FILE) for at_ns in times], sizes)
    track = tracks[FILE]
    assert int(track["frames"]) == len(times)
    assert not tracks["frames"][np.arange(SOURCES) != FILE].any()
    zeros = Counter(map(zeros_of, times))
    assert track["trailing_zeros"].tolist() == [zeros[digits] for digits in range(10)]
    if not times:
        return
    steps = [after - before for before, after in pairwise(times)]
    extremes = [int(track[name]) for name in ("first_ns", "last_ns", "lowest_ns", "highest_ns")]
    assert extremes == [times[0], times[-1], min(times), max(times)]
    assert int(track["divisor"]) == math.gcd(*(at_ns - times[0] for at_ns in times))
    assert (int(track["duplicates"]), int(track["backward"])) == (steps.count(0), sum(step < 0 for step in steps))
    assert int(track["backward_largest_ns"]) == max([-step for step in steps if step < 0], default=0)
    assert int(track["jumps"]) == sum(35 * SECOND_NS <= abs(step) <= 38 * SECOND_NS for step in steps)


@given(times=timestamps(), sizes=st.sampled_from([1, 7, 100]), shift=st.sampled_from([0, 1 << 40]))
def test_runs_of_equal_timestamps_are_classed_but_for_the_first_and_the_last(
    times: list[int], sizes: int, shift: int
) -> None:
    tracks, _, _ = tracked([(at_ns, FILE) for at_ns in times], sizes, shift=shift)
    track = tracks[FILE]
    numbered = groupby(enumerate(times, 1 + shift), key=lambda one: one[1])
    runs = [[number for number, _ in run] for _, run in numbered]
    assert int(track["runs"]) == max(0, len(runs) - 1)
    assert int(track["last_run"]) == (len(runs[-1]) if runs else 0)
    assert int(track["first_run"]) == (len(runs[0]) if len(runs) > 1 else 0)
    classes = Counter(len(run).bit_length() - 1 for run in runs[1:-1])
    assert track["run_lengths"].tolist() == [classes[power] for power in range(RUN_LENGTH_CLASSES)]
    longest = max(runs[:-1], key=len, default=None)
    if longest is not None:
        assert (int(track["longest_run"]), int(track["longest_run_frame"])) == (len(longest), longest[0])


@given(
    rows=st.lists(st.tuples(st.sampled_from([0, 5, 35 * SECOND_NS, 36 * SECOND_NS]), st.integers(0, 6)), max_size=30),
    room=st.sampled_from([1, 2, 30]),
    shift=st.sampled_from([0, 1 << 40]),
)
def test_the_first_steps_are_listed_of_each_timestamp_source_for_itself(
    rows: list[tuple[int, int]], room: int, shift: int
) -> None:
    _, steps, used = tracked(rows, 3, room, shift)
    last: dict[int, int] = {}
    expected = []
    for number, (at_ns, source) in enumerate(rows, 1 + shift):
        if source >= TimestampSource.NONE:
            continue
        step = at_ns - last.get(source, at_ns)
        if step < 0 or 35 * SECOND_NS <= step <= 38 * SECOND_NS:
            expected.append((number, last[source], at_ns, source))
        last[source] = at_ns
    assert used == min(room, len(expected))
    assert steps[:used].tolist() == expected[:room]


def test_tracks_of_another_layout_are_refused() -> None:
    batch = FrameBatch.from_frames([b""], [0])
    steps = np.zeros(1, STEP_DTYPE)
    for count in (SOURCES - 1, SOURCES + 1):
        with pytest.raises(ValueError, match="another layout"):
            track_timestamps(batch, 0, np.zeros(count, TIMESTAMP_TRACK_DTYPE), steps, 0)
