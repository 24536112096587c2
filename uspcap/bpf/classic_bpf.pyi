from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

VIEW: int
VIEWS: dict[str, int]

class ClassicProgram:
    def __init__(self, instructions: NDArray[Any] | list[tuple[int, int, int, int]]) -> None: ...
    @property
    def length(self) -> int: ...
    def __len__(self) -> int: ...

def run(program: ClassicProgram, frames: FrameColumns, mask: NDArray[np.uint8], link_type: int) -> int: ...
def run_on_plain(
    program: ClassicProgram,
    frames: FrameColumns,
    mask: NDArray[np.uint8],
    left: NDArray[np.uint8],
    link_type: int,
    ipv6_too: bool,
) -> tuple[int, int]: ...
def run_inside(
    outer: ClassicProgram,
    on_packets: ClassicProgram,
    on_frames: ClassicProgram,
    frames: FrameColumns,
    headers: HeaderColumns,
    mask: NDArray[np.uint8],
    wanted: NDArray[np.uint8],
    link_type: int,
    only_tags: bool = False,
) -> int: ...
