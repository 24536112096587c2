from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

GAP_OCTAVES: int
SILENCE_DTYPE: np.dtype[Any]
GAP_TRACK_DTYPE: np.dtype[Any]

def track_gaps(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    first_row: int,
    flow_tracks: NDArray[np.uint8],
    threshold_ns: int,
    silences: NDArray[np.uint8],
    silences_used: int,
) -> tuple[int, int]: ...
def keep_longest(silences: NDArray[np.uint8], flow_tracks: NDArray[np.uint8], most: int) -> NDArray[Any]: ...
