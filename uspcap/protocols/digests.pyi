import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

KEYS: tuple[str, ...]

def digest(
    frames: FrameColumns, headers: HeaderColumns | None, key: int, limit: int, out: NDArray[np.uint64]
) -> None: ...
