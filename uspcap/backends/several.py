"""Several interfaces as one source: each is read by a thread of its own; their frames are merged by timestamp.

A frame is held until every interface was read up to later than its timestamp and the window beside, so that what is
older has come from all of them, as far as each one's own lag goes. Where more has to be held than there is room for,
the oldest goes before its time. What one interface loses, by its end or by a reader that is too slow, the others go on
without.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.base import BATCH_BYTES, BATCH_FRAMES, Description, LiveSource, SourceStatistics
from uspcap.backends.merging import EVERYTHING, HELD_BYTES, HELD_FRAMES
from uspcap.backends.ring_merger import RingMerger
from uspcap.backends.rings import RingSource
from uspcap.errors import CaptureError
from uspcap.frames import NANOSECONDS, FrameBatch, Interface
from uspcap.timestamps.nic_clock import ClockAccount
from uspcap.unexpected import explain

_HURRY_FRAMES: Final = HELD_FRAMES // 4
"""Where so many are held of one interface, the others are not waited for longer than the window."""

_CLOSED_LOOK_S: Final = 0.1


class _Reading:
    """One interface's source, and how far it was read.

    Attributes
    ----------
    source : RingSource
    name : str
    numbers : ndarray of uint16
        By number of the source's interface descriptions: that of the capture.
    first_ring, rings : int
        Where its frames are held.
    read_until_ns : int
        Frames timestamped before were read, but for the lag.
    error : CaptureError or None
        What ended it before it was to.
    over : bool
    """

    def __init__(self, source: RingSource, number: int) -> None:
        self.source = source
        self.name = source.describe().what
        self.numbers: NDArray[np.uint16] = np.array([number], np.uint16)
        self.first_ring = self.rings = 0
        self.read_until_ns = 0
        self.error: Exception | None = None
        self.over = False
        self.thread: threading.Thread | None = None


class SeveralSources(LiveSource):
    """Captures on several interfaces at once.

    Parameters
    ----------
    sources : sequence of RingSource
        One an interface; closed with this one.
    window_ns : int
        How far the timestamps of one interface's rings may be out of order; 0 gives frames as they come.
    """

    def __init__(self, sources: Sequence[RingSource], window_ns: int) -> None:
        super().__init__()
        self._readings = [_Reading(source, number) for number, source in enumerate(sources)]
        self._window_ns = window_ns
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._known: tuple[Interface, ...] = tuple(source.interfaces[0] for source in sources)
        self._merger = RingMerger(1, HELD_FRAMES, HELD_BYTES)
        self._free_ring = 0
        self._delivered = 0
        self._news = self._full = self._stopped = self._closed = False
        self._messages: list[str] = []
        self._batch = FrameBatch(BATCH_FRAMES)
        self._batch.set_data(np.zeros(BATCH_BYTES, np.uint8))

    @property
    def backend(self) -> str:  # type: ignore[override]
        return self._readings[0].source.backend

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._known

    def parts(self) -> tuple[LiveSource, ...]:
        return tuple(reading.source for reading in self._readings)

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        self._start(timeout_s)
        while True:
            with self._lock:
                if not self._news:
                    self._changed.wait(timeout_s)
                came, self._news = self._news, False
                over = all(reading.over for reading in self._readings)
            given = self._delivered
            yield from self._give(self._complete_until_ns())
            while self._full:
                yield from self._give(EVERYTHING, batches=1)
            self._hurry()
            if over and not self._merger.held:
                break
            if not came or self._delivered == given:
                yield None
        self._raise_failures()

    def stop(self) -> None:
        self._stopped = True

    def messages(self) -> list[str]:
        with self._lock:
            said, self._messages = self._messages, []
        return [message for reading in self._readings for message in reading.source.messages()] + said

    def take_recent_unread_ns(self) -> int | None:
        return max(reading.source.take_recent_unread_ns() for reading in self._readings)

    def statistics(self) -> SourceStatistics:
        by_interface = {reading.name: reading.source.statistics() for reading in self._readings}
        whole = reduce(_together, by_interface.values())
        whole.delivered = self._delivered
        whole.by_interface = by_interface
        if not all(reading.over for reading in self._readings):
            whole.waiting = max(0, whole.unaccounted + whole.waiting)
        if self._merger.late:
            whole.remarks["frames that came too late to be put in order"] = self._merger.late
        return whole

    def describe(self) -> Description:
        each = [reading.source.describe() for reading in self._readings]
        merged = f"interfaces merged by time within {self._window_ns / 1e6:g} ms"
        return Description(
            what=", ".join(description.what for description in each),
            backend=each[0].backend,
            mode="; ".join(f"{description.what}: {description.mode}" for description in each),
            queues_covered=sum(description.queues_covered for description in each),
            queues_total=sum(description.queues_total for description in each),
            timestamps="; ".join(dict.fromkeys(description.timestamps for description in each)),
            remarks=(
                *dict.fromkeys(
                    _with_name(remark, description.what) for description in each for remark in description.remarks
                ),
                merged if self._window_ns else "frames of several interfaces are not sorted by time",
            ),
            each=tuple(each),
        )

    def clocks(self) -> tuple[ClockAccount, ...]:
        return tuple(clock for reading in self._readings for clock in reading.source.clocks())

    def parting_remarks(self) -> tuple[str, ...]:
        return tuple(remark for reading in self._readings for remark in reading.source.parting_remarks())

    def capabilities_needed(self) -> frozenset[str]:
        return frozenset().union(*(reading.source.capabilities_needed() for reading in self._readings))

    def close(self) -> None:
        self._closed = self._stopped = True
        for reading in self._readings:
            if reading.thread is not None:
                reading.thread.join()
        for reading in self._readings:
            reading.source.close()

    def _start(self, timeout_s: float) -> None:
        for reading in self._readings:
            reading.source.frames_wanted = self.frames_wanted
            reading.thread = threading.Thread(
                target=self._read, args=(reading, timeout_s), name=f"uspcap-read-{reading.name}", daemon=True
            )
            reading.thread.start()

    def _read(self, reading: _Reading, timeout_s: float) -> None:
        """Read one interface until its end; what fails ends it alone."""
        try:
            for batch in reading.source.batches(timeout_s):
                if batch is not None:
                    self._take(reading, batch)
                until_ns = reading.source.read_until_ns
                with self._lock:
                    reading.read_until_ns = until_ns
                    self._news = True
                    self._changed.notify()
                if self._stopped:
                    reading.source.stop()
        except Exception as error:
            reading.error = error
        with self._lock:
            reading.over = self._news = True
            self._tell_loss(reading)
            self._changed.notify()

    def _tell_loss(self, reading: _Reading) -> None:
        others = [reading.name for reading in self._readings if not reading.over]
        if reading.error is not None and others:
            self._messages.append(f"{explain(reading.error)}; the capture goes on with {' and '.join(others)}")

    def _take(self, reading: _Reading, batch: FrameBatch) -> None:
        """Hold a batch's frames; where there is no room, wait for it."""
        source = reading.source
        if len(source.interfaces) > len(reading.numbers):
            self._number_interfaces(reading)
        if len(reading.numbers) > 1 or reading.numbers[0]:
            numbers = batch.storage("interface")[: batch.count]
            numbers[:] = reading.numbers[numbers]
        row = 0
        with self._lock:
            if source.ring_count > reading.rings:
                reading.first_ring, reading.rings = self._free_ring, source.ring_count
                self._free_ring += reading.rings
                self._merger.grow(self._free_ring)
            while not self._closed:
                row = self._merger.push(batch, row, reading.first_ring)
                if row >= batch.count:
                    return
                self._full = self._news = True
                self._changed.notify()
                self._room.wait(_CLOSED_LOOK_S)

    def _number_interfaces(self, reading: _Reading) -> None:
        """Give descriptions that a source has gained the next numbers of the capture."""
        with self._lock:
            new = reading.source.interfaces[len(reading.numbers) :]
            numbers = np.arange(len(self._known), len(self._known) + len(new), dtype=np.uint16)
            self._known = (*self._known, *new)
        reading.numbers = np.concatenate([reading.numbers, numbers])

    def _complete_until_ns(self) -> int:
        """Return up to which timestamp the frames of all interfaces are here."""
        if not self._window_ns:
            return EVERYTHING
        with self._lock:
            unfinished = [reading.read_until_ns for reading in self._readings if not reading.over]
        return min(unfinished) - self._window_ns if unfinished else EVERYTHING

    def _hurry(self) -> None:
        """Where much is held, have no interface be waited for: quiet ones say so sooner."""
        hurried = self._merger.held >= _HURRY_FRAMES
        for reading in self._readings:
            reading.source.wait_s = self._window_ns / NANOSECONDS if hurried else None
            reading.source.frames_wanted = 1 if hurried else self.frames_wanted

    def _give(self, until_ns: int, batches: int | None = None) -> Iterator[FrameBatch]:
        """Yield frames not younger than `until_ns`, in `batches` batches at most."""
        batch = self._batch
        while batches is None or batches > 0:
            batch.frames_before = self._delivered
            with self._lock:
                self._merger.pop(batch, until_ns)
                known = self._known
                if batch.count:
                    self._full = False
                    self._room.notify_all()
            if not batch.count:
                return
            batch.frames_read = batch.count
            if batch.interfaces is not known:
                batch.set_interfaces(known)
            batch.refilled()
            self._delivered += batch.count
            if batches is not None:
                batches -= 1
            yield batch

    def _raise_failures(self) -> None:
        failed = [reading.error for reading in self._readings if reading.error is not None]
        unexpected = [error for error in failed if not isinstance(error, CaptureError)]
        if unexpected:
            raise unexpected[0]
        if failed:
            raise CaptureError("; ".join(map(str, failed)))


def _together(statistics: SourceStatistics, other: SourceStatistics) -> SourceStatistics:
    """Return the sums of two interfaces' counts."""
    places = dict.fromkeys((*statistics.dropped_at, *other.dropped_at))
    seen = (statistics.seen, other.seen)
    counts: dict[str, int] | None = None
    if statistics.interface_counts is not None and other.interface_counts is not None:
        counts = _summed(statistics.interface_counts, other.interface_counts)
        if "rx_packets" not in statistics.interface_counts or "rx_packets" not in other.interface_counts:
            counts.pop("rx_packets", None)  # what one of them cannot tell is in no sum
    unread = [ns for ns in (statistics.longest_unread_ns, other.longest_unread_ns) if ns is not None]
    return SourceStatistics(
        received=statistics.received + other.received,
        delivered=statistics.delivered + other.delivered,
        filtered=statistics.filtered + other.filtered,
        dropped=_summed(statistics.dropped, other.dropped),
        waiting=statistics.waiting + other.waiting,
        nic_dropped=_summed(statistics.nic_dropped, other.nic_dropped),
        remarks=_summed(statistics.remarks, other.remarks),
        dropped_at={
            place: _summed(statistics.dropped_at.get(place, {}), other.dropped_at.get(place, {})) for place in places
        },
        seen=None if seen[0] is None or seen[1] is None else seen[0] + seen[1],
        cut=statistics.cut + other.cut,
        interface_counts=counts,
        longest_unread_ns=max(unread) if unread else None,
    )


def _summed(counts: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {what: counts.get(what, 0) + other.get(what, 0) for what in dict.fromkeys((*counts, *other))}


def _with_name(remark: str, name: str) -> str:
    return remark if name in remark else f"{name}: {remark}"
