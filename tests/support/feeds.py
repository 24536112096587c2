"""A MoldUDP64 feed, and a plain one of packets, made up with what can happen to one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st
from support.slow_numbers import Arrival

from uspcap.frames import FrameBatch

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Packet:
    """One packet of a feed: its number, how many messages it has (0: a heartbeat), when it came, on which line."""

    sequence: int
    count: int
    at_ns: int
    session: bytes = b"SESSION001"
    dropped_before: int = 0
    line: int = 0

    def mold(self) -> bytes:
        return struct.pack("!10sQH", self.session, self.sequence, self.count) + b"\0\1x" * self.count

    def arrival(self, frame: int) -> Arrival:
        """What it says of its stream's numbers, in the frame of that number."""
        kind = "data" if self.count else "next"
        return Arrival(kind, self.sequence, self.sequence + self.count, frame, self.at_ns)

    def plain(self) -> bytes:
        """Packets that count themselves, with the number in four bytes at 4."""
        return struct.pack("!4sI", self.session[:4], self.sequence & 0xFFFFFFFF)


def frame_of(payload: bytes, line: int = 0) -> bytes:
    """Return Ethernet, IPv4 and UDP around a payload: to 233.252.0.1:30001, and each further line one above."""
    group = bytes([233, 252, 0, 1 + line])
    udp = struct.pack("!HHHH", 30000, 30001 + line, 8 + len(payload), 0)
    network = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 8, 17, 0, b"\xc0\0\2\1", group)
    return bytes.fromhex("01005e7c0001020000000001") + b"\x08\0" + network + udp + payload


def batch_of(packets: list[Packet], first_number: int = 1, *, plain: bool = False) -> FrameBatch:
    """Return a batch of packets."""
    batch = FrameBatch.from_frames(
        [frame_of(packet.plain() if plain else packet.mold(), packet.line) for packet in packets],
        [packet.at_ns for packet in packets],
        first_frame_number=first_number,
    )
    batch.storage("drop_count")[: len(packets)] = [packet.dropped_before for packet in packets]
    return batch


@st.composite
def feeds(draw: st.DrawFn, *, plain: bool = False, most: int = 60) -> list[Packet]:
    """Draw the packets of one session: lost, late, double, overlapping, restarted, with heartbeats between."""
    packets: list[Packet] = []
    at_ns = START_NS
    number = draw(st.sampled_from([1, 1, 77, 5_000]))
    held: list[tuple[int, Packet]] = []
    for step in range(draw(st.integers(0, most))):
        at_ns += draw(st.integers(1, 100_000))
        what = draw(
            st.sampled_from(
                ["next"] * 8
                + ["lose", "hold", "again", "overlap", "heartbeat", "jump", "restart", "drop", "leap", "stray", "stray"]
            )
        )
        count = 1 if plain else draw(st.integers(1, 4))
        dropped = 0
        if what == "lose":
            number += count
        elif what == "jump":
            number += draw(st.integers(1, 3_000))
        elif what == "leap":
            number += draw(st.integers(2_990, 100_000))
        elif what == "stray":
            # Where it leads, some of its neighbours may lead as well.
            far = draw(st.sampled_from([1 << 20, 1 << 31] if plain else [1 << 20, 1 << 31, 1 << 63, (1 << 64) - 200]))
            stray = far + draw(st.integers(0, 120))
            packets.append(Packet(stray, draw(st.sampled_from([count, count if plain else 0])), at_ns))
        elif what == "restart":
            number = draw(st.sampled_from([1, 1, number]))
        elif what == "drop":
            number += count
            dropped = draw(st.integers(1, 3))
        elif what == "hold":
            held.append((step + draw(st.integers(1, 10)), Packet(number, count, 0)))
            number += count
        elif what == "again" and packets:
            old = draw(st.sampled_from(packets[-10:]))
            packets.append(Packet(old.sequence, old.count, at_ns))
        elif what == "overlap" and not plain:
            packets.append(Packet(max(1, number - draw(st.integers(1, 3))), draw(st.integers(1, 6)), at_ns))
            number = max(number, packets[-1].sequence + packets[-1].count)
        elif what == "heartbeat" and not plain:
            packets.append(Packet(number, 0, at_ns))
        if what in ("next", "lose", "jump", "restart", "drop", "leap"):
            packets.append(Packet(number, count, at_ns, dropped_before=dropped))
            number += count
        for due, packet in [one for one in held if one[0] <= step]:
            held.remove((due, packet))
            packets.append(Packet(packet.sequence, packet.count, at_ns))
    return packets
