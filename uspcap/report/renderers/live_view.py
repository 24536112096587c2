"""A running capture on the terminal: the last interval next to the whole, redrawn a few times a second.

It is drawn in the process that reports on intervals, so that a slow terminal does not stop the reader. That drawing
takes little of the host's CPU is seen to by not drawing again before a hundred times as long as it took.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from uspcap.backends.base import Description, SourceStatistics
from uspcap.frames import NANOSECONDS
from uspcap.report.format import count, duration, encodable, packet_rate, safe_text
from uspcap.report.headlines import headlines
from uspcap.report.interval_reports import drops_text
from uspcap.report.model import Headline
from uspcap.report.renderers.terminal import shorten

if TYPE_CHECKING:
    from uspcap.report.document import RunReport

LARGEST_SHARE = 100
"""One in so many of all nanoseconds goes to drawing at most."""


class LiveView:
    """A screen of its own while a capture runs.

    Parameters
    ----------
    stream : text stream
        A terminal.
    description : Description
        Of the source.
    clock, cpu_clock : callable
        Monotonic ns, and ns of CPU that the thread has used.

    Attributes
    ----------
    drawing_ns, draws : int
        CPU time that all drawing took, and how often it was done.
    """

    def __init__(
        self,
        stream: TextIO,
        description: Description,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._description = description
        self._cpu_clock = cpu_clock
        self._last: tuple[str, list[Headline]] = ("", [])
        self._whole: list[Headline] = []
        self._began_ns = self._seen_ns = self._next_ns = clock()
        self._seen = 0
        self._now = 0.0
        self._drawing = False
        self._ended = False
        self.drawing_ns = self.draws = 0

    def open(self) -> None:
        """Take the terminal."""
        self._live.start()

    def close(self) -> None:
        """Give the terminal back as it was; may be called again, and by a signal handler in the middle of drawing."""
        self._ended = True
        if not self._drawing:
            with contextlib.suppress(OSError):
                self._live.stop()

    def tell(self, report: RunReport, dropped: dict[str, int]) -> None:
        """Keep the headlines of an interval's report, to be shown when it is drawn next."""
        bounds = report.interval
        assert bounds is not None
        self._last = (f"last {duration(bounds.end_ns - bounds.start_ns)}", _headlines(report, dropped))

    def sum_up(self, report: RunReport, dropped: dict[str, int]) -> None:
        """Keep the headlines of a report on all intervals that are over."""
        self._whole = _headlines(report, dropped)

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        """Draw what the source had counted at `now_ns`, unless it is too soon."""
        if now_ns < self._next_ns or self._ended or not self._takes_output():
            return
        began_ns = self._cpu_clock()
        self._drawing = True
        try:
            self._draw(now_ns, statistics)
        except OSError:
            # The terminal has gone away; the capture need not.
            self._ended = True
        finally:
            self._drawing = False
            if self._ended:
                self.close()
        cost_ns = self._cpu_clock() - began_ns
        self.drawing_ns += cost_ns
        self.draws += 1
        self._next_ns = now_ns + LARGEST_SHARE * cost_ns

    def _takes_output(self) -> bool:
        """Whether the terminal has room: one that was stopped with Ctrl-S must not stop the reader too."""
        return bool(select.select([], [self._console.file], [], 0)[1])

    def _draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        if now_ns > self._seen_ns:
            self._now = (statistics.received - self._seen) * NANOSECONDS / (now_ns - self._seen_ns)
        self._seen, self._seen_ns = statistics.received, now_ns
        # Of this terminal, and of now: rich would ask whichever of the standard streams is a terminal.
        size = os.get_terminal_size(self._console.file.fileno())
        columns, lines = size.columns or 80, size.lines or 24  # a terminal that nobody has given a size
        self._console.size = ConsoleDimensions(columns, lines)
        lines_shown = self.lines(statistics, now_ns - self._began_ns, columns)
        self._live.update(Text("\n").join(lines_shown[:lines]), refresh=True)

    def lines(self, statistics: SourceStatistics, elapsed_ns: int, width: int) -> list[Text]:
        """Return the lines to draw, each of at most `width` terminal cells."""
        description = self._description
        state = (
            f"{duration(elapsed_ns)}, now {packet_rate(self._now)}, {count(statistics.waiting)} waiting in the ring; "
            "Ctrl-C ends"
        )
        top = [
            self._line(f"uspcap {description.what}: {description.backend}, {description.mode}", width, "bold"),
            self._line(state, width, ""),
        ]
        losses = {**statistics.dropped, **{f"before uspcap, {name}": n for name, n in statistics.nic_dropped.items()}}
        if losses:
            top.append(self._line(f"dropped so far: {drops_text(losses)}", width, "bold red"))
        if statistics.latest:
            top.append(self._line(statistics.latest, width, "yellow"))
        if not self._whole:
            return [*top, Text(), self._line("the first interval is not over yet", width, "dim")]
        rows = _rows(self._last[1], self._whole)
        names, labels = (max(cell_len(row[at]) for row in rows) for at in (0, 1))
        room = max(8, (width - names - labels - 6) // 2)
        edges = (names, labels, room, room)
        title = _join(("", "", self._last[0], "whole"), edges)
        return [
            *top,
            Text(),
            self._line(title, width, "bold"),
            *(self._line(_join(row, edges), width, "") for row in rows),
        ]

    def _line(self, text: str, width: int, style: str) -> Text:
        return Text(shorten(encodable(safe_text(text), self._console.encoding), width), style=style, no_wrap=True)


def _headlines(report: RunReport, dropped: dict[str, int]) -> list[Headline]:
    lost = Headline("dropped", (("", count(sum(dropped.values()))),))
    found = headlines(report)
    return [found[0], lost, *found[1:]]


def _rows(last: Sequence[Headline], whole: Sequence[Headline]) -> list[tuple[str, str, str, str]]:
    """Return name, label, text of the last interval and of the whole, a row for each part of a headline."""
    lately = {headline.name: headline.values for headline in last}
    rows = []
    for headline in whole:
        name = headline.name
        latest = lately.get(name, ())
        by_label = dict(latest)
        for at, (label, text) in enumerate(headline.values):
            # Parts without a label go by their place.
            newest = by_label.get(label, "-") if label else latest[at][1] if at < len(latest) else "-"
            rows.append((name, label, newest, text))
            name = ""
    return rows


def _join(cells: Sequence[str], edges: Sequence[int]) -> str:
    fitted = (set_cell_size(shorten(cell, edge), edge) for cell, edge in zip(cells, edges, strict=True))
    return "  ".join(fitted).rstrip()
