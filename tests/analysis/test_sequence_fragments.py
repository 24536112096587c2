"""Feeds whose datagrams come in IP fragments: put together, counted, and the same wherever the capture is cut."""

from __future__ import annotations

import pickle
import random
import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from support.feeds import START_NS, Packet, frame_of
from support.fragments import Fragment, SlowDatagrams, datagram_of, disturbed, fragments_of
from support.shared_captures import CAPTURES, needs_captures
from support.shared_cases import CASES, needs_cases
from support.slow_numbers import Arrival, SlowNumbers, assert_as_slow

from uspcap.analysis import ip_fragments
from uspcap.analysis.sequence.analysis import Sequence
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams, has_fragments
from uspcap.protocols.feeds import find_protocol

MOLD = find_protocol("moldudp64")
Sent = bytes | Fragment
"""A frame without IP fragments, or one that is a fragment."""

ELSEWHERE = bytes(12) + b"\x08\x06" + bytes(46)


def sequence_of(sent: list[Sent], times_ns: list[int], cuts: list[int], batch_frames: int = 64) -> Sequence:
    """Analyse frames in parts, which go to another process and back, merged in order."""
    frames = [one.frame() if isinstance(one, Fragment) else one for one in sent]
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(frames)]):
        part = Sequence(MOLD)
        for at in range(first, last, batch_frames):
            end = min(at + batch_frames, last)
            part.update(FrameBatch.from_frames(frames[at:end], times_ns[at:end], first_frame_number=at - first + 1))
        parts.append(pickle.loads(pickle.dumps(part)))
    while len(parts) > 1:
        at = len(parts) // 2 - 1
        parts[at].merge(parts.pop(at + 1))
    return parts[0]


def assert_as_slow_account(sent: list[Sent], times_ns: list[int], sequence: Sequence) -> None:
    result = sequence.result().as_dict()
    slow = SlowDatagrams()
    arrivals: dict[bytes, list[Arrival]] = {}
    for frame, (one, at_ns) in enumerate(zip(sent, times_ns, strict=True), 1):
        payload = None
        if isinstance(one, Fragment):
            datagram = slow.take(one, frame, at_ns) if one.protocol == 17 else None
            payload = None if datagram is None else datagram[8 : max(8, int.from_bytes(datagram[4:6], "big"))]
        elif one is not ELSEWHERE:
            payload = one[42:]
        if payload is not None and len(payload) >= 20:
            session, number, count = struct.unpack_from("!10sQH", payload)
            kind = {0: "next", 0xFFFF: "end"}.get(count, "data")
            after = number + count * (kind == "data")
            if (len(payload) > 20 or kind != "data") and after <= 1 << 64:
                arrivals.setdefault(session, []).append(Arrival(kind, number, after, frame, at_ns))
    assert result["fragments"] == slow.counts()
    streams = result["streams"] + result["refused"]
    by_key = {stream["key"]: stream for stream in streams if stream["joined_at"] is not None}
    assert len(by_key) == len(arrivals)
    for session, of_session in arrivals.items():
        assert_as_slow(by_key[MOLD.key_text(session)], SlowNumbers.of(of_session), but=("excluded",))


def feed(drawn: random.Random, many: int, identifications: int, pauses: float = 0.0) -> tuple[list[Sent], list[int]]:
    """Draw a feed, half of whose datagrams are fragmented, interleaved with each other and with other frames."""
    queues: list[list[Sent]] = []
    sent: list[Sent] = []
    number = 1
    for at in range(many):
        count = drawn.randrange(1, 5)
        payload = Packet(number, count, 0).mold()
        number += count + (drawn.random() < 0.05)
        if drawn.random() < 0.5:
            pieces = fragments_of(payload, at % identifications, drawn.choice([8, 16, 24]), 4)
            queues.append(list(disturbed(drawn, pieces)))
        else:
            queues.append([frame_of(payload)])
        if drawn.random() < pauses:
            queues.append([ELSEWHERE] * drawn.choice([1_000, 1_024, 1_030]))
        while len(queues) > 3:
            taken = drawn.choice(queues[:3]) if drawn.random() < 0.3 else queues[0]
            sent.append(taken.pop(0))
            queues = [queue for queue in queues if queue]
    sent += [one for queue in queues for one in queue]
    at_ns, times_ns = START_NS, []
    for _ in sent:
        at_ns += drawn.choice([1_000] * 50 + [-500, 31_000_000_000])
        times_ns.append(at_ns)
    return sent, times_ns


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("identifications", [3, 1 << 16])
def test_feed_in_fragments_is_as_a_slow_account_has_it_whatever_the_cuts(seed: int, identifications: int) -> None:
    drawn = random.Random(seed)
    sent, times_ns = feed(drawn, drawn.choice([3, 20, 60]), identifications)
    whole = sequence_of(sent, times_ns, [])
    assert_as_slow_account(sent, times_ns, whole)
    for _ in range(6):
        cuts = [drawn.randrange(len(sent) + 1) for _ in range(drawn.randrange(1, 5))]
        parts = sequence_of(sent, times_ns, cuts, drawn.choice([1, 7, 64]))
        assert parts.result().as_dict() == whole.result().as_dict(), cuts
        assert parts.tables() == whole.tables()


@pytest.mark.parametrize("seed", range(4))
def test_fragments_far_apart_are_of_two_datagrams_whatever_the_cuts(seed: int) -> None:
    drawn = random.Random(seed)
    sent, times_ns = feed(drawn, 40, 2, pauses=0.3)
    whole = sequence_of(sent, times_ns, [], 4096)
    assert_as_slow_account(sent, times_ns, whole)
    for _ in range(6):
        cuts = [drawn.randrange(len(sent) + 1) for _ in range(drawn.randrange(1, 5))]
        assert sequence_of(sent, times_ns, cuts, 500).result().as_dict() == whole.result().as_dict(), cuts


def test_every_cut_of_a_datagram_gives_the_same() -> None:
    pieces = fragments_of(Packet(3, 20, 0).mold(), 7, 16)
    sent: list[Sent] = [frame_of(Packet(1, 2, 0).mold()), *pieces, frame_of(Packet(23, 2, 0).mold())]
    times_ns = [START_NS + at for at in range(len(sent))]
    whole = sequence_of(sent, times_ns, []).result().as_dict()
    assert (whole["lost"], whole["late"], whole["fragments"]["put_together"]) == (0, 0, 1)
    for cut in range(len(sent) + 1):
        for other in range(cut, len(sent) + 1):
            assert sequence_of(sent, times_ns, [cut, other]).result().as_dict() == whole


@pytest.mark.parametrize("version", [4, 6])
def test_messages_of_a_datagram_that_lacks_a_fragment_are_missing(version: int) -> None:
    sent: list[Sent] = []
    for at in range(10):
        pieces = fragments_of(Packet(1 + 30 * at, 30, 0).mold(), at, 64, version)
        sent += [piece for which, piece in enumerate(pieces) if (at, which) != (5, 1)]
    times_ns = [START_NS + 1_000 * at for at in range(len(sent))]
    sequence = sequence_of(sent, times_ns, [11])
    result = sequence.result().as_dict()
    (stream,) = result["streams"]
    assert [(gap["first"], gap["last"]) for gap in stream["gaps"]] == [(151, 180)]
    assert (result["lost"], result["packets"]) == (30, 9)
    assert result["fragments"] == {
        "put_together": 9,
        "incomplete": 1,
        "discarded": 0,
        "copies": 0,
        "frames_left_out": len(fragments_of(Packet(1, 30, 0).mold(), 0, 64, version)) - 1,
        "cut": 0,
    }
    (caveat,) = sequence.caveats()
    assert "1 of 10 UDP datagrams in IP fragments lacks" in caveat


def test_datagram_comes_when_its_last_fragment_does() -> None:
    pieces = fragments_of(Packet(1, 4, 0).mold(), 7, 16)
    sent: list[Sent] = [*pieces[:-1], frame_of(Packet(5, 1, 0).mold()), pieces[-1]]
    times_ns = [START_NS + 1_000 * at for at in range(len(sent))]
    (stream,) = sequence_of(sent, times_ns, []).result().as_dict()["streams"]
    assert (stream["joined_at"], stream["before_joined"]) == (5, 4)


@pytest.mark.parametrize("protocol", [1, 6])
def test_fragments_of_other_protocols_are_none_of_udp(protocol: int) -> None:
    pieces = [
        Fragment(piece.identification, piece.offset, piece.data, piece.more, 4, protocol)
        for piece in fragments_of(bytes(100), 1, 16)
    ]
    result = sequence_of(list(pieces), [START_NS] * len(pieces), []).result().as_dict()
    assert sum(result["fragments"].values()) == 0


def test_what_is_kept_at_a_cut_is_bounded_and_what_that_costs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ip_fragments, "MOST_KEPT", 5)
    pieces = fragments_of(Packet(1, 30, 0).mold(), 7, 16)
    sequence = sequence_of(list(pieces), [START_NS] * len(pieces), [])
    assert sequence.result().as_dict()["fragments"]["cut"] == len(pieces) - 5
    assert any("at the beginnings of parts" in caveat for caveat in sequence.caveats())


@needs_cases
def test_case_of_a_datagram_without_its_second_fragment_lacks_thirty_messages() -> None:
    sequence = Sequence(MOLD)
    with open_capture(str(CASES / "files" / "p9_frag_lost2.pcap")) as reader:
        for batch in reader.batches():
            sequence.update(batch)
    result = sequence.result().as_dict()
    assert (result["lost"], result["packets"]) == (30, 299)
    assert result["fragments"]["incomplete"] == 1


Found = list[tuple[int, int]]
"""Frames that complete a datagram, and the bytes of its IP payload."""


def put_together(path: Path) -> Found:
    datagrams = Datagrams(is_known=True)
    found: Found = []
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            if has_fragments(batch, batch.headers):
                assert datagrams.take(batch, batch.headers, 0, 0) == batch.count
                frames = datagrams.frames
                lengths = frames.column("wire_length") - 20 * (1 + frames.column("interface").astype(int))
                found += zip(frames.column("frame_number").tolist(), lengths.tolist(), strict=True)
    return found


def put_together_by_tshark(path: Path) -> Found:
    command = ["tshark", "-n", "-r", str(path), "-o", "ip.defragment:TRUE", "-o", "ipv6.defragment:TRUE"]
    command += ["-Y", "udp && (ip.fragments || ipv6.fragments)", "-T", "fields", "-E", "occurrence=f"]
    for name in ("frame.number", "ip.reassembled.length", "ipv6.reassembled.length"):
        command += ["-e", name]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    return [(int(frame), int(ipv4 or ipv6)) for frame, ipv4, ipv6 in rows]


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
@pytest.mark.parametrize("version", [4, 6])
def test_tshark_puts_the_same_datagrams_together(tmp_path: Path, version: int) -> None:
    drawn = random.Random(version)
    sent: list[Fragment] = []
    for at in range(200):
        pieces = fragments_of(drawn.randbytes(drawn.randrange(9, 400)), at, drawn.choice([8, 64, 128]), version)
        drawn.shuffle(pieces)
        sent += pieces[drawn.random() < 0.2 :]
    records = [struct.pack("<IIII", 1_700_000_000, at, len(frame), len(frame)) + frame
               for at, frame in enumerate(one.frame() for one in sent)]  # fmt: skip
    path = tmp_path / "fragments.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    found = put_together(path)
    assert len(found) > 100
    assert found == put_together_by_tshark(path)


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_puts_the_same_datagrams_of_real_captures_together() -> None:
    for path in sorted((CAPTURES / "ipv6-frag").iterdir()):
        assert put_together(path) == put_together_by_tshark(path), path.name


def test_datagram_is_the_one_that_was_taken_apart() -> None:
    payload = bytes(range(256)) * 20
    for version in (4, 6):
        pieces = fragments_of(payload, 9, 1480, version)
        batch = FrameBatch.from_frames([piece.frame() for piece in reversed(pieces)], [START_NS] * len(pieces))
        datagrams = Datagrams(is_known=True)
        assert datagrams.take(batch, batch.headers, 0, 0) == len(pieces)
        frames = datagrams.frames
        (offset,), (length,) = frames.column("offset").tolist(), frames.column("captured_length").tolist()
        packet = frames.data[offset : offset + length].tobytes()
        assert packet[20 if version == 4 else 40 :] == datagram_of(payload)
        assert datagrams.rows[0] == len(pieces) - 1
