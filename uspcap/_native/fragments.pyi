import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns

WITHIN_FRAMES: int
WITHIN_NS: int

class Datagrams:
    complete: int
    discarded: int
    copies: int
    closed: int
    frames: FrameColumns
    headers: HeaderColumns
    rows: NDArray[np.int64]
    def __init__(self, is_known: bool = False) -> None: ...
    def take(self, frames: FrameColumns, headers: HeaderColumns, frame_shift: int, first: int) -> int: ...
    def event(self, frames: FrameColumns, headers: HeaderColumns, frame_shift: int, row: int) -> bytes: ...
    def take_event(self, event: bytes, frame_shift: int) -> bytes | None: ...
    def absorb(self, later: Datagrams, frame_shift: int) -> None: ...
    @property
    def incomplete(self) -> int: ...

def has_fragments(frames: FrameColumns, headers: HeaderColumns) -> bool: ...
