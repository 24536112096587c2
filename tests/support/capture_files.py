"""Capture files made byte by byte, and what a reader finds in them."""

import itertools
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from uspcap.formats import open_capture
from uspcap.formats.reader import NO_LIMIT
from uspcap.frames import SourceFacts


class Row(NamedTuple):
    """One frame as a reader gave it."""

    timestamp_ns: int
    captured: bytes
    wire_length: int
    interface: int = 0


def pcap_header(order="<", magic=0xA1B2C3D4, version=(2, 4), snaplen=262144, link_type=1):
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, link_type)


def pcap_record(second, fraction, data, wire_length=None, order="<", extra=b""):
    wire_length = len(data) if wire_length is None else wire_length
    return struct.pack(order + "IIII", second, fraction, len(data), wire_length) + extra + data


def block(kind, body, order="<", length=None, closing=None):
    """Return a pcapng block; the lengths are right unless given."""
    body += bytes(-len(body) % 4)
    length = 12 + len(body) if length is None else length
    closing = length if closing is None else closing
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", closing)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order="<", version=(1, 0), length=-1, options=b""):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, length) + options, order)


def interface(order="<", link_type=1, snaplen=0, options=b""):
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order)


def packet(ticks, data, number=0, wire_length=None, order="<", options=b"", captured=None):
    """Return an enhanced packet block."""
    wire_length = len(data) if wire_length is None else wire_length
    captured = len(data) if captured is None else captured
    fields = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, captured, wire_length)
    return block(6, fields + data + bytes(-len(data) % 4) + options, order)


def rows_of(reader) -> list[Row]:
    """Return all frames that a reader yields, copied."""
    rows = []
    for batch in reader.batches():
        timestamps, lengths, numbers = batch.timestamp_ns, batch.wire_length, batch.interface
        for row in range(len(batch)):
            rows.append(Row(int(timestamps[row]), batch.frame_bytes(row), int(lengths[row]), int(numbers[row])))
    return rows


def read(path: Path, stop_at: int = NO_LIMIT) -> tuple[list[Row], SourceFacts]:
    """Return all frames of a file up to an offset, and what the reader says about it."""
    with open_capture(str(path)) as reader:
        reader.stop_at = stop_at
        return rows_of(reader), reader.facts


def read_bytes(directory: Path, content: bytes) -> tuple[list[Row], SourceFacts]:
    path = directory / "capture"
    path.write_bytes(content)
    return read(path)


def read_pipe(content: bytes, sizes) -> tuple[list[Row], SourceFacts]:
    """Read `content` through a pipe that delivers pieces of `sizes`, over and over."""
    reading, writing = os.pipe()

    def feed():
        position = 0
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for size in itertools.cycle(sizes):
                if position >= len(content):
                    return
                pipe.write(content[position : position + size])
                position += size

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return read(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
        thread.join()


def peak_growth_bytes(path: Path) -> int:
    """Return how much resident memory reading a damaged file takes, at its peak, in a process of its own."""
    code = (
        "import resource, sys\n"
        "from support.capture_files import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rows, facts = read(sys.argv[1])\n"
        "assert facts.problems\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, env=environment
    )
    return int(done.stdout) * 1024
