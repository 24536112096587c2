"""What the sources that drain rings of the kernel have in common, however the rings are filled."""

from __future__ import annotations

import errno
import os
import select
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from uspcap.backends.base import (
    BATCH_BYTES,
    BATCH_FRAMES,
    DEFAULT_SNAPLEN,
    LiveSource,
    Place,
    SourceStatistics,
    StampedInterfaces,
)
from uspcap.backends.network_interface import NetworkInterface, losses_since, operating_system, risen
from uspcap.errors import CaptureError
from uspcap.frames import FrameBatch, Interface
from uspcap.timestamps.nic_clock import ClockAccount
from uspcap.timestamps.stamping import Stamping


@dataclass(slots=True)
class RingCounts:
    """What the rings and the kernel behind them have counted.

    Attributes
    ----------
    received : int
        Frames that matched the filter where it runs in the kernel.
    dropped : dict of Place to dict of str to int
        By place and cause; zeros are left out of the statistics.
    remarks : dict of str to int
        Counts that are no losses; likewise.
    seen : int or None
        Frames that came to the XDP hook.
    """

    received: int
    dropped: dict[Place, dict[str, int]]
    remarks: dict[str, int] = field(default_factory=dict)
    seen: int | None = None


class RingSource(LiveSource):
    """Captures on one network interface through one or more rings, drained in turn by one thread.

    Parameters
    ----------
    interface : NetworkInterface
    expression : str
        The filter, for the descriptions of the capture's interfaces.
    snaplen : int
    stamping : Stamping
        Who stamps; the capture's interface number 0 is for whom it expects. Closed by `close` of the subclass, last.

    Attributes
    ----------
    emptied : bool
        Every ring was found empty after the frames that were yielded last: all that are older were yielded.
    """

    settling_ms: ClassVar[int]
    """How long after `stop` frames that were taken may still appear on a ring."""

    lag_ns: ClassVar[int]
    """By how much one ring may lag behind another, with room to spare."""

    def __init__(
        self,
        interface: NetworkInterface,
        expression: str,
        snaplen: int,
        stamping: Stamping,
    ) -> None:
        super().__init__()
        self._interface = interface
        self._stamping = stamping
        first = Interface(
            link_type=interface.link_type,
            name=interface.name,
            filter=expression,
            operating_system=operating_system(),
            snaplen=snaplen,
            timestamp_source=stamping.expected,
        )
        self._stamped = StampedInterfaces(first, stamping.texts)
        self._batch = FrameBatch(BATCH_FRAMES)
        self._batch.set_data(np.zeros(BATCH_BYTES, np.uint8))
        self._delivered = self._filtered = 0
        self._times_down = 0
        self._lossy = False  # some row may have a drop_count; set by subclasses before they write the first
        self.emptied = False
        self._stopped = self._gone = False
        self._nap_s = 0.0  # how long frames may gather once they come; 0: the kernel wakes the reader each time
        self._poll = select.poll()
        self._nic_before = interface.receive_counters()
        self._nic_after: dict[str, int] | None = None
        self._driver_before = interface.driver_counters()
        self._driver_risen: dict[str, int] = {}

    @property
    @abstractmethod
    def ring_count(self) -> int:
        """How many rings there are; the batches' `queue` column is below it."""

    @abstractmethod
    def _drain(self, batch: FrameBatch, first: int, read_at_ns: int) -> int:
        """Fill the batch from the rings, beginning with ring `first`; return how many bytes its frames take.

        It is `read_at_ns` now, in UTC. Rows before which frames were lost get a `drop_count`; `_lossy` is true from
        the first of them on.
        """

    @abstractmethod
    def _refuse_more(self) -> None:
        """See to it that no further frame reaches the rings."""

    @abstractmethod
    def _counts(self) -> RingCounts: ...

    @abstractmethod
    def _socket_error(self, descriptor: int) -> int:
        """Take the pending error of the socket with this descriptor: an errno, or 0."""

    @abstractmethod
    def _while_idle(self) -> None:
        """Look after the interface when nothing came in time; sets `_gone` where it is."""

    def _after_drain(self, batch: FrameBatch) -> None:
        """Do with a batch what the kernel could not."""

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._stamped.known

    def clocks(self) -> tuple[ClockAccount, ...]:
        return self._stamping.accounts()

    def capabilities_needed(self) -> frozenset[str]:
        return frozenset(["CAP_NET_ADMIN"] if self._stamping.must_restore else [])

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        first = 0
        rounds_left = 2
        coming = False
        while rounds_left:
            if self._fill(first):
                first = (first + 1) % self.ring_count
                coming = True
                yield self._batch
            elif self._stopped or self._gone:
                rounds_left -= 1
                self._poll.poll(self.settling_ms)
            elif coming and self._nap_s:
                # More is likely to come: let it gather, rather than be woken for every few frames.
                coming = False
                time.sleep(self._nap_s)
            elif not self._wait(timeout_s):
                yield None
        if self._gone:
            raise CaptureError(f"interface {self._interface.name} is gone: what it had given until then was kept")

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._refuse_more()
            self._nic_after = self._interface.receive_counters()
            self._driver_risen = risen(self._driver_before, self._interface.driver_counters())

    def statistics(self) -> SourceStatistics:
        counts = self._counts()
        now = self._interface.receive_counters() if self._nic_after is None else self._nic_after
        nic_dropped, nic_remarks = losses_since(self._nic_before, now)
        remarks = {**nic_remarks, **counts.remarks}
        dropped_at = {place: _without_zeros(causes) for place, causes in counts.dropped.items() if any(causes.values())}
        statistics = SourceStatistics(
            received=counts.received,
            delivered=self._delivered,
            filtered=self._filtered,
            dropped={cause: count for causes in dropped_at.values() for cause, count in causes.items()},
            nic_dropped=nic_dropped,
            remarks=_without_zeros(remarks),
            dropped_at=dropped_at,
            seen=counts.seen,
            interface_counts={"rx_packets": 0, **risen(self._nic_before, now), **self._driver_risen} if now else {},
        )
        if not self._stopped:
            statistics.waiting = max(0, statistics.unaccounted)
        return statistics

    def _fill(self, first: int) -> bool:
        """Read what the rings have, beginning with ring `first`; False where they have nothing."""
        batch = self._batch
        batch.count = 0
        batch.frames_before = self._delivered + self._filtered
        if self._lossy:
            batch.storage("drop_count").fill(0)
        used = self._drain(batch, first, time.time_ns())
        batch.frames_read = batch.count
        self.emptied = batch.count < batch.capacity and used <= BATCH_BYTES - DEFAULT_SNAPLEN
        if not batch.count:
            return False
        self._stamping.convert(batch)
        if batch.interfaces is not self._stamped.known:
            batch.set_interfaces(self._stamped.known)
        batch.refilled()
        self._after_drain(batch)
        self._filtered += batch.frames_read - batch.count
        self._delivered += batch.count
        return True

    def _wait(self, timeout_s: float) -> bool:
        """Wait for a frame; False where none came in time."""
        ready = False
        for descriptor, event in self._poll.poll(timeout_s * 1000):
            ready |= bool(event & select.POLLIN)
            if event & select.POLLERR:
                self._take_error(self._socket_error(descriptor))
        if not ready:
            self._stamping.follow()
            self._while_idle()
        return ready

    def _take_error(self, number: int) -> None:
        """Count that the interface went down; raise where it is anything else."""
        if number == errno.ENETDOWN:
            self._times_down += 1
        elif number:
            raise CaptureError(f"cannot go on capturing on {self._interface.name}: {os.strerror(number)}; start again")


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {what: count for what, count in counts.items() if count}
