"""The busiest sliding windows, against windows counted one by one."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uspcap.analysis.bursts.loop import SLOTS_IN_WINDOW, WIDEST_NS, SlidingWindows, sources_in
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

FILE = TimestampSource.FILE
WIDTHS_NS = (1000, 10_000, 1_000_000)
Rows = list[tuple[int, int]]
"""Timestamp and wire length."""


def update(windows: SlidingWindows, rows: Rows, first: int = 1) -> SlidingWindows:
    lengths = [length for _, length in rows]
    batch = FrameBatch.from_frames([b""] * len(rows), [0] * len(rows), wire_lengths=lengths, first_frame_number=first)
    # As they are: the windows clamp them.
    batch.storage("timestamp_ns")[: len(rows)] = [at_ns for at_ns, _ in rows]
    windows.update(batch, 0, FILE)
    return windows


def slow_peak(rows: Rows, width_ns: int) -> Any:
    """Return the first of the largest windows by bytes and by frames, and how often they restarted."""
    slot_ns = width_ns // SLOTS_IN_WINDOW
    numbered = [(at_ns, max(EARLIEST_NS, min(LATEST_NS, at_ns)) // slot_ns, length, number)
                for number, (at_ns, length) in enumerate(rows, 1)]  # fmt: skip
    starts = [0, *(at for at in range(1, len(rows)) if numbered[at][1] < numbered[at - 1][1]), len(rows)]
    windows = [(0, 0, 0, 0)]
    for first, last in pairwise(starts):
        for at in range(first, last):
            if at + 1 < last and numbered[at + 1][1] == numbered[at][1]:
                continue
            inside = [one for one in numbered[first : at + 1] if one[1] > numbered[at][1] - SLOTS_IN_WINDOW]
            begin = max(EARLIEST_NS, min(LATEST_NS, inside[0][0]))
            windows.append((sum(one[2] for one in inside), len(inside), begin, inside[0][3]))
    by_bytes = max(windows, key=lambda window: window[0])
    return by_bytes, max(windows, key=lambda window: window[1]), max(0, len(starts) - 2)


STEPS = st.sampled_from([0, 0, 1, 2, 999, 1000, 1001, 10_000, 999_999, 10**6, -1, -1000, -(10**6)])
BEGIN = st.sampled_from([0, 1_700_000_000 * 10**9, -5, EARLIEST_NS, LATEST_NS - 50, -(1 << 63), (1 << 63) - 1])


@st.composite
def rows_of(draw: st.DrawFn, most: int = 30) -> Rows:
    now, found = draw(BEGIN), []
    for _ in range(draw(st.integers(0, most))):
        now = max(-(1 << 63), min((1 << 63) - 1, now + draw(STEPS)))
        found.append((now, draw(st.sampled_from([1, 60, 1514, (1 << 32) - 1]))))
    return found


@given(rows=rows_of(), sizes=st.sampled_from([1, 7, 100]))
def test_peaks_are_those_of_windows_counted_one_by_one(rows: Rows, sizes: int) -> None:
    windows = SlidingWindows(WIDTHS_NS)
    for start in range(0, len(rows), sizes):
        update(windows, rows[start : start + sizes], 1 + start)
    assert windows.peaks() == [slow_peak(rows, width_ns) for width_ns in WIDTHS_NS]
    assert (windows.frames, windows.bytes) == (len(rows), sum(length for _, length in rows))
    if rows:
        clamped = [max(EARLIEST_NS, min(LATEST_NS, at_ns)) for at_ns, _ in rows]
        assert (windows.lowest_ns, windows.highest_ns) == (min(clamped), max(clamped))


@settings(max_examples=60)
@given(rows=rows_of(), cuts=st.lists(st.integers(0, 30), max_size=3), pickled=st.booleans())
def test_parts_joined_at_any_cuts_are_the_whole(rows: Rows, cuts: list[int], pickled: bool) -> None:
    joined = SlidingWindows(WIDTHS_NS)
    for first, last in pairwise([0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]):
        part = update(SlidingWindows(WIDTHS_NS), rows[first:last])
        if pickled:
            joined, part = pickle.loads(pickle.dumps((joined, part)))
        joined.join(part, first)
    whole = update(SlidingWindows(WIDTHS_NS), rows)
    assert joined.peaks() == whole.peaks()
    for name in ("bytes", "frames", "lowest_ns", "highest_ns"):
        assert getattr(joined, name) == getattr(whole, name)


@pytest.mark.parametrize(("apart_ns", "frames"), [(999, 2), (1000, 1)])
def test_a_window_is_as_wide_as_it_says(apart_ns: int, frames: int) -> None:
    windows = update(SlidingWindows((1000,)), [(5, 10), (5 + apart_ns, 10)])
    assert windows.peaks()[0][1][:2] == (10 * frames, frames)


@pytest.mark.parametrize("width_ns", [1000, 7000, WIDEST_NS // 1000 * 1000])
def test_the_narrowest_and_the_widest_window_reach_both_ends_of_time(width_ns: int) -> None:
    rows = [(EARLIEST_NS, 1), (EARLIEST_NS + 1, 2), (0, 4), (LATEST_NS - 1, 8), (LATEST_NS, 16)]
    assert update(SlidingWindows((width_ns,)), rows).peaks() == [slow_peak(rows, width_ns)]


@given(sources=st.lists(st.integers(0, 255), max_size=20))
def test_only_rows_of_the_timestamp_source_count_and_each_is_in_the_set(sources: list[int]) -> None:
    batch = FrameBatch.from_frames([b"ab"] * len(sources), range(len(sources)))
    batch.storage("timestamp_source")[: len(sources)] = np.array(sources, np.uint8)
    assert sources_in(batch) == sum(1 << source for source in set(sources) if source < 64)
    windows = SlidingWindows((1000,))
    windows.update(batch, 0, FILE)
    assert (windows.frames, windows.bytes) == (sources.count(FILE), 2 * sources.count(FILE))


def test_widths_that_have_no_slots_are_refused_and_others_are_not_joined() -> None:
    for widths_ns in ((), (0,), (999,), (1001,), (-1000,), (1000, 1500), (WIDEST_NS + 1000,)):
        with pytest.raises(ValueError, match="a multiple of 1000 ns"):
            SlidingWindows(widths_ns)
    with pytest.raises(ValueError, match="different widths"):
        SlidingWindows((1000,)).join(SlidingWindows((2000,)), 0)
    assert SlidingWindows((1000,)).peaks() == [((0, 0, 0, 0), (0, 0, 0, 0), 0)]
