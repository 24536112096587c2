from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.messages.message_streams import MessageStreams

SESSION_DTYPE: np.dtype[Any]
BREAK_DTYPE: np.dtype[Any]

class NumberMachine(MessageStreams):
    def __init__(
        self,
        fix: bool,
        maximum_connections: int,
        maximum_streams: int,
        maximum_runs: int,
        runs_a_stream: int,
        maximum_log_bytes: int,
        at_once: bool = False,
    ) -> None: ...
    @property
    def most_runs(self) -> int: ...
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]: ...
    def counted(self) -> tuple[int, int]: ...
    def connection_breaks(self) -> NDArray[Any]: ...
