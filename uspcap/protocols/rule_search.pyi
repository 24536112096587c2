import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns

PROTOCOLS: dict[str, int]
MATCHES: dict[str, int]
KEY_KINDS: dict[str, int]

def find_known(
    protocol: int, frames: FrameColumns, headers: HeaderColumns, kinds: NDArray[np.uint8], keys: NDArray[np.uint64]
) -> tuple[int, int, int]: ...
def find_by_rule(
    frames: FrameColumns,
    headers: HeaderColumns,
    kind: int,
    mask: NDArray[np.uint8],
    key_kind: int,
    first: int,
    end: int,
    tag: NDArray[np.uint8],
    match: int,
    passes_fragments: bool,
    kinds: NDArray[np.uint8],
    keys: NDArray[np.uint64],
) -> tuple[int, int]: ...
