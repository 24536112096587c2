"""What the sources that drain rings of the kernel have in common, however the rings are filled."""

from __future__ import annotations

import errno
import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Final

import numpy as np

from uspcap.backends.base import (
    BATCH_BYTES,
    BATCH_FRAMES,
    DEFAULT_SNAPLEN,
    LiveSource,
    Place,
    SourceStatistics,
    TimestampedInterfaces,
)
from uspcap.backends.chunks import longest_frame_bytes
from uspcap.backends.gathering import QUIET, TROUBLED, FrameRing, Gatherer
from uspcap.backends.network_interface import NetworkInterface, losses_since, operating_system, risen
from uspcap.backends.nic_counters import losses, received
from uspcap.errors import CaptureError
from uspcap.frames import NANOSECONDS, FrameBatch, Interface
from uspcap.network.watch import Hook, InterfaceWatch
from uspcap.timestamps.nic_clock import ClockAccount
from uspcap.timestamps.timestamping import Timestamping

LOOKED_AFTER_EVERY_NS: Final = NANOSECONDS
"""How often interface, hook and the NIC's counters are looked at."""

_GRACE_NS: Final = 5_000_000
"""After `stop`: CPUs that were about to put a frame on a ring have done so by then."""


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
    cut : int
        Frames that came in several pieces, each taken for a frame.
    """

    received: int
    dropped: dict[Place, dict[str, int]]
    remarks: dict[str, int] = field(default_factory=dict)
    seen: int | None = None
    cut: int = 0


class RingSource(LiveSource):
    """Captures on one network interface through one or more rings, drained in turn by one thread.

    Parameters
    ----------
    interface : NetworkInterface
    expression : str
        The filter, for the descriptions of the capture's interfaces.
    snaplen : int
    timestamping : Timestamping
        Who timestamps; the capture's interface number 0 is for whom it expects. Closed by `close` of the subclass,
        last.

    Attributes
    ----------
    emptied : bool
        Every ring was found empty after the frames that were yielded last: all that are older were yielded.
    read_until_ns : int
        UTC; frames that were on a ring by then have been yielded.
    settling_ms : int
        How long after `stop` frames that were taken may still appear on a ring.
    """

    settling_ms: int

    lag_ns: ClassVar[int]
    """By how much one ring may lag behind another, with room to spare."""

    def __init__(
        self,
        interface: NetworkInterface,
        expression: str,
        snaplen: int,
        timestamping: Timestamping,
    ) -> None:
        super().__init__()
        self._interface = interface
        self._timestamping = timestamping
        first = Interface(
            link_type=interface.link_type,
            name=interface.name,
            filter=expression,
            operating_system=operating_system(),
            snaplen=snaplen,
            timestamp_source=timestamping.expected,
        )
        self._timestamped = TimestampedInterfaces(first, timestamping.texts)
        self._batch = FrameBatch(BATCH_FRAMES)
        self._batch.set_data(np.zeros(BATCH_BYTES, np.uint8))
        self._delivered = self._filtered = self._oversized = 0
        self._longest = longest_frame_bytes(interface.mtu) if interface.ethernet else 0
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._latest = ""
        self._watch: InterfaceWatch | None = None
        self._lossy = False  # some row may have a drop_count; set by subclasses before they write the first
        self.emptied = False
        self.read_until_ns = 0
        self._stopped = False
        self._gatherer: Gatherer | None = None
        self._look_after_at_ns = 0
        self._nic_before = interface.receive_counters()
        self._nic_now, self._nic_asked_ns = self._nic_before, time.monotonic_ns()
        self._driver_before = interface.driver_counters()
        self._driver_risen: dict[str, int] = {}

    @property
    @abstractmethod
    def ring_count(self) -> int:
        """How many rings there are; the batches' `queue` column is below it."""

    @property
    def most_rings(self) -> int:
        """How many there can come to be."""
        return self.ring_count

    def _gather(self, batch: FrameBatch, timeout_ns: int) -> int:
        """Fill the batch from the rings, waiting for the first frame for so long; return what ended it.

        Rows before which frames were lost get a `drop_count`; `_lossy` is true from the first of them on.
        """
        return self._gathered(batch, 0, timeout_ns)

    def _gathered(self, batch: FrameBatch, tai_offset_ns: int, timeout_ns: int) -> int:
        assert self._gatherer is not None, "a source that reads rings has set them up"
        end = self._gatherer.gather(batch, self.frames_wanted or batch.capacity, tai_offset_ns, timeout_ns)
        self.emptied = self._gatherer.emptied
        if self.emptied:
            self.read_until_ns = self._gatherer.visited_at_ns
        return end

    def _read_in_turn(self, rings: Sequence[FrameRing], descriptors: Sequence[int], **options: Any) -> None:
        """Read these rings from now on, and watch the interface; options are those of `Gatherer`."""
        name = self._interface.name
        self._watch = InterfaceWatch(self._interface.index, name, tell=self._tell, hook=self._hook())
        self._gatherer = Gatherer(tuple(rings), tuple(descriptors), room_bytes=DEFAULT_SNAPLEN, **options)

    def _count_from_now(self) -> None:
        """Let the interface's counters begin now, when frames reach the rings."""
        self._nic_before = self._nic_now = self._interface.receive_counters()
        self._nic_asked_ns = time.monotonic_ns()
        self._driver_before = self._interface.driver_counters()

    @abstractmethod
    def _refuse_more(self) -> None:
        """See to it that no further frame reaches the rings."""

    @abstractmethod
    def _counts(self) -> RingCounts: ...

    @abstractmethod
    def _socket_error(self) -> int:
        """Take the pending error of the socket that `_gatherer.troubled` names: an errno, or 0."""

    def _look_after(self) -> None:
        """Do once a second what the kernel does not do automatically."""

    def _hook(self) -> Hook | None:
        """Return the program at the XDP hook, to be watched; None where there is none."""
        return None

    def _take_unfinished(self, count: int) -> bool:
        """After `stop`: read the `count` frames that the kernel has taken and not handed over, if that can be done."""
        return False

    def _after_drain(self, batch: FrameBatch) -> None:
        """Do with a batch what the kernel could not."""

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._timestamped.known

    def clocks(self) -> tuple[ClockAccount, ...]:
        return self._timestamping.accounts()

    def capabilities_needed(self) -> frozenset[str]:
        return frozenset(["CAP_NET_ADMIN"] if self._timestamping.must_restore else [])

    @property
    def longest_unread_ns(self) -> int:
        return 0 if self._gatherer is None else self._gatherer.longest_unread_ns

    def take_recent_unread_ns(self) -> int:
        return 0 if self._gatherer is None else self._gatherer.take_recent_unread_ns()

    def _tell(self, said: str) -> None:
        self._latest = said
        self._messages.put(said)

    def messages(self) -> list[str]:
        said: list[str] = []
        if self._messages.empty():
            return said
        while True:
            try:
                said.append(self._messages.get_nowait())
            except Empty:
                return said

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        if self._watch is not None:
            # With the privileges that are left by now.
            self._watch.start()
        while not (self._stopped or self._lost_interface):
            wait_s = timeout_s if self.wait_s is None else min(timeout_s, self.wait_s)
            end = self._fill(round(wait_s * NANOSECONDS))
            found = bool(self._batch.count)
            if found:
                yield self._batch
            if end == TROUBLED:
                self._take_error(self._socket_error())
            if end == QUIET:
                self._timestamping.follow()
            if time.monotonic_ns() >= self._look_after_at_ns:
                self._look_after_at_ns = time.monotonic_ns() + LOOKED_AFTER_EVERY_NS
                self._look_after()
            if not found:
                yield None
        self.stop()
        yield from self._settle()
        if self._lost_interface:
            raise CaptureError(f"{self._lost_interface}: frames before that were kept")

    @property
    def _lost_interface(self) -> str:
        """Why the interface can give nothing more; empty while it can."""
        return "" if self._watch is None else self._watch.ended

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _settle(self) -> Iterator[FrameBatch]:
        """Yield what was taken before `stop`: until every frame is accounted for, or for 2 x `settling_ms`."""
        self.frames_wanted = 1  # without waiting for more to join it
        settling_ns = self.settling_ms * 1_000_000
        end_ns = time.monotonic_ns() + 2 * settling_ns
        wait_ns = min(_GRACE_NS, settling_ns)
        while True:
            end = self._fill(wait_ns)
            if self._batch.count:
                yield self._batch
                continue
            if end == TROUBLED:
                self._take_error(self._socket_error())
            left = self._unaccounted()
            if left > 0 and self._take_unfinished(left):
                if self._batch.count:
                    yield self._batch
                left = self._unaccounted()
            if not left or time.monotonic_ns() >= end_ns:
                return
            wait_ns = settling_ns

    def stop(self) -> None:
        if not self._stopped:
            self._end_watch()
            self._stopped = True
            self._refuse_more()
            self._nic_now = self._interface.receive_counters()
            self._driver_risen = risen(self._driver_before, self._interface.driver_counters())

    def statistics(self) -> SourceStatistics:
        counts = self._counts()
        now = self._nic_counters()
        nic_dropped, nic_remarks = losses_since(self._nic_before, now)
        remarks = {**nic_remarks, **counts.remarks, **self._watched()}
        remarks[f"frames longer than the MTU of {self._interface.mtu} allows, so merged or not yet cut"] = (
            self._oversized
        )
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
            cut=counts.cut,
            interface_counts=self._interface_counts(now, counts.seen),
            longest_unread_ns=self.longest_unread_ns,
            latest=self._latest,
        )
        if not self._stopped:
            statistics.waiting = max(0, statistics.unaccounted)
        return statistics

    def _interface_counts(self, now: dict[str, int], at_hook: int | None) -> dict[str, int]:
        """Return what the interface has counted by now; without `rx_packets` where it cannot tell."""
        if not now:
            return {}
        by_kernel = risen(self._nic_before, now)
        came = received(self._driver_risen, by_kernel.pop("rx_packets", 0), at_hook)
        return ({} if came is None else {"rx_packets": came}) | by_kernel | losses(self._driver_risen)

    def _watched(self) -> dict[str, int]:
        """Return what the watch over the interface has counted."""
        if self._watch is None:
            return {}
        return {
            "times that the interface went down": self._watch.times_down,
            "frames that the interface counted and the XDP hook did not see": self._watch.past_the_hook,
        }

    def _nic_counters(self) -> dict[str, int]:
        """Return the kernel's counters of the interface, a second old at most; after `stop` those of that moment."""
        now_ns = time.monotonic_ns()
        if not self._stopped and now_ns - self._nic_asked_ns >= LOOKED_AFTER_EVERY_NS:
            self._nic_asked_ns = now_ns
            self._nic_now = self._interface.receive_counters()
        return self._nic_now

    def _unaccounted(self) -> int:
        """Return how many of the frames received are neither delivered nor known to be lost."""
        counts = self._counts()
        lost = sum(sum(causes.values()) for causes in counts.dropped.values())
        return counts.received - self._delivered - self._filtered - lost

    def _fill(self, timeout_ns: int) -> int:
        """Read what the rings have, or what comes in time, into the batch; return what ended it."""
        batch = self._batch
        batch.frames_before = self._delivered + self._filtered
        if self._lossy:
            batch.storage("drop_count").fill(0)
        end = self._gather(batch, timeout_ns)
        self._finish_batch()
        return end

    def _finish_batch(self) -> None:
        """Do with a batch that was read what is done before it is handed over."""
        batch = self._batch
        batch.frames_read = batch.count
        if self._longest and batch.count:
            self._oversized += int(np.count_nonzero(batch.wire_length > self._longest))
        if not batch.count:
            return
        self._timestamping.convert(batch)
        if batch.interfaces is not self._timestamped.known:
            batch.set_interfaces(self._timestamped.known)
        batch.refilled()
        self._after_drain(batch)
        self._clamp(batch, self._interface.name)
        self._filtered += batch.frames_read - batch.count
        self._delivered += batch.count

    def _take_error(self, number: int) -> None:
        """Raise where reading cannot go on; what happened to the interface is the watch's to tell."""
        if number in (0, errno.ENETDOWN) or (self._watch is not None and self._watch.why_it_failed("")):
            return
        raise CaptureError(f"cannot continue capturing on {self._interface.name}: {os.strerror(number)}; start again")


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {what: count for what, count in counts.items() if count}
