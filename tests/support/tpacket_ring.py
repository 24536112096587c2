"""A TPACKET_V3 ring in plain memory, filled as the kernel fills one (linux/if_packet.h)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

USER, LOSING = 1 << 0, 1 << 2
VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6
SOFTWARE, RAW_HARDWARE = 1 << 29, 1 << 31
HEADER_BYTES = 48 + 20


@dataclass
class RingFrame:
    """A frame as the kernel hands it over: its tag, if any, beside it."""

    data: bytes
    timestamp: tuple[int, int] = (1, 2)
    status: int = SOFTWARE
    wire_length: int | None = None
    tag: int = 0
    tag_type: int = 0
    packet_type: int = 0


class FakeRing:
    """`count` blocks of `block_bytes` bytes, all the kernel's at first."""

    def __init__(self, block_bytes: int, count: int) -> None:
        self.block_bytes = block_bytes
        self.memory = np.zeros(block_bytes * count, np.uint8)

    def fill(self, block: int, frames: Sequence[RingFrame]) -> None:
        """Write frames into a block and hand it over."""
        base = block * self.block_bytes
        at = 48
        for number, frame in enumerate(frames):
            step = (HEADER_BYTES + len(frame.data) + 15) // 16 * 16
            self._put(
                base + at,
                struct.pack(
                    "=6IHHIIHH8x",
                    step if number + 1 < len(frames) else 0,
                    *frame.timestamp,
                    len(frame.data),
                    len(frame.data) if frame.wire_length is None else frame.wire_length,
                    frame.status,
                    HEADER_BYTES,
                    HEADER_BYTES + 14,
                    0,
                    frame.tag,
                    frame.tag_type,
                    0,
                )
                + struct.pack("=HHiHBB8x", 17, 0, 1, 1, frame.packet_type, 6)
                + frame.data,
            )
            at += step
        self._put(base + 12, struct.pack("=II", len(frames), 48))
        self._put(base + 8, struct.pack("=I", USER))

    def is_kernels(self, block: int) -> bool:
        """Whether a block was given back."""
        return not int(self.memory[block * self.block_bytes + 8 : block * self.block_bytes + 12].view(np.uint32)[0])

    def overwrite(self, block: int, offset: int, value: int) -> None:
        """Put 32 bits somewhere in a block."""
        self._put(block * self.block_bytes + offset, struct.pack("=I", value))

    def _put(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = np.frombuffer(data, np.uint8)
