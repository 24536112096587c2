from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns
from uspcap.stats.buckets import Cells

RING_GROUPS: int
GROUPS: int
LEFT_OUT: tuple[str, ...]
PATH_TRACK_DTYPE: np.dtype[Any]

def track_paths(
    frames: FrameColumns,
    frame_shift: int,
    tracks: NDArray[Any],
    cells: Cells,
    left_out: NDArray[np.uint64],
) -> None: ...
