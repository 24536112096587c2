"""Two captures of the same traffic of which everything is known: delays, losses, order, clocks, rewritten headers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.capture_files import pcap_header, pcap_record

NANOSECOND_MAGIC = 0xA1B23C4D
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Sent:
    """One frame, by the time that A timestamps it.

    Attributes
    ----------
    time_ns : int
        Since `START_NS`.
    payload : bytes
    delays_ns : tuple of int
        A copy reaches B after each of these; none where it is lost on the way.
    in_a : bool
        A has it.
    """

    time_ns: int
    payload: bytes
    delays_ns: tuple[int, ...] = (1000,)
    in_a: bool = True


@dataclass
class Clock:
    """B's clock: ahead of A's by so much at `START_NS`, and faster."""

    offset_ns: int = 0
    drift_ppb: float = 0.0

    def of(self, time_ns: int) -> int:
        return time_ns + self.offset_ns + round(time_ns * self.drift_ppb * 1e-9)


def udp(payload: bytes, *, ttl: int = 64, tos: int = 0, vlan: int | None = None, mac: int = 1, ip_id: int = 0) -> bytes:
    """A UDP frame; what a router rewrites can be chosen, and its checksums are then others too."""
    ethernet = bytes([2, 0, 0, 0, 0, mac]) + bytes([2, 0, 0, 0, 1, mac])
    ethernet += b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    total = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, tos, total, ip_id, 0, ttl, 17, ttl * 7, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    frame = ethernet + b"\x08\0" + ip + struct.pack("!HHHH", 3000, 30001, 8 + len(payload), ttl * 3) + payload
    # Short frames are padded on the wire.
    return frame.ljust(60, b"\0")


def tcp(payload: bytes, sequence: int, *, ttl: int = 64) -> bytes:
    ethernet = bytes(12) + b"\x08\0"
    total = 40 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0, ttl, 6, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    header = struct.pack("!HHIIBBHHH", 3000, 80, sequence, 1, 0x50, 0x18, 1000, ttl, 0)
    return ethernet + ip + header + payload


@dataclass
class Truth:
    """What a comparison must find.

    Attributes
    ----------
    delays_ns : dict of int to int
        B's frame number to its delay, of frames that are matched; clocks not counted.
    order : list of int
        A's frame numbers as they arrive at B.
    """

    only_a: int = 0
    only_b: int = 0
    duplicate_b: int = 0
    delays_ns: dict[int, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)


def write_capture(path: Path, frames: Sequence[tuple[int, bytes]]) -> None:
    """Write a pcap in ns of timestamps and frames."""
    records = (pcap_record(*divmod(timestamp, 10**9), data) for timestamp, data in frames)
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))


def write_pair(directory: Path, sent: Sequence[Sent], clock: Clock | None = None) -> tuple[Path, Path, Truth]:
    """Write A and B, rewritten on the way as by a router, and return what is true of them.

    Frames of A are in the order given, those of B in the order of their timestamps.
    """
    clock = clock or Clock()
    truth = Truth()
    numbers: dict[int, int] = {}
    a = []
    arrivals = []
    for index, one in enumerate(sent):
        if one.in_a:
            a.append((START_NS + one.time_ns, udp(one.payload)))
            numbers[index] = len(a)
            truth.only_a += not one.delays_ns
        for copy, delay_ns in enumerate(sorted(one.delays_ns)):
            arrivals.append((one.time_ns + delay_ns, copy, index, delay_ns))
    arrivals.sort()
    b = []
    for arrival_ns, copy, index, delay_ns in arrivals:
        data = udp(sent[index].payload, ttl=61, tos=0x02, vlan=7, mac=9)
        b.append((START_NS + clock.of(arrival_ns), data))
        if not sent[index].in_a:
            truth.only_b += 1
        elif copy:
            truth.duplicate_b += 1
        else:
            truth.delays_ns[len(b)] = delay_ns
            truth.order.append(numbers[index])
    paths = directory / "a.pcap", directory / "b.pcap"
    write_capture(paths[0], a)
    write_capture(paths[1], b)
    return *paths, truth
