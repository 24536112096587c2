from uspcap._core.columns import FrameColumns
from uspcap.stages.ordering import Chain

ENDED: int
NEEDS_ROOM: int
FULL: int

class Merger:
    needed: int
    def __init__(self, chains: list[Chain]) -> None: ...
    def begin(self, out: FrameColumns) -> None: ...
    def fill(self, out: FrameColumns) -> int: ...
    @property
    def big_endian(self) -> bool: ...
