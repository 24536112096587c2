from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis.sequence.numbered_streams import NumberedStreams

def track_segments(
    frames: FrameColumns, headers: HeaderColumns, frame_shift: int, streams: NumberedStreams
) -> None: ...
