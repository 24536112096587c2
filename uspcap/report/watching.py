"""What a capture tells while it runs: reports on intervals, a live view, or both."""

from __future__ import annotations

from typing import Self, TextIO

from uspcap.analysis.suite import Settings
from uspcap.backends.base import LiveSource
from uspcap.capture.intervals import Interval, Intervals
from uspcap.report.interval_reports import IntervalReports
from uspcap.report.live_view import INTERVAL_NS, LiveView
from uspcap.report.progress import is_terminal


class Watch:
    """The intervals of a capture, told as wanted; a context manager that gives the terminal back.

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
    form : {'text', 'json'}

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
        expression = settings.expression
        self._view = None
        if screen is not None:
            self._view = LiveView(screen, source, expression=expression, paced=interval_ns is None)
        self._reports = None
        if interval_ns is not None and not (screen is not None and is_terminal(stream)):
            what = source.describe().what
            self._reports = IntervalReports(stream, form, what=what, expression=expression, clocks=source.clocks)
        self.intervals = Intervals(
            settings, interval_ns or INTERVAL_NS, statistics=source.statistics, tell=self._tell, on_look=self._look
        )

    def _tell(self, interval: Interval) -> None:
        if self._view is not None:
            self._view.tell(interval)
        if self._reports is not None:
            self._reports.tell(interval)

    def _look(self, now_ns: int) -> None:
        if self._view is not None:
            self._view.look(now_ns, self.intervals)

    def close(self) -> None:
        """Give the terminal back; a signal handler may call it, so that it is in order if a second one kills."""
        if self._view is not None:
            self._view.close()

    def __enter__(self) -> Self:
        if self._view is not None:
            self._view.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
