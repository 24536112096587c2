from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.stats.buckets import Cells

SOURCES: int
JITTER_EDGE: int
ARRIVAL_TRACK_DTYPE: np.dtype[Any]

def track_arrivals(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    tracks: NDArray[Any],
    counts: NDArray[np.uint64],
    flow_tracks: NDArray[Any],
    cells: Cells,
    largest: NDArray[Any],
    largest_used: int,
    scratch: NDArray[np.uint64],
) -> int: ...
def join_arrivals(tracks: NDArray[Any], ids: NDArray[np.int32], later_tracks: NDArray[Any]) -> NDArray[np.int64]: ...
