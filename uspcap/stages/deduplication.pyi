import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

REMEMBERED: int

class Deduplicator:
    copies: int
    def __init__(self, window_ns: int) -> None: ...
    def mark(self, frames: FrameColumns, headers: HeaderColumns, keep: NDArray[np.uint8]) -> int: ...
