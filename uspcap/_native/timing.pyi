from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns
from uspcap._native.histogram import Cells

SOURCES: int
RUN_LENGTH_CLASSES: int
JITTER_EDGE: int
STAMP_TRACK_DTYPE: np.dtype[Any]
STEP_DTYPE: np.dtype[Any]
ARRIVAL_TRACK_DTYPE: np.dtype[Any]

def track_stamps(
    frames: FrameColumns,
    frame_shift: int,
    tracks: NDArray[np.uint8],
    steps: NDArray[np.uint8],
    steps_used: int,
) -> int: ...
def track_arrivals(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    tracks: NDArray[np.uint8],
    counts: NDArray[np.uint64],
    flow_tracks: NDArray[np.uint8],
    cells: Cells,
    largest: NDArray[np.uint8],
    largest_used: int,
    scratch: NDArray[np.uint64],
) -> int: ...
def join_arrivals(
    tracks: NDArray[np.uint8], ids: NDArray[np.int32], later_tracks: NDArray[np.uint8]
) -> NDArray[np.int64]: ...
