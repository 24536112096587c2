"""A report on each interval of a capture, as it ends: a few lines of text, or a line of JSON."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from uspcap.errors import CaptureError
from uspcap.formats.byte_sink import FileSink, Patience
from uspcap.report.format import count, duration, timestamp
from uspcap.report.headlines import headlines
from uspcap.report.model import Output, Page
from uspcap.report.renderers.registry import renderer
from uspcap.system_errors import reason

if TYPE_CHECKING:
    from uspcap.report.document import RunReport


def drops_text(dropped: dict[str, int]) -> str:
    """Return losses by cause; 0 where there is none."""
    return ", ".join(f"{cause} {count(frames)}" for cause, frames in dropped.items()) or "0"


def interval_page(report: RunReport, dropped: dict[str, int]) -> Page:
    """Return the page of an interval: its time, losses and headlines.

    Parameters
    ----------
    report : RunReport
        As `report_of_interval` returns it.
    dropped : dict of str to int
        Frames lost in the interval, by cause.
    """
    assert report.interval is not None
    start_ns, end_ns = report.interval.start_ns, report.interval.end_ns
    lines = headlines(report)
    rows = [
        (lines[0].name, str(lines[0])),
        ("dropped", drops_text(dropped)),
        *((line.name, str(line)) for line in lines[1:]),
    ]
    width = max(len(name) for name, _ in rows)
    page = Page()
    section = page.section(f"{timestamp(start_ns)} + {duration(end_ns - start_ns)}", "subject")
    for name, text in rows:
        section.paragraph(text, lead=f"{name:<{width}}  ")
    return page


class PatientStream(io.TextIOBase):
    """Text for the descriptor of another stream, whose reader has as much time as `patience` gives.

    Parameters
    ----------
    stream : text stream
        With a descriptor; what it holds back was flushed.
    patience : Patience
    """

    def __init__(self, stream: TextIO, patience: Patience) -> None:
        self._stream = stream
        self._patience = patience
        self._encoding = stream.encoding or "utf-8"
        self._errors = stream.errors or "strict"
        self._is_terminal = stream.isatty()  # a console asks for each line
        self._sink: FileSink | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write all of a text.

        Raises
        ------
        OSError
            As from write(2); TimeoutError where its reader was waited for long enough.
        """
        if self._sink is None:
            self._sink = FileSink(f"/dev/fd/{self._stream.fileno()}", patience=self._patience)
        self._sink.write(memoryview(text.encode(self._encoding, self._errors)))
        return len(text)


class IntervalReports:
    """Reports the intervals of one capture.

    Parameters
    ----------
    stream : text stream
    form : str
        Format of the reports.
    """

    def __init__(self, stream: TextIO, form: str) -> None:
        self._stream = stream
        self._renderer = renderer(form)

    def tell(self, report: RunReport, dropped: dict[str, int]) -> None:
        """Report on an interval.

        Parameters
        ----------
        report : RunReport
            As `report_of_interval` returns it.
        dropped : dict of str to int
            Frames lost in the interval, by cause.

        Raises
        ------
        CaptureError
            Nobody takes the output any more.
        """
        try:
            self._renderer.write_next(Output(report, lambda: interval_page(report, dropped)), self._stream)
            self._stream.flush()
        except OSError as error:
            raise CaptureError(
                f"cannot write the report of an interval: {reason(error)}; what was captured until then was kept"
            ) from error
