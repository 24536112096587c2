from typing import Any

import numpy as np

REQUEST_KINDS: tuple[str, ...]
ANSWER_KINDS: tuple[str, ...]
COUNTS: tuple[str, ...]
POINT_DTYPE: np.dtype[Any]
REQUEST_DTYPE: np.dtype[Any]
CONNECTION_DTYPE: np.dtype[Any]

class OrderTables:
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
