"""Frames that tests send, and what a source gives for them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from support.bpf_samples import UDP_FRAME

from uspcap.backends.base import LiveSource, SourceStatistics
from uspcap.frames import FrameBatch

LENGTHS = (60, 61, 64, 127, 128, 512, 1500, 1514, 1793, 3584, 3841, 4096, 8999, 9000)
"""Around every bound there is: smallest frame, chunk sizes of AF_XDP, a page, jumbo."""


def numbered_frame(number: int, length: int = 60) -> bytes:
    """Return a UDP frame to port 5000 with a number in its last four bytes and a pattern that moves with it."""
    pattern = bytes((number + at) & 0xFF for at in range(length - len(UDP_FRAME)))
    frame = UDP_FRAME + pattern
    return frame[:-4] + number.to_bytes(4, "big")


def tagged(frame: bytes, tag: int = 5, tag_type: int = 0x8100) -> bytes:
    """Return a frame with a VLAN tag put in."""
    return frame[:12] + tag_type.to_bytes(2, "big") + tag.to_bytes(2, "big") + frame[12:]


@dataclass
class Received:
    """Everything that a source gave, copied."""

    frames: list[bytes] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    queues: list[int] = field(default_factory=list)
    drop_counts: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    interfaces: list[int] = field(default_factory=list)
    readings: list[int] = field(default_factory=list)

    def take(self, batch: FrameBatch) -> None:
        batch.check_bounds()
        self.frames += [batch.frame_bytes(row) for row in range(batch.count)]
        self.timestamps += batch.timestamp_ns.tolist()
        self.sources += batch.timestamp_source.tolist()
        self.lengths += batch.wire_length.tolist()
        self.flags += batch.column("flags").tolist()
        self.queues += batch.column("queue").tolist()
        self.drop_counts += batch.column("drop_count").tolist()
        self.numbers += batch.frame_number.tolist()
        self.interfaces += batch.interface.tolist()
        self.readings += batch.column("read_ns").tolist()


def receive(source: LiveSource, expected: int, patience: int = 100) -> tuple[Received, SourceStatistics]:
    """Read until `expected` frames came or nothing did for `patience` times 50 ms; stop, and read what is left."""
    received = Received()
    idle = 0
    for batch in source.batches(0.05):
        if batch is None:
            idle += 1
        else:
            received.take(batch)
        if len(received.frames) >= expected or idle >= patience:
            source.stop()
    return received, source.statistics()


def in_order(frames: Iterable[bytes]) -> Iterator[int]:
    """Give the numbers of `numbered_frame`."""
    return (int.from_bytes(frame[-4:], "big") for frame in frames)
