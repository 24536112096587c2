from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns
from uspcap.backends.gathering import FrameRing

class Ring:
    size: int
    def __init__(
        self,
        memory: mmap | NDArray[np.uint8],
        producer: int,
        consumer: int,
        entries: int,
        flags: int,
        size: int,
        entry_bytes: int,
    ) -> None: ...

class ReceiveQueue(FrameRing):
    malformed: int
    without_timestamp: int
    truncated: int
    cut: int
    lost: int
    def __init__(
        self,
        umem: mmap | NDArray[np.uint8],
        chunk_bytes: int,
        receive: Ring,
        fill: Ring,
        snaplen: int,
        queue: int,
        hardware: bool,
        interfaces: NDArray[np.uint16],
        *,
        cookie: int = 0,
        ethernet: bool = False,
    ) -> None: ...
    @property
    def needs_wakeup(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    def prime(self) -> None: ...
    def note_lost(self, count: int) -> None: ...
    def serve(self, socket: int, polls_busily: bool) -> None: ...
    def ask_for_losses(self) -> None: ...
    def drain(self, frames: FrameColumns, used: int, tai_offset_ns: int, read_at_ns: int) -> int: ...
    def close(self) -> None: ...

class TransmitQueue:
    def __init__(self, queue: ReceiveQueue, transmit: Ring, completion: Ring, fd: int) -> None: ...
    def close(self) -> None: ...
