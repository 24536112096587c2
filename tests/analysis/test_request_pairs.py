"""Requests and responses against the slow and obvious way, and the law under loss, repetition and cuts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.request_reference import (
    NOTHING,
    REPLIES,
    REQUEST,
    RESPONSE,
    SILENT_FRAMES,
    Event,
    EventFinder,
    event_streams,
    feed,
    settled,
)

from uspcap.analysis.requests.pairs import PairOutcome, PairTrack
from uspcap.analysis.requests.request_ledger import MEASURE_NAMES
from uspcap.frames import TimestampSource
from uspcap.stats.histogram import Histogram

TIMEOUT_NS = 1000
POLICIES = ("retransmitted", "each", "rounds")


def track_of(
    events: list[Event], frames: range, policy: str, maximum: int, batch_frames: int = 4096, rows_kept: int = 1000
) -> PairTrack:
    finder = EventFinder(events)
    track = PairTrack(finder, timeout_ns=TIMEOUT_NS, policy=policy, maximum=maximum, rows_kept=rows_kept)
    feed(track, finder, [event for event in events if event.number in frames], frames, batch_frames)
    return track


def everything(outcome: PairOutcome) -> dict[str, Any]:
    """Return all that is reported of a track."""
    return {
        "base": outcome.base(),
        "counts": outcome.counts,
        "followed": outcome.followed,
        "by_replies": outcome.by_replies,
        "responders": (outcome.responders, outcome.more_responders),
        "times": {
            (measure, source): outcome.times(measure, source)
            for source in outcome.sources()
            for measure in MEASURE_NAMES
        },
        "pairs": outcome.pairs("pairs"),
        "slowest": outcome.pairs("slowest"),
        "unanswered": outcome.unanswered(),
        "unsolicited": outcome.unsolicited(),
    }


def expect(outcome: PairOutcome, events: list[Event], policy: str, maximum: int) -> None:
    """Compare with the reference."""
    reference = settled(events, timeout_ns=TIMEOUT_NS, policy=policy, maximum=maximum)
    assert outcome.sampled_one_in == 1 << reference.level
    assert outcome.counts == {name: reference.counts[name] for name in outcome.counts}
    assert [
        (row["request_frame"], row["last_request_frame"], row["response_frame"]) for row in outcome.pairs("pairs")
    ] == reference.pairs
    assert [row["request_frame"] for row in outcome.unanswered()] == reference.unanswered
    assert [row["response_frame"] for row in outcome.unsolicited()] == reference.unsolicited
    for source in range(TimestampSource.NONE):
        for measure in MEASURE_NAMES:
            expected = Histogram.from_values(reference.times.get((measure, source), [])).result()
            assert outcome.histogram(measure, source)[0].result() == expected, (measure, source)
    assert outcome.by_replies == [reference.by_replies[at] for at in range(REPLIES + 1)]
    latencies = [row["latency_from_first_ns"] for row in outcome.pairs("slowest")]
    assert latencies == sorted(latencies, reverse=True)
    assert len(latencies) == sum(len(times) for (name, _), times in reference.times.items() if name == "from_first")


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=60)
@given(
    stream=event_streams(), maximum=st.sampled_from([1 << 20, 1 << 20, 1, 3, 8]), batch=st.sampled_from([1, 7, 4096])
)
def test_runs_are_those_of_the_slow_way(policy: str, stream: tuple[list[Event], int], maximum: int, batch: int) -> None:
    events, frames = stream
    expect(track_of(events, range(1, frames + 1), policy, maximum, batch).outcome(), events, policy, maximum)


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=80)
@given(
    stream=event_streams(),
    maximum=st.sampled_from([1 << 20, 1 << 20, 1, 3, 8]),
    rows_kept=st.sampled_from([1, 3, 1000]),
    data=st.data(),
)
def test_cutting_and_merging_changes_nothing(
    policy: str, stream: tuple[list[Event], int], maximum: int, rows_kept: int, data: st.DataObject
) -> None:
    events, frames = stream
    near = [event.number for event in events]
    cuts = data.draw(st.lists(st.one_of(st.integers(0, frames), st.sampled_from([0, *near])), max_size=5))
    edges = [0, *sorted(cuts), frames]
    parts = [
        (start, end, track_of(events, range(start + 1, end + 1), policy, maximum, 7, rows_kept))
        for start, end in pairwise(edges)
    ]
    while len(parts) > 1:
        # In any order of merging: what lies side by side becomes one.
        at = data.draw(st.integers(0, len(parts) - 2))
        (start, middle, first), (_, end, second) = parts[at : at + 2]
        if data.draw(st.booleans()):
            first.outcome()
        first.merge(second, middle - start)
        parts[at : at + 2] = [(start, end, first)]
    whole = track_of(events, range(1, frames + 1), policy, maximum, rows_kept=rows_kept)
    assert everything(parts[0][2].outcome()) == everything(whole.outcome())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", POLICIES)
def test_a_long_stream_whose_clock_steps_to_and_fro(policy: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.integers(0, 25, 700)
    back = random.random(700) < 0.02
    steps[back] = -random.integers(0, 3 * TIMEOUT_NS, int(back.sum()))
    now = np.cumsum(steps).tolist()
    keys = random.integers(1, 1 << 63, 60).tolist()
    events = [
        Event(at + 1, now[at], TimestampSource.FILE, int(random.integers(0, 3)), keys[int(random.integers(60))], 1)
        for at in range(700)
    ]
    whole = track_of(events, range(1, 701), policy, 1 << 20)
    expect(whole.outcome(), events, policy, 1 << 20)
    first = track_of(events, range(1, 351), policy, 1 << 20)
    first.merge(track_of(events, range(351, 701), policy, 1 << 20), 350)
    assert everything(first.outcome()) == everything(whole.outcome())


def test_more_responders_than_are_kept_are_said() -> None:
    events = [Event(1, 0, kind=REQUEST, key=1)]
    events += [Event(2 + at, 1 + at, kind=RESPONSE, key=1, responder=at + 1) for at in range(40)]
    outcome = track_of(events, range(1, 42), "rounds", 1 << 20).outcome()
    assert outcome.counts["beyond"] == 1
    assert outcome.responders == 40
    expect(outcome, events, "rounds", 1 << 20)


def test_a_thousand_times_as_many_requests_as_the_bound_are_sampled_and_their_memory_is_given_back() -> None:
    events = [
        Event(at + 1, at, kind=REQUEST if at % 2 == 0 else RESPONSE, key=(at // 2 * 0x9E3779B97F4A7C15) % (1 << 64))
        for at in range(3000)
    ]
    track = track_of(events, range(1, 3001), "retransmitted", 100)
    outcome = track.outcome()
    assert outcome.sampled_one_in > 1
    assert outcome.seen == (1500, 1500)
    assert 0 < outcome.followed[0] < 1500 / outcome.sampled_one_in * 2
    assert outcome.counts["answered"] == outcome.followed[0] == len(outcome.pairs("pairs"))
    expect(outcome, events, "retransmitted", 100)


def test_open_runs_do_not_pile_up_over_time() -> None:
    events = [Event(at + 1, at * 100, kind=REQUEST, key=at + (1 << 63)) for at in range(5000)]
    finder = EventFinder(events)
    track = PairTrack(finder, timeout_ns=TIMEOUT_NS, policy="retransmitted", maximum=1 << 20)
    feed(track, finder, events, range(1, 5001), 4096)
    assert track._runs.live == TIMEOUT_NS // 100 + 1


def test_a_pause_of_the_clock_ends_what_waits_for_it() -> None:
    events = [
        Event(1, 0, TimestampSource.KERNEL, REQUEST, 1),
        Event(2, 0, TimestampSource.HARDWARE, NOTHING),
        Event(2 + SILENT_FRAMES, 5, TimestampSource.HARDWARE, RESPONSE, 1),
    ]
    outcome = track_of(events, range(1, 3 + SILENT_FRAMES), "retransmitted", 1 << 20).outcome()
    assert (outcome.counts["unanswered"], outcome.counts["unsolicited"]) == (1, 1)
    closer = [*events[:2], Event(SILENT_FRAMES + 1, 5, TimestampSource.HARDWARE, RESPONSE, 1)]
    outcome = track_of(closer, range(1, 3 + SILENT_FRAMES), "retransmitted", 1 << 20).outcome()
    assert (outcome.counts["answered"], outcome.counts["across_clocks"]) == (1, 1)
    assert outcome.sources() == []
    assert outcome.pairs("pairs")[0]["latency_from_first_ns"] is None
