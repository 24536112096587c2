import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns

class RecordFormatter:
    def __init__(self, buffer_bytes: int) -> None: ...
    @property
    def buffer(self) -> NDArray[np.uint8]: ...
    @property
    def used(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def limit_reached(self) -> bool: ...
    def place(self, buffer: NDArray[np.uint8], kept: int) -> int: ...
    @property
    def timestamps_missing(self) -> int: ...
    @property
    def timestamps_refused(self) -> int: ...
    @property
    def lengths_refused(self) -> int: ...
    @property
    def frames_cut(self) -> int: ...
    @property
    def options_refused(self) -> int: ...
    def pcapng(
        self,
        batch: FrameColumns,
        first_row: int,
        interface_map: NDArray[np.uint32],
        snaplens: NDArray[np.uint32],
        big_endian_options: bool,
        end_row: int | None = None,
        byte_limit: int | None = None,
    ) -> int: ...
    def pcap(
        self,
        batch: FrameColumns,
        first_row: int,
        snaplen: int,
        end_row: int | None = None,
        byte_limit: int | None = None,
    ) -> int: ...
