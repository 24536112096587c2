import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

MOST_INPUTS: int

class RunMerger:
    needed: int
    big_endian: bool
    def __init__(self, inputs: int, *, has_options: bool) -> None: ...
    def load(
        self, number: int, batch: FrameColumns, interfaces: NDArray[np.uint16], big_endian: bool = False
    ) -> None: ...
    def finish(self, number: int) -> None: ...
    def begin(self, out: FrameColumns) -> None: ...
    def fill(self, out: FrameColumns, origins: NDArray[np.uint16]) -> int: ...
