"""A bare AF_XDP socket for tests: one queue, copy mode, received frames with what lies before them.

Constants and structs are of linux/if_xdp.h. Reads the rings without barriers, which x86 allows.
"""

import ctypes
import mmap
import os
import select
import socket
import struct
import time

AF_XDP = 44
SOL_XDP = 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 1, 2, 4, 5, 6
XDP_COPY = 1 << 1
FILL_PAGE_OFFSET = 0x100000000
CHUNK = 4096
RING = 64

_libc = ctypes.CDLL(None, use_errno=True)


class XskSocket:
    """Give each received frame once, as (bytes before it, frame)."""

    def __init__(self, ifindex: int, queue: int, before: int) -> None:
        self.before = before
        self.umem = mmap.mmap(-1, CHUNK * RING)
        self.socket = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.umem))
        registration = struct.pack("=QQIIII", address, CHUNK * RING, CHUNK, 0, 0, 0)
        self.socket.setsockopt(SOL_XDP, XDP_UMEM_REG, registration)
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            self.socket.setsockopt(SOL_XDP, ring, RING)
        offsets = struct.unpack("=16Q", self.socket.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        rx, fill = offsets[0:4], offsets[8:12]
        self.rx_ring = mmap.mmap(self.socket.fileno(), rx[2] + 16 * RING, offset=0)
        self.fill_ring = mmap.mmap(self.socket.fileno(), fill[2] + 8 * RING, offset=FILL_PAGE_OFFSET)
        self.rx = rx
        struct.pack_into(f"={RING}Q", self.fill_ring, fill[2], *range(0, CHUNK * RING, CHUNK))
        struct.pack_into("=I", self.fill_ring, fill[0], RING)
        bound = struct.pack("=HHIII", AF_XDP, XDP_COPY, ifindex, queue, 0)
        if _libc.bind(self.socket.fileno(), bound, len(bound)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.taken = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self, count: int, timeout_s: float = 5.0) -> list[tuple[bytes, bytes]]:
        """Wait for `count` frames, at most 64 in the socket's life; give what came in time."""
        end = time.monotonic() + timeout_s
        frames = []
        while len(frames) < count and time.monotonic() < end:
            select.select([self.socket], [], [], 0.05)
            (produced,) = struct.unpack_from("=I", self.rx_ring, self.rx[0])
            while self.taken != produced:
                descriptor = self.rx[2] + 16 * (self.taken % RING)
                address, length = struct.unpack_from("=QI", self.rx_ring, descriptor)
                area = self.umem[address - self.before : address]
                frames.append((area, self.umem[address : address + length]))
                self.taken += 1
            struct.pack_into("=I", self.rx_ring, self.rx[1], self.taken)
        return frames

    def close(self) -> None:
        self.socket.close()
