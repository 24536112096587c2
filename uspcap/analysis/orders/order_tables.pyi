from typing import Any

import numpy as np

from uspcap.messages.message_streams import MessageStreams

COUNTS: tuple[str, ...]
REQUEST_DTYPE: np.dtype[Any]
CONNECTION_DTYPE: np.dtype[Any]

class OrderTables(MessageStreams):
    @property
    def request_count(self) -> int: ...
