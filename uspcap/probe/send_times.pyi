import numpy as np
from numpy.typing import ArrayLike, NDArray

class SendTimes:
    def __init__(
        self,
        kind: str,
        *,
        period_numerator: int = ...,
        period_denominator: int = ...,
        seed: int = ...,
        times_ns: ArrayLike | None = ...,
    ) -> None: ...
    def take(self, frames: int) -> NDArray[np.int64]: ...
