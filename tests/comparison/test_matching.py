"""Matching against rules written down plainly, over digests that collide, repeat and come back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from uspcap.comparison.matching import (
    KIND_AMBIGUOUS,
    KIND_DUPLICATE,
    KIND_MATCHED,
    KIND_ONLY,
    Matcher,
    Stream,
)

GIVEN_UP_AT = 16

Side = list[tuple[int, int]]
"""Digest and timestamp of each frame."""

Fate = tuple[int, int | None]
"""Kind, and the partner's index where there is one."""


@dataclass
class Cluster:
    """Frames of one digest that follow each other within the window."""

    last_ns: int
    members: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    given_up: bool = False


def plainly(a: Side, b: Side, window_ns: int, offset_ns: int) -> tuple[list[Fate], list[Fate]]:
    """Match by a dictionary that forgets nothing."""
    moved = ([timestamp for _, timestamp in a], [timestamp - offset_ns for _, timestamp in b])
    at = [0, 0]
    clusters: list[Cluster] = []
    latest: dict[int, Cluster] = {}
    now_ns: int | None = None
    while at[0] < len(a) or at[1] < len(b):
        from_b = at[0] == len(a) or (at[1] < len(b) and moved[1][at[1]] < moved[0][at[0]])
        side, frames = (1, b) if from_b else (0, a)
        index = at[side]
        at[side] += 1
        now_ns = moved[side][index] if now_ns is None else max(now_ns, moved[side][index])
        digest = frames[index][0]
        cluster = latest.get(digest)
        if cluster is None or cluster.last_ns < now_ns - window_ns:
            cluster = latest[digest] = Cluster(now_ns)
            clusters.append(cluster)
        cluster.last_ns = now_ns
        cluster.members[side].append(index)
        cluster.given_up |= len(cluster.members[side]) >= GIVEN_UP_AT
    fates: tuple[dict[int, Fate], dict[int, Fate]] = ({}, {})
    for cluster in clusters:
        of_a, of_b = cluster.members
        pairs = not cluster.given_up and of_a and of_b and (len(of_a) == len(of_b) or 1 in (len(of_a), len(of_b)))
        left = KIND_AMBIGUOUS if cluster.given_up else KIND_ONLY if not (of_a and of_b) else KIND_DUPLICATE
        if not pairs and of_a and of_b:
            left = KIND_AMBIGUOUS
        for side in (0, 1):
            fates[side].update((index, (left, None)) for index in cluster.members[side])
        if pairs:
            for one, other in zip(of_a, of_b, strict=False):
                near = abs(moved[1][other] - moved[0][one]) <= window_ns
                fates[0][one] = (KIND_MATCHED, other) if near else (KIND_AMBIGUOUS, None)
                fates[1][other] = (KIND_MATCHED, one) if near else (KIND_AMBIGUOUS, None)
    return [fates[0][index] for index in range(len(a))], [fates[1][index] for index in range(len(b))]


def streams(frames: Side, chunk: int) -> list[Stream]:
    digests = np.array([digest for digest, _ in frames], np.uint64)
    timestamps = np.array([timestamp for _, timestamp in frames], np.int64)
    numbers = np.arange(len(frames), dtype=np.int64)
    lengths = np.full(len(frames), 64, np.uint32)
    return [
        Stream(*(column[first : first + chunk].copy() for column in (digests, timestamps, numbers, lengths)))
        for first in range(0, len(frames), chunk)
    ]


def matched(a: Side, b: Side, window_ns: int, offset_ns: int, chunk: int) -> tuple[list[Fate], list[Fate]]:
    """Match as the program does, in chunks."""
    matcher = Matcher(window_ns, offset_ns)
    waiting = (streams(a, chunk), streams(b, chunk))
    empty = Stream(*(np.empty(0, kind) for kind in (np.uint64, np.int64, np.int64, np.uint32)))
    fates: tuple[list[Fate | None], list[Fate | None]] = ([None] * len(a), [None] * len(b))
    order: tuple[list[int], list[int]] = ([], [])

    def take() -> None:
        pairs: NDArray[np.void] = matcher.take_pairs()
        for one, other in zip(pairs["partner_frame"].tolist(), pairs["frame"].tolist(), strict=True):
            fates[0][one] = (KIND_MATCHED, other)
            fates[1][other] = (KIND_MATCHED, one)
        order[1].extend(pairs["frame"].tolist())
        for pair in pairs[:50]:
            assert pair["timestamp_ns"] == b[pair["frame"]][1]
            assert pair["partner_timestamp_ns"] == a[pair["partner_frame"]][1]
        for side in (0, 1):
            missed = matcher.take_missed(side)
            for number, kind in zip(missed["frame"].tolist(), missed["kind"].tolist(), strict=True):
                assert fates[side][number] is None
                fates[side][number] = (kind, None)

    while any(waiting):
        heads = [side[0] if side else empty for side in waiting]
        matcher.feed(heads[0], heads[1], not waiting[0], not waiting[1])
        take()
        for side in waiting:
            if side and side[0].used_up:
                side.pop(0)
    matcher.finish()
    take()
    assert order[1] == sorted(order[1])
    assert None not in fates[0] + fates[1]
    return fates  # type: ignore[return-value]


def digest_of(number: int) -> int:
    """Digests that share what slots, tags and filters are chosen by, to collide as much as they can."""
    return (number % 3 + 1) << 60 | (number // 3 % 5) << 30 | number // 15


frames = st.lists(st.tuples(st.integers(0, 40).map(digest_of), st.integers(0, 30)), max_size=120)


@given(frames, frames, st.integers(1, 60), st.integers(-50, 50), st.integers(1, 50))
@settings(max_examples=300)
def test_random_repeats_come_to_what_the_rules_say(
    steps_a: Side, steps_b: Side, window_ns: int, offset_ns: int, chunk: int
) -> None:
    sides = []
    for steps in (steps_a, steps_b):
        timestamps = np.cumsum([step for _, step in steps]).tolist() if steps else []
        sides.append([(digest or 1, timestamp) for (digest, _), timestamp in zip(steps, timestamps, strict=True)])
    a, b = sides
    assert matched(a, b, window_ns, offset_ns, chunk) == plainly(a, b, window_ns, offset_ns)


@given(frames, frames, st.integers(1, 40))
def test_timestamps_that_step_back_come_to_what_the_rules_say(a: Side, b: Side, window_ns: int) -> None:
    a, b = ([(digest or 1, timestamp) for digest, timestamp in side] for side in (a, b))
    assert matched(a, b, window_ns, 0, 7) == plainly(a, b, window_ns, 0)


@pytest.mark.parametrize("window_ns", [200_000, 30_000_000, 90_000_000])
def test_ring_that_turns_and_grows_forgets_nobody(window_ns: int) -> None:
    # 90,000 frames a side, 1 µs apart: the ring turns in the first, and doubles in the others while heads wait in it.
    random = np.random.default_rng(window_ns)
    count = 90_000
    digests = random.integers(1, 1 << 63, count)
    for distance, times in ((3, 500), (5_000, 500), (20_000, 200), (50_000, 100)):
        again = random.integers(0, count - distance, times)
        digests[again + distance] = digests[again]
    timestamps = np.arange(count) * 1000
    b_timestamps = timestamps + 10_000 + random.exponential(20_000, count).astype(np.int64)
    kept_a, kept_b = random.random(count) > 0.01, random.random(count) > 0.01
    order = np.argsort(b_timestamps[kept_b], kind="stable")
    a = list(zip(digests[kept_a].tolist(), timestamps[kept_a].tolist(), strict=True))
    b = list(zip(digests[kept_b][order].tolist(), b_timestamps[kept_b][order].tolist(), strict=True))
    assert matched(a, b, window_ns, 0, 4_096) == plainly(a, b, window_ns, 0)


def test_more_repeats_than_there_is_room_for_at_first_come_to_what_the_rules_say() -> None:
    # 5,000 digests that wait for a third of their kind at once, then 2,500 that come too often to be distinguished, and
    # 2,500 others when a window has passed.
    random = np.random.default_rng(5)
    thrice = np.repeat(np.arange(1, 5_001), 3)
    often, later = (np.repeat(np.arange(first, first + 2_500), GIVEN_UP_AT + 1) for first in (10_000, 20_000))
    for each in (thrice, often, later):
        random.shuffle(each)
    digests = np.concatenate((thrice, often, later)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    timestamps = np.arange(len(digests)) + 1_000_000 * (np.arange(len(digests)) >= len(thrice) + len(often))
    a = list(zip(digests.tolist(), timestamps.tolist(), strict=True))
    assert matched(a, a, 500_000, 0, 4_096) == plainly(a, a, 500_000, 0)


def test_streams_and_sides_that_there_are_not_are_refused() -> None:
    columns = [
        np.zeros(length, kind) for length, kind in ((2, np.uint64), (2, np.int64), (2, np.int64), (3, np.uint32))
    ]
    with pytest.raises(ValueError, match="the same length"):
        Stream(*columns)
    with pytest.raises(ValueError, match="no side 2"):
        Matcher(1).take_missed(2)


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 ns"):
        Matcher(0)


MOMENTS = st.sampled_from(
    [-(2**63), 1 - 2**63, -(2**62), -1, 0, 1, 1_700_000_000_000_000_000, 2**62, 2**63 - 2, 2**63 - 1]
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), MOMENTS), max_size=30),
    st.lists(st.tuples(st.integers(1, 3), MOMENTS), max_size=30),
    MOMENTS,
    st.sampled_from([1, 1000, 2**62 - 1, 2**63 - 1]),
)
def test_every_frame_has_one_fate_whatever_the_timestamps(a: Side, b: Side, offset_ns: int, window_ns: int) -> None:
    matcher = Matcher(window_ns, offset_ns)
    streams = []
    for side in (sorted(a, key=lambda frame: frame[1]), sorted(b, key=lambda frame: frame[1])):
        digests, timestamps = np.array(side or [(0, 0)], np.int64)[: len(side)].T
        numbers = np.arange(1, len(side) + 1, dtype=np.int64)
        streams.append(Stream(digests.astype(np.uint64), timestamps.copy(), numbers, np.ones(len(side), np.uint32)))
    matcher.feed(*streams, True, True)
    matcher.finish()
    pairs = matcher.take_pairs()
    fates = [sorted(matcher.take_missed(0)["frame"].tolist() + pairs["partner_frame"].tolist())]
    fates.append(sorted(matcher.take_missed(1)["frame"].tolist() + pairs["frame"].tolist()))
    assert fates == [list(range(1, len(a) + 1)), list(range(1, len(b) + 1))]
