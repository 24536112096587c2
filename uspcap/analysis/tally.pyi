import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

PROTOCOL_CLASSES: int
SIZE_CLASSES: int
LAYER_FIELDS: int

def tally_frames(
    frames: FrameColumns,
    headers: HeaderColumns,
    by_protocol: NDArray[np.uint64],
    by_size: NDArray[np.uint64],
    by_layer: NDArray[np.uint64],
    by_interface: NDArray[np.uint64],
    by_source: NDArray[np.uint64],
    extremes: NDArray[np.int64],
) -> int: ...
def tally_layers(
    frames: FrameColumns,
    headers: HeaderColumns,
    by_protocol: NDArray[np.uint64],
    by_size: NDArray[np.uint64],
) -> None: ...
