"""Gaps between arrivals and their jitter, against lists and fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import Frame, batch_of

from uspcap.analysis.gaps.loop import GAP_DTYPE
from uspcap.analysis.inter_arrival.loop import ARRIVAL_TRACK_DTYPE, SOURCES, join_arrivals, track_arrivals
from uspcap.frames import TimestampSource
from uspcap.stats.buckets import BUCKETS, Cells
from uspcap.stats.histogram import Histogram

FILE = TimestampSource.FILE
MOST = (1 << 63) - 1
ENDS = st.sampled_from([-(1 << 63), -MOST, -(1 << 62), 0, 1 << 62, MOST])
TIMES = st.lists(st.one_of(st.integers(0, 3000), st.integers(0, 3000), ENDS), max_size=30)
FLOWS = 3


class State:
    """What the loop keeps, as a caller allocates it."""

    def __init__(self, room: int = 5) -> None:
        self.tracks = np.zeros(SOURCES, ARRIVAL_TRACK_DTYPE)
        self.counts = np.zeros((SOURCES, BUCKETS), np.uint64)
        self.flows = np.zeros(FLOWS, ARRIVAL_TRACK_DTYPE)
        self.cells, self.largest, self.used = Cells(), np.zeros(room, GAP_DTYPE), 0

    def update(self, rows: list[tuple[int, int, int]], first: int = 1, shift: int = 0) -> None:
        """Take rows of timestamp, source and flow."""
        batch = batch_of([Frame(0, 60, 1, source) for _, source, _ in rows], first)
        batch.storage("timestamp_ns")[: len(rows)] = [at_ns for at_ns, _, _ in rows]
        batch.headers.column("flow")[:] = [flow for _, _, flow in rows]
        self.used = track_arrivals(
            batch, batch.headers, shift, self.tracks, self.counts, self.flows, self.cells,
            self.largest, self.used, np.zeros(len(rows), np.uint64),
        )  # fmt: skip


def of_file(times: list[int]) -> list[tuple[int, int, int]]:
    return [(at_ns, FILE, 0) for at_ns in times]


def assert_as_list(track: Any, numbered: list[tuple[int, int]], length: int = 60) -> list[int]:
    """Compare a track with frame numbers and timestamps; return the gaps."""
    assert (int(track["frames"]), int(track["bytes"])) == (len(numbered), length * len(numbered))
    if not numbered:
        return []
    assert [int(track[name]) for name in ("first_frame", "first_ns", "last_frame", "last_ns")] == [
        *numbered[0], *numbered[-1]
    ]  # fmt: skip
    steps = [(max(-MOST, min(MOST, after - before)), number) for (_, before), (number, after) in pairwise(numbered)]
    gaps = [step for step, _ in steps if step >= 0]
    assert (int(track["gaps"]), int(track["backward"])) == (len(gaps), len(steps) - len(gaps))
    assert (int(track["sum_high"]) << 64) + int(track["sum_low"]) == sum(gaps)
    if gaps:
        assert (int(track["lowest_ns"]), int(track["highest_ns"])) == (min(gaps), max(gaps))
        assert int(track["highest_frame"]) == next(number for step, number in steps if step == max(gaps))
        assert (int(track["first_gap_ns"]), int(track["last_gap_ns"])) == (gaps[0], gaps[-1])
    jitter = Fraction(0)
    for before, after in pairwise(gaps):
        jitter += (abs(after - before) - jitter) / 16
    found = Fraction((int(track["jitter_high"]) << 64) + int(track["jitter_low"]), 1 << 64)
    assert 0 <= jitter - found < Fraction(len(numbered) + 1, 1 << 59)
    return gaps


@given(
    rows=st.lists(
        st.tuples(st.one_of(st.integers(0, 3000), ENDS), st.integers(0, 6), st.integers(-1, FLOWS)), max_size=30
    ),
    sizes=st.sampled_from([1, 7, 100]),
    shift=st.sampled_from([0, 1 << 40]),
)
def test_tracks_are_those_of_lists_by_timestamp_source_and_by_flow(
    rows: list[tuple[int, int, int]], sizes: int, shift: int
) -> None:
    state = State()
    for start in range(0, len(rows), sizes):
        state.update(rows[start : start + sizes], 1 + start, shift)
    numbered = [(number, *row) for number, row in enumerate(rows, 1 + shift) if row[1] < TimestampSource.NONE]
    for source in range(SOURCES):
        of_source = [(number, at_ns) for number, at_ns, own, _ in numbered if own == source]
        gaps = assert_as_list(state.tracks[source], of_source)
        assert np.array_equal(state.counts[source], Histogram.from_values(gaps).counts)
    by_flow = state.cells.by_flow()
    for flow in range(FLOWS):
        gaps = assert_as_list(state.flows[flow], [(number, at_ns) for number, at_ns, _, own in numbered if own == flow])
        buckets, counts = by_flow.histogram_of(flow)
        dense = np.zeros(BUCKETS, np.uint64)
        dense[buckets] = counts
        assert np.array_equal(dense, Histogram.from_values(gaps).counts)


@given(times=TIMES, room=st.sampled_from([1, 3, 30]), sizes=st.sampled_from([1, 100]))
def test_the_largest_gaps_are_kept_the_earlier_among_equals(times: list[int], room: int, sizes: int) -> None:
    state = State(room)
    for start in range(0, len(times), sizes):
        state.update(of_file(times[start : start + sizes]), 1 + start)
    gaps = [
        (min(MOST, after - before), before, number, number + 1)
        for number, (before, after) in enumerate(pairwise(times), 1)
        if after >= before
    ]
    expected = sorted(gaps, key=lambda gap: (-gap[0], gap[2]))[:room]
    assert state.used == len(expected)
    assert [row[1:] for row in state.largest[: state.used].tolist()] == expected
    assert set(state.largest["flow"][: state.used].tolist()) <= {FILE}


@settings(max_examples=60)
@given(times=TIMES, cut=st.integers(0, 30))
def test_tracks_joined_at_any_cut_are_the_whole_and_the_gap_between_is_returned(times: list[int], cut: int) -> None:
    cut = min(cut, len(times))
    first, second = State(), State()
    first.update(of_file(times[:cut]))
    second.update(of_file(times[cut:]), 1 + cut)
    gaps = join_arrivals(first.tracks, np.arange(SOURCES, dtype=np.int32), second.tracks)
    across = -1
    if 0 < cut < len(times) and times[cut] >= times[cut - 1]:
        across = min(MOST, times[cut] - times[cut - 1])
    assert gaps.tolist() == [across if source == FILE else -1 for source in range(SOURCES)]
    assert_as_list(first.tracks[FILE], list(enumerate(times, 1)))


def test_tracks_go_where_they_are_mapped_to_or_nowhere() -> None:
    later = np.zeros(3, ARRIVAL_TRACK_DTYPE)
    later["frames"], later["first_ns"] = [1, 2, 3], [10, 20, 30]
    mine = np.zeros(2, ARRIVAL_TRACK_DTYPE)
    gaps = join_arrivals(mine, np.array([1, -1, 0], np.int32), later)
    assert (mine["frames"].tolist(), mine["first_ns"].tolist(), gaps.tolist()) == ([3, 1], [30, 10], [-1, -1, -1])
    nothing = np.zeros(0, ARRIVAL_TRACK_DTYPE)
    assert join_arrivals(nothing, np.zeros(0, np.int32), nothing).tolist() == []


def test_arrays_of_another_shape_are_refused() -> None:
    mine, later = np.zeros(2, ARRIVAL_TRACK_DTYPE), np.zeros(1, ARRIVAL_TRACK_DTYPE)
    with pytest.raises(ValueError, match="a flow has no track"):
        join_arrivals(mine, np.array([2], np.int32), later)
    with pytest.raises(ValueError, match="another layout"):
        join_arrivals(mine, np.array([0, 1], np.int32), later)
    batch, state = batch_of([Frame(0, 60, 1)] * 2), State()
    right: dict[str, Any] = {
        "headers": batch.headers, "tracks": state.tracks, "counts": state.counts,
        "room": np.zeros(2, np.uint64),
    }  # fmt: skip
    for name, wrong in (
        ("headers", batch_of([]).headers),
        ("tracks", state.tracks[1:]),
        ("counts", state.counts[:, 1:].copy()),
        ("counts", state.counts[1:]),
        ("room", np.zeros(1, np.uint64)),
    ):
        given_ = {**right, name: wrong}
        with pytest.raises(ValueError, match="another shape"):
            track_arrivals(
                batch, given_["headers"], 0, given_["tracks"], given_["counts"], state.flows,
                state.cells, state.largest, 0, given_["room"],
            )  # fmt: skip
