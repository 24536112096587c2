import numpy as np
from numpy.typing import NDArray

EVENT_DTYPE: np.dtype[np.void]
MOST_ALIKE: int
KIND_MATCHED: int
KIND_ONLY: int
KIND_DUPLICATE: int
KIND_AMBIGUOUS: int

class Stream:
    position: int
    count: int
    columns: tuple[NDArray[np.uint64], NDArray[np.int64]]
    def __init__(
        self,
        digests: NDArray[np.uint64],
        timestamps_ns: NDArray[np.int64],
        frames: NDArray[np.int64],
        lengths: NDArray[np.uint32],
    ) -> None: ...
    @property
    def used_up(self) -> bool: ...

class Matcher:
    offset_ns: int
    widest: int
    def __init__(self, window_ns: int, offset_ns: int = 0) -> None: ...
    def feed(self, a: Stream, b: Stream, a_ended: bool, b_ended: bool) -> None: ...
    def finish(self) -> None: ...
    def take_pairs(self) -> NDArray[np.void]: ...
    def take_missed(self, side: int) -> NDArray[np.void]: ...
