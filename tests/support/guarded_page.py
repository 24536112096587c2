"""Bytes that end where memory ends: reading one more is a segmentation fault.

Run as a program, it decodes frames laid there. Standard input is one JSON list of [link type, bytes in hex]; each frame
is decoded cut after every byte, as cut by the capture and as that short on the wire, with tunnels and without.
"""

import ctypes
import json
import mmap
import sys

import numpy as np

from uspcap._core.columns import HeaderColumns
from uspcap._core.headers import decode
from uspcap.frames import FrameBatch, Interface

PROT_NONE = 0


class GuardedBytes:
    """Some pages of memory, and behind them one that must not be touched."""

    def __init__(self, size):
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self.size + mmap.PAGESIZE)
        whole = (ctypes.c_uint8 * (self.size + mmap.PAGESIZE)).from_buffer(self._map)
        self.address = ctypes.addressof(whole)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self.address + self.size), mmap.PAGESIZE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect refused to take the guard page away")
        self._owner = whole
        self.array = np.frombuffer(whole, np.uint8, self.size)


def decode_guarded(frames):
    """Return how often frames were decoded."""
    guarded = GuardedBytes(max(len(frame) for _, frame in frames))
    headers = HeaderColumns(4)
    count = 0
    for link_type, frame in frames:
        batch = FrameBatch(2)
        batch.set_data(guarded.array)
        batch.set_interfaces([Interface(link_type=link_type)])
        batch.count = 2
        for length in range(len(frame) + 1):
            start = guarded.size - length
            guarded.array[start:] = np.frombuffer(frame, np.uint8, length)
            batch.storage("offset")[:] = start
            batch.storage("captured_length")[:] = length
            batch.storage("wire_length")[:] = len(frame), length
            for tunnels in (False, True):
                decode(batch, headers, tunnels)
                count += 2
    return count


if __name__ == "__main__":
    if sys.argv[1:] == ["--trespass"]:
        guarded = GuardedBytes(1)
        ctypes.string_at(guarded.address + guarded.size - 1, 2)
    print(decode_guarded([(link_type, bytes.fromhex(text)) for link_type, text in json.load(sys.stdin)]))
