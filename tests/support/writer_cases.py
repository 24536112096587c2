"""What the tests of the writers share."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from uspcap.formats.writer import open_writer
from uspcap.frames import FrameBatch, Interface

ETHERNET = Interface(link_type=1, name="eth0")
RAW_IP = Interface(link_type=101, name="tun0", snaplen=65535)
START_NS = 1_700_000_000_123_456_789
UDP_FRAME = bytes.fromhex(
    "01005e000001 020000000001 0800 4500002000010000011199da0a000001e0000001 1388138800 0c0000 74657374"
)


def tool(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def tshark_fields(path, *fields):
    """Return one list of fields a frame, as tshark reads them."""
    arguments = [argument for field in fields for argument in ("-e", field)]
    output = run("tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", *arguments)
    return [line.split("|") for line in output.splitlines()]


def seconds(timestamp_ns):
    return f"{timestamp_ns // 10**9}.{timestamp_ns % 10**9:09d}"


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def make_batch(count=50, start_ns=START_NS, interfaces=(ETHERNET,), length=46):
    frames = [(UDP_FRAME + row.to_bytes(4, "big") * 30)[:length] for row in range(count)]
    timestamps = start_ns + np.arange(count, dtype=np.int64) * 1_000_000_007
    return FrameBatch.from_frames(
        frames, timestamps, wire_lengths=[length + row for row in range(count)], interfaces=interfaces
    )


def write(path, *batches, statistics=None, **options):
    with open_writer(str(path), **options) as writer:
        for batch in batches:
            writer.write(batch)
        writer.close(statistics)
    return writer


def blocks(data):
    """Return (type, body) of every pcapng block, checking both lengths."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4)[0] == length
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    assert at == len(data)
    return found
