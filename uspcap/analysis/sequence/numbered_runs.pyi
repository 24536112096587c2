import numpy as np

KEPT_ENDS: int
KIND_DATA: int
KIND_HEARTBEAT: int
KIND_END: int
KIND_RESET: int
KIND_FILL: int
KIND_HOLE: int
RUN_DTYPE: np.dtype[np.void]
PACKET_END_DTYPE: np.dtype[np.void]
STREAM_DTYPE: np.dtype[np.void]
