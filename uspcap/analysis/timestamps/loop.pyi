from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

SOURCES: int
RUN_LENGTH_CLASSES: int
TIMESTAMP_TRACK_DTYPE: np.dtype[Any]
STEP_DTYPE: np.dtype[Any]

def track_timestamps(
    frames: FrameColumns,
    frame_shift: int,
    tracks: NDArray[Any],
    steps: NDArray[Any],
    steps_used: int,
) -> int: ...
