"""CLOCK_TAI against UTC, and the one constant that hardware timestamps are most often off by.

TAI has been 35, 36 and 37 s ahead of UTC since 2012. The kernel's CLOCK_TAI is CLOCK_REALTIME plus an offset that a
time daemon sets; without one it is 0, and CLOCK_TAI shows UTC.

References
----------
clock_gettime(2); adjtimex(2), ADJ_TAI; BIPM, Circular T and IERS Bulletin C for the seconds.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from uspcap.frames import NANOSECONDS, FrameBatch, TimestampSource
from uspcap.timestamps.kernel_calls import KernelCalls

LOOKS_LIKE_TAI_NS: Final = (35 * NANOSECONDS - NANOSECONDS // 2, 38 * NANOSECONDS)
"""A clock so far ahead of UTC runs on TAI, most likely."""


def tai_offset_ns(calls: KernelCalls) -> int:
    """Return CLOCK_TAI minus UTC as the kernel has it now: whole seconds, in nanoseconds."""
    difference_ns = calls.tai_ns() - calls.utc_ns()
    return round(difference_ns / NANOSECONDS) * NANOSECONDS


def time_scale(ahead_of_utc_ns: int) -> str:
    """Say what a clock seems to run on that is `ahead_of_utc_ns` ahead of UTC."""
    if abs(ahead_of_utc_ns) < NANOSECONDS // 2:
        return "UTC"
    if LOOKS_LIKE_TAI_NS[0] <= ahead_of_utc_ns < LOOKS_LIKE_TAI_NS[1]:
        return "TAI"
    return "a time of its own"


class TaiOffset:
    """The kernel's offset, followed through a capture; a time daemon that starts changes it by 37 s.

    Timestamps of CLOCK_TAI are converted with the offset of the moment that they are read. Those that still wait in a
    ring when it changes were timestamped before.
    """

    def __init__(self, calls: KernelCalls) -> None:
        self._calls = calls
        self.ns = tai_offset_ns(calls)
        self._before_ns = self.ns
        self.changes = 0

    def refresh(self) -> int:
        """Return the offset of now."""
        self._before_ns, self.ns = self.ns, tai_offset_ns(self._calls)
        self.changes += self.ns != self._before_ns
        return self.ns

    def correct(self, batch: FrameBatch, read_at_ns: int) -> None:
        """Where the offset has just changed, convert with the old one what that brings closer to `read_at_ns`.

        Parameters
        ----------
        batch : FrameBatch
            Its XDP timestamps were converted with `ns`.
        read_at_ns : int
            UTC when the ring was read.
        """
        change_ns = self.ns - self._before_ns
        if not change_ns:
            return
        timestamps = batch.storage("timestamp_ns")[: batch.count]
        closer = np.abs(timestamps + change_ns - read_at_ns) < np.abs(timestamps - read_at_ns)
        timestamps[closer & (batch.timestamp_source == TimestampSource.XDP)] += change_ns
