import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns

MODULUS: int
FAR_BYTES: int
RUNS_OF_A_SEGMENT: int

def track_segments(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    first_row: int,
    streams: NDArray[np.uint8],
    streams_used: int,
    table: NDArray[np.int32],
    of_flow: NDArray[np.int32],
    runs: NDArray[np.uint8],
    runs_used: int,
    counts: NDArray[np.int64],
) -> tuple[int, int, int]: ...
