"""CSV that neither a spreadsheet nor a terminal takes for more than data.

Cells hold what captures hold: names, identifiers and comments that a stranger chose. A spreadsheet runs a cell that
begins with `=`, `+`, `-`, `@` or their full-width forms, some even behind spaces or quotes, and those that take `;`
for the separator find cells within a cell. Such text gets an apostrophe in front, by which spreadsheets know text;
numbers stay what they are, and text that looks like one stays text. Control characters are escaped as `safe_text` does.

References
----------
OWASP, "CSV Injection"; RFC 4180.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from uspcap.foreign_text import safe_text

_AHEAD: Final = r"[\s\"'`‘’“”«»＂＇]*"
_FORMULA: Final = re.compile(_AHEAD + r"[=+\-@＝＋－＠﹦﹢﹣﹫−]")

_ROWS_AT_A_TIME: Final = 4096
"""Written in one call, which nothing interrupts."""


class CsvWriter:
    """Writes rows under a head; lines end with a newline, cells are quoted where they must be.

    Parameters
    ----------
    stream : text stream
        Opened with `newline=""`.
    columns : iterable of str
        Their names.
    """

    def __init__(self, stream: TextIO, columns: Iterable[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow([cell(name) for name in columns])

    def write(self, columns: Iterable[Sequence[Any] | NDArray[Any]]) -> None:
        """Write rows.

        Parameters
        ----------
        columns : iterable of sequences or arrays
            The values of one column each, all of one length: numbers, text, bool, and None for an empty cell.
        """
        rows = zip(*(_cells(column) for column in columns), strict=True)
        while some := list(islice(rows, _ROWS_AT_A_TIME)):
            self._writer.writerows(some)


def _cells(column: Sequence[Any] | NDArray[Any]) -> Iterable[Any]:
    if isinstance(column, np.ndarray):
        column = column.tolist()
    return (cell(value) if isinstance(value, str) else value for value in column)


def cell(text: str) -> str:
    """Return text that neither runs in a spreadsheet nor steers a terminal."""
    return ";".join(_as_text(part) for part in safe_text(text).split(";"))


def _as_text(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text
