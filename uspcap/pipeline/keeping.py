"""What becomes of the intervals of a capture: each is reported on, and merged into the whole."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.errors import UspcapError
from uspcap.timestamps.nic_clock import ClockAccount


@dataclass(frozen=True, slots=True)
class Interval:
    """What came between two moments.

    Attributes
    ----------
    start_ns, end_ns : int
        UTC when the capture began, and the monotonic time since: steps of UTC in between move neither.
    suite : Suite
        The analyses of these frames; of use until the interval was reported.
    received : int
        Frames that came to the source meanwhile.
    dropped : dict of str to int
        Those of them that were lost, by cause.
    longest_unread_ns : int or None
        The longest time for which a ring went unread; None without a ring.
    clocks : tuple of ClockAccount
        How timestamps of other clocks were put on UTC until the end.
    """

    start_ns: int
    end_ns: int
    suite: Suite
    received: int
    dropped: dict[str, int]
    longest_unread_ns: int | None = None
    clocks: tuple[ClockAccount, ...] = ()

    def followed_by(self, later: Interval) -> Interval:
        """Return both as one, whose suite is this one's."""
        causes = [*self.dropped, *(cause for cause in later.dropped if cause not in self.dropped)]
        unread = [each.longest_unread_ns for each in (self, later) if each.longest_unread_ns is not None]
        return replace(
            later,
            start_ns=self.start_ns,
            suite=self.suite,
            received=self.received + later.received,
            dropped={cause: self.dropped.get(cause, 0) + later.dropped.get(cause, 0) for cause in causes},
            longest_unread_ns=max(unread, default=None),
        )


class IntervalReporter(ABC):
    """Reports the intervals of one capture.

    Attributes
    ----------
    draws : bool
        There is a view, to be drawn between intervals too.
    """

    draws: bool = False

    @abstractmethod
    def report(self, interval: Interval) -> None:
        """Report on an interval.

        Raises
        ------
        UspcapError
            Nobody takes the output any more.
        """

    def sum_up(self, whole: Interval) -> None:
        """Take note of all intervals so far."""
        return

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        """Show what the source has counted until `now_ns`, monotonic time."""
        return

    def hurry(self) -> None:
        """Wait no longer for readers of the output that take nothing; may be called by a signal handler."""
        return

    def open(self) -> None:
        """Get ready."""
        return

    def close(self) -> None:
        """Give a terminal back as it was; may be called again, and by a signal handler."""
        return


class Whole:
    """All intervals that were taken, merged.

    Attributes
    ----------
    suite : Suite
    interval : Interval or None
        The same as one interval; None before the first.
    """

    def __init__(self, settings: Settings) -> None:
        self.suite = Suite(settings)
        self.interval: Interval | None = None

    def take(self, interval: Interval, reporter: IntervalReporter) -> None:
        """Report an interval and merge it, which uses up its suite; it is merged even where the report fails."""
        try:
            reporter.report(interval)
        finally:
            self.suite.merge(interval.suite)
            before = self.interval
            self.interval = replace(interval, suite=self.suite) if before is None else before.followed_by(interval)
        reporter.sum_up(self.interval)


class Keeper(ABC):
    """Takes the intervals of a capture; a context manager.

    Attributes
    ----------
    draws : bool
        It takes counts for a view between intervals.
    """

    draws: bool

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether it is not ready for another interval."""

    @property
    @abstractmethod
    def cost_ns(self) -> int:
        """CPU time that the last interval took."""

    @abstractmethod
    def take(self, interval: Interval) -> None:
        """Take an interval; not while it is busy."""

    @abstractmethod
    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        """Take counts for the view; not while it is busy."""

    @abstractmethod
    def check(self) -> None:
        """Raise what went wrong since this was last called, an UspcapError."""

    @abstractmethod
    def end(self, last: Interval) -> Suite | None:
        """Take the last interval, and return the whole; None where that is lost."""

    @abstractmethod
    def close_view(self) -> None:
        """Give the terminal back; may be called again, and by a signal handler."""

    def __enter__(self) -> Keeper:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


class HereKeeper(Keeper):
    """Reports and merges where it is called, which takes as long as it takes.

    Parameters
    ----------
    settings : Settings
    reporter : IntervalReporter
    cpu_clock : callable
        Nanoseconds of CPU that the thread has used.
    """

    def __init__(
        self, settings: Settings, reporter: IntervalReporter, *, cpu_clock: Callable[[], int] = time.thread_time_ns
    ) -> None:
        self._whole = Whole(settings)
        self._reporter = reporter
        self._cpu_clock = cpu_clock
        self._cost_ns = 0
        self._failure: UspcapError | None = None
        self.draws = reporter.draws

    @property
    def busy(self) -> bool:
        return False

    @property
    def cost_ns(self) -> int:
        return self._cost_ns

    def take(self, interval: Interval) -> None:
        began_ns = self._cpu_clock()
        try:
            self._whole.take(interval, self._reporter)
        except UspcapError as error:
            self._failure = error
        self._cost_ns = self._cpu_clock() - began_ns

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        self._reporter.draw(now_ns, statistics)

    def check(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self, last: Interval) -> Suite:
        self.take(last)
        return self._whole.suite

    def close_view(self) -> None:
        self._reporter.close()

    def __enter__(self) -> Keeper:
        self._reporter.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._reporter.close()
