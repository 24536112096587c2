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
from support.feeds import START_NS, Packet, Slow, batch_of, frame_of
from support.lines import SlowPair, two_lines

from uspcap.analysis.arbitration import Arbitration
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
    slow = SlowPair(within)
    slow.take(enumerate(packets, 1))
    slow.finish()
    if not packets:
        assert result["pairs"] == []
        return
    (pair,) = result["pairs"]
    for at, (label, line) in enumerate(pair["lines"].items()):
        assert label == "AB"[at]
        _assert_stream(slow.lines[at], line)
        first = [skew for skew in slow.skews if (skew < 0) == (at == 0) and skew]
        assert line["brought_first"] == len(first)
        assert line["brought_alone"] == slow.alone(at)
        skews = pair["skew"].get("FILE", {"first_by": {label: {"count": 0}}})["first_by"][label]
        assert skews["count"] == len(first)
        if first:
            assert skews["min_ns"] == min(map(abs, first))
            assert skews["max_ns"] == max(map(abs, first))
            assert skews["mean_ns"] == round(sum(map(abs, first)) / len(first)) or abs(sum(first)) % len(
                first
            ) * 2 == len(first)
    _assert_stream(slow.arbitrated, pair["arbitrated"])
    found = [(gap["first"], gap["last"], gap["before_frame"], gap["after_frame"]) for gap in pair["gaps"]]
    assert found == slow.arbitrated.gaps
    assert pair["compared"] == len(slow.skews)
    assert pair["ties"] == slow.skews.count(0)
    assert pair["too_late"] == slow.too_late
    assert result["complete"]


def _assert_stream(slow: Slow, told: dict[str, Any]) -> None:
    for name in ("late", "duplicate", "overlap", "resets", "before_joined", "joined_at"):
        assert told[name] == getattr(slow, name), name
    assert told["lost"] + told["undetermined"] == slow.lost


@settings(deadline=None, max_examples=150)
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
    result = arbitrated(packets, [min(cut, len(packets)) for cut in cuts]).result()
    assert_as_slow(packets, result)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 300), st.lists(st.integers(0, 600), max_size=4))
def test_lines_of_packets_that_count_themselves_come_back_whatever_the_cuts(
    seed: int, sends: int, cuts: list[int]
) -> None:
    packets = two_lines(seed, sends, loss=0.05, plain=True)
    result = arbitrated(packets, [min(cut, len(packets)) for cut in cuts], PLAIN).result()
    assert_as_slow(packets, result)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 300))
def test_lines_that_begin_anew_do_so_each_for_itself(seed: int, sends: int) -> None:
    packets = two_lines(seed, sends, loss=0.02, anew=0.01)
    assert_as_slow(packets, arbitrated(packets, []).result())


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.01]), st.lists(st.integers(0, 600), max_size=4), st.booleans())
def test_cutting_changes_nothing_or_says_that_it_may_have(
    seed: int, anew: float, cuts: list[int], backward: bool
) -> None:
    packets = two_lines(seed, 300, loss=0.02, anew=anew)
    whole = arbitrated(packets, [])
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    parts = [part_of(packets, first, last, MOLD, ring_length=RING) for first, last in pairwise(edges)]
    while len(parts) > 1:
        at = len(parts) - 2 if backward else 0
        parts[at].merge(parts.pop(at + 1))
    if parts[0].result()["complete"] or not anew:
        assert parts[0].result() == whole.result()
        assert parts[0].tables() == whole.tables()
    assert parts[0].result() == parts[0].result()


def test_dead_line_makes_no_cut_doubtful() -> None:
    packets = [replace(one, line=0) for one in two_lines(5, 1_000, loss=0.0)]
    packets += two_lines(6, 10, loss=0.0)
    whole = arbitrated(packets, [], maximum_log=500).result()
    assert arbitrated(packets, [700, 1_500], maximum_log=500).result() == whole
    assert whole["complete"]


def test_numbers_that_wrap_go_on_on_both_lines() -> None:
    rule = parse_sequence("offset=0,size=2,wraps=yes")
    frames, stamps = [], []
    for at in range(3_000):
        number = (65_000 + at) % 65_536
        for line in (0, 1):
            if (at, line) not in ((536, 0), (1_000, 0), (1_000, 1)):
                frames.append(frame_of(struct.pack("!H", number) + b"x", line))
                stamps.append(START_NS + 1_000 * at + 100 * line)
    for cuts in ([], [1_000], [1_070, 1_080, 3_000]):
        parts = []
        for first, last in pairwise([0, *cuts, len(frames)]):
            parts.append(Arbitration(rule, PAIRS, ring_length=RING))
            parts[-1].update(FrameBatch.from_frames(frames[first:last], stamps[first:last]))
        for part in parts[1:]:
            parts[0].merge(part)
        result = parts[0].result()
        (pair,) = result["pairs"]
        assert [line["lost"] for line in pair["lines"].values()] == [2, 1]
        assert (pair["arbitrated"]["lost"], pair["compared"], result["complete"]) == (1, 2_998, True)
        assert pair["lines"]["A"]["brought_first"] == 2_998


def test_stamps_of_two_sources_are_never_compared() -> None:
    packets = [Packet(at // 2 + 1, 1, START_NS + at, line=at % 2) for at in range(40)]
    batch = batch_of(packets)
    batch.storage("timestamp_source")[:40] = [
        TimestampSource.HARDWARE if at % 2 or at < 20 else TimestampSource.KERNEL for at in range(40)
    ]
    analysis = Arbitration(MOLD, PAIRS)
    analysis.update(batch)
    (pair,) = analysis.result()["pairs"]
    assert (pair["compared"], pair["other_clock"]) == (10, 10)
    assert list(pair["skew"]) == ["HARDWARE", "KERNEL"]
    assert pair["skew"]["KERNEL"]["first_by"]["A"]["count"] == 0


def test_percentiles_have_the_sign_of_first_less_second() -> None:
    packets = []
    for at in range(1_000):
        first = 0 if at < 300 else 1
        packets.append(Packet(at + 1, 1, START_NS + 10_000 * at, line=first))
        packets.append(Packet(at + 1, 1, START_NS + 10_000 * at + 100 + at, line=1 - first))
    (pair,) = arbitrated(packets, []).result()["pairs"]
    skews = sorted([-100 - at for at in range(300)] + [100 + at for at in range(300, 1_000)])
    told = pair["skew"]["FILE"]["percentiles_ns"]
    assert told == {one: skews[10 * int(one) - 1] for one in ("1", "10", "50", "90", "99")}


def test_count_that_no_ring_holds_is_not_compared_and_costs_nothing() -> None:
    huge = parse_sequence("offset=0,size=8,kind=message,count=8:8")
    analysis = Arbitration(huge, PAIRS, ring_length=RING)
    frames = [
        frame_of(struct.pack("!QQ", number, count), line)
        for number, count in ((5, 1), (6, (1 << 62)), (6, 2), (8, 1))
        for line in (0, 1)
    ]
    analysis.update(FrameBatch.from_frames(frames, [START_NS + at for at in range(len(frames))]))
    (pair,) = analysis.result()["pairs"]
    assert (pair["compared"], pair["too_many"]) == (4, 2)


def test_one_number_from_far_above_does_not_end_the_comparison() -> None:
    packets = [Packet(at // 2 + 1, 1, START_NS + at, line=at % 2) for at in range(6_000)]
    packets.insert(100, Packet(10**12, 1, START_NS + 99))
    (pair,) = arbitrated(packets, []).result()["pairs"]
    assert pair["too_late"] == 1_025
    assert pair["compared"] == 3_000 - 1_025 // 2 - 1


def test_what_there_is_no_room_for_is_said() -> None:
    packets = [Packet(2 * at, 1, START_NS + at, line=at % 2) for at in range(1, 400)]
    result = arbitrated(packets, [], maximum_runs=100).result()
    assert not result["complete"]
    assert result["not_followed"] > 0
    sessions = [Packet(1, 1, START_NS + at, b"%010d" % at) for at in range(20)]
    result = arbitrated(sessions, [10], maximum_streams=4).result()
    assert (len(result["pairs"]), result["not_followed"], result["complete"]) == (4, 16, False)


def test_sample_holds_what_was_put_into_it() -> None:
    truth = json.loads((SAMPLE.parent / "truth.json").read_text(encoding="utf-8"))[SAMPLE.name]
    analysis = Arbitration(MOLD, parse_pairs(["A=233.252.0.1:26401,B=233.252.0.2:26402"]))
    with open_capture(str(SAMPLE)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    (pair,) = analysis.result()["pairs"]
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
    result = analysis.result()
    assert (result["pairs"], result["foreign"], result["without_packets"]) == ([], 0, [PAIRS[0].name])
