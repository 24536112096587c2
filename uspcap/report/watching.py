"""What a capture reports while it runs: reports on intervals, a live view, or both."""

from __future__ import annotations

import io
from typing import Self, TextIO, cast

from uspcap.analysis.suite import Settings
from uspcap.backends.base import LiveSource, SourceStatistics
from uspcap.bpf.readings import FilterReading
from uspcap.formats.byte_sink import Patience
from uspcap.notices import say
from uspcap.pipeline.intervals import SHORTEST_PACED_NS, Intervals
from uspcap.pipeline.keeping import HereKeeper, Interval, IntervalReporter, Keeper
from uspcap.pipeline.keeping_process import KeepingProcess
from uspcap.report.document import report_of_interval
from uspcap.report.interval_reports import IntervalReports, PatientStream
from uspcap.report.progress import is_terminal
from uspcap.report.renderers.live_view import LiveView


class WatchReporter(IntervalReporter):
    """Reports intervals, on a live view and in reports.

    Parameters
    ----------
    what : str
        Interface or files.
    expression : str
        The filter, empty where there is none.
    view : LiveView, optional
    reports : IntervalReports, optional
    patience : Patience
        With the reader of the reports.
    reading : FilterReading, optional
        What the filter applies to, where that is not tcpdump's.
    """

    def __init__(
        self,
        what: str,
        expression: str,
        view: LiveView | None,
        reports: IntervalReports | None,
        patience: Patience,
        reading: FilterReading | None = None,
    ) -> None:
        self._what = what
        self._reading = reading
        self._expression = expression
        self._view = view
        self._reports = reports
        self._patience = patience
        self.draws = view is not None

    def report(self, interval: Interval) -> None:
        report = report_of_interval(interval, self._what, self._expression, self._reading)
        if self._view is not None:
            self._view.tell(report, interval.dropped)
        if self._reports is not None:
            self._reports.tell(report, interval.dropped)

    def sum_up(self, whole: Interval) -> None:
        if self._view is not None:
            report = report_of_interval(whole, self._what, self._expression, self._reading)
            self._view.sum_up(report, whole.dropped)

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        if self._view is not None:
            self._view.draw(now_ns, statistics)

    def hurry(self) -> None:
        self._patience.end()

    def open(self) -> None:
        if self._view is not None:
            self._view.open()

    def close(self) -> None:
        if self._view is not None:
            self._view.close()


class Watch:
    """The intervals of a capture, reported as wanted; a context manager that gives the terminal back.

    Parameters
    ----------
    source : LiveSource
    settings : Settings
    interval_ns : int or None
        Length of intervals; None where only a view is asked for, which then takes its own.
    screen : text stream or None
        The terminal for a live view, where there is to be one.
    stream : text stream
        For reports on intervals, where `interval_ns` is given; a terminal that has the view gets none.
    form : str
        Format of the reports.

    Attributes
    ----------
    intervals : Intervals
        For the session.
    """

    def __init__(
        self,
        source: LiveSource,
        settings: Settings,
        *,
        interval_ns: int | None,
        screen: TextIO | None,
        stream: TextIO,
        form: str,
    ) -> None:
        description = source.describe()
        descriptors = [descriptor for descriptor in map(_descriptor, (stream, screen)) if descriptor is not None]
        apart = _descriptor(stream) is not None
        patience = Patience()
        view = None if screen is None else LiveView(screen, description)
        self._viewed = view is not None
        self._noted: list[str] = []
        reports = None
        if interval_ns is not None and not (screen is not None and is_terminal(stream)):
            reports = IntervalReports(cast("TextIO", PatientStream(stream, patience)) if apart else stream, form)
        reporter = WatchReporter(
            description.what, settings.expression, view, reports, patience, settings.filter_reading
        )
        self._streams = [each for each in (stream, screen) if each is not None]
        self._keeper: Keeper
        if apart:
            self._keeper = KeepingProcess(settings, reporter, descriptors)
        else:
            self._keeper = HereKeeper(settings, reporter)
        self.intervals = Intervals(
            settings,
            interval_ns or SHORTEST_PACED_NS,
            statistics=source.statistics,
            keeper=self._keeper,
            clocks=source.clocks,
            recent_unread_ns=source.take_recent_unread_ns,
            paced=interval_ns is None,
        )

    def note(self, said: str) -> None:
        """Tell what has happened: at once, or where the view shows it, once more when that is over."""
        if self._viewed:
            self._noted.append(said)
        else:
            say(said)

    def close(self) -> None:
        """Give the terminal back; a signal handler may call it, so that it is in order if a second one kills."""
        self._keeper.close_view()

    def __enter__(self) -> Self:
        for stream in self._streams:
            # What is held back would be written two times.
            stream.flush()
        self._keeper.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._keeper.__exit__(*error)
        for said in self._noted:
            say(said)


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor that a stream writes to, None for memory."""
    try:
        return None if stream is None else stream.fileno()
    except (io.UnsupportedOperation, ValueError):
        return None
