import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns
from uspcap._native.feed_runs import FeedRule

LINE_DTYPE: np.dtype[np.void]
ARRIVAL_DTYPE: np.dtype[np.void]
PAIR_DTYPE: np.dtype[np.void]
SUM_DTYPE: np.dtype[np.void]

def lay_out_lines(lines: NDArray[np.uint8], table: NDArray[np.int16]) -> None: ...
def collect_arrivals(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    first_row: int,
    first_byte: int,
    rule: FeedRule,
    lines: NDArray[np.uint8],
    line_table: NDArray[np.int16],
    streams: NDArray[np.uint8],
    streams_used: int,
    table: NDArray[np.int32],
    arrivals: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> tuple[int, int, int, int]: ...
def arbitrate(
    arrivals: NDArray[np.uint8],
    first: int,
    rule: FeedRule,
    pair: NDArray[np.uint8],
    stamps: NDArray[np.int64],
    marks: NDArray[np.uint8],
    streams: NDArray[np.uint8],
    runs: NDArray[np.uint8],
    runs_used: int,
    places: NDArray[np.int8],
    skew_counts: NDArray[np.uint64],
    skew_sums: NDArray[np.uint8],
) -> tuple[int, int]: ...
