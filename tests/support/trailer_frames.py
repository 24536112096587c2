"""Frames with the timestamps of taps and switches, byte by byte; and a plain reader of them to compare with."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from support.guarded_page import GuardedBytes

from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.timestamps.trailer_decoding import TrailerRows
from uspcap.timestamps.trailers import FORMATS

SECOND = 1_700_000_000
FILE_NS = SECOND * 10**9 + 123_456_789
MACS = bytes.fromhex("020000000002020000000001")
FCS = b"\xde\xad\xbe\xef"
NEW_FCS = b"\x12\x34\x56\x78"


def plain(payload: int = 30, *, vlans: int = 0, version: int = 4, fill: int = 0xA5) -> bytes:
    """Ethernet, tags, IP, UDP, as it was sent: padded to 60 bytes."""
    udp = struct.pack("!HHHH", 4000, 5000, 8 + payload, 0) + bytes([fill]) * payload
    if version == 4:
        network = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(8))
    else:
        network = struct.pack("!IHBB32s", 6 << 28, len(udp), 17, 64, bytes(32))
    tags = b"".join(b"\x81\x00" + struct.pack("!H", 14 + at) for at in range(vlans))
    ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return (MACS + tags + ethertype + network + udp).ljust(60, b"\0")


def arp() -> bytes:
    return (MACS + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20)).ljust(60, b"\0")


def tlv(tag: int, data: bytes, *, last: bool = False) -> bytes:
    """One Metamako TLV: three bytes of data or more words of it, then the byte with tag, length and the last flag."""
    assert len(data) % 4 == 3
    return data + bytes([tag | last << 5 | len(data) // 4 << 6])


def long_tlv(tag: int, data: bytes, *, last: bool = False) -> bytes:
    assert len(data) % 4 == 0
    return data + struct.pack("!I", (tag - 0x1F) << 16 | (len(data) // 4 - 1) << 6 | last << 5 | 0x1F)


def metamako(
    ns: int, *, device: int = 165, port: int = 14, flags: int = 1, tlvs: bytes = b"", fcs: bool = True
) -> bytes:
    second, fraction = divmod(ns, 10**9)
    tail = struct.pack("!IIBHB", second, fraction, flags | (2 if tlvs else 0), device, port)
    return FCS + tlvs + tail + (NEW_FCS if fcs else b"")


def exablaze(second: int, fraction: int, *, device: int = 3, port: int = 7, fcs: bool = True) -> bytes:
    tail = bytes([device, port]) + struct.pack("!I", second) + fraction.to_bytes(5, "big") + b"\0"
    return FCS + tail + (NEW_FCS if fcs else b"")


def exablaze_fraction(ns: int) -> int:
    """The 40-bit fraction of a second that is `ns` once it is rounded down to whole ns."""
    return -(-(ns % 10**9 << 40) // 10**9)


def vss(ns: int, *, source: int = 2, port: bytes = b"\x09", fcs: bool = False) -> bytes:
    second, fraction = divmod(ns, 10**9)
    return struct.pack("!II", second, source << 30 | fraction) + port + (NEW_FCS if fcs else b"")


def expcap(second: int, picoseconds: int, *, device: int = 1, port: int = 2, flags: int = 0, dropped: int = 0) -> bytes:
    return (
        struct.pack("<I", second)
        + picoseconds.to_bytes(5, "little")
        + bytes([flags, device, port])
        + struct.pack("<HH", dropped, 0)
    )


def with_arista(frame: bytes, second: int, ns: int, version: int, *, tags: int = 0) -> bytes:
    """The header behind the MACs and perhaps tags; of seconds as many bits as the version says."""
    place = 12 + 4 * tags
    timestamp = struct.pack("!I", second) if version >> 4 & 15 == 1 else struct.pack("!H", second & 0xFFFF)
    return frame[:place] + struct.pack("!HHH", 0xD28B, 1, version) + timestamp + struct.pack("!I", ns) + frame[place:]


@dataclass(frozen=True)
class Timestamped:
    """A frame as a capture has it, and what is to come of it."""

    format: str
    captured: bytes
    wire_length: int
    timestamp_ns: int
    left: bytes
    wire_left: int

    def batch(self, file_ns: int = FILE_NS) -> FrameBatch:
        return FrameBatch.from_frames([self.captured], [file_ns], wire_lengths=[self.wire_length])


def timestamped(kind: str, frame: bytes, ns: int, *, fcs: bool = True) -> Timestamped:
    """A frame with a timestamp of one format at a time in whole ns."""
    second, fraction = divmod(ns, 10**9)
    if kind == "arista":
        whole = with_arista(frame, second, fraction, 0x0110)
        return Timestamped(kind, whole, len(whole), ns, frame, len(frame))
    if kind == "expcap":
        whole = frame + expcap(second, fraction * 1000)
        return Timestamped(kind, whole, len(frame), ns, frame, len(frame))
    made = {
        "metamako": lambda: metamako(ns, fcs=fcs),
        "exablaze": lambda: exablaze(second, exablaze_fraction(fraction), fcs=fcs),
        "vss": lambda: vss(ns, fcs=fcs),
    }[kind]()
    whole = frame + made
    return Timestamped(kind, whole, len(whole), ns, frame, len(frame))


@st.composite
def timestamped_frames(draw: st.DrawFn) -> Timestamped:
    """Any format behind any plain frame."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    frame = draw(
        st.one_of(
            st.builds(
                plain,
                st.integers(0, 200),
                vlans=st.integers(0, 2),
                version=st.sampled_from([4, 6]),
                fill=st.integers(0, 255),
            ),
            st.just(arp()),
        )
    )
    ns = FILE_NS + draw(st.integers(-(10**9), 10**9))
    return timestamped(kind, frame, ns, fcs=draw(st.booleans()))


def exact_exablaze_ns(second: int, fraction: int) -> tuple[int, bool]:
    """Whole ns of an Exablaze timestamp, and whether there was something below."""
    exact = Fraction(fraction * 10**9, 1 << 40)
    return second * 10**9 + int(exact), exact.denominator != 1


def look_at_the_end_of_memory() -> int:
    """Look at frames that end where memory does, cut after every byte; return how many were looked at."""
    frames = [
        timestamped(kind, frame, FILE_NS).captured
        for kind in sorted(FORMATS)
        for frame in (plain(3), plain(40, vlans=2), plain(9, version=6), arp())
    ]
    frames.append(plain(3) + metamako(FILE_NS, tlvs=tlv(1, b"\0\1\2") + tlv(2, bytes(11), last=True)))
    frames.append(MACS + b"\x81\x00\x00\x01" * 12)
    guarded, count = GuardedBytes(4096), 0
    for frame in frames:
        batch = FrameBatch(2)
        batch.set_interfaces([Interface(link_type=1)])
        batch.set_data(guarded.array)
        for length in range(len(frame) + 1):
            start = guarded.size - length
            for kind in FORMATS.values():
                guarded.array[start:] = np.frombuffer(frame, np.uint8, length)
                batch.count = 2
                batch.storage("timestamp_ns")[:] = FILE_NS
                batch.storage("timestamp_source")[:] = TimestampSource.FILE
                batch.storage("offset")[:] = start
                batch.storage("captured_length")[:] = length
                batch.storage("wire_length")[:] = len(frame), length
                batch.refilled()
                rows = TrailerRows(2)
                rows.look(batch, batch.headers, kind)
                count += 2
    return count
