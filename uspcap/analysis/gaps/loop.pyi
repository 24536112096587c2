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
    flow_tracks: NDArray[Any],
    threshold_ns: int,
    gaps: NDArray[Any],
    gaps_used: int,
) -> tuple[int, int]: ...
def keep_longest(gaps: NDArray[Any], flow_tracks: NDArray[Any], most: int) -> NDArray[Any]: ...
