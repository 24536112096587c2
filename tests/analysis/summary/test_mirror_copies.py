"""Packets that a mirror port duplicates: counted as a slow account counts them, wherever the capture is cut."""

from __future__ import annotations

import pickle
import random
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from support.capture_files import pcap_header, pcap_record

import uspcap
from uspcap.analysis.summary.analysis import Summary
from uspcap.analysis.summary.mirror_copies import WITHIN_FRAMES, WITHIN_NS, Copies
from uspcap.frames import FrameBatch

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Packet:
    """A UDP packet; `vlan` is None for none."""

    identification: int
    payload: bytes
    ttl: int = 64
    vlan: int | None = None

    def frame(self) -> bytes:
        udp = struct.pack("!HHHH", 4000, 5000, 8 + len(self.payload), 0) + self.payload
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), self.identification, 0, self.ttl, 17, 0)
        header += b"\xc0\0\2\1\xc0\0\2\2"
        tag = b"" if self.vlan is None else struct.pack("!HH", 0x8100, self.vlan)
        return bytes(12) + tag + b"\x08\0" + header + udp


def is_looked_at(packet: Packet) -> bool:
    return packet.identification > 0 and packet.identification * 40503 & 0xF000 == 0


def slow(packets: list[Packet], times_ns: list[int]) -> tuple[int, int, int, int]:
    """Return how many are compared, are copies, and have another TTL and VLAN then."""
    last: dict[tuple[int, bytes], int] = {}
    compared = copies = ttl = vlan = 0
    for at, packet in enumerate(packets):
        if not is_looked_at(packet):
            continue
        compared += 1
        before = last.get((packet.identification, packet.payload))
        if before is not None and at - before <= WITHIN_FRAMES and abs(times_ns[at] - times_ns[before]) <= WITHIN_NS:
            copies += 1
            ttl += packet.ttl != packets[before].ttl
            vlan += packet.vlan != packets[before].vlan
        last[packet.identification, packet.payload] = at
    return compared, copies, ttl, vlan


def slow_unidentified(packets: list[Packet], times_ns: list[int], looked_at: set[bytes]) -> tuple[int, int, int, int]:
    """Return the same of packets without an identification: the second of several near each other counts."""
    last: dict[bytes, tuple[int, bool]] = {}
    compared = copies = ttl = vlan = 0
    for at, packet in enumerate(packets):
        if packet.identification or packet.payload not in looked_at:
            continue
        compared += 1
        before, was_near = last.get(packet.payload, (-1, False))
        is_near = before >= 0 and at - before <= WITHIN_FRAMES and abs(times_ns[at] - times_ns[before]) <= WITHIN_NS
        if is_near and not was_near:
            copies += 1
            ttl += packet.ttl != packets[before].ttl
            vlan += packet.vlan != packets[before].vlan
        last[packet.payload] = at, is_near
    return compared, copies, ttl, vlan


def counted(
    packets: list[Packet], times_ns: list[int], cuts: list[int], batch_frames: int = 500, *, identified: bool = True
) -> Copies:
    frames = [packet.frame() for packet in packets]
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(frames)]):
        part = Copies(identified)
        for at in range(first, last, batch_frames):
            end = min(at + batch_frames, last)
            batch = FrameBatch.from_frames(frames[at:end], times_ns[at:end], first_frame_number=at - first + 1)
            part.update(batch, batch.headers, 0)
        parts.append((pickle.loads(pickle.dumps(part)), last - first))
    while len(parts) > 1:
        at = len(parts) // 2 - 1
        (one, many), (other, more) = parts[at], parts.pop(at + 1)
        one.absorb(other, many)
        parts[at] = one, many + more
    return parts[0][0]


def is_looked_at_without_identification(payload: bytes) -> bool:
    return bool(counted([Packet(0, payload)], [START_NS], [], identified=False).compared)


@pytest.mark.parametrize("seed", range(8))
def test_packets_without_identification_are_as_a_slow_account_has_them_whatever_the_cuts(seed: int) -> None:
    drawn = random.Random(seed)
    payloads = [drawn.randbytes(drawn.choice([1, 8, 11, 16, 100])) for _ in range(1_000)]
    looked_at = {payload for payload in payloads if is_looked_at_without_identification(payload)}
    assert 20 < len(looked_at) < 200
    often = sorted(looked_at)
    packets: list[Packet] = []
    for _ in range(6_000):
        if packets and drawn.random() < 0.3:
            one = packets[-drawn.choice([1, 1, 2, 3, 10, 1_000, 1_024, 1_025, 2_000]) % len(packets)]
            packets.append(Packet(0, one.payload, drawn.choice([64, 63]), drawn.choice([None, 7])))
        else:
            packets.append(Packet(drawn.choice([0, 0, 0, 5]), drawn.choice([drawn.choice(often), b"", payloads[0]])))
    at_ns, times_ns = START_NS, []
    for _ in packets:
        at_ns += drawn.choice([1_000] * 100 + [-50, WITHIN_NS, 40_000_000])
        times_ns.append(at_ns)
    expected = slow_unidentified(packets, times_ns, looked_at)
    assert expected[1] > 100
    for _ in range(6):
        cuts = [drawn.randrange(len(packets) + 1) for _ in range(drawn.randrange(4))]
        copies = counted(packets, times_ns, cuts, drawn.choice([1, 100, 4_096]), identified=False)
        assert (copies.compared, copies.copies, copies.ttl_changed, copies.vlan_changed) == expected, cuts


@pytest.mark.parametrize("seed", range(8))
def test_copies_are_as_a_slow_account_has_them_whatever_the_cuts(seed: int) -> None:
    drawn = random.Random(seed)
    looked_at = [one for one in range(1, 1 << 16) if one * 40503 & 0xF000 == 0]
    packets: list[Packet] = []
    for _ in range(6_000):
        if packets and drawn.random() < 0.3:
            one = packets[-drawn.choice([1, 1, 2, 3, 10, 1_000, 1_024, 1_025, 2_000]) % len(packets)]
            ttl, vlan = drawn.choice([(one.ttl, one.vlan), (one.ttl - 1, one.vlan), (one.ttl, drawn.choice([None, 7]))])
            packets.append(Packet(one.identification, one.payload, max(1, ttl), vlan))
        else:
            identification = drawn.choice([0, drawn.randrange(1 << 16), *drawn.sample(looked_at, 8)])
            packets.append(Packet(identification, drawn.randbytes(drawn.choice([0, 8, 100]))))
    at_ns, times_ns = START_NS, []
    for _ in packets:
        at_ns += drawn.choice([1_000] * 100 + [-50, WITHIN_NS, 40_000_000])
        times_ns.append(at_ns)
    expected = slow(packets, times_ns)
    for _ in range(6):
        cuts = [drawn.randrange(len(packets) + 1) for _ in range(drawn.randrange(4))]
        copies = counted(packets, times_ns, cuts, drawn.choice([1, 100, 4_096]))
        assert (copies.compared, copies.copies, copies.ttl_changed, copies.vlan_changed) == expected, cuts
        assert copies.within_ns(0.9) == counted(packets, times_ns, []).within_ns(0.9)


def summary_of(packets: list[Packet]) -> Summary:
    summary = Summary()
    times_ns = [START_NS + 2_000 * at for at in range(len(packets))]
    summary.update(FrameBatch.from_frames([packet.frame() for packet in packets], times_ns))
    return summary


def test_what_is_said_of_the_source_names_copies_of_a_mirror_port() -> None:
    packets = [Packet(1 + at // 2, bytes([at // 2 % 251]) * 40, 64 - at % 2) for at in range(2_000)]
    found = summary_of(packets).facts["mirror_copies"]
    assert 2 * found["copies"] == found["compared"]
    assert found["ttl_changed"] == found["copies"]
    assert (found["vlan_changed"], found["most_within_ns"]) == (0, 2048)


def test_few_packets_that_are_all_copied_are_named_and_a_few_copies_among_many_are_not() -> None:
    copied = [Packet(1 + at // 2, bytes([at // 2]) * 40) for at in range(200)]
    found = summary_of(copied).facts["mirror_copies"]
    assert (found["copies"], found["compared"]) == (6, 12)
    assert summary_of(copied + [Packet(1_000 + at, b"once") for at in range(1_000)]).facts["mirror_copies"] is None


@pytest.mark.parametrize("only", ["tcp", "summary"])
def test_every_report_says_first_that_packets_were_duplicated(tmp_path: Path, only: str) -> None:
    records = []
    for at in range(2_000):
        frame = Packet(1 + at // 2, bytes([at // 2 % 251]) * 40, 64 - at % 2).frame()
        records.append(pcap_record(1_700_000_000, 2_000 * at, frame))
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap_header(magic=0xA1B23C4D) + b"".join(records))
    text = " ".join(str(uspcap.analyze(path, only)).split())
    assert "[1] 50 % of the packets compared" in text
    assert "90 % of them within 2.048 µs, 100 % of these with another TTL: a mirror port" in text
    assert "count each copy; --dedup leaves copies out" in text
    assert "copies of one" not in " ".join(str(uspcap.analyze(path, only, dedup="1ms")).split())


def test_no_copies_are_named_where_packets_only_look_alike() -> None:
    assert summary_of([Packet(0, b"heartbeat") for _ in range(2_000)]).facts["mirror_copies"] is None
    assert summary_of([Packet(1 + at, b"heartbeat") for at in range(2_000)]).facts["mirror_copies"] is None


def test_packets_without_identification_that_all_come_in_pairs_are_named_as_what_they_may_be(tmp_path: Path) -> None:
    packets = [Packet(0, struct.pack("!QQ", 7, at // 2), 64 - at % 2) for at in range(2_000)]
    found = summary_of(packets).facts["mirror_copies"]
    assert (found["identified"], 2 * found["copies"]) == (False, found["compared"])
    records = [pcap_record(1_700_000_000, 2_000 * at, packet.frame()) for at, packet in enumerate(packets)]
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap_header(magic=0xA1B23C4D) + b"".join(records))
    text = " ".join(str(uspcap.analyze(path, "tcp")).split())
    assert "a loop, or a sender that repeats each of them" in text
    assert "--dedup leaves none of them out" in text


@pytest.mark.parametrize("every", [1, 3, 40])
def test_messages_that_a_sender_repeats_among_others_are_no_copies(every: int) -> None:
    packets = [Packet(0, b"heartbeat" if at % every == 0 else struct.pack("!Q", at)) for at in range(4_000)]
    assert summary_of(packets).facts["mirror_copies"] is None
