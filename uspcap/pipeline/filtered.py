"""A source whose frames are filtered after it: files, whose filters apply to more than the source's own can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from uspcap.backends.base import Description, LiveSource, SourceStatistics
from uspcap.bpf.filters import FrameFilter
from uspcap.frames import FrameBatch, Interface
from uspcap.timestamps.nic_clock import ClockAccount


class FilteredSource(LiveSource):
    """Frames of another source that match a filter; what does not is counted as filtered.

    Parameters
    ----------
    source : LiveSource
        Without a filter of its own; of files.
    frame_filter : FrameFilter
    tunnels : bool
        Let the filter look at what tunnels carry.
    """

    def __init__(self, source: LiveSource, frame_filter: FrameFilter, *, tunnels: bool) -> None:
        super().__init__()
        self._source = source
        self._filter = frame_filter
        self._tunnels = tunnels
        self._filtered = 0
        self.problems, self.clamped = source.problems, source.clamped
        # Of the class elsewhere: this is a source of whatever the other is one of.
        self.backend = source.backend  # type: ignore[misc]
        self.counts_an_interface = source.counts_an_interface  # type: ignore[misc]

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._source.interfaces

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        self._source.wait_s = self.wait_s
        for batch in self._source.batches(timeout_s):
            if batch is not None:
                before = batch.count
                batch.decode_tunnels = self._tunnels
                self._filter.apply(batch)
                self._filtered += before - batch.count
            self._source.frames_wanted = self.frames_wanted
            yield batch

    @property
    def hint(self) -> str:
        """What to try where nothing matched and something would have."""
        return self._filter.counts.hint

    def stop(self) -> None:
        self._source.stop()

    def interrupt(self) -> None:
        self._source.interrupt()

    def messages(self) -> list[str]:
        return self._source.messages()

    def take_recent_unread_ns(self) -> int | None:
        return self._source.take_recent_unread_ns()

    def statistics(self) -> SourceStatistics:
        counted = self._source.statistics()
        return replace(
            counted, delivered=counted.delivered - self._filtered, filtered=counted.filtered + self._filtered
        )

    def describe(self) -> Description:
        return self._source.describe()

    def clocks(self) -> tuple[ClockAccount, ...]:
        return self._source.clocks()

    def parting_remarks(self) -> tuple[str, ...]:
        return self._source.parting_remarks()

    def capabilities_needed(self) -> frozenset[str]:
        return self._source.capabilities_needed()

    def close(self) -> None:
        self._source.close()
