"""Sequence numbers against a dictionary of every number, against the law, and on what others have captured."""

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
from support.feeds import START_NS, Packet, batch_of, feeds, frame_of
from support.shared_captures import CAPTURES, needs_captures
from support.slow_numbers import Arrival, SlowNumbers, assert_as_slow

from uspcap.analysis.sequence.analysis import Sequence
from uspcap.analysis.sequence.numbered_runs import KEPT_ENDS
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import FeedProtocol, find_protocol, parse_sequence

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "feed-two-lines.pcapng"
MOLD = find_protocol("moldudp64")
PLAIN = parse_sequence("offset=4,size=4,endian=big,kind=packet")


def followed(packets: list[Packet], cuts: list[int], protocol: FeedProtocol = MOLD, **bounds: int) -> Sequence:
    """Analyse packets in parts, merged in order."""
    edges = [0, *sorted(cuts), len(packets)]
    whole: Sequence | None = None
    for first, last in pairwise(edges):
        part = Sequence(protocol, **bounds)
        for at in range(first, last, 64):
            part.update(batch_of(packets[at : min(at + 64, last)], at - first + 1, plain=protocol is PLAIN))
        if whole is None:
            whole = part
        else:
            whole.merge(part)
    assert whole is not None
    return whole


def followed_frames(protocol: FeedProtocol, frames: list[bytes], cuts: list[int]) -> Sequence:
    """Analyse frames that are 1 ns apart, in parts."""
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(frames)]):
        parts.append(Sequence(protocol))
        parts[-1].update(FrameBatch.from_frames(frames[first:last], [START_NS + at for at in range(first, last)]))
    for part in parts[1:]:
        parts[0].merge(part)
    return parts[0]


def assert_feed_as_slow(packets: list[Packet], result: dict[str, Any]) -> None:
    if not packets:
        assert result["streams"] == []
        return
    (stream,) = result["streams"] + result["refused"]
    slow = SlowNumbers.of(packet.arrival(frame) for frame, packet in enumerate(packets, 1))
    assert_as_slow(stream, slow)
    assert result["lateness"]["count"] == len(slow.lateness_ns) or stream["coalesced"] or result["refused"]
    drops = [frame for frame, packet in enumerate(packets, 1) if packet.dropped_before]
    for gap in stream.get("gaps", ()):
        assert gap["undetermined"] == any(gap["before_frame"] < frame <= gap["after_frame"] for frame in drops)


@settings(deadline=None, max_examples=80)
@given(feeds(), st.lists(st.integers(0, 60), max_size=4))
def test_what_happened_to_a_feed_of_messages_comes_back_whatever_the_cuts(
    packets: list[Packet], cuts: list[int]
) -> None:
    result = followed(packets, [min(cut, len(packets)) for cut in cuts]).result().as_dict()
    assert_feed_as_slow(packets, result)


@settings(deadline=None, max_examples=80)
@given(feeds(plain=True), st.lists(st.integers(0, 60), max_size=4))
def test_what_happened_to_a_feed_of_packets_comes_back_whatever_the_cuts(
    packets: list[Packet], cuts: list[int]
) -> None:
    result = followed(packets, [min(cut, len(packets)) for cut in cuts], PLAIN).result().as_dict()
    assert_feed_as_slow(packets, result)


@settings(deadline=None, max_examples=60)
@given(feeds(), st.integers(0, 60), st.integers(0, 60))
def test_result_and_tables_do_not_depend_on_cuts(packets: list[Packet], one: int, other: int) -> None:
    cuts = [min(one, len(packets)), min(other, len(packets))]
    whole, merged = followed(packets, []), followed(packets, cuts)
    assert merged.result().as_dict() == whole.result().as_dict()
    assert merged.tables() == whole.tables()
    assert merged.result().as_dict() == whole.result().as_dict()


@pytest.mark.parametrize("disturbed", [False, True])
def test_long_stream_is_kept_as_few_runs_and_comes_back_unchanged(disturbed: bool) -> None:
    random = np.random.default_rng(3)
    packets = []
    number = 1
    for at in range(5_000):
        count = int(random.integers(1, 4))
        if disturbed and random.random() < 0.01:
            number += int(random.integers(1, 5))
        packets.append(Packet(number, count, START_NS + 1_000 * at))
        if disturbed and random.random() < 0.01:
            packets.append(Packet(max(1, number - int(random.integers(0, 30))), 2, START_NS + 1_000 * at + 500))
        number += count
    whole = followed(packets, [])
    assert_feed_as_slow(packets, whole.result().as_dict())
    assert len(whole._streams.arrays()[2]) < (2 if not disturbed else 1_000)
    assert followed(packets, [1_234, 4_000]).result().as_dict() == whole.result().as_dict()


def test_late_packet_fills_its_gap_and_says_how_late() -> None:
    packets = [Packet(number, 2, START_NS + 1_000 * at) for at, number in enumerate((1, 3, 7, 9, 11, 5))]
    (stream,) = followed(packets, []).result().as_dict()["streams"]
    (gap,) = stream["gaps"]
    assert (gap["first"], gap["last"], gap["filled"], gap["filled_after_ns"]) == (5, 6, 2, 3_000)
    assert (stream["lost"], stream["late"], stream["largest_extent"]) == (0, 2, 3)


def test_late_packet_whose_timestamp_is_earlier_than_the_gap_is_not_late_by_less_than_nothing() -> None:
    packets = [Packet(1, 1, START_NS), Packet(3, 1, START_NS + 5_000), Packet(2, 1, START_NS + 4_000)]
    result = followed(packets, []).result().as_dict()
    (gap,) = result["streams"][0]["gaps"]
    assert (gap["filled"], gap["filled_after_ns"], result["lateness"]["max_ns"]) == (1, 0, 0)


@pytest.mark.parametrize("cuts", [[], [KEPT_ENDS + 20], [700]])
def test_gap_begins_at_the_heartbeat_before_it_however_long_the_stream(cuts: list[int]) -> None:
    packets = []
    for number in range(1, 2 * KEPT_ENDS):
        packets.append(Packet(number, 1, START_NS + 10 * number))
        packets.append(Packet(number + 1, 0, START_NS + 10 * number + 5))
    packets.append(Packet(2 * KEPT_ENDS + 3, 1, START_NS + 1_000_000))
    whole = followed(packets, cuts)
    assert_feed_as_slow(packets, whole.result().as_dict())
    assert whole.result().as_dict() == followed(packets, []).result().as_dict()


def test_end_of_session_announces_the_next_number_and_carries_nothing() -> None:
    packets = [Packet(1, 3, START_NS), Packet(6, 0xFFFF, START_NS + 5)]
    batch = FrameBatch.from_frames(
        [frame_of(packets[0].mold()), frame_of(struct.pack("!10sQH", b"SESSION001", 6, 0xFFFF))],
        [START_NS, START_NS + 5],
    )
    analysis = Sequence(MOLD)
    analysis.update(batch)
    (stream,) = analysis.result().as_dict()["streams"]
    assert (stream["lost"], stream["messages"], stream["ended"]) == (2, 3, True)


def test_request_for_retransmission_is_not_of_the_live_stream() -> None:
    request = struct.pack("!10sQH", b"SESSION001", 900, 50)
    analysis = Sequence(MOLD)
    analysis.update(
        FrameBatch.from_frames([frame_of(Packet(1, 1, 0).mold()), frame_of(request)], [START_NS, START_NS + 1])
    )
    result = analysis.result().as_dict()
    assert (result["lost"], result["excluded"]) == (0, 1)


def test_sessions_of_one_flow_are_streams_of_their_own() -> None:
    packets = [Packet(1 + at // 2, 1, START_NS + at, b"MONDAY    " if at % 2 else b"TUESDAY   ") for at in range(8)]
    result = followed(packets, [3]).result().as_dict()
    assert [stream["key"] for stream in result["streams"]] == ["MONDAY", "TUESDAY"]
    assert result["lost"] == 0


@pytest.mark.parametrize("cuts", [[], [60], [150, 300]])
def test_many_streams_are_followed_each(cuts: list[int]) -> None:
    packets = [
        Packet(1 + turn, 1, START_NS + turn, f"SESSION{at:03}".encode())
        for turn in range(3)
        for at in range(150)
        if (turn, at) != (1, 149)
    ]
    result = followed(packets, cuts).result().as_dict()
    lost = {f"SESSION{at:03}": int(at == 149) for at in range(150)}
    assert {stream["key"]: stream["lost"] for stream in result["streams"]} == lost


def test_numbers_that_wrap_go_on() -> None:
    rule = parse_sequence("offset=0,size=2,wraps=yes")
    numbers = [(65_000 + at) % 65_536 for at in range(2_000) if at not in (536, 1_000)]
    frames = [frame_of(struct.pack("!H", number) + b"x") for number in numbers]
    for cuts in ([], [500], [537, 540, 1_500]):
        result = followed_frames(rule, frames, cuts).result().as_dict()
        assert (result["lost"], result["duplicate"], result["resets"]) == (2, 0, 0)
        assert [gap["count"] for gap in result["streams"][0]["gaps"]] == [1, 1]


@settings(deadline=None, max_examples=100)
@given(
    feeds(plain=True),
    st.lists(st.integers(1, 5), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_packets_of_one_datagram_are_numbered_each(packets: list[Packet], together: list[int], cuts: list[int]) -> None:
    mach = find_protocol("miax-mach")
    frames: list[bytes] = []
    of_frame: list[Packet] = []
    left = iter(packets)
    for many in together:
        several = [packet for _, packet in zip(range(many), left, strict=False)]
        parts = [struct.pack("<QHBB", one.sequence, 13 + at, 3, 7) + b"x" * (1 + at) for at, one in enumerate(several)]
        if parts:
            frames.append(frame_of(b"".join(parts)))
            of_frame += [replace(packet, at_ns=len(frames)) for packet in several]
    result = followed_frames(mach, frames, [min(cut, len(frames)) for cut in cuts]).result().as_dict()
    if of_frame:
        (stream,) = result["streams"] + result["refused"]
        times = [START_NS + packet.at_ns - 1 for packet in of_frame]
        arrivals = [replace(packet.arrival(packet.at_ns), at_ns=at) for packet, at in zip(of_frame, times, strict=True)]
        assert_as_slow(stream, SlowNumbers.of(arrivals))
    else:
        assert result["streams"] == []


def test_datagram_whose_packets_overrun_it_is_taken_as_far_as_they_go() -> None:
    good = struct.pack("<QHBB", 5, 12, 3, 7)
    heartbeat = struct.pack("<QHBB", 0, 12, 0, 0)
    frames = [
        frame_of(good + struct.pack("<QHBB", 6, 99, 3, 7)),
        frame_of(struct.pack("<QHBB", 6, 11, 3, 7)),
        frame_of(heartbeat),
        frame_of(struct.pack("<QHBB", 7, 12, 3, 7)),
    ]
    analysis = Sequence(find_protocol("miax-mach"))
    analysis.update(FrameBatch.from_frames(frames, [START_NS + at for at in range(4)]))
    result = analysis.result().as_dict()
    assert (result["foreign"], result["excluded"], result["packets"], result["lost"]) == (2, 1, 2, 1)


def test_what_there_is_no_room_for_is_said() -> None:
    packets = [Packet(number, 1, START_NS + number) for number in range(1, 400, 2)]
    result = followed(packets, [], maximum_runs=50).result().as_dict()
    assert not result["complete"]
    assert result["not_followed"] == 200 - 50


def test_sample_holds_what_was_put_into_it() -> None:
    truth = json.loads((SAMPLE.parent / "truth.json").read_text(encoding="utf-8"))[SAMPLE.name]
    analysis = Sequence(MOLD)
    with open_capture(str(SAMPLE)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    by_port = {stream["flow"].rsplit(":", 1)[1]: stream for stream in analysis.result().as_dict()["streams"]}
    for name, line in truth["lines"].items():
        stream = by_port[str(line["port"])]
        lost = [gap for gap in stream["gaps"] if not gap["filled"]]
        wanted = [
            (one["first_sequence"], one["last_sequence"], one["before_frame"], one["after_frame"])
            for one in line["lost"]
        ]
        assert [(gap["first"], gap["last"], gap["before_frame"], gap["after_frame"]) for gap in lost] == wanted
        assert stream["lost"] == sum(one["messages"] for one in line["lost"])
        for what in ("late", "duplicate"):
            there = truth["late" if what == "late" else "duplicates"]
            assert stream[what] == sum(one["messages"] for one in there if one["line"] == name)
        assert stream["heartbeats"] == line["heartbeats"]


OMI = "omi-data-packets__"
REAL = {
    "go-iex__DEEP10_rec1-12236": "iex-tp",
    "go-iex__TOPS16_rec1-7162": "iex-tp",
    f"{OMI}Cme__Mdp3.Sbe.v1.9__MdIncrementalRefreshVolume": "cme-mdp3",
    f"{OMI}Nasdaq__Nasdaq.Equities.TotalView.Itch.v5.0__NetOrderImbalanceIndicatorMessage": "moldudp64",
    f"{OMI}Memx__Equities.MemiorDepth.v1.3__OrderExecutedMessage": "memx-memoir",
    f"{OMI}Nyse__IntegratedFeed.Pillar.v2.5__OrderExecutionMessage": "nyse-pillar",
    f"{OMI}Cboe__Options.DepthOfBook.Pitch.v2.39.4__Heartbeat": "cboe-pitch",
    f"{OMI}Ice__Mdf.iMpact.v1.1.33__TradeMessage": "ice-impact",
    f"{OMI}B3__BinaryUmdf.v1.8__Sequence": "b3",
}


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize("name", REAL)
def test_real_feeds_are_of_the_protocol_they_are_called_by(name: str) -> None:
    path = CAPTURES / "market-data" / f"{name}.pcap"
    analysis = Sequence(find_protocol(REAL[name]))
    udp = 0
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
            udp += int(((batch.headers.column("protocol") == 17) & (batch.headers.column("payload_length") > 0)).sum())
    result = analysis.result().as_dict()
    assert udp > 0
    assert result["foreign"] == 0
    assert result["packets"] + result["excluded"] + sum(one["heartbeats"] for one in result["streams"]) == udp


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize("name", ["go-iex__DEEP10_rec1-12236", "go-iex__TOPS16_rec1-7162"])
def test_real_iex_numbers_are_what_a_dictionary_says(name: str) -> None:
    analysis = Sequence(find_protocol("iex-tp"))
    arrivals = []
    with open_capture(str(CAPTURES / "market-data" / f"{name}.pcap")) as reader:
        for batch in reader.batches():
            analysis.update(batch)
            offsets = batch.column("offset") + batch.headers.column("payload_offset")
            for row, at in enumerate(offsets.tolist()):
                payload = bytes(batch.data[at : at + 40])
                count, number = int.from_bytes(payload[14:16], "little"), int.from_bytes(payload[24:32], "little")
                if count:
                    frame, at_ns = batch.frames_before + row + 1, int(batch.column("timestamp_ns")[row])
                    arrivals.append(Arrival("data", number, number + count, frame, at_ns))
    (stream,) = analysis.result().as_dict()["streams"]
    assert_as_slow(stream, SlowNumbers.of(arrivals), but=("heartbeats", "excluded"))
