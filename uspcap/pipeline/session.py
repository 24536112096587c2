"""One capture from its first frame to its accounts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from uspcap.backends.base import Description, LiveSource, SourceStatistics, idle_hook
from uspcap.errors import CaptureError, UspcapError
from uspcap.formats.byte_sink import Patience
from uspcap.formats.writer import CaptureWriter
from uspcap.frames import NANOSECONDS, FrameBatch, Problem
from uspcap.notices import say
from uspcap.pipeline.attention import Attention
from uspcap.sinks.output import interface_statistics
from uspcap.sinks.rotation import RotatingWriter
from uspcap.timestamps.nic_clock import ClockAccount
from uspcap.unexpected import explain

if TYPE_CHECKING:
    # A capture that only writes does without the analyses, whose import takes longer than a ring's set-up.
    from uspcap.analysis.suite import Suite
    from uspcap.pipeline.intervals import Intervals
    from uspcap.timestamps.trailers import TrailerStage

IDLE_S: Final = 0.25
"""Where no frame comes, limits and requests to stop are looked at so often."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where every frame of a capture went.

    Attributes
    ----------
    statistics : SourceStatistics
        The source's.
    kept : int
        Frames that the file and the analyses were given.
    after_limit : int
        Frames read beyond the limit, and left out.
    written : int or None
        Frames that are whole in the file; None where there is no file.
    unwritten : int
        Frames kept that the file could not take.
    too_slow : int
        Frames kept for which there was no room, as the disk was too slow.
    refusal : str
        Why the file could not take some.
    queued : int
        Frames kept that wait for the disk; 0 at the end.
    """

    statistics: SourceStatistics
    kept: int
    after_limit: int
    written: int | None
    unwritten: int
    too_slow: int = 0
    refusal: str = "the file could not take them"
    queued: int = 0

    @property
    def lost_in_writer(self) -> dict[str, int]:
        """Frames kept that are not in the file, by cause."""
        lost = {self.refusal: self.unwritten, "the disk was too slow": self.too_slow}
        return {cause: count for cause, count in lost.items() if count}

    @property
    def unaccounted(self) -> int:
        """Frames received that are nowhere; negative where there are more than were received."""
        return self.statistics.unaccounted + self.statistics.delivered - self.kept - self.after_limit

    def complaint(self, what: str) -> str:
        """Return why nobody may rely on these counts, in one sentence; empty where they close.

        Parameters
        ----------
        what : str
            Interfaces or files.
        """
        for name, statistics in (self.statistics.by_interface or {what: self.statistics}).items():
            if statistics.hook_is_idle:
                return idle_hook(name, (statistics.interface_counts or {})["rx_packets"])
            if statistics.cut:
                return (
                    f"the driver of {name} cut {statistics.cut} frames longer than its buffers, and each piece "
                    "was counted as a frame: set the same MTU there and on all senders, or capture with --xdp copy"
                )
        each = {name: statistics.unaccounted for name, statistics in self.statistics.by_interface.items()}
        for name, unaccounted in (*each.items(), (what, self.unaccounted)):
            if unaccounted > 0:
                came = f"1 frame that came to {name} was"
                if unaccounted > 1:
                    came = f"{unaccounted} frames that came to {name} were"
                return f"{came} neither kept nor counted as lost: capture with --xdp skb or --backend packet_mmap"
            if unaccounted:
                return (
                    f"{-unaccounted} more frames came from {name} than were counted there: its driver's counts are "
                    "unreliable"
                )
        return ""

    def __str__(self) -> str:
        statistics = self.statistics
        parts = [f"{self.kept} analyzed" if self.written is None else f"{self.written} written"]
        lost = list(self.lost_in_writer.items())
        lost += statistics.dropped.items()
        if lost:
            causes = ", ".join(f"{cause} {count}" for cause, count in lost)
            parts.append(f"{sum(count for _, count in lost)} dropped ({causes})")
        for count, what in (
            (statistics.filtered, "not matching the filter"),
            (self.after_limit, "after the limit"),
            (statistics.waiting, "still in the ring"),
            (self.queued, "waiting for the disk"),
        ):
            if count:
                parts.append(f"{count} {what}")
        line = f"received {statistics.received} = {' + '.join(parts)}"
        if self.unaccounted:
            line += f"; {self.unaccounted} are not accounted for"
        if statistics.cut:
            line += f"; these are pieces, as {statistics.cut} frames were cut"
        if statistics.nic_dropped:
            counters = ", ".join(f"{counter} {count}" for counter, count in statistics.nic_dropped.items())
            line += f"; the interface dropped frames before ({counters})"
        for what, count in statistics.remarks.items():
            line += f"; {what}: {count}"
        if statistics.longest_unread_ns is not None:
            line += f"; a ring went unread for {statistics.longest_unread_ns / 1e6:,.1f} ms at most"
        return line


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What a capture came to.

    Attributes
    ----------
    accounts : Accounts
    suite : Suite or None
        The analyses, where there are any and none has failed.
    description : str
        The source's line.
    what : str
        Interface or files.
    problems : list of Problem
        What is wrong with files that were replayed.
    clocks : tuple of ClockAccount
        How timestamps of clocks other than the host's were put on UTC.
    failure : UspcapError or None
        Why the capture ended before it was to.
    losses : tuple of str
        What happened to files while they were written, a sentence each.
    happened : tuple of str
        What happened to the source while it was read, likewise.
    """

    accounts: Accounts
    suite: Suite | None
    description: str
    what: str
    problems: list[Problem]
    clocks: tuple[ClockAccount, ...]
    failure: UspcapError | None
    losses: tuple[str, ...] = ()
    happened: tuple[str, ...] = ()


class CaptureSession:
    """Carries frames from a source to a writer and to analyses until a limit, a failure or `stop`.

    Parameters
    ----------
    source : LiveSource
    writer : CaptureWriter or RotatingWriter, optional
        Closed by `run`, with the interface's statistics.
    suite : Suite, optional
    intervals : Intervals, optional
        Take the frames instead of `suite`; ended by `run`.
    trailers : TrailerStage, optional
        Has analyses take timestamps that are in the frames; the file gets the frames as they are.
    frames : int, optional
        End after so many.
    duration_ns : int, optional
        End after so long.
    clock : callable
        Nanoseconds that never step back.
    patience : Patience, optional
        With the reader of a pipe that the writer writes to; ended with the capture.
    tell : callable
        Called with what happens to the source while it is read, a sentence each.

    Attributes
    ----------
    attention : Attention
        What may be asked of the capture while it runs.
    """

    def __init__(
        self,
        source: LiveSource,
        *,
        writer: CaptureWriter | RotatingWriter | None = None,
        suite: Suite | None = None,
        intervals: Intervals | None = None,
        trailers: TrailerStage | None = None,
        frames: int | None = None,
        duration_ns: int | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        patience: Patience | None = None,
        tell: Callable[[str], None] = say,
    ) -> None:
        self.attention = Attention(writer)
        self._patience = patience or Patience()
        self._tell = tell
        self._happened: list[str] = []
        self._source = source
        self._writer = writer
        self._suite = suite
        self._intervals = intervals
        self._trailers = trailers
        self._frames = frames
        self._duration_ns = duration_ns
        self._clock = clock
        self._stop_asked = False
        self._writing = self._analyzing = True
        self._kept = self._after_limit = 0
        self._failure: UspcapError | None = None
        self._outcome: CaptureOutcome | None = None

    def stop(self) -> None:
        """End as soon as what was received is read; may be called by a signal handler."""
        self._stop_asked = True
        self._patience.end()
        self._source.interrupt()

    def run(self) -> CaptureOutcome:
        """Capture, close the file and return what came of it.

        A failure of the source, the file or an analysis, foreseen or not, ends the capture and is in the outcome; the
        frames until then are kept.
        """
        for _ in self.batches():
            pass
        assert self._outcome is not None
        return self._outcome

    @property
    def outcome(self) -> CaptureOutcome | None:
        """What came of the capture, None before its end."""
        return self._outcome

    def batches(self) -> Iterator[FrameBatch]:
        """Capture as `run` does, and yield each batch after the file and the analyses have had it.

        A batch is good until the next is asked for. Who stops asking ends the capture; frames that are in the ring then
        are counted as such.
        """
        source = self._source
        description = source.describe()
        started_ns = time.time_ns()
        end = None if self._duration_ns is None else self._clock() + self._duration_ns
        idle_s = IDLE_S if self._duration_ns is None else min(IDLE_S, self._duration_ns / NANOSECONDS)
        if self._intervals is not None:
            idle_s = min(idle_s, self._intervals.idle_s)
        if self._duration_ns is not None:
            self._patience.end(self._duration_ns / NANOSECONDS)
        source.frames_wanted = self._frames
        try:
            for batch in source.batches(idle_s):
                if batch is not None:
                    self._take(batch)
                    if batch.count:
                        yield batch
                self._look()
                full = self._frames is not None and self._kept >= self._frames
                over = end is not None and self._clock() >= end
                if self._stop_asked or full or over or self._failure is not None:
                    self._patience.end()
                    source.stop()
        except GeneratorExit:
            self._outcome = self._end(description, started_ns)
            raise
        except Exception as error:
            self._fail(error)
        self._outcome = self._end(description, started_ns)

    def _end(self, description: Description, started_ns: int) -> CaptureOutcome:
        """Close the file, and draw up the accounts."""
        source = self._source
        self._patience.end()
        if self._intervals is not None and self._analyzing:
            self._guarded(self._intervals.end)
        try:
            statistics = source.statistics()
        except BaseException:
            self._close_writer(None, started_ns)
            raise
        self._close_writer(statistics, started_ns)
        self._report_events()
        self.attention.report_losses()
        accounts = self._accounts(statistics)
        complaint = accounts.complaint(description.what)
        if complaint and self._failure is None:
            self._failure = CaptureError(complaint)
        return CaptureOutcome(
            accounts,
            self._analyzed() if self._analyzing else None,
            str(description),
            description.what,
            [*source.problems, *source.clamped.problems()],
            source.clocks(),
            self._failure,
            () if self._writer is None else tuple(self._writer.losses),
            tuple(self._happened),
        )

    def _analyzed(self) -> Suite | None:
        return self._suite if self._intervals is None else self._intervals.total

    def _accounts(self, statistics: SourceStatistics, *, so_far: bool = False) -> Accounts:
        writer = self._writer
        if writer is None:
            return Accounts(statistics, self._kept, self._after_limit, None, 0)
        written, too_slow = writer.frames_written, writer.frames_dropped
        left = self._kept - written - too_slow
        queued = left if so_far else 0
        return Accounts(
            statistics, self._kept, self._after_limit, written, left - queued, too_slow, writer.refusal, queued
        )

    def _take(self, batch: FrameBatch) -> None:
        """Give a batch to the file and the analyses, as far as the limit allows; what fails gets no more."""
        room = batch.count if self._frames is None else min(batch.count, self._frames - self._kept)
        if room < batch.count:
            self._after_limit += batch.count - room
            batch.keep(np.arange(batch.count) < room)
        if not batch.count:
            return
        self._kept += batch.count
        if self._frames is not None:
            self._source.frames_wanted = self._frames - self._kept
        if self._writer is not None and self._writing:
            self._writing = self._guarded(self._writer.write, batch)
        if self._analyzing:
            if self._trailers is not None:
                self._trailers.apply(batch)
            if self._intervals is not None:
                self._analyzing = self._guarded(self._intervals.update, batch)
            elif self._suite is not None:
                self._analyzing = self._guarded(self._suite.update, batch)

    def _look(self) -> None:
        self._report_events()
        if self._intervals is not None and self._analyzing:
            self._analyzing = self._guarded(self._intervals.look)
        self._guarded(self.attention.look, lambda: self._accounts(self._source.statistics(), so_far=True))

    def _report_events(self) -> None:
        for message in self._source.messages():
            self._happened.append(message)
            self._tell(message)

    def _guarded(self, action: Callable[..., object], *arguments: object) -> bool:
        """Do something that may fail, foreseen or not; False where it did."""
        try:
            action(*arguments)
        except Exception as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or explain(error)

    def _close_writer(self, statistics: SourceStatistics | None, started_ns: int) -> None:
        writer = self._writer
        if writer is None:
            return
        said = None
        if writer.interfaces and statistics is not None:
            said = interface_statistics(self._source, statistics, started_ns, writer.frames_dropped)
        self._guarded(writer.close, said)
