from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns
from uspcap.backends.gathering import FrameRing

class PacketRing(FrameRing):
    frames_cut: int
    malformed: int
    losing_row: int
    def __init__(
        self,
        memory: mmap | NDArray[np.uint8],
        block_bytes: int,
        block_count: int,
        snaplen: int,
        tags: bool,
        queue: int,
        timestamp_on_reading: bool,
        interfaces: NDArray[np.uint16],
    ) -> None: ...
    @property
    def unfinished(self) -> int: ...
    def drain(self, frames: FrameColumns, used: int, read_at_ns: int) -> int: ...
    def drain_unfinished(self, frames: FrameColumns, used: int, read_at_ns: int) -> int: ...
    def close(self) -> None: ...
