"""Frames of requests and responses: UDP in IPv4 with any payload."""

from __future__ import annotations

import ipaddress
import struct


def udp(
    source_port: int,
    destination_port: int,
    payload: bytes,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
) -> bytes:
    """Ethernet, IPv4, UDP, and the payload, without padding."""
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0) + addresses
    header = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0)
    return bytes.fromhex("0200000000020200000000010800") + ip + header + payload
