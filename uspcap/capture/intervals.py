"""A capture's analyses in intervals: each is told when it is over, and merged into the whole.

Intervals are of the host's monotonic time and change between batches: a frame belongs to the interval in which it was
handed over. As analyses are monoids, the intervals make up the whole, whatever the clock did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.frames import NANOSECONDS, FrameBatch


@dataclass(frozen=True, slots=True)
class Interval:
    """What came between two moments.

    Attributes
    ----------
    start_ns, end_ns : int
        UTC when the capture began, and the monotonic time since: steps of UTC in between move neither.
    suite : Suite
        The analyses of these frames; of use until the interval was told.
    received : int
        Frames that came to the source meanwhile.
    dropped : dict of str to int
        Those of them that were lost, by cause.
    """

    start_ns: int
    end_ns: int
    suite: Suite
    received: int
    dropped: dict[str, int]


class Intervals:
    """Gives frames to the analyses of the interval at hand, and these to the whole when it is over.

    Parameters
    ----------
    settings : Settings
    length_ns : int
        An interval ends with the first batch, or look, after so long. Where one look comes late by more than that,
        the interval is longer, and the next ends where it would have.
    statistics : callable
        Returns what the source has counted so far.
    tell : callable
        Takes each interval that is over, the last and perhaps shorter one too.
    on_look : callable
        Called whenever the capture can spare a moment, with the monotonic time in ns.
    clock, utc : callable
        Nanoseconds that never step back, and nanoseconds since the epoch.

    Attributes
    ----------
    total : Suite
        All intervals that are over.
    length_ns : int
        May be changed at any time, from the next interval on.
    closing_ns : int
        CPU time that it took to tell the last interval and to merge it into the whole.
    """

    def __init__(
        self,
        settings: Settings,
        length_ns: int,
        *,
        statistics: Callable[[], SourceStatistics],
        tell: Callable[[Interval], None],
        on_look: Callable[[int], None] = lambda now_ns: None,
        clock: Callable[[], int] = time.monotonic_ns,
        utc: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self.length_ns = length_ns
        self._statistics = statistics
        self._tell = tell
        self._on_look = on_look
        self._clock = clock
        self.total = Suite(settings)
        self._part = Suite(settings)
        self._first = self._before = statistics()
        self._capture_began_ns = self._began_ns = clock()
        self._utc_ahead_ns = utc() - self._began_ns
        self._due_ns = self._began_ns + length_ns
        self.closing_ns = 0

    @property
    def idle_s(self) -> float:
        """How often to look where no frame comes."""
        return self.length_ns / NANOSECONDS

    def update(self, batch: FrameBatch) -> None:
        """Give a batch to the analyses of the interval at hand."""
        self._part.update(batch)

    def look(self) -> None:
        """End the interval if its time is over."""
        now_ns = self._clock()
        if now_ns >= self._due_ns:
            self._close(now_ns)
            self._due_ns += (now_ns - self._due_ns) // self.length_ns * self.length_ns + self.length_ns
        self._on_look(now_ns)

    def end(self) -> None:
        """End the last interval, however short it is."""
        self._close(self._clock())

    def _close(self, now_ns: int) -> None:
        cpu_before_ns = time.thread_time_ns()
        part, before, began_ns = self._part, self._before, self._began_ns
        self._part, self._before, self._began_ns = Suite(self._settings), self._statistics(), now_ns
        try:
            self._tell(self._between(began_ns, before, part))
        finally:
            self.total.merge(part)
            self.closing_ns = time.thread_time_ns() - cpu_before_ns

    def so_far(self) -> Interval:
        """Return all intervals that are over as one."""
        return self._between(self._capture_began_ns, self._first, self.total)

    def _between(self, began_ns: int, before: SourceStatistics, suite: Suite) -> Interval:
        """Return the interval from `began_ns` to the end of the last one."""
        statistics = self._before
        dropped = {cause: count - before.dropped.get(cause, 0) for cause, count in statistics.dropped.items()}
        return Interval(
            began_ns + self._utc_ahead_ns,
            self._began_ns + self._utc_ahead_ns,
            suite,
            statistics.received - before.received,
            {cause: count for cause, count in dropped.items() if count},
        )
