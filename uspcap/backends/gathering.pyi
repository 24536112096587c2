from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

HANDED_OVER: int
QUIET: int
INTERRUPTED: int
TROUBLED: int
CLOCK_CHANGED: int

class FrameRing:
    lossy: bool

class FillNotices:
    def __init__(
        self, ours: mmap | bytearray | NDArray[np.uint8], kernels: mmap | bytearray | NDArray[np.uint8], descriptor: int
    ) -> None: ...
    def close(self) -> None: ...

class Gatherer:
    emptied: bool
    troubled: int
    visited_at_ns: int
    longest_unread_ns: int
    longest_unread_at_ns: int
    wakeups: int
    def __init__(
        self,
        rings: tuple[FrameRing, ...],
        descriptors: tuple[int, ...],
        *,
        room_bytes: int,
        nap_ns: int = 0,
        hand_over_ns: int = 0,
        held_back_ns: int = 0,
        notices: FillNotices | None = None,
        spinning: bool = False,
        follows_tai: bool = False,
    ) -> None: ...
    def add(self, ring: FrameRing, descriptor: int) -> None: ...
    def gather(self, frames: FrameColumns, wanted: int, tai_offset_ns: int, timeout_ns: int) -> int: ...
    def take_recent_unread_ns(self) -> int: ...
