"""Probe frames as they come to the hook and as they leave it, by docs/probe.md and the program's own description."""

import socket
import struct

from support.probes import Frame

PORT = 7000
MARK = b"USPH"


def probe_payload(sequence: int = 0, intended_ns: int = 0, size: int = 64) -> bytes:
    """Return a probe as its sender makes it."""
    return Frame(session=7, sequence=sequence, intended_ns=intended_ns, actual_ns=intended_ns).wire(size)


def at_the_hook(payload: bytes, hook_ns: int, path: int) -> bytes:
    """Return a probe as the program leaves it."""
    return payload[:40] + struct.pack(">q4sI", hook_ns, MARK, path) + payload[56:]


def digest_of(payload: bytes, captured: int | None = None) -> int:
    """Return the digest by which other traffic is found again, by its description."""
    state = 0x9E3779B97F4A7C15 ^ len(payload)
    for at in range(0, min(64, len(payload), len(payload) if captured is None else captured) - 7, 8):
        (lane,) = struct.unpack_from("=Q", payload, at)
        state = (state ^ lane) * 0xD6E8FEB86659FD93 & (1 << 64) - 1
        state ^= state >> 32
    return state


def udp_frame(payload: bytes, *, port: int = PORT, checksum: int = 0xBEEF, protocol: int = 17, **fields: int) -> bytes:
    """Return an Ethernet frame; `fields` are `ether_type`, `version_length` and `fragment`."""
    ether_type = fields.get("ether_type", 0x0800)
    version_length = fields.get("version_length", 0x45)
    fragment = fields.get("fragment", 0)
    udp = struct.pack(">HHHH", 4000, port, 8 + len(payload), checksum)
    address = socket.inet_aton("192.0.2.1")
    network = struct.pack(
        ">BBHHHBBH4s4s", version_length, 0, 28 + len(payload), 0, fragment, 64, protocol, 0, address, address
    )
    return bytes(12) + struct.pack(">H", ether_type) + network + udp + payload
