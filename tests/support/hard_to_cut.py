"""Capture files that are hard to cut into parts: payloads that look like records, damage, late descriptions."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from support.capture_files import block, interface, option, packet, pcap_header, pcap_record, section
from support.streams import START_NS, Frame, seeded_stream

from uspcap.formats.pcap import MICROSECOND_MAGIC, NANOSECOND_MAGIC


def pcap_record_of(timestamp_ns: int, data: bytes, order: str = "<", nanosecond: bool = True) -> bytes:
    second, fraction = divmod(timestamp_ns, 10**9)
    return pcap_record(second, fraction if nanosecond else fraction // 1000, data, order=order)


def pcap_header_of(order: str = "<", nanosecond: bool = True) -> bytes:
    return pcap_header(order, NANOSECOND_MAGIC if nanosecond else MICROSECOND_MAGIC)


def pcap_file(frames: Sequence[Frame], order: str = "<", nanosecond: bool = True) -> bytes:
    records = (pcap_record_of(frame.timestamp_ns, frame.wire(), order, nanosecond) for frame in frames)
    return pcap_header_of(order, nanosecond) + b"".join(records)


def named_interface(
    order: str = "<", *, name: str = "eth0", resolution: int = 9, link_type: int = 1, offset_s: int = 0
) -> bytes:
    options = option(2, name.encode(), order) + option(9, bytes([resolution]), order)
    options += option(14, struct.pack(order + "q", offset_s), order) + option(0, b"", order)
    return interface(order, link_type, options=options)


def statistics(drops: int) -> bytes:
    """Return an interface statistics block of interface 0."""
    return block(5, bytes(12) + option(5, struct.pack("<Q", drops)) + option(0, b""))


def packets(frames: Sequence[Frame], order: str = "<", *, of: int = 0) -> list[bytes]:
    return [packet(frame.timestamp_ns, frame.wire(), of, order=order) for frame in frames]


def pcapng_file(frames: Sequence[Frame], order: str = "<") -> bytes:
    return section(order) + named_interface(order) + b"".join(packets(frames, order))


def holding(frame: Frame, payload: bytes) -> bytes:
    """Return a frame whose UDP payload is `payload`; it starts at byte 44, so that blocks in blocks are aligned."""
    return Frame(frame.timestamp_ns, 44 + len(payload), frame.flow or 1).wire()[:44] + payload


def mimicking_pcap(frames: Sequence[Frame]) -> bytes:
    """Return a pcap file most of whose bytes are payloads that look like runs of pcap records."""
    fake = b"".join(pcap_record_of(START_NS + at, bytes(at % 3)) for at in range(2000))
    return pcap_header_of() + b"".join(pcap_record_of(frame.timestamp_ns, holding(frame, fake)) for frame in frames)


def mimicking_pcapng(frames: Sequence[Frame]) -> bytes:
    """Return the same in pcapng, with packet blocks that name an interface that is there."""
    fake = b"".join(packet(START_NS + at, bytes(at % 3)) for at in range(1000))
    return (
        section() + named_interface() + b"".join(packet(frame.timestamp_ns, holding(frame, fake)) for frame in frames)
    )


def leading_on(frames: Sequence[Frame]) -> bytes:
    """Return a pcap file whose frames end in a record header that reaches exactly to the next true record."""
    records = []
    for frame in frames:
        data = frame.wire()
        tail = struct.pack("<IIII", frame.timestamp_ns // 10**9, 7, 40, 40) + bytes(40)
        records.append(pcap_record_of(frame.timestamp_ns, data + tail))
    return pcap_header_of() + b"".join(records)


@dataclass(frozen=True)
class Case:
    """A file and how many frames are to be read from it."""

    content: bytes
    frames: int


def overwritten(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def _starts(parts: Sequence[bytes]) -> list[int]:
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part)
    return starts


def cases() -> dict[str, Case]:
    """Return files that are hard to cut, by name."""
    frames = seeded_stream(70, 3_000, flows=12)
    few = frames[:61]
    every = len(frames)
    found = {
        "pcap": Case(pcap_file(frames), every),
        "pcap, big endian, us": Case(pcap_file(frames, ">", False), every),
        "pcapng": Case(pcapng_file(frames), every),
        "pcapng, big endian": Case(pcapng_file(frames, ">"), every),
        "pcap in pcap": Case(mimicking_pcap(few), len(few)),
        "pcapng in pcapng": Case(mimicking_pcapng(few), len(few)),
        "pcap, false records that lead to true ones": Case(leading_on(frames), every),
        "pcap, truncated": Case(pcap_file(frames)[:-17], every - 1),
        "pcapng, truncated": Case(pcapng_file(frames)[:-17], every - 1),
        "pcap, no frame": Case(pcap_header_of(), 0),
        "pcapng, no frame": Case(section() + named_interface(), 0),
    }
    records = [pcap_header_of(), *(pcap_record_of(frame.timestamp_ns, frame.wire()) for frame in frames)]
    starts, plain = _starts(records), b"".join(records)
    head, blocks = section() + named_interface(), packets(frames)
    block_starts, plain_blocks = _starts([head, *blocks]), head + b"".join(blocks)
    for share in (1, 3, 5, 7):
        at = every * share // 8
        found[f"pcap, damaged at {share}/8"] = Case(overwritten(plain, starts[at] + 8, b"\xff" * 4), at - 1)
        found[f"pcapng, one packet damaged at {share}/8"] = Case(
            overwritten(plain_blocks, block_starts[at] + len(blocks[at - 1]) - 4, b"\xff\xff\0\0"), every - 1
        )
        found[f"pcapng, lost at {share}/8"] = Case(overwritten(plain_blocks, block_starts[at] + 4, b"\x07"), at - 1)
    found["pcapng, an interface described late"] = Case(
        head
        + b"".join(blocks[:1700])
        + named_interface(name="eth1", link_type=101)
        + b"".join(packets(frames[1700:1710], of=1) + blocks[1710:]),
        every,
    )
    found["pcapng, sections in both orders"] = Case(
        head + b"".join(blocks[:900]) + pcapng_file(frames[900:2000], ">") + pcapng_file(frames[2000:]), every
    )
    found["pcapng, drops counted again and again"] = Case(
        head
        + b"".join(statistics(at) + b"".join(blocks[at : at + 200]) for at in range(0, every // 2, 200))
        + b"".join(blocks[every // 2 + 100 :]),
        every,
    )
    fine = [max(frame.timestamp_ns - START_NS, 0) * 1000 + 7 for frame in frames]
    found["pcapng, finer than ns"] = Case(
        section()
        + named_interface(resolution=12, offset_s=START_NS // 10**9)
        + b"".join(packet(ticks, frame.wire()) for ticks, frame in zip(fine, frames, strict=True)),
        every,
    )
    found["pcapng, timestamps beyond the range"] = Case(
        head + b"".join(packet(1 << 63, frame.wire()) + one for frame, one in zip(frames, blocks, strict=True)),
        2 * every,
    )
    short = packets([Frame(START_NS + at, 60, 1) for at in range(9_000)])
    wrong = [overwritten(one, len(one) - 4, b"\xff\xff\0\0") if at % 80 == 9 else one for at, one in enumerate(short)]
    found["pcapng, more problems than are listed"] = Case(head + b"".join(wrong), 9_000 - 113)
    return found
