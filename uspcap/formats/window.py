"""The moving window over a capture file that the walkers look through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.byte_source import ByteSource

WINDOW_BYTES = 768 * 1024
"""Small enough to stay in a second-level cache of 1 MiB; with half of it analyses took a twentieth longer."""


class Window:
    """A reused buffer that holds the part of the file at hand.

    Attributes
    ----------
    size : int
        Bytes of the buffer, unless a record needs more.
    data : ndarray of uint8
        The buffer; replaced by a larger one only when a record really fills it.
    start, end : int
        The bytes not yet used, as indices into `data`.
    offset : int
        Offset in the (decompressed) file of `data[0]`.
    at_end : bool
        The source has no more bytes than these.
    """

    def __init__(self, source: ByteSource, offset: int = 0, size: int = WINDOW_BYTES) -> None:
        self._source = source
        self.size = size
        self.data: NDArray[np.uint8] = np.empty(size, np.uint8)
        self.start = 0
        self.end = 0
        self.offset = offset
        self.at_end = False

    @property
    def available(self) -> int:
        """Bytes not yet used."""
        return self.end - self.start

    @property
    def position(self) -> int:
        """Offset in the file of the first byte not yet used."""
        return self.offset + self.start

    def jump(self, offset: int) -> None:
        """Go on at another place of a file that can be read from any."""
        self._source.seek(offset)
        if len(self.data) > self.size:
            self.data = np.empty(self.size, np.uint8)
        self.start = self.end = 0
        self.offset = offset
        self.at_end = False

    def release(self) -> None:
        """Let go of the buffer; `position` stays."""
        self.data = np.empty(0, np.uint8)

    def take(self, count: int) -> bytes:
        """Use up `count` bytes, which must be there, and return them."""
        taken = self.data[self.start : self.start + count].tobytes()
        self.start += count
        return taken

    def peek(self, count: int) -> bytes:
        """Return up to `count` bytes without using them up."""
        return self.data[self.start : min(self.start + count, self.end)].tobytes()

    def refill(self, most: int | None = None) -> int:
        """Move what is left to the front, read on, up to `most` bytes, and return how many bytes were added.

        A window that is full of unused bytes is doubled first: a record that claims to be long costs
        memory only as its bytes really arrive.
        """
        left = self.available
        if self.start:
            if left <= self.start:
                self.data[:left] = self.data[self.start : self.end]
            else:
                self.data[:left] = self.data[self.start : self.end].copy()
            self.offset += self.start
            self.start, self.end = 0, left
        elif left == len(self.data):
            larger = np.empty(2 * len(self.data), np.uint8)
            larger[:left] = self.data
            self.data = larger
        added = 0
        view = self.data.data
        limit = len(self.data) if most is None else min(len(self.data), self.end + most)
        while self.end < limit:
            room = limit - self.end
            got = self._source.readinto(view[self.end : limit])
            if got == 0:
                self.at_end = True
                break
            self.end += got
            added += got
            # A short read is all that a pipe has for now: frames are not held back for more to come.
            if got < room or added >= len(self.data) // 2:
                break
        return added

    def require(self, count: int, *, no_more: bool = False) -> bool:
        """Read until `count` unused bytes are there, or just those; False where the source ends before."""
        while self.available < count and not self.at_end:
            self.refill(count - self.available if no_more else None)
        return self.available >= count

    def skip(self, count: int) -> int:
        """Use up `count` bytes without keeping them; return how many there were."""
        skipped = 0
        while True:
            step = min(self.available, count - skipped)
            self.start += step
            skipped += step
            if skipped == count or (self.at_end and not self.available):
                return skipped
            self.refill()
