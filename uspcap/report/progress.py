"""Progress of a long run, on one line of the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from uspcap.report.format import byte_count, encodable, scaled, share

APPEARS_AFTER_S = 0.5
REDRAWN_EVERY_S = 0.1


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal whose lines can be overwritten."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """A line on standard error that appears when a run takes long, and disappears when it ends.

    Nothing is ever written where the stream is no terminal.

    Parameters
    ----------
    total_bytes : int or None
        Bytes to be read; None where that is not known.
    stream : text stream, optional
        Standard error by default.
    clock : callable
        Seconds that never step back.

    Notes
    -----
    Calls may come from any thread, once a batch: most do two additions and look at the clock.
    """

    def __init__(
        self,
        total_bytes: int | None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_bytes
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.Lock()
        self._enabled = False
        self._shown = False
        self._began = self._next = 0.0
        self._bytes = self._frames = 0

    def __enter__(self) -> Progress:
        self._enabled = is_terminal(self._stream)
        self._began = self._clock()
        self._next = self._began + APPEARS_AFTER_S
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._shown:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
            self._enabled = self._shown = False

    def advance(self, bytes_read: int, frames: int) -> None:
        """Add what was read since the last call."""
        with self._lock:
            self._move(self._bytes + bytes_read, self._frames + frames)

    def update(self, bytes_position: int, frames: int) -> None:
        """Set what was read since the beginning."""
        with self._lock:
            self._move(bytes_position, frames)

    def _move(self, bytes_position: int, frames: int) -> None:
        self._bytes, self._frames = bytes_position, frames
        if not self._enabled:
            return
        now = self._clock()
        if now < self._next:
            return
        self._next = now + REDRAWN_EVERY_S
        self._shown = True
        width = shutil.get_terminal_size().columns - 1
        line = self.line(now - self._began)[:width]
        self._stream.write(f"\r{encodable(line, self._stream.encoding or 'ascii')}\x1b[K")
        self._stream.flush()

    def line(self, elapsed_s: float) -> str:
        """Return the line to show that many seconds after the beginning."""
        rate = self._frames / elapsed_s if elapsed_s > 0 else 0.0
        speed = scaled(rate, "frames/s")
        if not self._total:
            return f"{byte_count(self._bytes)} read · {speed}"
        done = min(self._bytes, self._total)
        left = f" · {_clock_time(elapsed_s * (self._total - done) / done)} left" if done else ""
        return f"{share(done, self._total)} of {byte_count(self._total)} · {speed}{left}"


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
