"""tcpdump as the second opinion on filters: which frames of a capture an expression matches."""

import io
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import dpkt

from uspcap.frames import FrameBatch, Interface

SHARED = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[2].parent / "shared"))
CAPTURES = SHARED / "captures"


class Frame(NamedTuple):
    """What identifies a frame in the pcap that tcpdump writes."""

    seconds: int
    fraction: int
    wire_length: int
    data: bytes


class Capture(NamedTuple):
    """Frames of one link type."""

    link_type: int
    big_endian: bool
    frames: list[Frame]

    def batch(self) -> FrameBatch:
        batch = FrameBatch.from_frames(
            [frame.data for frame in self.frames],
            range(len(self.frames)),
            wire_lengths=[frame.wire_length for frame in self.frames],
            interfaces=(Interface(self.link_type),),
        )
        batch.big_endian_options = self.big_endian
        return batch


class Refused(Exception):
    """tcpdump does not take the expression."""


def read_with_tcpdump(path: Path, expression: str = "") -> Capture:
    """Return the frames of a file that an expression matches, in order."""
    with path.open("rb") as file:
        outcome = subprocess.run(
            ["tcpdump", "-n", "-r", "-", "-w", "-", "--", expression],
            stdin=file,
            capture_output=True,
            timeout=60,
        )
    if outcome.returncode:
        raise Refused(outcome.stderr.decode(errors="replace").splitlines()[-1])
    stream = io.BytesIO(outcome.stdout)
    header = dpkt.pcap.LEFileHdr(stream.read(dpkt.pcap.FileHdr.__hdr_len__))
    assert header.magic == dpkt.pcap.TCPDUMP_MAGIC
    frames = []
    while record := stream.read(dpkt.pcap.PktHdr.__hdr_len__):
        fields = dpkt.pcap.LEPktHdr(record)
        data = stream.read(fields.caplen)
        frames.append(Frame(fields.tv_sec, fields.tv_usec, fields.len, data))
    return Capture(header.linktype & 0xFFFF, is_big_endian(path), frames)


def is_big_endian(path: Path) -> bool:
    """Return the byte order of a pcap or pcapng file (its first section), which tcpdump does not keep."""
    with path.open("rb") as file:
        start = file.read(12)
    if start.startswith(b"\x0a\x0d\x0d\x0a"):
        return start[8:] == b"\x1a\x2b\x3c\x4d"
    return start[:3] in (b"\xa1\xb2\xc3", b"\xa1\xb2\x3c")
