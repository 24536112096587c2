from collections.abc import Sequence
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.af_xdp.xsk import ReceiveQueue, TransmitQueue

COLUMNS: tuple[str, ...]
WAKEUPS: tuple[str, ...]
ANSWERS: tuple[str, ...]

def clock_cost_ns(looks: int = 1000) -> float: ...

class PathReader:
    received: int
    foreign: int
    unrecorded: int
    short: int
    answered: int
    unanswered: int
    payload_bytes: int
    system_calls: int
    wake_ups: int
    cpu_ns: int
    user_ns: int
    system_ns: int
    voluntary_switches: int
    involuntary_switches: int
    cycles: int
    cycles_error: int
    error_number: int
    def answer(self, how: str, *, tai_offset_ns: int = 0, most: int = ...) -> None: ...
    def take_others(self) -> None: ...
    def stop(self) -> None: ...
    def run(self) -> None: ...
    def records(self) -> NDArray[np.int64]: ...

class SocketReader(PathReader):
    def __init__(
        self, fd: int, path: int, wakeup: str, columns: NDArray[np.int64], *, epoll_fd: int = -1, delay_ns: int = 0
    ) -> None: ...

class AnswerReader(SocketReader):
    def __init__(self, fd: int, columns: NDArray[np.int64], *, utc_ahead_ns: int) -> None: ...

class RingReader(PathReader):
    malformed: int
    next_slot: int
    def __init__(
        self,
        memory: mmap | NDArray[np.uint8],
        slot_bytes: int,
        fd: int,
        path: int,
        wakeup: str,
        columns: NDArray[np.int64],
        *,
        epoll_fd: int = -1,
        delay_ns: int = 0,
        first_slot: int = 0,
    ) -> None: ...

class XskReader(PathReader):
    malformed: int
    def __init__(
        self,
        queues: Sequence[ReceiveQueue],
        fds: Sequence[int],
        path: int,
        wakeup: str,
        columns: NDArray[np.int64],
        *,
        epoll_fd: int = -1,
        delay_ns: int = 0,
        transmits: Sequence[TransmitQueue] = (),
    ) -> None: ...
