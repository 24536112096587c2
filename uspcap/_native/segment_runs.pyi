from uspcap._native.columns import FrameColumns, HeaderColumns
from uspcap._native.numbered_streams import NumberedStreams

MODULUS: int
FAR_BYTES: int

def track_segments(
    frames: FrameColumns, headers: HeaderColumns, frame_shift: int, streams: NumberedStreams
) -> None: ...
