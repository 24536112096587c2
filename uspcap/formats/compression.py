"""Compress a capture while it is written, as a chain of zstd frames (RFC 8878).

A frame ends after `FRAME_BYTES` of the capture, or when `FRAME_AGE_S` have passed. Each is whole in itself: a file
that ends with one is valid, so that one whose disk is full is cut back to it, and whoever reads a file that was never
finished gets at least everything up to there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from uspcap.errors import MissingFeature
from uspcap.formats.byte_sink import ByteSink

FRAME_BYTES = 4 << 20
"""Bytes of the capture in one zstd frame, roughly; level 3 looks no further back than 2 MiB anyway."""

FRAME_AGE_S = 1.0
"""A zstd frame ends when it is so old, so that what it holds can be read."""

HEAD_BYTES = 4 << 10
"""What is written within the first bytes of a file has a zstd frame of its own, piece by piece: with the head of the
capture safe, the file is one, whatever is lost behind it."""

DEFAULT_LEVEL = 3
LEVELS = range(1, 20)
"""Those that no reader needs more than the usual memory for."""


class _FrameCompressor(Protocol):
    """One zstd frame, as both packages that can do it make it."""

    def compress(self, data: memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


def zstd_frames(name: str, level: int) -> Callable[[], _FrameCompressor]:
    """Return what begins a zstd frame.

    Raises
    ------
    MissingFeature
        Where the package is not installed; the message names it and `name`, the file to be written.
    """
    if sys.version_info >= (3, 14):
        from compression import zstd

        return lambda: zstd.ZstdCompressor(level=level)
    try:
        import zstandard
    except ImportError as error:
        raise MissingFeature(
            f"cannot compress {name}: the Python package zstandard is not installed; "
            "install it with: pip install 'uspcap[compression]'"
        ) from error
    return zstandard.ZstdCompressor(level=level).compressobj


class ZstdSink(ByteSink):
    """Compresses what another sink then takes.

    Parameters
    ----------
    inner : ByteSink
        Closed with this one.
    level : int
        One of `LEVELS`.
    clock : callable
        Seconds that never step back.
    """

    def __init__(self, inner: ByteSink, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.place = inner.name, inner.place
        self._inner = inner
        self._begin = zstd_frames(inner.place, level)
        self._clock = clock
        self._frame: _FrameCompressor | None = None
        self._frame_bytes = 0
        self._frame_since_s = 0.0
        self._position = 0
        # Where zstd frames ended, from the last one on that the inner sink has in its file: here, and there.
        self._ends: list[tuple[int, int]] = [(0, 0)]

    @property
    def position(self) -> int:
        return self._position

    @property
    def safe(self) -> int:
        """Where the last zstd frame ended that is altogether in the file."""
        inner_safe = self._inner.safe
        while len(self._ends) > 1 and self._ends[1][1] <= inner_safe:
            del self._ends[0]
        return self._ends[0][0]

    def write(self, data: memoryview) -> None:
        if not data:
            return
        if self._frame is None:
            self._frame = self._begin()
            self._frame_bytes = 0
            self._frame_since_s = self._clock()
        compressed = self._frame.compress(data)
        self._frame_bytes += len(data)
        self._position += len(data)
        self._inner.write(memoryview(compressed))
        if self._frame_bytes >= FRAME_BYTES or self._position <= HEAD_BYTES:
            self._end_frame()
        else:
            self.idle()

    def idle(self) -> None:
        if self._frame is not None and self._clock() - self._frame_since_s >= FRAME_AGE_S:
            self._end_frame()
        self._inner.idle()

    def flush(self) -> None:
        """End the zstd frame, so that everything can be read."""
        self._end_frame()
        self._inner.flush()

    def loss(self) -> str:
        return self._inner.loss()

    def truncate(self, position: int) -> bool:
        """Cut back to where a zstd frame ended; False for any other position than `safe`."""
        if position == self._position and self._frame is None:
            return True
        if position != self.safe or not self._inner.truncate(self._ends[0][1]):
            return False
        del self._ends[1:]
        self._position, self._frame = position, None
        return True

    def finish(self) -> None:
        self._end_frame()
        self._inner.finish()

    def close(self) -> None:
        self._inner.close()

    def _end_frame(self) -> None:
        if self._frame is None:
            return
        self._inner.write(memoryview(self._frame.flush()))
        self._frame = None
        self._ends.append((self._position, self._inner.position))
