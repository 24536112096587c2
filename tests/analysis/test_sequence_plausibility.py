"""Numbers that are implausible: jumps that wait for what follows them, streams that are refused, what auto chooses."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.feeds import START_NS, Packet, batch_of, frame_of
from support.shared_cases import CASES, needs_cases

from uspcap.analysis.sequence.analysis import Sequence
from uspcap.analysis.sequence.detection import candidates, detect
from uspcap.errors import UsageError
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import find_protocol, parse_sequence

MOLD = find_protocol("moldudp64")
RTP = find_protocol("rtp")


def of_numbers(numbers: list[int], cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the result for packets of one message each, which is the same wherever they are cut."""
    packets = [Packet(number, 1, START_NS + 1_000 * at) for at, number in enumerate(numbers)]
    edges = [0, *cuts, len(packets)]
    parts = []
    for first, last in pairwise(edges):
        parts.append(Sequence(MOLD))
        parts[-1].update(batch_of(packets[first:last]))
    for part in parts[1:]:
        parts[0].merge(part)
    result = parts[0].result().as_dict()
    assert not cuts or result == of_numbers(numbers)
    return result


def of_frames(protocol_name: str, payloads: list[bytes]) -> dict[str, Any]:
    analysis = Sequence(find_protocol(protocol_name))
    analysis.update(
        FrameBatch.from_frames([frame_of(one) for one in payloads], [START_NS + at for at in payloads_at(payloads)])
    )
    return analysis.result().as_dict()


def payloads_at(payloads: list[bytes]) -> range:
    return range(0, 1_000 * len(payloads), 1_000)


def capture_of(directory: Path, payloads: list[bytes]) -> str:
    path = directory / "feed.pcap"
    records = [
        struct.pack("<IIII", 1_700_000_000, 10 * at, len(frame), len(frame)) + frame
        for at, frame in enumerate(map(frame_of, payloads))
    ]
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    return str(path)


STRAYS = [1 << 20, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


@pytest.mark.parametrize("cuts", [(), (50,), (51,), (52,), (49, 50, 51, 60)])
@pytest.mark.parametrize("stray", STRAYS)
def test_jump_that_what_follows_refutes_is_no_gap(stray: int, cuts: tuple[int, ...]) -> None:
    result = of_numbers([*range(1, 51), stray, *range(51, 101)], cuts)
    (stream,) = result["streams"]
    assert (result["lost"], stream["gap_count"], stream["last"]) == (0, 0, 100)
    assert (result["implausible"], result["unconfirmed"], result["packets"], result["duplicate"]) == (1, 0, 101, 0)


@pytest.mark.parametrize("cuts", [(), (50,), (51,), (52,)])
@pytest.mark.parametrize("far", [4_000, 1 << 20, 1 << 40, (1 << 63) - 60, (1 << 64) - 100])
def test_jump_that_the_next_packet_goes_on_with_is_a_gap(far: int, cuts: tuple[int, ...]) -> None:
    result = of_numbers([*range(1, 51), *range(far, far + 40)], cuts)
    (stream,) = result["streams"]
    (gap,) = stream["gaps"]
    assert (gap["first"], gap["last"], gap["before_frame"], gap["after_frame"]) == (51, far - 1, 50, 51)
    assert (result["lost"], result["implausible"], result["unconfirmed"]) == (far - 51, 0, 0)


@pytest.mark.parametrize("cuts", [(), (50,), (51,), (53,), (55,)])
def test_jump_is_confirmed_across_a_late_packet_and_by_packets_that_are_out_of_order(cuts: tuple[int, ...]) -> None:
    result = of_numbers([*range(1, 50), 9_002, 50, 9_000, 9_001, *range(9_003, 9_030)], cuts)
    (stream,) = result["streams"]
    assert [(gap["first"], gap["last"], gap["filled"]) for gap in stream["gaps"]] == [(50, 9_001, 3)]
    assert (result["lost"], result["late"], result["implausible"]) == (9_002 - 50 - 3, 3, 0)


@pytest.mark.parametrize("cuts", [(), (50,), (51,), (52,)])
def test_jump_at_the_end_is_unconfirmed_and_nothing_is_lost(cuts: tuple[int, ...]) -> None:
    result = of_numbers([*range(1, 51), 10_000, 51], cuts)
    (stream,) = result["streams"]
    assert (result["lost"], result["unconfirmed"], result["implausible"], stream["last"]) == (0, 1, 0, 51)
    jump = {"number": 10_000, "expected": 51, "at_ns": START_NS + 50_000, "frame": 51}
    assert stream["unconfirmed_jumps"] == [jump]


def test_copies_of_a_packet_that_jumps_do_not_confirm_it() -> None:
    result = of_numbers([*range(1, 51), 1 << 40, 1 << 40, *range(51, 101)])
    assert (result["lost"], result["implausible"]) == (0, 2)


def test_announcement_that_is_repeated_proves_loss_however_much() -> None:
    packets = [Packet(number, 1, START_NS + number) for number in range(1, 51)]
    once = [*packets, Packet(50_000, 0, START_NS + 100)]
    for feed, lost in ((once, 0), ([*once, Packet(50_000, 0, START_NS + 200)], 49_949)):
        analysis = Sequence(MOLD)
        analysis.update(batch_of(feed))
        assert analysis.result().as_dict()["lost"] == lost


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (5,)])
@pytest.mark.parametrize("stray", STRAYS)
def test_first_packet_that_what_follows_refutes_does_not_make_the_stream_old(stray: int, cuts: tuple[int, ...]) -> None:
    result = of_numbers([stray, *range(500, 600)], cuts)
    (stream,) = result["streams"]
    assert (stream["joined_at"], stream["before_joined"], result["lost"], result["implausible"]) == (500, 0, 0, 1)


def rtp(number: int, source: int, kind: int = 0) -> bytes:
    return struct.pack("!BBHII", 0x80, kind, number & 0xFFFF, 160 * number & 0xFFFFFFFF, source) + b"x" * 20


def rtcp(kind: int, source: int) -> bytes:
    return struct.pack("!BBHI", 0x80 if kind != 202 else 0x81, kind, 6, source) + bytes(20)


@pytest.mark.parametrize("kind", range(200, 208))
def test_rtcp_beside_rtp_is_no_stream(kind: int) -> None:
    payloads = []
    for number in range(65_500, 65_700):
        payloads += [rtp(number, 0x1111)] if number != 65_600 else []
        payloads += [rtcp(kind, 0x1111)] if number % 10 == 0 else []
    result = of_frames("rtp", payloads)
    assert [stream["key"] for stream in result["streams"]] == ["00001111"]
    assert (result["lost"], result["foreign"], result["refused"]) == (1, 20, [])


@pytest.mark.parametrize("kind", [0, 8, 96, 127, 0x80, 0x80 | 35, 0x80 | 96])
def test_payload_types_of_rtp_are_followed_with_and_without_marker(kind: int) -> None:
    result = of_frames("rtp", [rtp(number, 7, kind) for number in range(100)])
    assert (result["packets"], result["lost"], result["foreign"]) == (100, 0, 0)


@needs_cases
def test_case_of_rtcp_on_the_ports_of_rtp_has_two_streams() -> None:
    analysis = Sequence(RTP)
    with open_capture(str(CASES / "files" / "r1_rtp.pcap")) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    result = analysis.result().as_dict()
    assert [(stream["key"], stream["lost"]) for stream in result["streams"]] == [("11111111", 3), ("22222222", 3)]


def test_stream_that_is_nearly_all_duplicates_is_refused_with_the_evidence() -> None:
    good = [struct.pack("!10sQH", b"GOOD      ", number, 1) + bytes(4) for number in range(1, 101)]
    same = [struct.pack("!10sQH", b"SAME      ", 6, 1) + bytes(4) for _ in range(100)]
    result = of_frames("moldudp64", [one for pair in zip(good, same, strict=True) for one in pair])
    assert [stream["key"] for stream in result["streams"]] == ["GOOD"]
    assert (result["duplicate"], result["packets"]) == (0, 100)
    (refused,) = result["refused"]
    assert (refused["key"], refused["packets"]) == ("SAME", 100)
    assert refused["evidence"] == "99 of 100 packets repeat numbers received before"


def test_stream_that_is_nearly_all_lost_is_refused_with_the_evidence() -> None:
    result = of_numbers(list(range(1, 100_000, 1_000)))
    (refused,) = result["refused"]
    assert (result["streams"], result["lost"]) == ([], 0)
    assert refused["evidence"] == "98,901 numbers are missing, in 99 gaps, and 100 were received"


@pytest.mark.parametrize("protocol", ["offset=0,size=2,wraps=yes", "offset=0,size=4", "offset=0,size=8"])
def test_random_numbers_are_refused_whatever_their_size(protocol: str) -> None:
    for seed in range(10):
        drawn = random.Random(seed)
        analysis = Sequence(parse_sequence(protocol))
        frames = [frame_of(drawn.randbytes(12)) for _ in range(400)]
        analysis.update(FrameBatch.from_frames(frames, [START_NS + at for at in range(400)]))
        result = analysis.result().as_dict()
        assert (len(result["refused"]), result["lost"]) == (1, 0), seed


def test_numbers_of_another_protocol_that_mostly_repeat_are_refused_where_nearly_all_is_missing() -> None:
    jump = 1 << 40
    result = of_numbers([1, 2, *range(jump, jump + 20), *(jump + at % 20 for at in range(100))])
    assert (len(result["refused"]), result["lost"]) == (1, 0)
    assert result["refused"][0]["evidence"].endswith(f"{jump - 3:,} numbers are missing, and 122 were received")


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_feed_that_comes_on_several_paths_is_not_refused(copies: int) -> None:
    result = of_numbers([number for number in range(1, 200) for _ in range(copies)])
    assert (result["refused"], result["duplicate"]) == ([], 199 * (copies - 1))


def test_feed_of_which_two_thirds_are_lost_is_not_refused() -> None:
    result = of_numbers(list(range(1, 1_000, 3)))
    assert (result["refused"], result["lost"]) == ([], 664)


def test_few_gaps_refuse_nothing_however_large() -> None:
    result = of_numbers([*range(1, 100), *range(1 << 40, (1 << 40) + 100)])
    assert (result["refused"], result["lost"]) == ([], (1 << 40) - 100)


def b3(number: int) -> bytes:
    """Little-endian, one channel: read in big-endian it is another protocol's number, which loses nearly all."""
    return struct.pack("<BBHIQ", 65, 0, 1, number, 0) + bytes(range(20))


def test_auto_prefers_the_protocol_that_loses_nothing_to_one_that_explains_as_much(tmp_path: Path) -> None:
    path = capture_of(tmp_path, [b3((1 << 24) + at) for at in range(3_000)])
    found = {one.protocol.name: one for one in candidates([path], "", unverified=True)}
    assert detect([path], "", unverified=True).protocol.name == "b3"
    assert found["b3"].missing == 0
    assert found["b3"].score > found["ice-impact"].score


def test_auto_chooses_nothing_that_loses_more_than_it_sees(tmp_path: Path) -> None:
    numbers = [number + (1 << 50) * (number // 50) for number in range(1, 1_001)]
    payloads = [struct.pack("!10sQH", b"SESSION001", number, 1) + b"\0\1x" for number in numbers]
    path = capture_of(tmp_path, payloads)
    best = candidates([path], "", unverified=False)[0]
    assert not best.is_enough
    with pytest.raises(UsageError, match="no known protocol"):
        detect([path], "", unverified=False)
