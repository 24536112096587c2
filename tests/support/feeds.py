"""A MoldUDP64 feed, and a plain one of packets, made up with what can happen to one; and a slow account of it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from uspcap.frames import FrameBatch

START_NS = 1_700_000_000_000_000_000
RESET_DISTANCE = 1000


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


@dataclass
class Slow:
    """What a dictionary of every number says of one session's packets, in their order."""

    seen: dict[int, int] = field(default_factory=dict)
    joined_at: int | None = None
    mark: int = 0
    lowest: int = 0
    late: int = 0
    duplicate: int = 0
    overlap: int = 0
    resets: int = 0
    before_joined: int = 0
    lost: int = 0
    gaps: list[tuple[int, int, int, int]] = field(default_factory=list)  # first, last, frames before and after
    _mark_frame: int = 0

    def take(self, packets: Iterable[tuple[int, Packet]]) -> None:
        """Take packets with their frame numbers."""
        for frame, packet in packets:
            begin, end = packet.sequence, packet.sequence + packet.count
            if self.joined_at is None:
                self.joined_at = self.mark = self.lowest = begin
            elif packet.count and begin <= 1 and self.mark - begin > RESET_DISTANCE:
                self._account()
                self.resets += 1
                self.seen.clear()
                self.mark = self.lowest = begin
            if begin > self.mark:
                self.gaps.append((self.mark, begin - 1, self._mark_frame, frame))
            old = range(begin, min(end, self.mark))
            early = [number for number in old if number < self.lowest]
            again = [number for number in old if number >= self.lowest and number in self.seen]
            late = [number for number in old if number >= self.lowest and number not in self.seen]
            self.before_joined += len(early)
            self.duplicate += len(again)
            self.late += len(late)
            self.overlap += bool(again) and (bool(late) or end > self.mark)
            self.seen.update(dict.fromkeys(range(begin, end), frame))
            if end >= self.mark:
                self.mark, self._mark_frame = end, frame

    def _account(self) -> None:
        self.lost += sum(number not in self.seen for number in range(self.lowest, self.mark))

    def finish(self) -> Slow:
        """Count what never came."""
        self._account()
        return self


@st.composite
def feeds(draw: st.DrawFn, *, plain: bool = False, most: int = 60) -> list[Packet]:
    """Draw the packets of one session: lost, late, double, overlapping, begun anew, with heartbeats between."""
    packets: list[Packet] = []
    at_ns = START_NS
    number = draw(st.sampled_from([1, 1, 77, 5_000]))
    held: list[tuple[int, Packet]] = []
    for step in range(draw(st.integers(0, most))):
        at_ns += draw(st.integers(1, 100_000))
        what = draw(
            st.sampled_from(["next"] * 8 + ["lose", "hold", "again", "overlap", "heartbeat", "jump", "anew", "drop"])
        )
        count = 1 if plain else draw(st.integers(1, 4))
        dropped = 0
        if what == "lose":
            number += count
        elif what == "jump":
            number += draw(st.integers(1, 3_000))
        elif what == "anew":
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
        if what in ("next", "lose", "jump", "anew", "drop"):
            packets.append(Packet(number, count, at_ns, dropped_before=dropped))
            number += count
        for due, packet in [one for one in held if one[0] <= step]:
            held.remove((due, packet))
            packets.append(Packet(packet.sequence, packet.count, at_ns))
    return packets
