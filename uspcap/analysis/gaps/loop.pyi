from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

GAP_OCTAVES: int
GAP_DTYPE: np.dtype[Any]
GAP_TRACK_DTYPE: np.dtype[Any]

def track_gaps(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    first_row: int,
    flow_tracks: NDArray[np.uint8],
    threshold_ns: int,
    gaps: NDArray[np.uint8],
    gaps_used: int,
) -> tuple[int, int]: ...
def keep_longest(gaps: NDArray[np.uint8], flow_tracks: NDArray[np.uint8], most: int) -> NDArray[Any]: ...
