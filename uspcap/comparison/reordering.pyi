import numpy as np
from numpy.typing import NDArray

REMEMBERED: int
EXTENT_DTYPE: np.dtype[np.void]

class Reordering:
    arrivals: int
    reordered: int
    clipped: int
    def update(self, numbers: NDArray[np.int64]) -> NDArray[np.void]: ...
