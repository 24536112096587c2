"""Counts, times and lists of runs against lists of them all."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.direct_requests import TIMEOUT_NS, frames_of, tracked
from support.request_reference import REQUEST, RESPONSE, Event, event_streams, settled

from uspcap.analysis.requests.request_ledger import (
    COUNT_NAMES,
    LIST_NAMES,
    MEASURE_NAMES,
    ROW_DTYPE,
    TRACK_DTYPE,
    RequestLedger,
)
from uspcap.analysis.requests.request_runs import CLASS_COUNT, POLICIES, REPLIES_KEPT, Runs
from uspcap.frames import EARLIEST_NS, LATEST_NS, TimestampSource
from uspcap.stats.histogram import Histogram

POLICY = st.sampled_from(sorted(POLICIES))
CUTS = st.lists(st.integers(0, 60), max_size=2)
PAIRS, UNANSWERED, UNSOLICITED, SLOWEST = range(len(LIST_NAMES))


def state(ledger: RequestLedger) -> list[Any]:
    """Return all that a ledger says."""
    cells = ledger.by_group()
    histograms = [(int(group), [part.tolist() for part in cells.histogram_of(int(group))]) for group in cells.flows]
    lists = [ledger.rows(which, 0, 1 << 20).tobytes() for which in range(len(LIST_NAMES))]
    return [ledger.counted(0), ledger.tracks_by_group().tobytes(), histograms, lists]


@settings(max_examples=30)
@given(stream=event_streams(most=25), policy=POLICY, cuts=CUTS)
def test_times_are_those_of_the_reference_by_measure_and_timestamp_source(
    stream: tuple[list[Event], int], policy: str, cuts: list[int]
) -> None:
    events, frames = stream
    ledger = tracked(events, frames, policy, cuts=cuts).whole()
    tracks, cells = ledger.tracks_by_group(), ledger.by_group()
    assert tracks.dtype == TRACK_DTYPE
    assert tracks.shape == (len(MEASURE_NAMES), TimestampSource.NONE, CLASS_COUNT)
    times = settled(events, timeout_ns=TIMEOUT_NS, policy=policy, maximum=1 << 20).times
    for measure, name in enumerate(MEASURE_NAMES):
        for source in range(TimestampSource.NONE):
            expected = times.get((name, source), [])
            mine = tracks[measure, source][tracks[measure, source]["count"] > 0]
            assert int(mine["count"].sum()) == len(expected)
            total = sum((int(one["sum_high"]) << 64) + int(one["sum_low"]) for one in mine)
            assert total == sum(expected)
            if expected:
                assert int(mine["lowest_ns"].min()) == min(expected)
                assert int(mine["highest_ns"].max()) == max(expected)
    groups: dict[tuple[int, int], Histogram] = {}
    for group in cells.flows.tolist():
        measure, source = divmod(group // CLASS_COUNT, int(TimestampSource.NONE))
        buckets, numbers = cells.histogram_of(group)
        groups.setdefault((measure, source), Histogram()).counts[buckets] += numbers.astype(np.uint64)
    found = {(MEASURE_NAMES[measure], source): one.counts.tolist() for (measure, source), one in groups.items()}
    assert found == {name: Histogram.from_values(expected).counts.tolist() for name, expected in times.items()}


@settings(max_examples=30)
@given(stream=event_streams(most=25), policy=POLICY, kept=st.integers(1, 4), cuts=CUTS)
def test_lists_keep_the_first_rows_whatever_is_left_out(
    stream: tuple[list[Event], int], policy: str, kept: int, cuts: list[int]
) -> None:
    events, frames = stream
    ledger = tracked(events, frames, policy, rows_kept=kept, cuts=cuts).whole()
    slow = settled(events, timeout_ns=TIMEOUT_NS, policy=policy, maximum=1 << 20)
    pairs = frames_of(ledger.rows(PAIRS, 0, kept)["run"], "first_request_frame", "asked_frame", "answer_frame")
    assert pairs == slow.pairs[:kept]
    unanswered = frames_of(ledger.rows(UNANSWERED, 0, kept)["run"], "first_request_frame")
    assert unanswered == [(frame,) for frame in slow.unanswered[:kept]]
    unsolicited = frames_of(ledger.rows(UNSOLICITED, 0, kept)["run"], "answer_frame")
    assert unsolicited == [(frame,) for frame in slow.unsolicited[:kept]]
    of_first = [time for (name, _), times in slow.times.items() if name == "from_first" for time in times]
    slowest = [-int(row["rank"]) for row in ledger.rows(SLOWEST, 0, kept)]
    assert slowest == sorted(of_first, reverse=True)[:kept]


@settings(max_examples=30)
@given(stream=event_streams(most=25), policy=POLICY, shift=st.sampled_from([0, 1, 1 << 40]))
def test_a_ledger_that_is_absorbed_stays_as_it_is_and_its_frames_move(
    stream: tuple[list[Event], int], policy: str, shift: int
) -> None:
    events, frames = stream
    whole = tracked(events, frames, policy).whole()
    before = state(whole)
    assert state(pickle.loads(pickle.dumps(whole))) == before
    moved = RequestLedger(whole.rows_kept)
    moved.absorb(whole, shift)
    assert state(whole) == before
    assert moved.counted(0) == whole.counted(0)
    for which in range(len(LIST_NAMES)):
        mine, others = moved.rows(which, 0, 1000)["run"], whole.rows(which, 0, 1000)["run"]
        assert [frame for (frame,) in frames_of(mine, "first_frame")] == [
            frame + shift for (frame,) in frames_of(others, "first_frame")
        ]
    counted = whole.tracks_by_group()["count"] > 0
    tracks = moved.tracks_by_group()["highest_frame"][counted] - whole.tracks_by_group()["highest_frame"][counted]
    assert set(tracks.tolist()) <= {shift}


def test_a_level_leaves_out_the_classes_below_it() -> None:
    keys = [(1 << 63) >> zeros for zeros in range(CLASS_COUNT)] + [1]
    events = [Event(at, at, kind=REQUEST, key=key) for at, key in enumerate(keys, 1)]
    ledger = tracked(events, len(events), "each").whole()
    for level in range(CLASS_COUNT):
        counts, _ = ledger.counted(level)
        # Keys that begin with more zero bits than there are classes are of the last one.
        assert counts["unanswered"] == CLASS_COUNT - level + 1
        rows = frames_of(ledger.rows(UNANSWERED, level, 1000)["run"], "first_request_frame")
        assert rows == [(frame,) for frame in range(level + 1, CLASS_COUNT + 2)]
        assert frames_of(ledger.rows(UNANSWERED, level, 1)["run"], "first_request_frame") == [(level + 1,)]


@pytest.mark.parametrize("replies", [1, REPLIES_KEPT, REPLIES_KEPT + 1])
def test_rounds_are_counted_by_replies_up_to_those_that_are_kept(replies: int) -> None:
    key = 1 << 63
    events = [Event(1, 0, kind=REQUEST, key=key)]
    events += [Event(2 + at, 1 + at, kind=RESPONSE, key=key, responder=at) for at in range(replies)]
    counts, by_replies = tracked(events, len(events), "rounds", cuts=[5]).whole().counted(0)
    assert len(by_replies) == REPLIES_KEPT + 1
    assert counts["beyond"] == (replies > REPLIES_KEPT)
    assert [number for number, rounds in enumerate(by_replies) if rounds] == [replies] * (replies <= REPLIES_KEPT)


def test_sums_have_room_for_the_longest_times_there_are() -> None:
    key, times = 1 << 63, 20
    ledger = tracked(
        [Event(1, EARLIEST_NS, kind=REQUEST, key=key), Event(2, EARLIEST_NS + TIMEOUT_NS, kind=RESPONSE, key=key)],
        2,
        "each",
    ).whole()
    for _ in range(times):
        copy = pickle.loads(pickle.dumps(ledger))
        ledger.absorb(copy, 0)
    track = ledger.tracks_by_group()[0, TimestampSource.FILE, 0]
    assert (int(track["count"]), int(track["sum_low"])) == (1 << times, TIMEOUT_NS << times)
    assert EARLIEST_NS < 0 < LATEST_NS


def test_an_empty_ledger_says_nothing_and_what_cannot_be_is_refused() -> None:
    ledger = RequestLedger(1)
    ledger.take(Runs(8), False)
    assert ledger.counted(0) == (dict.fromkeys(COUNT_NAMES, 0), [0] * (REPLIES_KEPT + 1))
    for which in range(len(LIST_NAMES)):
        rows = ledger.rows(which, 0, 10)
        assert (rows.dtype, rows.shape) == (ROW_DTYPE, (0,))
    for which in (-1, len(LIST_NAMES)):
        with pytest.raises(ValueError, match="no such list"):
            ledger.rows(which, 0, 1)
    for kept in (0, -1):
        with pytest.raises(ValueError, match="at least one row"):
            RequestLedger(kept)
