from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns

class ClassicProgram:
    def __init__(self, instructions: NDArray[Any]) -> None: ...
    @property
    def length(self) -> int: ...
    def __len__(self) -> int: ...

def run(program: ClassicProgram, frames: FrameColumns, mask: NDArray[np.uint8], link_type: int) -> int: ...
