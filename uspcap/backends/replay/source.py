"""Replay: capture files as if they came live, at their own pace, faster or slower, or without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FRAME_FIELDS
from uspcap.backends.base import BATCH_FRAMES, Description, LiveSource, SourceStatistics
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import UsageError
from uspcap.formats.waking import ReadingEnded, Wake
from uspcap.frames import LATEST_NS, NANOSECONDS, FrameBatch, Interface, TimestampSource
from uspcap.stages.reading import PlannedInput, is_read_once
from uspcap.stages.selection import FrameSelection
from uspcap.stages.straightening import Straightener

SHORTEST_WAIT_S = 0.001
"""Frames that are due within it come in one batch, as they would from a ring."""


class ReplaySource(LiveSource):
    """Frames of capture files, with the timestamps that the files have.

    Parameters
    ----------
    paths : sequence of str or PlannedInput
        One after the other, or in order of time where that is planned; `-` is standard input, which can be read once
        only.
    expression : str
        Filter as of pcap-filter(7).
    speed : float
        1 keeps the time between frames, 2 halves it; 0 does not wait at all. A frame with an earlier timestamp than
        the one before it comes at once, and so does one without a timestamp.
    loops : int
        How often to go through the files; 0 is for ever. From the second time on, timestamps are moved on by how long
        the files last and their mean time between frames, so that time goes on.
    clock : callable
        Nanoseconds that never step back.
    sleep : callable
        Takes seconds.

    Raises
    ------
    UsageError
        The numbers make no sense, or standard input is to be read more than once.
    """

    backend = "replay"
    counts_an_interface = False

    def __init__(
        self,
        paths: Sequence[str | PlannedInput],
        expression: str = "",
        *,
        speed: float = 1.0,
        loops: int = 1,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        if not paths:
            raise UsageError("a replay needs a capture file: name it with -r")
        if not 0 <= speed < float("inf") or loops < 0:
            raise UsageError(f"cannot replay {loops} times at speed {speed}: both are 0 or more")
        self._files = [PlannedInput(path) if isinstance(path, str) else path for path in paths]
        self._paths = tuple(planned.path for planned in self._files)
        if "-" in self._paths and (loops != 1 or self._paths.count("-") > 1):
            raise UsageError("standard input can be replayed once only: save it to a file first")
        self._speed = speed
        self._loops = loops
        self._clock = clock
        self._sleep = sleep
        self._filter = FrameFilter(expression)
        self._interfaces: tuple[Interface, ...] = ()
        self._first_interface: dict[int, int] = {}
        self._part = FrameBatch(BATCH_FRAMES)
        self._began: tuple[int, int] | None = None
        self._timestamped = False
        self._lowest_ns = self._highest_ns = 0
        self._frames_read = self._received = self._delivered = 0
        self._stopped = False
        self._messages: list[str] = []
        self._wake = Wake()

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._interfaces

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        with suppress(ReadingEnded):
            yield from self._paced(timeout_s)

    def _paced(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        for batch in self._read():
            at = 0
            while at < batch.count and not self._stopped:
                due, wait_s = self._due(batch, at)
                if due:
                    whole = due == batch.count
                    at += due
                    yield self._deliver(batch if whole else self._cut_out(batch, at - due, due))
                else:
                    self._sleep(min(max(wait_s, SHORTEST_WAIT_S), timeout_s))
                    if wait_s > timeout_s:
                        yield None
            if self._stopped:
                return

    def stop(self) -> None:
        self._stopped = True

    def interrupt(self) -> None:
        # What a pipe or a slow disk has not given until now has not been received.
        self._stopped = True
        self._wake.set()

    def messages(self) -> list[str]:
        said, self._messages = self._messages, []
        return said

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(
            received=self._received, delivered=self._delivered, filtered=self._received - self._delivered
        )

    def describe(self) -> Description:
        pace = "as fast as possible"
        if self._speed:
            pace = "at the files' own pace" if self._speed == 1 else f"{self._speed:g} times as fast as the files"
        if self._loops != 1:
            pace += f", {self._loops} loops" if self._loops else ", loops without end"
        return Description(", ".join(self._paths), self.backend, pace, 0, 0, "those of the files")

    def close(self) -> None:
        self._stopped = True
        self._wake.close()

    def _read(self) -> Iterator[FrameBatch]:
        """Yield all batches of all files and loops, numbered and timestamped as one stream."""
        loop = moved_ns = period_ns = 0
        straightener = self._straightener()
        while not self._stopped and (loop < self._loops or not self._loops):
            frames_before = self._frames_read
            if straightener is not None:
                yield from self._read_in_order(straightener, moved_ns, tell=not loop)
            for number, planned in enumerate(self._files if straightener is None else ()):
                selection = planned.selection()
                with planned.open(self._wake) as reader:
                    frames_of_others = self._frames_read
                    for batch in reader.batches():
                        self._frames_read += batch.count
                        selection.apply(batch, reader.facts.interfaces)
                        self._adopt(batch, number, reader.facts.interfaces, frames_of_others, moved_ns)
                        yield batch
                    if not loop:
                        self.problems += reader.facts.all_problems(planned.path)
                        self.problems += selection.problems(planned.path, reader.facts.interfaces)
                        self._messages += (
                            planned.notes + reader.facts.notes(planned.path) + selection.notes(planned.path)
                        )
            frames = self._frames_read - frames_before
            if not frames:
                return
            if not loop:
                length_ns = self._highest_ns - self._lowest_ns if self._timestamped else 0
                period_ns = length_ns + length_ns // max(frames - 1, 1)
            moved_ns += period_ns
            loop += 1

    def _straightener(self) -> Straightener | None:
        """Return what reads the files in order of time, None where they are read one after the other.

        What can be read only once is not held back for frames to come.
        """
        sorting = self._files[0].sorting
        once = next((path for path in self._paths if is_read_once(path)), None)
        if once is not None and self._files[0].dedup_ns is not None:
            raise UsageError(f"a replay leaves out copies (--dedup) of files only: save {once} to one first")
        if sorting == "off" or once is not None:
            return None
        straightener = Straightener(self._files, sorting, self._wake)
        self._files = [straight.planned for straight in straightener.inputs]
        self._paths = tuple(planned.path for planned in self._files)
        return straightener if straightener.is_needed else None

    def _read_in_order(self, straightener: Straightener, moved_ns: int, *, tell: bool) -> Iterator[FrameBatch]:
        """Yield the batches of all files in order of time."""
        frames_of_others = self._frames_read
        in_range = FrameSelection((), self._files[0].time_range)
        for batch in straightener.batches():
            self._frames_read += batch.count
            in_range.apply_range(batch)
            batch.storage("frame_number")[: batch.count] = np.arange(1, batch.count + 1) + batch.frames_before
            self._adopt(batch, 0, straightener.interfaces, frames_of_others, moved_ns)
            yield batch
        if not tell:
            return
        for straight in straightener.inputs:
            name, facts = straight.name, straight.facts
            self.problems += facts.all_problems(name) + straight.selection.problems(name, facts.interfaces)
            self._messages += straight.planned.notes + facts.notes(name) + straight.selection.notes(name)
        self._messages += [*in_range.notes(", ".join(self._paths)), str(straightener.order)]

    def _adopt(
        self, batch: FrameBatch, file: int, interfaces: Sequence[Interface], frames_of_others: int, moved_ns: int
    ) -> None:
        """Turn a reader's batch into one of this source: its interfaces, numbers and timestamps."""
        count = batch.count
        first = self._first_interface.setdefault(file, len(self._interfaces))
        if first + len(interfaces) > len(self._interfaces):
            self._interfaces = (*self._interfaces[:first], *interfaces)
        if batch.interfaces is not self._interfaces:
            batch.set_interfaces(self._interfaces)
        batch.storage("interface")[:count] += np.uint16(first)
        batch.storage("frame_number")[:count] += frames_of_others
        batch.frames_before += frames_of_others
        timestamped = batch.timestamp_source < TimestampSource.NONE
        if timestamped.any():
            if moved_ns:
                self._move(batch, timestamped, moved_ns)
                self._clamp(batch, self._paths[file])
            timestamps = batch.timestamp_ns[timestamped]
            lowest, highest = int(timestamps.min()), int(timestamps.max())
            self._lowest_ns = min(self._lowest_ns, lowest) if self._timestamped else lowest
            self._highest_ns = max(self._highest_ns, highest) if self._timestamped else highest
            self._timestamped = True

    @staticmethod
    def _move(batch: FrameBatch, timestamped: NDArray[np.bool_], moved_ns: int) -> None:
        """Move timestamps on, as far as uspcap counts."""
        timestamps = batch.storage("timestamp_ns")[: batch.count]
        timestamps[timestamped] += np.minimum(min(moved_ns, 2 * LATEST_NS), LATEST_NS - timestamps[timestamped])

    def _due(self, batch: FrameBatch, at: int) -> tuple[int, float]:
        """Return how many rows from `at` on are due, and in how many seconds the next one is."""
        left = batch.count - at
        if not self._speed:
            return left, 0.0
        timestamps = batch.timestamp_ns[at:]
        waiting = batch.timestamp_source[at:] < TimestampSource.NONE
        now = self._clock()
        if self._began is None:
            if not waiting.any():
                return left, 0.0
            self._began = now, int(timestamps[waiting.argmax()])
        clock_then, timestamp_then = self._began
        # At a high speed this has no end.
        waiting &= timestamps > timestamp_then + int(min((now - clock_then) * self._speed, 2.0 * LATEST_NS))
        if not waiting.any():
            return left, 0.0
        due = int(waiting.argmax())
        wait_ns = (int(timestamps[due]) - timestamp_then) / self._speed - (now - clock_then)
        return due, wait_ns / NANOSECONDS

    def _cut_out(self, batch: FrameBatch, at: int, count: int) -> FrameBatch:
        """Return the rows from `at` on as a batch of their own, over the same bytes."""
        part = self._part
        if part.capacity < count:
            part = self._part = FrameBatch(batch.capacity)
        for name, _ in FRAME_FIELDS:
            part.storage(name)[:count] = batch.storage(name)[at : at + count]
        part.count = part.frames_read = count
        part.frames_before = batch.frames_before + at
        part.set_data(batch.data)
        part.big_endian_options = batch.big_endian_options
        if part.interfaces is not self._interfaces:
            part.set_interfaces(self._interfaces)
        return part

    def _deliver(self, batch: FrameBatch) -> FrameBatch:
        batch.refilled()
        self._received += batch.count
        self._filter.apply(batch)
        self._delivered += batch.count
        return batch
