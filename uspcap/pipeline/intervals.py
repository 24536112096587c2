"""A capture's analyses in intervals: each is handed on when it is over, to be reported on and merged into the whole.

Intervals are of the host's monotonic time and change between batches: a frame belongs to the interval in which it was
handed over. As analyses are monoids, the intervals make up the whole, whatever the clock did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.frames import NANOSECONDS, FrameBatch
from uspcap.pipeline.keeping import Interval, Keeper
from uspcap.timestamps.nic_clock import ClockAccount

DRAWN_EVERY_NS: Final = NANOSECONDS // 4
"""A view of the capture is given new counts at most so often."""

SHORTEST_PACED_NS: Final = NANOSECONDS
LONGEST_PACED_NS: Final = 30 * NANOSECONDS

LARGEST_SHARE: Final = 100
"""Where nobody has asked for a length, one in so many of all nanoseconds goes to reports and merging at most."""


class Intervals:
    """Gives frames to the analyses of the interval at hand, and these to a keeper when it is over.

    Parameters
    ----------
    settings : Settings
    length_ns : int
        An interval ends with the first batch, or look, after so long. Where one look comes late by more than that, or
        the keeper is still busy with the interval before, the interval is longer, and the next ends where it would
        have.
    statistics : callable
        Returns what the source has counted so far.
    keeper : Keeper
        Takes each interval that is over, the last and perhaps shorter one too.
    clocks : callable
        Returns how timestamps of other clocks were put on UTC so far.
    recent_unread_ns : callable
        Returns the longest time for which a ring went unread since it was last called, None without a ring.
    paced : bool
        Let intervals grow longer where keeping them takes too much: nobody has asked for their length.
    clock, utc : callable
        Nanoseconds that never step back, and nanoseconds since the epoch.

    Attributes
    ----------
    length_ns : int
    total : Suite or None
        All intervals, once they were ended; None before, and where they are lost.
    """

    def __init__(
        self,
        settings: Settings,
        length_ns: int,
        *,
        statistics: Callable[[], SourceStatistics],
        keeper: Keeper,
        clocks: Callable[[], Sequence[ClockAccount]] = lambda: (),
        recent_unread_ns: Callable[[], int | None] = lambda: None,
        paced: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
        utc: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self.length_ns = length_ns
        self._statistics = statistics
        self._keeper = keeper
        self._clocks = clocks
        self._recent_unread_ns = recent_unread_ns
        self._paced = paced
        self._clock = clock
        self.total: Suite | None = None
        self._part = Suite(settings)
        self._before = statistics()
        self._began_ns = clock()
        self._utc_ahead_ns = utc() - self._began_ns
        self._due_ns = self._began_ns + length_ns
        self._draw_at_ns = self._began_ns

    @property
    def idle_s(self) -> float:
        """How often to look where no frame comes."""
        return self.length_ns / NANOSECONDS

    def update(self, batch: FrameBatch) -> None:
        """Give a batch to the analyses of the interval at hand."""
        self._part.update(batch)

    def look(self) -> None:
        """End the interval if its time is over.

        Raises
        ------
        UspcapError
            The keeper could not report an interval.
        """
        now_ns = self._clock()
        if self._keeper.busy:
            return
        self._keeper.check()
        if now_ns >= self._due_ns:
            if self._paced:
                cost_ns = LARGEST_SHARE * self._keeper.cost_ns
                self.length_ns = min(max(SHORTEST_PACED_NS, cost_ns), LONGEST_PACED_NS)
            self._due_ns += (now_ns - self._due_ns) // self.length_ns * self.length_ns + self.length_ns
            self._keeper.take(self._close(now_ns))
            self._keeper.check()
        elif self._keeper.draws and now_ns >= self._draw_at_ns:
            self._draw_at_ns = now_ns + DRAWN_EVERY_NS
            self._keeper.draw(now_ns, self._statistics())

    def end(self) -> None:
        """End the last interval, however short it is, and fetch the whole.

        Raises
        ------
        UspcapError
            The keeper could not report an interval, or has lost the whole.
        """
        self.total = self._keeper.end(self._close(self._clock()))
        self._keeper.check()

    def _close(self, now_ns: int) -> Interval:
        """Return the interval at hand, and begin the next."""
        before, statistics = self._before, self._statistics()
        dropped = {cause: count - before.dropped.get(cause, 0) for cause, count in statistics.dropped.items()}
        interval = Interval(
            start_ns=self._began_ns + self._utc_ahead_ns,
            end_ns=now_ns + self._utc_ahead_ns,
            suite=self._part,
            received=statistics.received - before.received,
            dropped={cause: count for cause, count in dropped.items() if count},
            longest_unread_ns=self._recent_unread_ns(),
            clocks=tuple(self._clocks()),
        )
        self._part, self._before, self._began_ns = Suite(self._settings), statistics, now_ns
        return interval
