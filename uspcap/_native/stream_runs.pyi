from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._native.message_streams import MessageStreams

NUMBER_STREAM_DTYPE: np.dtype[Any]
BREAK_DTYPE: np.dtype[Any]

class NumberMachine(MessageStreams):
    def __init__(
        self,
        fix: bool,
        maximum_connections: int,
        maximum_streams: int,
        maximum_runs: int,
        maximum_log_bytes: int,
        at_once: bool = False,
    ) -> None: ...
    @property
    def run_count(self) -> int: ...
    @property
    def stream_count(self) -> int: ...
    @property
    def not_followed(self) -> int: ...
    @property
    def without_stamp(self) -> int: ...
    @property
    def malformed(self) -> int: ...
    def run_array(self) -> NDArray[Any]: ...
    def stream_array(self) -> NDArray[Any]: ...
    def connection_breaks(self) -> NDArray[Any]: ...
