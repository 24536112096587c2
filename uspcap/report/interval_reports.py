"""A report on each interval of a capture, as it ends: a few lines of text, or a line of JSON."""

from __future__ import annotations

import io
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from uspcap.errors import CaptureError
from uspcap.formats.byte_sink import FileSink, Patience
from uspcap.report.format import count, duration, stamp
from uspcap.report.headlines import headlines
from uspcap.report.json_report import write_json_line
from uspcap.report.terminal_table import INDENT, print_line, print_paragraph
from uspcap.system_errors import reason


def dropped_told(dropped: dict[str, int]) -> str:
    """Return losses by cause; 0 where there is none."""
    return ", ".join(f"{cause} {count(frames)}" for cause, frames in dropped.items()) or "0"


def print_interval(report: dict[str, Any], dropped: dict[str, int], console: Console) -> None:
    """Print an interval's report as a block: when, what was lost, and the headlines.

    Parameters
    ----------
    report : dict
        As `report_of_interval` returns it.
    dropped : dict of str to int
        Frames lost in the interval, by cause.
    console : rich.console.Console
    """
    start_ns, end_ns = report["interval"]["start_ns"], report["interval"]["end_ns"]
    heading = Text.assemble((f"{stamp(start_ns)} + {duration(end_ns - start_ns)}", "bold cyan"))
    print_line(console, heading, "")
    told = headlines(report)
    rows = [
        (told[0].name, str(told[0])),
        ("dropped", dropped_told(dropped)),
        *((one.name, str(one)) for one in told[1:]),
    ]
    width = max(cell_len(name) for name, _ in rows)
    for name, text in rows:
        print_paragraph(console, text, lead=f"{name:<{width}}{INDENT}")


class _Console(Console):
    """A console that leaves it to its user what to do where nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Let the error through, in place of ending the process: a capture has a file to close."""
        raise


class PatientStream(io.TextIOBase):
    """Text for the descriptor of another stream, whose reader is waited for as `patience` says.

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
    """Tells the intervals of one capture.

    Parameters
    ----------
    stream : text stream
    form : {'text', 'json'}
    """

    def __init__(self, stream: TextIO, form: str) -> None:
        self._stream = stream
        self._console = None if form == "json" else _Console(file=stream)

    def tell(self, report: dict[str, Any], dropped: dict[str, int]) -> None:
        """Report on an interval.

        Parameters
        ----------
        report : dict
            As `report_of_interval` returns it.
        dropped : dict of str to int
            Frames lost in the interval, by cause.

        Raises
        ------
        CaptureError
            Nobody takes the output any more.
        """
        try:
            if self._console is None:
                write_json_line(report, self._stream)
            else:
                print_interval(report, dropped, self._console)
                self._stream.flush()
        except OSError as error:
            raise CaptureError(
                f"cannot write the report of an interval: {reason(error)}; what was captured until then was kept"
            ) from error
