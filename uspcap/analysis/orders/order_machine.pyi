from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.orders.order_tables import OrderTables

RULE_DTYPE: np.dtype[Any]

class OrderMachine(OrderTables):
    def __init__(
        self,
        version: int,
        rules: NDArray[Any],
        maximum_connections: int,
        maximum_requests: int,
        maximum_log_bytes: int,
        at_once: bool = False,
    ) -> None: ...
    def request_array(self) -> NDArray[Any]: ...
    def connection_array(self) -> NDArray[Any]: ...
