"""Frames and capture files for the scenarios: frames are built with dpkt, files by the formats' own rules.

Nothing of uspcap is used: the samples are there to test it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import Any

import dpkt

MICROSECOND, MILLISECOND, SECOND = 10**3, 10**6, 10**9

MIDNIGHT_NS = 1_709_614_800 * SECOND
"""2024-03-05 00:00 in New York."""

OPEN_NS = 1_709_649_000 * SECOND
"""2024-03-05 14:30:00 UTC, 09:30 in New York, a Tuesday: when every sample begins."""

Truth = dict[str, Any]

SHORTEST_FRAME = 60
"""Ethernet's minimum without the FCS; shorter frames are padded on the wire."""


@dataclass(frozen=True)
class Host:
    """An end of a conversation; MAC addresses are locally administered, but for those of multicast groups."""

    mac: str
    ip: str

    @classmethod
    def multicast(cls, group: str) -> Host:
        """Return a multicast group with the MAC address that RFC 1112 gives it."""
        low = int(ip_address(group)) & 0x7FFFFF
        return cls(f"01:00:5e:{low >> 16:02x}:{low >> 8 & 255:02x}:{low & 255:02x}", group)


@dataclass(eq=False)
class Frame:
    """One frame of a capture; its number is known once the capture is in order."""

    timestamp_ns: int
    data: bytes
    interface: int = 0
    number: int = 0


@dataclass
class Capture:
    """Frames as they come to be, then in the order of a file."""

    interfaces: tuple[str, ...] = ("tap0",)
    frames: list[Frame] = field(default_factory=list)

    def add(self, timestamp_ns: int, data: bytes, interface: int = 0) -> Frame:
        """Append a frame, of any time."""
        self.frames.append(Frame(timestamp_ns, data, interface))
        return self.frames[-1]

    def order(self, held: tuple[Frame, ...] = ()) -> None:
        """Put frames in the order of time, then each of `held` behind its successor, and number them."""
        self.frames.sort(key=lambda frame: frame.timestamp_ns)
        for frame in held:
            at = self.frames.index(frame)
            if self.frames[at + 1].interface == frame.interface:
                raise ValueError("a held frame must be overtaken by one of another interface")
            self.frames[at : at + 2] = reversed(self.frames[at : at + 2])
        for number, frame in enumerate(self.frames, 1):
            frame.number = number


def ethernet(source: Host, destination: Host, transport: Any, identification: int, vlan: int | None = None) -> bytes:
    """Return a frame that carries a dpkt UDP, TCP or ICMP packet; dpkt fills in the checksums."""
    protocols = {
        dpkt.udp.UDP: dpkt.ip.IP_PROTO_UDP,
        dpkt.tcp.TCP: dpkt.ip.IP_PROTO_TCP,
        dpkt.icmp.ICMP: dpkt.ip.IP_PROTO_ICMP,
    }
    packet = dpkt.ip.IP(
        src=ip_address(source.ip).packed,
        dst=ip_address(destination.ip).packed,
        p=protocols[type(transport)],
        ttl=64,
        id=identification & 0xFFFF,
        df=1,
        data=transport,
    )
    packet.len = len(packet)
    addresses = bytes.fromhex((destination.mac + source.mac).replace(":", ""))
    tag = b"" if vlan is None else struct.pack("!HH", dpkt.ethernet.ETH_TYPE_8021Q, vlan)
    ethertype = struct.pack("!H", dpkt.ethernet.ETH_TYPE_IP)
    return (addresses + tag + ethertype + bytes(packet)).ljust(SHORTEST_FRAME, b"\0")


def udp(source_port: int, destination_port: int, payload: bytes) -> Any:
    """Return a UDP datagram."""
    return dpkt.udp.UDP(sport=source_port, dport=destination_port, ulen=8 + len(payload), data=payload)


def skewed(random: Random, most: int) -> int:
    """Return 0 to `most`, mostly little. Only `Random.random` promises the same numbers in every Python."""
    share = random.random()
    return int(most * share * share * share)


# Files


def pcap(capture: Capture) -> bytes:
    """Return a pcap file with nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)]
    for frame in capture.frames:
        seconds, nanoseconds = divmod(frame.timestamp_ns, SECOND)
        parts.append(struct.pack("<IIII", seconds, nanoseconds, len(frame.data), len(frame.data)) + frame.data)
    return b"".join(parts)


def pcapng(capture: Capture) -> list[bytes]:
    """Return the blocks of a pcapng file with nanoseconds: section, interfaces, then one a frame."""
    blocks = [_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(4, b"sample_captures/make.py"))]
    for name in capture.interfaces:
        options = _option(2, name.encode()) + _option(9, b"\x09")
        blocks.append(_block(1, struct.pack("<HHI", 1, 0, 262_144) + options))
    for frame in capture.frames:
        high, low = divmod(frame.timestamp_ns, 1 << 32)
        head = struct.pack("<IIIII", frame.interface, high, low, len(frame.data), len(frame.data))
        blocks.append(_block(6, head + _padded(frame.data)))
    return blocks


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def gap_between(before: Frame, after: Frame) -> Truth:
    """Return the truth about a gap, in the words of uspcap's reports."""
    return {
        "before_frame": before.number,
        "after_frame": after.number,
        "start_ns": before.timestamp_ns,
        "end_ns": after.timestamp_ns,
        "gap_ns": after.timestamp_ns - before.timestamp_ns,
    }
