from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns

HEAD_PACKETS: int
RESET_DISTANCE: int
KIND_DATA: int
KIND_HEARTBEAT: int
KIND_END: int
KIND_RESET: int
KIND_FILL: int
KIND_HOLE: int
RUN_DTYPE: np.dtype[np.void]
STREAM_DTYPE: np.dtype[np.void]

Place = tuple[int, int, bool]

class FeedRule:
    wraps: bool
    modulus: int
    def __init__(
        self,
        *,
        header_bytes: int,
        sequence: Place,
        count: Place,
        length: Place,
        length_adds: int,
        part: Place,
        keys: Sequence[tuple[int, int]],
        checks: Sequence[tuple[Place, Sequence[int], bool]],
        kinds: Sequence[tuple[Place, Sequence[int]]] | None,
        heartbeat_count: int,
        end_count: int,
        excluded_count: int,
        unnumbered: int,
        heartbeat_is_last: bool,
        header_only_is_request: bool,
        wraps: bool,
    ) -> None: ...

def track_runs(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    first_row: int,
    first_byte: int,
    rule: FeedRule,
    streams: NDArray[np.uint8],
    streams_used: int,
    table: NDArray[np.int32],
    of_flow: NDArray[np.int32],
    runs: NDArray[np.uint8],
    runs_used: int,
    counts: NDArray[np.int64],
) -> tuple[int, int, int, int]: ...
def fill_table(streams: NDArray[np.uint8], streams_used: int, table: NDArray[np.int32]) -> None: ...
