"""The frames of several rings as one stream in the order of their timestamps.

A frame is held until one that is younger by the window was read, and every ring was found empty since: by then, what
is older has come from all rings, unless a ring lags behind by more than the window. What comes later still is given
late, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from uspcap.backends.base import BATCH_BYTES, BATCH_FRAMES, Description, LiveSource, SourceStatistics
from uspcap.backends.ring_merger import RingMerger
from uspcap.backends.rings import RingSource
from uspcap.errors import CaptureError
from uspcap.frames import EARLIEST_NS, NANOSECONDS, FrameBatch, Interface
from uspcap.timestamps.nic_clock import ClockAccount

HELD_FRAMES: Final = 1 << 16
"""Most frames held of a ring; more makes the oldest go before their time."""

HELD_BYTES: Final = 16 << 20
"""Most bytes held of a ring; likewise."""

EVERYTHING: Final = (1 << 63) - 1
"""A time that no timestamp is after."""


class MergedSource(LiveSource):
    """A source of several rings, whose frames come in the order of their timestamps.

    As long as there is one ring only, its frames are handed through.

    Parameters
    ----------
    source : RingSource
        Closed with this one.
    window_ns : int
        How much older than the youngest frame read so far a frame of another ring may be.
    """

    def __init__(self, source: RingSource, window_ns: int) -> None:
        super().__init__()
        self._source = source
        self._window_ns = window_ns
        self._merger = RingMerger(source.ring_count, HELD_FRAMES, HELD_BYTES)
        self._delivered = 0
        self._batch = FrameBatch(BATCH_FRAMES)
        self._batch.set_data(np.zeros(BATCH_BYTES, np.uint8))

    @property
    def backend(self) -> str:  # type: ignore[override]
        return self._source.backend

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._source.interfaces

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        merger = self._merger
        rings = self._source.ring_count
        try:
            for batch in self._source.batches(timeout_s):
                if batch is None:
                    # Nothing came for as long as the window, so nothing older will.
                    yield from self._give(EVERYTHING)
                    self._source.wait_s = None
                    yield None
                    continue
                if self._source.ring_count > rings:
                    rings = self._source.ring_count
                    merger.grow(rings)
                if rings == 1:
                    self._delivered += batch.count
                    yield batch
                    continue
                row = merger.push(batch, 0)
                while row < batch.count:
                    yield from self._give(EVERYTHING, batches=1)
                    row = merger.push(batch, row)
                if self._source.emptied:
                    # Without a frame so far, the newest is the lowest number that there is.
                    yield from self._give(max(merger.newest_ns, EARLIEST_NS) - self._window_ns)
                self._source.wait_s = self._window_ns / NANOSECONDS if merger.held else None
        except CaptureError:
            yield from self._give(EVERYTHING)
            raise
        yield from self._give(EVERYTHING)

    def stop(self) -> None:
        self._source.stop()

    def take_recent_unread_ns(self) -> int | None:
        return self._source.take_recent_unread_ns()

    def messages(self) -> list[str]:
        return self._source.messages()

    def statistics(self) -> SourceStatistics:
        statistics = self._source.statistics()
        statistics.delivered = self._delivered
        statistics.waiting += self._merger.held
        if self._merger.late:
            statistics.remarks["frames that came too late to be put in order"] = self._merger.late
        return statistics

    def describe(self) -> Description:
        description = self._source.describe()
        if self._source.ring_count == 1:
            return description
        said = f"rings merged by time within {self._window_ns / 1e6:g} ms"
        return replace(description, remarks=(*description.remarks, said))

    def clocks(self) -> tuple[ClockAccount, ...]:
        return self._source.clocks()

    def parting_remarks(self) -> tuple[str, ...]:
        return self._source.parting_remarks()

    def capabilities_needed(self) -> frozenset[str]:
        return self._source.capabilities_needed()

    def close(self) -> None:
        self._source.close()

    def _give(self, until_ns: int, batches: int | None = None) -> Iterator[FrameBatch]:
        """Yield frames not younger than `until_ns`, in `batches` batches at most."""
        batch = self._batch
        while batches is None or batches > 0:
            batch.frames_before = self._delivered
            self._merger.pop(batch, until_ns)
            if not batch.count:
                return
            batch.frames_read = batch.count
            if batch.interfaces is not self._source.interfaces:
                batch.set_interfaces(self._source.interfaces)
            batch.refilled()
            self._delivered += batch.count
            if batches is not None:
                batches -= 1
            yield batch
