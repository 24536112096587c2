"""A ring source on plain memory, timestamped as its timestamping says: no kernel, no privilege."""

from __future__ import annotations

import time

from support.nic_kernel import SECOND
from support.tpacket_ring import FakeRing, RingFrame
from support.traffic import numbered_frame

from uspcap.backends.base import Description
from uspcap.backends.gathering import HANDED_OVER, QUIET
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.packet_mmap.tpacket import PacketRing
from uspcap.backends.rings import RingCounts, RingSource
from uspcap.frames import FrameBatch
from uspcap.timestamps.timestamping import Timestamping

BLOCK = 8192


class MemoryRing(RingSource):
    """Drains a ring in plain memory as PACKET_MMAP's source does."""

    backend = "memory"
    settling_ms = 0
    lag_ns = 0

    def __init__(self, fake: FakeRing, timestamping: Timestamping) -> None:
        super().__init__(NetworkInterface.look_up("lo"), "", 65535, timestamping)
        self.ring = PacketRing(fake.memory, BLOCK, 2, 65535, True, 0, timestamping.user, self._timestamped.table)

    @property
    def ring_count(self) -> int:
        return 1

    def _gather(self, batch: FrameBatch, timeout_ns: int) -> int:
        batch.count = 0
        self.ring.drain(batch, 0, time.time_ns())
        return HANDED_OVER if batch.count else QUIET

    def _refuse_more(self) -> None: ...

    def _counts(self) -> RingCounts:
        return RingCounts(self._delivered, {})

    def _socket_error(self) -> int:
        return 0

    def _look_after(self) -> None: ...

    def describe(self) -> Description:
        return Description("lo", "memory", "plain", 0, 0, str(self._timestamping), tuple(self._timestamping.remarks))

    def close(self) -> None:
        self._timestamping.close()


def timestamped_frame(number: int, timestamp_ns: int, status: int) -> RingFrame:
    return RingFrame(numbered_frame(number), divmod(timestamp_ns, SECOND), status=status)
