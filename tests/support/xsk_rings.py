"""The rings and the UMEM of an AF_XDP socket in plain memory, with the kernel's side of them (linux/if_xdp.h)."""

import struct
from collections.abc import Sequence

import numpy as np

from uspcap.backends.af_xdp.xsk import Ring
from uspcap.bpf.xdp_program import HARDWARE_TIMESTAMPED, HEAD_MAGIC, METADATA_LENGTH, METADATA_MAGIC, METADATA_VERSION

PRODUCER, CONSUMER, FLAGS, ENTRIES = 0, 64, 128, 192
CONTINUED = 1
HEADROOM = 256


class FakeSocket:
    """`chunks` chunks and two rings of as many entries; indices start where they soon wrap around 32 bits."""

    def __init__(self, chunks: int, chunk_bytes: int = 2048, start: int = 0xFFFFFFFD) -> None:
        self.chunks, self.chunk_bytes = chunks, chunk_bytes
        self.umem = np.zeros(chunks * chunk_bytes, np.uint8)
        self.receive_memory = np.zeros(ENTRIES + 16 * chunks, np.uint8)
        self.fill_memory = np.zeros(ENTRIES + 8 * chunks, np.uint8)
        self.transmit_memory = np.zeros(ENTRIES + 16 * chunks, np.uint8)
        self.completion_memory = np.zeros(ENTRIES + 8 * chunks, np.uint8)
        for memory in (self.receive_memory, self.fill_memory, self.transmit_memory, self.completion_memory):
            for index in (PRODUCER, CONSUMER):
                self._put(memory, index, "=I", start)

    @property
    def receive(self) -> Ring:
        return Ring(self.receive_memory, PRODUCER, CONSUMER, ENTRIES, FLAGS, self.chunks, 16)

    @property
    def fill(self) -> Ring:
        return Ring(self.fill_memory, PRODUCER, CONSUMER, ENTRIES, FLAGS, self.chunks, 8)

    @property
    def transmit(self) -> Ring:
        return Ring(self.transmit_memory, PRODUCER, CONSUMER, ENTRIES, FLAGS, self.chunks, 16)

    @property
    def completion(self) -> Ring:
        return Ring(self.completion_memory, PRODUCER, CONSUMER, ENTRIES, FLAGS, self.chunks, 8)

    def send(self) -> list[bytes]:
        """Take what stands on the transmit ring, complete it, and return the frames."""
        frames = []
        consumer, producer = (self._get(self.transmit_memory, index) for index in (CONSUMER, PRODUCER))
        for at in range((producer - consumer) & 0xFFFFFFFF):
            entry = ENTRIES + 16 * ((consumer + at) % self.chunks)
            address, length, options = struct.unpack_from("=QII", self.transmit_memory, entry)
            assert options == 0
            frames.append(self.umem[address : address + length].tobytes())
            done = self._get(self.completion_memory, PRODUCER)
            self._put(self.completion_memory, ENTRIES + 8 * (done % self.chunks), "=Q", address)
            self._put(self.completion_memory, PRODUCER, "=I", (done + 1) & 0xFFFFFFFF)
        self._put(self.transmit_memory, CONSUMER, "=I", producer)
        return frames

    def chunks_given(self) -> list[int]:
        """Addresses on the fill ring that the kernel has not taken yet."""
        consumer, producer = (self._get(self.fill_memory, index) for index in (CONSUMER, PRODUCER))
        return [
            struct.unpack_from("=Q", self.fill_memory, ENTRIES + 8 * ((consumer + at) % self.chunks))[0]
            for at in range((producer - consumer) & 0xFFFFFFFF)
        ]

    def take_chunk(self) -> int:
        """Take one address off the fill ring as the kernel does."""
        address = self.chunks_given()[0]
        self._put(self.fill_memory, CONSUMER, "=I", (self._get(self.fill_memory, CONSUMER) + 1) & 0xFFFFFFFF)
        return address

    def deliver(self, frame: bytes, metadata: bytes = b"") -> None:
        """Put a frame into chunks, cut where they end, and on the receive ring."""
        room = self.chunk_bytes - HEADROOM
        pieces = [frame[at : at + room] for at in range(0, len(frame), room)]
        for number, piece in enumerate(pieces):
            address = self.take_chunk() + HEADROOM
            if not number:
                self._write(address - len(metadata), metadata)
            self._write(address, piece)
            self.describe(address, len(piece), CONTINUED if number + 1 < len(pieces) else 0)

    def describe(self, address: int, length: int, options: int = 0) -> None:
        """Put one descriptor on the receive ring."""
        producer = self._get(self.receive_memory, PRODUCER)
        self._put(self.receive_memory, ENTRIES + 16 * (producer % self.chunks), "=QII", address, length, options)
        self._put(self.receive_memory, PRODUCER, "=I", (producer + 1) & 0xFFFFFFFF)

    def ask_for_wakeup(self, asked: bool) -> None:
        self._put(self.fill_memory, FLAGS, "=I", int(asked))

    def _write(self, address: int, data: Sequence[int] | bytes) -> None:
        self.umem[address : address + len(data)] = np.frombuffer(bytes(data), np.uint8)

    @staticmethod
    def _put(memory: np.ndarray, at: int, layout: str, *values: int) -> None:
        data = struct.pack(layout, *values)
        memory[at : at + len(data)] = np.frombuffer(data, np.uint8)

    @staticmethod
    def _get(memory: np.ndarray, at: int) -> int:
        return int(struct.unpack_from("=I", memory, at)[0])


def metadata(hook_tai_ns: int, hardware_ns: int = 0, *, magic: int = METADATA_MAGIC, flags: int | None = None) -> bytes:
    """Return a metadata area as the XDP program writes it."""
    if flags is None:
        flags = HARDWARE_TIMESTAMPED if hardware_ns else 0
    area = struct.pack("=IHHQQII", magic, METADATA_VERSION, flags, hook_tai_ns, hardware_ns, 0, 0)
    assert len(area) == METADATA_LENGTH
    return area


def at_head(hook_tai_ns: int, cookie: int) -> bytes:
    """Return metadata as the XDP program puts them at the head of a frame."""
    return struct.pack("=IHHQQQ", HEAD_MAGIC, METADATA_VERSION, 0, hook_tai_ns, 0, cookie)
