"""Frames that are the same in every run, of every length, and what came of them: compared byte by byte."""

from __future__ import annotations

import errno
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dpkt

from rig.guests import RECEIVER_MAC, SENDER_MAC

SHORTEST: Final = 60
"""Without the check sequence; what is shorter is padded on the way."""

ETHERNET_BYTES: Final = 14
PORT: Final = 7000

_NOISE: Final = random.Random(13).randbytes(1 << 17)


def mac_bytes(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def frame(
    number: int,
    length: int,
    *,
    tags: Sequence[int] = (),
    destination: str = RECEIVER_MAC,
    source: str = SENDER_MAC,
    port: int = PORT,
) -> bytes:
    """Return an Ethernet frame of IPv4 and UDP; no two of one run are the same.

    Parameters
    ----------
    number : int
        Stands in the payload, and decides its bytes.
    length : int
        Of the whole frame, tags included, in bytes; at least `SHORTEST`.
    tags : sequence of int
        VLAN identifiers, outermost first; of two the outer one is an 802.1ad tag.
    """
    head = mac_bytes(destination) + mac_bytes(source)
    for place, vlan in enumerate(tags):
        head += struct.pack("!HH", 0x88A8 if len(tags) > 1 and place == 0 else 0x8100, vlan)
    head += struct.pack("!H", 0x0800)
    room = length - len(head)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, room, number & 0xFFFF, 0, 64, 17, 0, bytes((10, 9, 0, 1)), bytes((10, 9, 0, 2))
    )
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    udp = struct.pack("!HHHH", 7001, port, room - 20, 0)
    payload = room - 28
    if payload < 4:
        raise ValueError(f"a frame of {length} bytes with {len(tags)} tags has no room for its number")
    begin = number * 7919 % (len(_NOISE) // 2)
    return head + ip + udp + struct.pack("!I", number) + _NOISE[begin : begin + payload - 4]


def of_every_length(longest: int, tags: Sequence[int] = (), first: int = 0, step: int = 1) -> list[bytes]:
    """Return a frame of each length from `SHORTEST` to `longest`; lengths come in a fixed random order."""
    shortest = max(SHORTEST, ETHERNET_BYTES + 4 * len(tags) + 32)
    lengths = list(range(shortest, longest + 1, step))
    if lengths[-1] != longest:
        lengths.append(longest)
    random.Random(longest).shuffle(lengths)
    return [frame(first + place, length, tags=tags) for place, length in enumerate(lengths)]


def read_frames(path: Path) -> list[bytes]:
    """Return the frames of a pcap file, as another reader than uspcap's has them."""
    with path.open("rb") as file:
        return [bytes(data) for _, data in dpkt.pcap.Reader(file)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How frames that were written compare with those that were sent.

    Attributes
    ----------
    exact, missing, other : int
        Written byte by byte as they were sent; sent and not written; written and never sent so.
    lengths_missing : list of int
    first_other : str
        Beginning of one of the others, in hexadecimal.
    """

    exact: int
    missing: int
    other: int
    lengths_missing: list[int]
    first_other: str = ""

    @property
    def all_exact(self) -> bool:
        return not self.missing and not self.other

    def __str__(self) -> str:
        said = f"{self.exact} exact, {self.missing} missing, {self.other} other"
        if self.lengths_missing:
            said += f"; lengths missing {self.lengths_missing[0]} to {self.lengths_missing[-1]}"
        if self.first_other:
            said += f"; one of the others begins with {self.first_other}"
        return said


def compare(sent: Iterable[bytes], written: Iterable[bytes]) -> Outcome:
    """Compare two multisets of frames; the order does not count."""
    expected, there = Counter(sent), Counter(written)
    missing, other = expected - there, there - expected
    return Outcome(
        (expected & there).total(),
        missing.total(),
        other.total(),
        sorted(len(data) for data in missing.elements()),
        next(iter(other), b"")[:40].hex(),
    )


def send(interface: str, frames: Sequence[bytes], *, burst: int = 32, pause_s: float = 0.0) -> int:
    """Send frames from an interface of the calling thread's namespace; return how many the kernel took.

    Between bursts a pause of `pause_s`; where the device's queue is full, sending waits for room.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((interface, 0))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        taken = 0
        for number, data in enumerate(frames):
            if pause_s and number and number % burst == 0:
                time.sleep(pause_s)
            while True:
                try:
                    taken += link.send(data) == len(data)
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    time.sleep(0.001)
        return taken


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
