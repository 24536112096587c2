"""Arbitration against dictionaries of every number, against the law, and on the sample whose losses are known."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feeds import START_NS, Packet, batch_of, frame_of
from support.lines import SlowPair, assert_pair_as_slow, line_packets, two_lines

from uspcap.analysis.arbitration.analysis import Arbitration
from uspcap.analysis.arbitration.line_pair import LONGEST_LOG
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.feeds import FeedProtocol, find_protocol, parse_sequence
from uspcap.protocols.line_pairs import parse_pairs

pytestmark = pytest.mark.thorough

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "feed-two-lines.pcapng"
MOLD = find_protocol("moldudp64")
PLAIN = parse_sequence("offset=4,size=4,endian=big,kind=packet")
PAIRS = parse_pairs(["A=233.252.0.1:30001,B=233.252.0.2:30002"])
RING = 64


def arbitrated(
    packets: list[Packet], cuts: list[int], protocol: FeedProtocol = MOLD, *, ring_length: int = RING, **bounds: int
) -> Arbitration:
    """Analyse packets in parts, merged in order."""
    parts = [
        part_of(packets, first, last, protocol, ring_length=ring_length, **bounds)
        for first, last in pairwise([0, *sorted(cuts), len(packets)])
    ]
    for part in parts[1:]:
        parts[0].merge(part)
    return parts[0]


def part_of(packets: list[Packet], first: int, last: int, protocol: FeedProtocol, **bounds: int) -> Arbitration:
    part = Arbitration(protocol, PAIRS, **bounds)
    for at in range(first, last, 50):
        part.update(batch_of(packets[at : min(at + 50, last)], at - first + 1, plain=protocol is PLAIN))
    return part


def assert_as_slow(packets: list[Packet], result: dict[str, Any], within: int = RING) -> None:
    assert result["complete"]
    if not packets:
        assert result["pairs"] == []
        return
    (pair,) = result["pairs"]
    assert list(pair["lines"]) == ["A", "B"]
    assert_pair_as_slow(pair, SlowPair.of(line_packets(packets), within))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.lists(st.integers(0, 600), max_size=4),
)
def test_what_two_lines_brought_comes_back_whatever_the_cuts(
    seed: int, sends: int, loss: float, cuts: list[int]
) -> None:
    packets = two_lines(seed, sends, loss=loss)
    result = arbitrated(packets, [min(cut, len(packets)) for cut in cuts]).result().as_dict()
    assert_as_slow(packets, result)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 300), st.lists(st.integers(0, 600), max_size=4))
def test_lines_of_packets_that_count_themselves_come_back_whatever_the_cuts(
    seed: int, sends: int, cuts: list[int]
) -> None:
    packets = two_lines(seed, sends, loss=0.05, plain=True)
    result = arbitrated(packets, [min(cut, len(packets)) for cut in cuts], PLAIN).result().as_dict()
    assert_as_slow(packets, result)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.sampled_from([0.0, 0.01]),
    st.lists(st.integers(0, 600), max_size=4),
    st.booleans(),
)
def test_lines_restart_independently_whatever_the_cuts(
    seed: int, sends: int, restart: float, cuts: list[int], backward: bool
) -> None:
    packets = two_lines(seed, sends, loss=0.02, restart=restart)
    whole = arbitrated(packets, [])
    assert_as_slow(packets, whole.result().as_dict())
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    parts = [part_of(packets, first, last, MOLD, ring_length=RING) for first, last in pairwise(edges)]
    while len(parts) > 1:
        at = len(parts) - 2 if backward else 0
        parts[at].merge(parts.pop(at + 1))
    assert (parts[0].result().as_dict(), parts[0].tables()) == (whole.result().as_dict(), whole.tables())
    assert parts[0].result().as_dict() == parts[0].result().as_dict()


def test_dead_line_is_kept_as_long_as_it_may_matter_and_no_cut_does() -> None:
    packets = [replace(one, line=0) for one in two_lines(5, 5_000, loss=0.0)]
    packets += two_lines(6, 10, loss=0.0)
    whole = arbitrated(packets, []).result().as_dict()
    assert_as_slow(packets, whole)
    assert arbitrated(packets, [700, LONGEST_LOG + 10, 9_000]).result().as_dict() == whole


def test_line_that_lacks_the_beginning_of_a_session_catches_up_with_the_other() -> None:
    numbers = [*range(5_000, 5_100), *range(1, 400)]
    packets = [Packet(number, 1, START_NS + at, line=line) for at, number in enumerate(numbers) for line in (0, 1)]
    # Of B neither the last numbers of the one session nor the first of the other came.
    packets = [one for one in packets if not (one.line and (one.sequence < 5 or one.sequence > 5_095))]
    for cuts in ([], [60], [195], [205], [197, 203, 300]):
        result = arbitrated(packets, cuts).result().as_dict()
        assert_as_slow(packets, result)
        (pair,) = result["pairs"]
        assert (pair["compared"], pair["arbitrated"]["lost"], pair["arbitrated"]["resets"]) == (96 + 395, 0, 1)


def test_numbers_that_wrap_go_on_on_both_lines() -> None:
    rule = parse_sequence("offset=0,size=2,wraps=yes")
    frames, timestamps = [], []
    for at in range(3_000):
        number = (65_000 + at) % 65_536
        for line in (0, 1):
            if (at, line) not in ((536, 0), (1_000, 0), (1_000, 1)):
                frames.append(frame_of(struct.pack("!H", number) + b"x", line))
                timestamps.append(START_NS + 1_000 * at + 100 * line)
    for cuts in ([], [1_000], [1_070, 1_080, 3_000]):
        parts = []
        for first, last in pairwise([0, *cuts, len(frames)]):
            parts.append(Arbitration(rule, PAIRS, ring_length=RING))
            parts[-1].update(FrameBatch.from_frames(frames[first:last], timestamps[first:last]))
        for part in parts[1:]:
            parts[0].merge(part)
        result = parts[0].result().as_dict()
        (pair,) = result["pairs"]
        assert [line["lost"] for line in pair["lines"].values()] == [2, 1]
        assert (pair["arbitrated"]["lost"], pair["compared"], result["complete"]) == (1, 2_998, True)
        assert pair["lines"]["A"]["brought_first"] == 2_998


def test_timestamps_of_two_sources_are_never_compared() -> None:
    packets = [Packet(at // 2 + 1, 1, START_NS + at, line=at % 2) for at in range(40)]
    batch = batch_of(packets)
    batch.storage("timestamp_source")[:40] = [
        TimestampSource.HARDWARE if at % 2 or at < 20 else TimestampSource.KERNEL for at in range(40)
    ]
    analysis = Arbitration(MOLD, PAIRS)
    analysis.update(batch)
    (pair,) = analysis.result().as_dict()["pairs"]
    assert (pair["compared"], pair["other_clock"]) == (10, 10)
    assert list(pair["skew"]) == ["HARDWARE", "KERNEL"]
    assert pair["skew"]["KERNEL"]["first_by"]["A"]["count"] == 0


def test_percentiles_have_the_sign_of_first_less_second() -> None:
    packets = []
    for at in range(1_000):
        first = 0 if at < 300 else 1
        packets.append(Packet(at + 1, 1, START_NS + 10_000 * at, line=first))
        packets.append(Packet(at + 1, 1, START_NS + 10_000 * at + 100 + at, line=1 - first))
    (pair,) = arbitrated(packets, []).result().as_dict()["pairs"]
    skews = sorted([-100 - at for at in range(300)] + [100 + at for at in range(300, 1_000)])
    percentiles = pair["skew"]["FILE"]["percentiles_ns"]
    assert percentiles == {one: skews[10 * int(one) - 1] for one in ("1", "10", "50", "90", "99")}


def test_count_that_no_ring_holds_is_not_compared_and_costs_nothing() -> None:
    huge = parse_sequence("offset=0,size=8,kind=message,count=8:8")
    analysis = Arbitration(huge, PAIRS, ring_length=RING)
    frames = [
        frame_of(struct.pack("!QQ", number, count), line)
        for number, count in ((5, 1), (6, (1 << 62)), (6, 2), (8, 1))
        for line in (0, 1)
    ]
    analysis.update(FrameBatch.from_frames(frames, [START_NS + at for at in range(len(frames))]))
    (pair,) = analysis.result().as_dict()["pairs"]
    assert (pair["compared"], pair["too_many"]) == (4, 2)


def test_one_number_from_far_above_costs_nothing_but_itself() -> None:
    packets = [Packet(at // 2 + 1, 1, START_NS + at, line=at % 2) for at in range(6_000)]
    packets.insert(100, Packet(10**12, 1, START_NS + 99))
    result = arbitrated(packets, []).result().as_dict()
    assert_as_slow(packets, result)
    (pair,) = result["pairs"]
    assert (pair["too_late"], pair["compared"]) == (0, 3_000)


def test_line_that_is_farther_behind_than_the_ring_is_long_is_too_late() -> None:
    ahead = [Packet(at + 1, 1, START_NS + at, line=0) for at in range(500)]
    behind = [Packet(at + 1, 1, START_NS + at + 2 * RING, line=1) for at in range(500)]
    packets = sorted(ahead + behind, key=lambda one: one.at_ns)
    result = arbitrated(packets, [333]).result().as_dict()
    assert_as_slow(packets, result)
    (pair,) = result["pairs"]
    # The last ring of what is ahead lies alone, and so does what comes to its places after what is too late for them.
    assert (pair["compared"], pair["arbitrated"]["lost"], pair["too_late"]) == (0, 0, 500 - 2 * RING)


def test_what_there_is_no_room_for_is_said() -> None:
    packets = [Packet(2 * at, 1, START_NS + at, line=at % 2) for at in range(1, 400)]
    result = arbitrated(packets, [], runs_a_stream=100).result().as_dict()
    assert (result["complete"], result["not_followed"]) == (False, 199 - 100 + 200 - 100)
    assert result == arbitrated(packets, [20, 150], runs_a_stream=100).result().as_dict()
    sessions = [Packet(1, 1, START_NS + at, b"%010d" % at) for at in range(20)]
    result = arbitrated(sessions, [10], maximum_pairs=4).result().as_dict()
    assert result == arbitrated(sessions, [], maximum_pairs=4).result().as_dict()
    assert 0 < len(result["pairs"]) <= 4
    assert (result["not_followed"], result["complete"]) == (20 - len(result["pairs"]), False)


def test_sample_holds_what_was_put_into_it() -> None:
    truth = json.loads((SAMPLE.parent / "truth.json").read_text(encoding="utf-8"))[SAMPLE.name]
    analysis = Arbitration(MOLD, parse_pairs(["A=233.252.0.1:26401,B=233.252.0.2:26402"]))
    with open_capture(str(SAMPLE)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    (pair,) = analysis.result().as_dict()["pairs"]
    lost = {
        name: {number for one in line["lost"] for number in range(one["first_sequence"], one["last_sequence"] + 1)}
        for name, line in truth["lines"].items()
    }
    both = sorted(lost["A"] & lost["B"])
    assert [(gap["first"], gap["last"]) for gap in pair["gaps"]] == [(both[0], both[-1])]
    assert pair["arbitrated"]["lost"] == len(both) == 8
    for name, other in (("A", "B"), ("B", "A")):
        assert pair["lines"][name]["lost"] == len(lost[name])
        assert pair["lines"][name]["brought_alone"] == len(lost[other] - lost[name])
    assert pair["compared"] == 1_081 - len(lost["A"] | lost["B"])


@pytest.mark.parametrize("count", [1, 7])
def test_packets_of_other_destinations_are_none_of_the_lines(count: int) -> None:
    batch = FrameBatch.from_frames([frame_of(Packet(1, count, 0).mold(), line=5)] * 3, np.arange(3) + START_NS)
    analysis = Arbitration(MOLD, PAIRS)
    analysis.update(batch)
    result = analysis.result().as_dict()
    assert (result["pairs"], result["foreign"], result["without_packets"]) == ([], 0, [PAIRS[0].name])
