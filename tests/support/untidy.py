"""Captures whose frames are to be put in order of time: all are different, and made in order."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

from support.capture_files import interface, option, packet, pcap_header, pcap_record, section

SECOND_NS = 10**9
BEGIN_NS = 1_700_000_000 * SECOND_NS
HOUR_NS = 3600 * SECOND_NS


def frame_of(flow: int, number: int, up: bool = True) -> bytes:
    """Ethernet, IPv4, UDP between two ports, with a number, so that no two frames are the same."""
    addresses = (b"\xc0\0\2\1", b"\xc0\0\2\2") if up else (b"\xc0\0\2\2", b"\xc0\0\2\1")
    ports = (5000 + flow, 6000) if up else (6000, 5000 + flow)
    payload = struct.pack("!Q", number).ljust(18 + number % 40, b"x")
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    network = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), number & 0xFFFF, 0, 64, 17, 0, *addresses)
    return bytes.fromhex("020000000002020000000001") + b"\x08\0" + network + udp + payload


def course(count: int, step_ns: int = 1_000_000, seed: int = 1) -> list[tuple[int, bytes]]:
    """Return frames of three flows, of which the times are all different and rise."""
    made = random.Random(seed)
    now = BEGIN_NS
    frames = []
    for number in range(count):
        now += made.randint(1, 2 * step_ns)
        frames.append((now, frame_of(number % 3, number, bool(number % 2))))
    return frames


def pcap(path: Path, frames) -> str:
    """Write a pcap file with nanoseconds; return its path."""
    path.write_bytes(
        pcap_header(magic=0xA1B23C4D)
        + b"".join(pcap_record(ns // SECOND_NS, ns % SECOND_NS, data) for ns, data in frames)
    )
    return str(path)


def pcapng(path: Path, sections) -> str:
    """Write sections, each a list of (time, frame, interface number); return the file's path."""
    nanoseconds = option(9, b"\x09")
    content = b""
    for frames in sections:
        count = 1 + max((number for _, _, number in frames), default=0)
        names = [option(2, f"if{number}".encode()) + nanoseconds for number in range(count)]
        content += section() + b"".join(interface(options=one) for one in names)
        content += b"".join(packet(ns, data, number) for ns, data, number in frames)
    path.write_bytes(content)
    return str(path)


def without_frame_numbers(value: Any) -> Any:
    """Return a result without what counts frames in the order of files."""
    if isinstance(value, dict):
        return {name: without_frame_numbers(each) for name, each in value.items() if not name.endswith("frame")}
    return [without_frame_numbers(each) for each in value] if isinstance(value, list) else value
