"""Runs of requests and responses against the slow and obvious way, cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.direct_requests import TIMEOUT_NS, tracked
from support.request_reference import NOTHING, REQUEST, RESPONSE, SILENT_FRAMES, Event, event_streams, settled

from uspcap.analysis.requests.request_runs import (
    CLASS_COUNT,
    POLICIES,
    RESPONDERS_KEPT,
    RequestRuns,
    Runs,
)
from uspcap.analysis.requests.request_runs import (
    SILENT_FRAMES as SILENT_FRAMES_OF_MODULE,
)
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

CUTS = st.lists(st.integers(0, 1 << 18), max_size=3)
KEY = 1 << 63


def counts_of(events: list[Event], frames: int, policy: str, **arguments: object) -> tuple[int, dict[str, int]]:
    track = tracked(events, frames, policy, **arguments)  # type: ignore[arg-type]
    level = track.runs.level
    counts, _ = track.whole().counted(level)
    return level, {name: number for name, number in counts.items() if number}


@settings(max_examples=40)
@given(
    stream=event_streams(most=30),
    policy=st.sampled_from(sorted(POLICIES)),
    maximum=st.sampled_from([1, 2, 5, 1 << 20]),
    cuts=CUTS,
    near=st.lists(st.integers(0, 60), max_size=2),
    batch_frames=st.sampled_from([1, 7, 4096]),
    pickled=st.booleans(),
)
def test_runs_come_to_what_the_reference_says_wherever_the_capture_is_cut(
    stream: tuple[list[Event], int],
    policy: str,
    maximum: int,
    cuts: list[int],
    near: list[int],
    batch_frames: int,
    pickled: bool,
) -> None:
    events, frames = stream
    found = counts_of(
        events, frames, policy, maximum=maximum, cuts=[*cuts, *near], batch_frames=batch_frames, pickled=pickled
    )
    slow = settled(events, timeout_ns=TIMEOUT_NS, policy=policy, maximum=maximum)
    assert found == (slow.level, {name: number for name, number in slow.counts.items() if number})


@pytest.mark.parametrize(
    ("request_ns", "response_ns", "answered"),
    [
        (0, TIMEOUT_NS, True),
        (0, TIMEOUT_NS + 1, False),
        (TIMEOUT_NS, 0, True),
        (TIMEOUT_NS + 1, 0, False),
        (EARLIEST_NS, EARLIEST_NS + TIMEOUT_NS, True),
        (LATEST_NS, LATEST_NS - TIMEOUT_NS, True),
        (EARLIEST_NS, LATEST_NS, False),
        (LATEST_NS, EARLIEST_NS, False),
    ],
)
def test_a_response_is_of_a_run_up_to_the_timeout_at_both_ends_of_time(
    request_ns: int, response_ns: int, answered: bool
) -> None:
    events = [
        Event(1, request_ns, kind=REQUEST, key=KEY),
        Event(2, response_ns, kind=RESPONSE, key=KEY),
    ]
    for cuts in ([], [1]):
        _, counts = counts_of(events, 2, "retransmitted", cuts=cuts)
        assert ("answered" in counts) == answered
        assert ("unanswered" in counts, "unsolicited" in counts) == (not answered, not answered)


@pytest.mark.parametrize(("silent", "answered"), [(SILENT_FRAMES, True), (SILENT_FRAMES + 1, False)])
def test_a_run_ends_after_so_many_frames_without_its_timestamp_source(silent: int, answered: bool) -> None:
    assert SILENT_FRAMES == SILENT_FRAMES_OF_MODULE
    events = [Event(1, 5, kind=REQUEST, key=KEY), Event(1 + silent, 6, kind=RESPONSE, key=KEY)]
    for cuts in ([], [1], [silent], [1, silent // 2, silent]):
        _, counts = counts_of(events, 1 + silent, "retransmitted", cuts=cuts)
        assert ("answered" in counts) == answered


def test_what_the_timeout_has_ended_is_over_and_taken_once() -> None:
    runs = RequestRuns(TIMEOUT_NS, POLICIES["retransmitted"], 100)

    def update(times_ns: list[int], kind: int, first: int) -> None:
        batch = FrameBatch.from_frames([bytes(60)] * len(times_ns), times_ns, first_frame_number=first)
        keys = np.array([[KEY + at, at, 0] for at in range(len(times_ns))], np.uint64).reshape(-1, 3)
        runs.update(batch, 0, np.full(len(times_ns), kind, np.uint8), keys)

    update([0, 10, 20], REQUEST, 1)
    assert (runs.live, runs.over.count, runs.open_runs().count) == (3, 0, 3)
    update([TIMEOUT_NS + 10], NOTHING, 4)
    # The first runs may go on with a part before, and so are over for themselves only.
    assert (runs.live, runs.open_runs().count) == (2, 3)
    update([10 * TIMEOUT_NS], NOTHING, 5)
    assert runs.live == 0
    # Behind so many frames, nothing before this part can matter.
    update([10 * TIMEOUT_NS], REQUEST, 6 + SILENT_FRAMES)
    update([20 * TIMEOUT_NS], NOTHING, 7 + SILENT_FRAMES)
    assert runs.over.count == 1
    taken = runs.take_over()
    assert (taken.count, runs.over.count, runs.take_over().count) == (1, 0, 0)
    assert taken.stride == runs.open_runs().stride == Runs(taken.stride).stride


@given(keys=st.lists(st.integers(0, (1 << 64) - 1), max_size=30), bits=st.lists(st.integers(0, 64), max_size=30))
def test_what_was_seen_is_counted_by_the_zero_bits_of_its_key(keys: list[int], bits: list[int]) -> None:
    keys += [(1 << bit) - 1 for bit in bits]
    events = [Event(at, at, kind=REQUEST if at % 3 else RESPONSE, key=key) for at, key in enumerate(keys, 1)]
    seen = tracked(events, len(events), "each", maximum=1).runs.seen()
    assert seen.shape == (2, CLASS_COUNT)
    for kind in (REQUEST, RESPONSE):
        of_kind = [min(64 - one.key.bit_length(), CLASS_COUNT - 1) for one in events if one.kind == kind]
        assert seen[kind - 1].tolist() == np.bincount(of_kind, minlength=CLASS_COUNT).tolist()


@given(
    responders=st.sampled_from([0, 1, RESPONDERS_KEPT - 1, RESPONDERS_KEPT, RESPONDERS_KEPT + 1]),
    repeated=st.integers(0, 9),
    cut=st.integers(0, 80),
)
def test_responders_are_counted_up_to_the_bound_in_rounds_only(responders: int, repeated: int, cut: int) -> None:
    names = [*range(responders), *range(min(repeated, responders))]
    events = [Event(at, at, kind=RESPONSE, key=KEY, responder=name) for at, name in enumerate(names, 1)]
    runs = tracked(events, len(events), "rounds", cuts=[cut]).runs
    assert runs.responders_seen() == (min(responders, RESPONDERS_KEPT), responders > RESPONDERS_KEPT)
    assert tracked(events, len(events), "each").runs.responders_seen() == (0, False)


def test_what_has_no_timestamp_is_counted_where_it_is_a_request_or_a_response() -> None:
    events = [
        Event(at, 0, TimestampSource.NONE, kind, KEY)
        for at, kind in enumerate([REQUEST, NOTHING, RESPONSE, REQUEST], 1)
    ]
    runs = tracked(events, 4, "retransmitted", cuts=[2]).runs
    assert (runs.without_timestamp, runs.live, int(runs.seen().sum())) == (3, 0, 0)


def test_what_cannot_be_is_refused() -> None:
    for timeout_ns in (0, -1, (1 << 60) + 1):
        with pytest.raises(ValueError, match="a timeout is 1 ns"):
            RequestRuns(timeout_ns, 0, 1)
    for policy, maximum in ((-1, 1), (len(POLICIES), 1), (0, 0), (0, -1)):
        with pytest.raises(ValueError, match="no such policy, or no room"):
            RequestRuns(1, policy, maximum)
    runs = RequestRuns(1 << 60, 0, 1)
    batch = FrameBatch.from_frames([bytes(60)] * 2, [0, 0])
    for kinds, shape in ((1, (2, 3)), (2, (1, 3)), (2, (2, 2)), (2, (2, 4))):
        with pytest.raises(ValueError, match="no row for each frame"):
            runs.update(batch, 0, np.zeros(kinds, np.uint8), np.zeros(shape, np.uint64))
    for other in (RequestRuns(1, 0, 1), RequestRuns(1 << 60, POLICIES["rounds"], 1)):
        with pytest.raises(ValueError, match="different rules"):
            runs.merge(other)
