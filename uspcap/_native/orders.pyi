from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._native.columns import FrameColumns, HeaderColumns

REQUEST_KINDS: tuple[str, ...]
ANSWER_KINDS: tuple[str, ...]
COUNTS: tuple[str, ...]
RULE_DTYPE: np.dtype[Any]
POINT_DTYPE: np.dtype[Any]
REQUEST_DTYPE: np.dtype[Any]
CONNECTION_DTYPE: np.dtype[Any]

class OrderMachine:
    @property
    def level(self) -> int: ...
    @property
    def cut_connections(self) -> int: ...
    @property
    def settled_connections(self) -> int: ...
    @property
    def dropped_log_bytes(self) -> int: ...
    @property
    def connection_count(self) -> int: ...
    @property
    def request_count(self) -> int: ...
    @property
    def log_bytes(self) -> int: ...
    def __init__(
        self,
        version: int,
        rules: NDArray[Any],
        maximum_connections: int,
        maximum_requests: int,
        maximum_log_bytes: int,
        at_once: bool = False,
    ) -> None: ...
    def update(self, frames: FrameColumns, headers: HeaderColumns, frame_shift: int) -> None: ...
    def absorb(self, later: OrderMachine, frame_shift: int) -> None: ...
    def finish(self) -> None: ...
    def request_array(self) -> NDArray[Any]: ...
    def connection_array(self) -> NDArray[Any]: ...
