"""Arrivals by slot, by phase and by gap, against counting them one by one."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import Frame, batch_of

from uspcap.analysis.patterns.loop import (
    BEAT_TRACK_DTYPE,
    GAP_BUCKETS,
    PHASE_BINS,
    PHASE_PERIODS_NS,
    SCALE_COUNT,
    SLOTS_IN_SCALE,
    Arrivals,
    gap_bounds,
    join_beats,
    track_beats,
)
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

FILE = TimestampSource.FILE
MOST = (1 << 63) - 1
ENDS = st.sampled_from([-(1 << 63), EARLIEST_NS, -1, 0, LATEST_NS, MOST])
START_NS = 1_700_000_000 * 10**9
NEAR = st.integers(0, 5_000_000).map(START_NS.__add__)
TIMES = st.lists(st.one_of(NEAR, NEAR, st.integers(0, 10**11).map(START_NS.__add__), ENDS), max_size=25)
FEW = settings(max_examples=40)


def clamped(at_ns: int) -> int:
    return max(EARLIEST_NS, min(LATEST_NS, at_ns))


def update(arrivals: Arrivals, times: list[int]) -> Arrivals:
    batch = FrameBatch.from_frames([b""] * len(times), [0] * len(times))
    batch.storage("timestamp_ns")[: len(times)] = times
    arrivals.update(batch, FILE)
    return arrivals


def everything(arrivals: Arrivals) -> Any:
    scales = [(width, counts.tolist()) for width, counts in map(arrivals.scale, range(SCALE_COUNT))]
    phases = [[column.tolist() for column in arrivals.phase_bins(clock)] for clock in range(len(PHASE_BINS))]
    return scales, phases, arrivals.frames, arrivals.lowest_ns, arrivals.highest_ns


@FEW
@given(times=TIMES, sizes=st.sampled_from([1, 100]))
def test_slots_and_phases_are_those_of_counting_one_by_one(times: list[int], sizes: int) -> None:
    arrivals = Arrivals()
    for start in range(0, len(times), sizes):
        update(arrivals, times[start : start + sizes])
    times = [clamped(at_ns) for at_ns in times]
    assert arrivals.frames == len(times)
    for number in range(SCALE_COUNT):
        width, counts = arrivals.scale(number)
        assert width & (width - 1) == 0
        assert len(counts) <= SLOTS_IN_SCALE
        if times:
            slots = Counter(at_ns // width - min(times) // width for at_ns in times)
            assert {int(at): int(counts[at]) for at in np.flatnonzero(counts)} == {
                slot: count for slot, count in slots.items() if slot < SLOTS_IN_SCALE
            }
            # The last scale covers everything.
            assert number < SCALE_COUNT - 1 or max(slots) < SLOTS_IN_SCALE
    for clock, (period_ns, bins) in enumerate(zip(PHASE_PERIODS_NS, PHASE_BINS, strict=True)):
        places = [(at_ns % period_ns // (period_ns // bins), at_ns // period_ns) for at_ns in times]
        frames, visits, squares = arrivals.phase_bins(clock)
        for place in {place for place, _ in places}:
            runs = [len(list(run)) for _, run in groupby(period for own, period in places if own == place)]
            assert (int(frames[place]), int(visits[place])) == (sum(runs), len(runs))
            assert int(squares[place]) == sum(run * run for run in runs)
        assert int(frames.sum()) == len(times)


@settings(max_examples=20)
@given(times=TIMES, cuts=st.lists(st.integers(0, 25), max_size=2), pickled=st.booleans())
def test_parts_joined_at_any_cuts_are_the_whole(times: list[int], cuts: list[int], pickled: bool) -> None:
    joined = Arrivals()
    for first, last in pairwise([0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]):
        part = update(Arrivals(), times[first:last])
        if pickled:
            joined, part = pickle.loads(pickle.dumps((joined, part)))
        joined.join(part)
    assert everything(joined) == everything(update(Arrivals(), times))


@FEW
@given(steps=st.lists(st.integers(-20, 20), min_size=1, max_size=20), unit=st.sampled_from([1000, 1_000_000]))
def test_the_divisor_is_the_greatest_common_one_from_a_microsecond_on(steps: list[int], unit: int) -> None:
    times = [START_NS + step * unit for step in steps]
    arrivals = update(Arrivals(), times)
    assert arrivals.divisor_ns == math.gcd(*(at_ns - times[0] for at_ns in times))
    times.append(START_NS + 1)
    divisor_ns = math.gcd(*(at_ns - times[0] for at_ns in times))
    found_ns = update(arrivals, times[-1:]).divisor_ns
    assert found_ns == divisor_ns if divisor_ns >= 1000 else found_ns < 1000


def test_buckets_of_gaps_leave_no_hole() -> None:
    lowest, highest = gap_bounds()
    assert (lowest.shape, int(lowest[0])) == ((GAP_BUCKETS,), 0)
    assert (lowest[1:] == highest[:-1] + 1).all()
    assert int(highest[-1]) >= MOST - 1


def beats(rows: list[tuple[int, int, int]], flows: int = 2) -> Any:
    """Return the tracks of rows of timestamp, wire length and flow."""
    tracks = np.zeros(flows, BEAT_TRACK_DTYPE)
    batch = batch_of([Frame(0, 60, 1)] * len(rows))
    batch.storage("timestamp_ns")[: len(rows)] = [at_ns for at_ns, _, _ in rows]
    batch.storage("wire_length")[: len(rows)] = [length for _, length, _ in rows]
    batch.headers.column("flow")[:] = [flow for _, _, flow in rows]
    track_beats(batch, batch.headers, tracks)
    return tracks


def gaps_of(track: Any) -> Any:
    counts, sums = track["counts"], track["sums"]
    return int(track["frames"]), {int(at): (int(counts[at]), int(sums[at])) for at in np.flatnonzero(counts)}


def slow_gaps(times: list[int]) -> Any:
    lowest, _ = gap_bounds()
    found: dict[int, tuple[int, int]] = {}
    for before, after in pairwise(times):
        gap = min(MOST, after - before)
        if gap >= 0:
            at = int(np.searchsorted(lowest, gap, "right")) - 1
            count, total = found.get(at, (0, 0))
            found[at] = count + 1, min((1 << 64) - 1, total + gap)
    return len(times), found


ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 10**7), st.integers(0, 10**13), ENDS),
        st.sampled_from([0, 60, 61, 1500]),
        st.integers(-1, 2),
    ),
    max_size=25,
)


@given(rows=ROWS)
def test_gaps_of_a_flow_are_those_of_its_frames_and_of_its_shortest_ones(rows: list[tuple[int, int, int]]) -> None:
    tracks = beats(rows)
    for flow in (0, 1):
        own = [(at_ns, length) for at_ns, length, of in rows if of == flow]
        assert gaps_of(tracks[flow]["every"]) == slow_gaps([at_ns for at_ns, _ in own])
        shortest = min((length for _, length in own), default=-1)
        assert int(tracks[flow]["shortest"]) == shortest + 1
        assert gaps_of(tracks[flow]["short_ones"]) == slow_gaps([at_ns for at_ns, length in own if length == shortest])


@given(rows=ROWS, cut=st.integers(0, 25))
def test_beats_joined_at_any_cut_are_the_whole(rows: list[tuple[int, int, int]], cut: int) -> None:
    first, second = beats(rows[:cut]), beats(rows[cut:])
    join_beats(first, np.array([0, 1], np.int32), second)
    assert first.tobytes() == beats(rows).tobytes()
    nowhere = first.copy()
    join_beats(nowhere, np.array([-1, -1], np.int32), second)
    assert nowhere.tobytes() == first.tobytes()


def test_scales_clocks_and_tracks_that_are_not_there_are_refused() -> None:
    arrivals = Arrivals()
    assert arrivals.scale(0)[1].tolist() == []
    for number in (-1, SCALE_COUNT):
        with pytest.raises(ValueError, match="there is no scale"):
            arrivals.scale(number)
    for clock in (-1, len(PHASE_BINS)):
        with pytest.raises(ValueError, match="there is no clock"):
            arrivals.phase_bins(clock)
    mine, later = (beats([(0, 60, 0)]) for _ in (0, 1))
    with pytest.raises(ValueError, match="a flow has no track"):
        join_beats(mine, np.array([2], np.int32), later)
    with pytest.raises(ValueError, match="another layout"):
        join_beats(mine, np.zeros(3, np.int32), later)
    for wrong in (mine.view(np.uint8), mine["every"].copy()):
        with pytest.raises(ValueError, match="Buffer dtype mismatch"):
            join_beats(wrong, np.zeros(1, np.int32), later)
    batch = batch_of([Frame(0, 60, 1)])
    with pytest.raises(ValueError, match="not those of this batch"):
        track_beats(batch, batch_of([]).headers, mine)
