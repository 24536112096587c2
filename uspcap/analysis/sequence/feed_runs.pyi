import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.protocols.feed_rule import FeedRule

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
