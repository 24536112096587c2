import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

LONGEST_RUN: int
MOST_LISTED: int

def first_fall(frames: FrameColumns, last_ns: int) -> tuple[int, int] | None: ...

class Chain:
    frames: int
    timestamped: int
    sorted: int
    furthest_ns: int
    beyond_window: int
    outlier_count: int
    step_count: int
    outliers: list[tuple[int, int, int | None, bool, int]]
    saw_set_clock: bool
    unset_count: int
    steps: list[tuple[int, int, int, int]]
    finished: bool
    def __init__(
        self,
        *,
        window_ns: int,
        most_frames: int,
        most_bytes: int,
        keeps_frames: bool = True,
        clock_is_set: bool = False,
        awaits_clock: bool = False,
    ) -> None: ...
    def push(
        self,
        batch: FrameColumns,
        interfaces: NDArray[np.uint16],
        number_shift: int,
        big_endian: bool = False,
        only_interface: int = -1,
    ) -> None: ...
    def finish(self) -> None: ...
    @property
    def held_frames(self) -> int: ...
    @property
    def extent(self) -> tuple[int, int, int, int] | None: ...
    @property
    def doubtful_start(self) -> tuple[int, int, int, int] | None: ...
    @property
    def doubtful_end(self) -> tuple[int, int, int, int] | None: ...
