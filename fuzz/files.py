"""Capture files of every format as lists of records, with headers and options from the edges of their fields."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import zlib
from random import Random
from typing import Any

import lz4.frame
import packets
import zstandard
from support.capture_files import block, interface, option, packet, pcap_header, pcap_record, section
from values import number, timestamps

from uspcap.formats import open_capture
from uspcap.frames import FrameBatch

DIRECTORY = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"  # noqa: PTH112


def _frame(random: Random) -> bytes:
    return random.choice((b"", bytes(60), packets.layered(random)[1], random.randbytes(random.randrange(90))))


def pcap_pieces(random: Random) -> list[bytes]:
    """Return a pcap file as its header and records."""
    order = random.choice("<>")
    magic = random.choice((0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34))
    version = random.choice(((2, 4), (2, 4), (2, 4), (2, 3), (2, 2), (1, 0), (number(random, 16), number(random, 16))))
    link_type = random.choice((*packets.LINK_TYPES, number(random, 32)))
    snaplen = random.choice((262144, 65535, 0, number(random, 31)))
    pieces = [pcap_header(order, magic, version, snaplen, link_type)]
    for at in timestamps(random, random.choice((0, 1, 2, random.randrange(20)))):
        data = _frame(random)
        second, fraction = divmod(at, 10**9)
        if random.random() < 0.2:
            second, fraction = number(random, 32), number(random, 32)
        extra = bytes(8) if magic == 0xA1B2CD34 else b""
        wire = len(data) if random.random() < 0.9 else number(random, 32)
        record = pcap_record(second & 0xFFFFFFFF, fraction & 0xFFFFFFFF, data, wire, order, extra)
        if random.random() < 0.05:
            record = record[:8] + struct.pack(order + "I", number(random, 32)) + record[12:]
        pieces.append(record)
    if random.random() < 0.1:
        pieces += pcap_pieces(random)
    return pieces


def _options(random: Random, order: str, codes: tuple[int, ...]) -> bytes:
    made = b""
    for _ in range(random.choice((0, 0, 1, 3))):
        length = random.choice((0, 1, 4, 8, random.randrange(40)))
        value = random.choice((random.randbytes(length), bytes(length), b"eth0"))
        if random.random() < 0.1:
            made += struct.pack(order + "HH", random.choice(codes), number(random, 16))
        else:
            made += option(random.choice((*codes, 0, 1, number(random, 16))), value, order)
    return made + random.choice((b"", option(0, b"", order)))


def _interface(random: Random, order: str) -> bytes:
    made = b""
    if random.random() < 0.6:
        made += option(
            9, bytes([random.choice((0, 3, 6, 9, 9, 12, 19, 20, 127, 128, 0x80 | 30, 191, 192, 255))]), order
        )
    if random.random() < 0.3:
        made += option(14, struct.pack(order + "q", number(random, 64, signed=True)), order)
    if random.random() < 0.2:
        made += option(random.choice((8, 13, 2, 11)), random.randbytes(random.choice((1, 4, 8))), order)
    return interface(
        order,
        random.choice((*packets.LINK_TYPES, number(random, 16))),
        random.choice((0, 0, 64, number(random, 32))),
        made + _options(random, order, (2, 3, 8, 9, 11, 12, 13, 14, 15)),
    )


def pcapng_pieces(random: Random) -> list[bytes]:
    """Return a pcapng file as its blocks."""
    order = random.choice("<>")
    version = random.choice(((1, 0),) * 9 + ((1, 2), (2, 0)))
    length = random.choice((-1, -1, number(random, 63)))
    pieces = [section(order, version, length, _options(random, order, (2, 3, 4)))]
    pieces += [_interface(random, order) for _ in range(random.choice((0, 1, 1, 1, 3)))]
    for at in timestamps(random, random.choice((0, 1, 2, random.randrange(20)))):
        kind = random.random()
        ticks = random.choice((at, at // 1000, number(random, 64))) % (1 << 64)
        data = _frame(random)
        which = random.choice((0, 0, 0, 1, 2, number(random, 32)))
        wire = random.choice((None, None, number(random, 32)))
        options = _options(random, order, (2, 3, 4, 5, 6, 7))
        if kind < 0.6:
            captured = None if random.random() < 0.95 else number(random, 32)
            pieces.append(packet(ticks, data, which, wire, order, options, captured))
        elif kind < 0.7:
            pieces.append(block(3, struct.pack(order + "I", len(data) if wire is None else wire) + data, order))
        elif kind < 0.78:
            fields = which % (1 << 16), number(random, 16), ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)
            body = struct.pack(order + "HHIIII", *fields) + data + bytes(-len(data) % 4) + options
            pieces.append(block(2, body, order))
        elif kind < 0.84:
            counts = option(random.choice((4, 5, 6, 7, 8)), struct.pack(order + "Q", number(random, 64)), order)
            body = struct.pack(order + "III", which, ticks >> 32, ticks & 0xFFFFFFFF) + counts + options
            pieces.append(block(5, body, order))
        elif kind < 0.88:
            pieces.append(_interface(random, order))
        elif kind < 0.92:
            order = random.choice("<>")
            pieces += [section(order), _interface(random, order)]
        elif kind < 0.96:
            pieces.append(block(random.choice((4, 7, 10, 0xBAD, number(random, 32))), data, order))
        else:
            lengths = number(random, 32), number(random, 32)
            pieces.append(block(random.choice((1, 3, 5, 6)), data, order, *lengths))
    if random.random() < 0.1:
        pieces += pcapng_pieces(random)
    return pieces


def compressed(random: Random, content: bytes) -> bytes:
    """Return content in one of the compressions, in one member or several, perhaps with something behind."""
    kind = random.randrange(6)
    at = random.randrange(len(content) + 1)
    pieces = random.choice(([content], [content[:at], content[at:]]))
    if kind == 0:
        made = b"".join(gzip.compress(piece, 1) for piece in pieces)
    elif kind == 1:
        checks = (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256)
        made = b"".join(lzma.compress(piece, check=random.choice(checks), preset=0) for piece in pieces)
    elif kind == 2:
        made = b"".join(lz4.frame.compress(piece, content_checksum=random.random() < 0.5) for piece in pieces)
    elif kind == 3:
        made = random.choice((bz2.compress(content), zlib.compress(content), lzma.compress(content, lzma.FORMAT_ALONE)))
    else:
        with_checksum = random.random() < 0.5
        made = b"".join(
            zstandard.ZstdCompressor(level=1, write_checksum=with_checksum).compress(piece) for piece in pieces
        )
        if random.random() < 0.2:
            made += struct.pack("<II", 0x184D2A50 + random.randrange(16), 5) + b"skip!"
    return made + random.choice((b"", b"", b"\0", bytes(40), random.randbytes(9)))


def written(content: bytes, name: str = "input") -> str:
    """Write a file into memory and return its path; the next one of the name takes its place."""
    path = f"{DIRECTORY}/uspcap-fuzz-{os.getpid()}-{name}"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
    return path


def read(path: str) -> tuple[int, list[Any]]:
    """Read a capture to its end, and let all that can be taken from its frames be taken; return frames and problems."""
    frames = 0
    with open_capture(path) as reader:
        for batch in reader.batches():
            assert batch.frames_read >= batch.count
            frames += batch.count
            check_columns(batch)
        return frames, reader.facts.all_problems(path)


def check_columns(batch: FrameBatch) -> None:
    """Raise where a row points outside its buffer."""
    starts, lengths = batch.offset, batch.captured_length
    assert ((starts >= 0) & (starts + lengths <= len(batch.data))).all(), "a frame lies outside the buffer"
    options, sizes = batch.column("options_offset"), batch.column("options_length")
    inside = (options >= 0) & (options + sizes <= len(batch.data))
    assert (inside | (sizes == 0)).all(), "options lie outside the buffer"
    assert (batch.interface < max(len(batch.interfaces), 1)).all(), "a frame of an interface that is not there"
    batch.headers  # noqa: B018
