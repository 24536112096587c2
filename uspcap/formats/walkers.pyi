from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

class Stop(IntEnum):
    NEED_MORE = 0
    FULL = 1
    LIMIT = 2
    DAMAGED = 3
    BLOCK = 4
    SKIP = 5
    HEADER = 6

class PcapWalker:
    frames_seen: int
    @property
    def overflowing(self) -> int: ...
    @property
    def first_overflowing(self) -> int: ...
    @property
    def first_overflowing_position(self) -> int: ...
    @property
    def below_million(self) -> int: ...
    @property
    def damage(self) -> str: ...
    @property
    def position(self) -> int: ...
    def __init__(
        self,
        swap: bool,
        fraction_ns: int,
        record_header_length: int,
        longest: int,
        swapped_lengths: int = 0,
        interface: int = 0,
    ) -> None: ...
    def restart(self) -> None: ...
    def fractions(self, data: NDArray[np.uint8], start: int, end: int, most: int) -> NDArray[np.uint32]: ...
    def walk(
        self,
        frames: FrameColumns,
        data: NDArray[np.uint8],
        start: int,
        end: int,
        limit: int,
        source: int,
    ) -> int: ...
    def plausible_start(self, data: NDArray[np.uint8], start: int, chain: int, around_s: int, whole: bool) -> int: ...

class PcapngWalker:
    frames_seen: int
    @property
    def finer_than_ns(self) -> int: ...
    @property
    def clamped(self) -> int: ...
    @property
    def damage(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def block_length(self) -> int: ...
    def __init__(self, longest: int) -> None: ...
    def restart(self) -> None: ...
    def take_clamped(self) -> list[tuple[int, int, bool]]: ...
    def allow(self, longest: int) -> None: ...
    def begin_section(self, swap: bool) -> None: ...
    def add_interface(
        self,
        multiplier: int,
        divisor: int,
        shift: int,
        offset_s: int,
        snaplen: int,
        source: int,
    ) -> None: ...
    def walk(self, frames: FrameColumns, data: NDArray[np.uint8], start: int, end: int, limit: int) -> int: ...
    def plausible_start(self, data: NDArray[np.uint8], start: int, chain: int, whole: bool) -> int: ...
