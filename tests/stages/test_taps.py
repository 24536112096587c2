"""Interfaces of one file: joined where they are directions of one stream, apart where they show the same packets."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import block, interface, option, packet, section
from support.command_line import PROGRAM, invoke
from support.shared_cases import CASES, needs_cases
from support.untidy import pcap

import uspcap
from uspcap.formats import open_capture
from uspcap.stages.taps import ONE_TAP, Taps, find_taps

SAMPLES = Path(__file__).parents[2] / "sample_captures"
LATER_NS = 7_000
"""How much later the second tap sees a packet."""

STREAMS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "tcp": (
        "order-session.pcap",
        {},
        (
            "counts.total.segments",
            "counts.total.payload_bytes",
            "counts.total.retransmissions",
            "sources.FILE.data_ack.responder_side.count",
            "sources.FILE.handshake.whole.count",
        ),
    ),
    "orders": (
        "order-session.pcap",
        {"protocol": "ouch-4.2"},
        ("requests.enter", "answers.accepted", "answers.executed", "followed", "streams.messages"),
    ),
    "requests": (
        "request-response.pcapng",
        {},
        ("rules.0.requests", "rules.0.answered", "rules.0.unanswered", "rules.1.answered", "rules.1.unanswered"),
    ),
    "sequence": (
        "feed-two-lines.pcapng",
        {"protocol": "moldudp64"},
        ("lost", "late", "duplicate", "packets", "messages"),
    ),
    "gaps": ("request-response.pcapng", {"gap_threshold": "25ms"}, ("count", "total_ns", "flows_tracked")),
}
"""Analyses that know flows: a sample that each finds something in, its options, and what two taps both see."""

Frame = tuple[int, bytes]


def taps_of(path: Path, *interfaces: str) -> Taps:
    """Return the taps of one file."""
    (taps,) = find_taps([(str(path), interfaces)])
    return taps


def frames_of(path: Path) -> list[Frame]:
    """Return timestamp and bytes of each frame of a file."""
    with open_capture(str(path)) as reader:
        return [
            (int(batch.timestamp_ns[row]), batch.frame_bytes(row))
            for batch in reader.batches()
            for row in range(len(batch))
        ]


def written(path: Path, frames: Sequence[tuple[int, Frame]], names: Sequence[str]) -> Path:
    """Write frames, each with the number of its interface, to a pcapng file in ns."""
    blocks = [section()]
    blocks += [interface(options=option(2, name.encode()) + option(9, b"\x09")) for name in names]
    blocks += [packet(at, data, number) for number, (at, data) in frames]
    path.write_bytes(b"".join(blocks))
    return path


def way_of(frame: bytes) -> int:
    """Return 0 or 1 by the direction of an IPv4 frame: by which of its addresses is the lower."""
    return int(frame[26:30] > frame[30:34])


def analysed(path: Path, name: str, **options: Any) -> dict[str, Any]:
    return uspcap.analyze(path, name, **STREAMS[name][1], **options)[name]


def at(result: Any, place: str) -> int:
    """Return a number of a result by its path."""
    for step in place.split("."):
        result = result[int(step) if isinstance(result, list | tuple) else step]
    assert isinstance(result, int)
    return result


@pytest.mark.parametrize("name", STREAMS)
def test_directions_on_interfaces_of_their_own_are_one_stream(name: str, tmp_path: Path) -> None:
    frames = frames_of(SAMPLES / STREAMS[name][0])
    whole = written(tmp_path / "whole.pcapng", [(0, frame) for frame in frames], ["eth0"])
    by_way = written(tmp_path / "ways.pcapng", [(way_of(frame[1]), frame) for frame in frames], ["rx", "tx"])
    assert taps_of(by_way) == ONE_TAP
    assert analysed(by_way, name) == analysed(whole, name)


@pytest.mark.parametrize("name", STREAMS)
def test_the_same_packets_on_two_interfaces_are_two_of_each_stream(name: str, tmp_path: Path) -> None:
    frames = frames_of(SAMPLES / STREAMS[name][0])
    both = [(tap, (at + LATER_NS * tap, data)) for at, data in frames for tap in (0, 1)]
    both.sort(key=lambda one: one[1][0])
    path = written(tmp_path / "both.pcapng", both, ["in", "out"])
    taps = taps_of(path)
    assert taps.numbers == (1, 2)
    assert [decision.option for decision in taps.decisions] == ["--interfaces apart"]
    assert "interfaces 0 (in) and 1 (out) show the same packets" in taps.decisions[0].why
    once, apart = analysed(path, name, interfaces=("in",)), analysed(path, name)
    assert apart == analysed(path, name, taps="apart")
    for place in STREAMS[name][2]:
        assert at(once, place), f"the sample has no {place}"
        assert at(apart, place) == 2 * at(once, place), place
    assert analysed(path, name, taps="join") != apart


@needs_cases
def test_a_packet_on_two_interfaces_is_no_retransmission() -> None:
    path = CASES / "files" / "t1_twoif.pcapng"
    report = uspcap.analyze(path, "tcp")
    assert at(report["tcp"], "counts.total.retransmissions") == 0
    assert at(uspcap.analyze(path, "tcp", taps="join")["tcp"], "counts.total.retransmissions") == 100
    (decision,) = report.document["source"]["decisions"]
    assert decision["option"] == "--interfaces apart"
    text = " ".join(invoke("analyze", path, "--only", "tcp").stdout.split())
    assert "2 connections, 400 segments" in text
    assert "interfaces 0 (eth0) and 1 (veth1) show the same packets, 200 of 200 that were checked" in text


def udp(number: int, *, source: int = 1) -> bytes:
    """Return a UDP datagram with an identification and a payload of its own."""
    payload = struct.pack(">Q", number)
    length = 28 + len(payload)
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, length, number & 0xFFFF, 0, 64, 17, 0, bytes((10, 0, 0, source)), b"\n\0\0\t"
    )
    return bytes(12) + b"\x08\0" + ip + struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload


def captured(tmp_path: Path, shows: Sequence[Callable[[int], bytes | None]], packets: int = 50) -> Path:
    """Write a file of which each interface shows what a function returns for a packet's number."""
    frames = [
        (number, (packet_number * 1_000_000 + number * LATER_NS, data))
        for packet_number in range(packets)
        for number, show in enumerate(shows)
        if (data := show(packet_number)) is not None
    ]
    return written(tmp_path / "made.pcapng", frames, [f"eth{number}" for number in range(len(shows))])


def directions(tmp_path: Path, later_ns: Sequence[int]) -> Taps:
    """Return the taps of interfaces that show up, down, up, down, … so much later each, and now and then otherwise."""
    frames = [
        (number, (packet_number * 1_000_000 + later + packet_number % 7, udp(packet_number, source=1 + number % 2)))
        for packet_number in range(50)
        for number, later in enumerate(later_ns)
    ]
    frames.sort(key=lambda frame: frame[1][0])
    return taps_of(written(tmp_path / "ways.pcapng", frames, [f"eth{number}" for number in range(len(later_ns))]))


@pytest.mark.parametrize(
    ("later_ns", "numbers"),
    [
        # Two taps, of which the first is nearer to whoever sends up: as they come in order, and not.
        ((0, 500_000, 7_000, 493_000), (1, 1, 3, 3)),
        ((0, 493_000, 7_000, 500_000), (1, 2, 2, 1)),
        ((7_000, 493_000, 0, 500_000), (1, 1, 3, 3)),
        # Three, and one way longer than the other.
        ((0, 500_000, 7_000, 493_000, 20_000, 470_000), (1, 1, 3, 3, 5, 5)),
        ((0, 470_000, 20_000, 493_000, 7_000, 500_000), (1, 2, 2, 4, 4, 1)),
    ],
)
def test_two_directions_of_several_taps_are_paired_by_their_times(
    tmp_path: Path, later_ns: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    taps = directions(tmp_path, later_ns)
    assert taps.numbers == numbers
    assert "their times show which are directions of one tap" in taps.notes()[0]


@pytest.mark.parametrize(
    "later_ns",
    [
        # At one time, and one way so much longer than the other that another clock would say as much.
        (0, 500_000, 0, 500_000),
        (0, 500_000, 7_000, 499_500),
    ],
)
def test_where_times_do_not_say_which_their_order_does_and_that_is_said(
    tmp_path: Path, later_ns: tuple[int, ...]
) -> None:
    taps = directions(tmp_path, later_ns)
    assert taps.numbers == (1, 1, 3, 3)
    assert "which of them are directions of one tap is taken from their order" in taps.notes()[0]


def test_every_file_is_a_tap_where_that_is_asked_for(tmp_path: Path) -> None:
    frames = frames_of(SAMPLES / "order-session.pcap")
    files = [pcap(tmp_path / f"{name}.pcap", frames) for name in ("a", "b", "c")]
    once = uspcap.analyze(files[0], "tcp")["tcp"]
    apart = uspcap.analyze(files, "tcp", taps="apart")
    for place in STREAMS["tcp"][2]:
        assert at(apart["tcp"], place) == 3 * at(once, place), place
    assert {connection["responder"][-3:] for connection in apart["tcp"]["listed"]} == {" @0", " @1", " @2"}
    assert any("is a tap: those of" in note for note in apart.document["source"]["notes"])
    several = [
        written(tmp_path / f"{name}.pcapng", [(number % 2, frame) for number, frame in enumerate(frames)], ["x", "y"])
        for name in ("a", "b")
    ]
    names = {
        row["responder"].rpartition("@")[2] for row in uspcap.analyze(several, "tcp", taps="apart")["tcp"]["listed"]
    }
    assert names == {"0", "1", "257", "258"}


def test_of_interfaces_that_are_read_only_those_are_looked_at(tmp_path: Path) -> None:
    path = captured(tmp_path, [udp, udp, lambda number: udp(number, source=3)])
    assert taps_of(path).numbers == (1, 2, 1)
    assert taps_of(path, "eth1", "eth2") == ONE_TAP
    assert taps_of(path, "0", "eth1").numbers == (1, 2, 0)


def test_a_few_packets_in_common_are_no_second_tap(tmp_path: Path) -> None:
    path = captured(tmp_path, [udp, lambda number: udp(number if number < 20 else number + 1000)])
    assert taps_of(path) == ONE_TAP
    path = captured(tmp_path, [udp, udp], packets=2)
    assert taps_of(path) == ONE_TAP


def test_a_tap_that_lost_some_still_shows_the_same_packets(tmp_path: Path) -> None:
    path = captured(tmp_path, [udp, lambda number: udp(number) if number % 3 else None])
    assert taps_of(path).numbers == (1, 2)


def test_a_file_that_can_be_read_once_only_is_one_tap_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    content = captured(tmp_path, [udp, udp]).read_bytes()
    words = [*PROGRAM, "analyze", "-", "--only", "gaps", "--gap-threshold", "1us"]
    assert b"@" not in subprocess.run(words, input=content, capture_output=True, check=True).stdout
    apart = subprocess.run([*words, "--interfaces", "apart"], input=content, capture_output=True, check=True).stdout
    assert b"2000 @0" in apart
    assert b"2000 @1" in apart


@given(st.lists(st.frozensets(st.integers(0, 29)), min_size=2, max_size=6))
def test_taps_never_hold_two_interfaces_with_packets_in_common(shown: list[frozenset[int]]) -> None:
    """Against a slow reference: sets of packets, pair by pair."""
    same = set()
    for one, other in combinations(range(len(shown)), 2):
        common = len(shown[one] & shown[other])
        if common >= 3 and 4 * common >= 3 * min(len(shown[one]), len(shown[other])):
            same.add((one, other))
    with tempfile.TemporaryDirectory() as directory:
        shows = [lambda number, one=one: udp(number) if number in one else None for one in shown]
        numbers = taps_of(captured(Path(directory), shows, 30)).numbers
    assert bool(numbers) == bool(same)
    for one, other in same:
        assert numbers[one] != numbers[other]
    for number, tap in enumerate(numbers):
        assert tap == number + 1 or numbers[tap - 1] == tap


def test_other_blocks_between_packets_do_not_matter(tmp_path: Path) -> None:
    path = captured(tmp_path, [udp, udp])
    path.write_bytes(path.read_bytes() + block(0x0BAD, b"1234"))
    assert taps_of(path).numbers == (1, 2)


@needs_cases
def test_fragments_are_reassembled_at_each_tap_separately(tmp_path: Path) -> None:
    frames = frames_of(CASES / "files" / "p9_frag_lost2.pcap")
    both = sorted(
        ((tap, (at + LATER_NS * tap, data)) for at, data in frames for tap in (0, 1)), key=lambda shown: shown[1][0]
    )
    path = written(tmp_path / "both.pcapng", both, ["in", "out"])
    result = uspcap.analyze(path, "sequence", protocol="moldudp64")["sequence"]
    assert result["lost"] == 60
    assert sorted(stream["flow"][-3:] for stream in result["streams"]) == [" @0", " @1"]


def test_two_files_of_two_taps_are_kept_apart_and_files_of_a_ring_are_not(tmp_path: Path) -> None:
    frames = frames_of(SAMPLES / "order-session.pcap")
    tapped = [
        written(tmp_path / f"{name}.pcapng", [(0, (at + later, data)) for at, data in frames], ["eth0"])
        for name, later in (("in", 0), ("out", LATER_NS))
    ]
    once, apart = uspcap.analyze(tapped[0], "tcp")["tcp"], uspcap.analyze(tapped, "tcp")
    for place in STREAMS["tcp"][2]:
        assert at(apart["tcp"], place) == 2 * at(once, place), place
    assert {connection["responder"][-3:] for connection in apart["tcp"]["listed"]} == {" @0", " @1"}
    text = " ".join(str(apart).split())
    assert f"interface 0 (eth0) of {tapped[0]} and interface 0 (eth0) of {tapped[1]} show the same packets" in text
    assert f"have 0 for interface 0 (eth0) of {tapped[0]}, 1 for interface 0 (eth0) of {tapped[1]} behind an @" in text
    half = len(frames) // 2
    ring = [
        written(tmp_path / f"ring{part}.pcapng", [(0, frame) for frame in part_of], ["eth0"])
        for part, part_of in enumerate((frames[:half], frames[half:]))
    ]
    by_way = [
        written(tmp_path / f"way{way}.pcapng", [(0, frame) for frame in frames if way_of(frame[1]) == way], ["eth0"])
        for way in (0, 1)
    ]
    for split in (ring, by_way):
        assert uspcap.analyze(split, "tcp")["tcp"]["counts"] == once["counts"]


def test_a_duplicate_file_is_no_second_tap(tmp_path: Path) -> None:
    path = captured(tmp_path, [udp])
    assert find_taps([(str(path), ()), (str(path), ())]) == [ONE_TAP, ONE_TAP]


def test_similar_or_retransmitted_packets_are_no_second_tap(tmp_path: Path) -> None:
    second = 1_000_000_000
    alike = [(number * 1_000_000, udp(number % 5)) for number in range(100)]
    again = [(at + 10 * second, data) for at, data in alike]
    once = [(number * 1_000_000, udp(number)) for number in range(100)]
    replayed = [(at + 10 * second, data) for at, data in once]
    for name, (first, later) in (("alike", (alike, again)), ("replayed", (once, replayed))):
        paths = [
            written(tmp_path / f"{name}{part}.pcapng", [(0, frame) for frame in frames], ["eth0"])
            for part, frames in enumerate((first, later))
        ]
        taps = find_taps([(str(path), ()) for path in paths])
        assert [one.numbers for one in taps] == [(), ()], name
        notes = [note for one in taps for note in one.notes()]
        assert len(notes) == (name == "replayed"), name
        if notes:
            assert "more than a second apart, 100 of 100 that were checked: replayed traffic" in notes[0]
