from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns
from uspcap._native.numbered_streams import NumberedStreams

Place = tuple[int, int, bool]

class FeedRule:
    wraps: bool
    number_bits: int
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
        heartbeat_count: int | None,
        end_count: int | None,
        excluded_count: int | None,
        unnumbered: int | None,
        heartbeat_is_last: bool,
        header_only_is_request: bool,
        wraps: bool,
    ) -> None: ...

def track_runs(
    frames: FrameColumns, headers: HeaderColumns, frame_shift: int, rule: FeedRule, streams: NumberedStreams
) -> None: ...
def track_with_datagrams(
    frames: FrameColumns,
    headers: HeaderColumns,
    frame_shift: int,
    rule: FeedRule,
    streams: NumberedStreams,
    first: int,
    last: int,
    datagrams: FrameColumns,
    datagram_headers: HeaderColumns,
    completed_by: NDArray[np.int64],
) -> None: ...
