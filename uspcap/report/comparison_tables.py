"""CSV tables of a comparison of two captures: every matched pair, and every frame that is not matched."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from uspcap.comparison.matching import KIND_AMBIGUOUS, KIND_DUPLICATE, KIND_ONLY
from uspcap.report.csv_writer import CsvWriter
from uspcap.report.report_file import cannot_write, report_file

PAIR_COLUMNS: Final = ("a_frame", "b_frame", "a_timestamp_ns", "b_timestamp_ns", "delay_ns")
MISS_COLUMNS: Final = ("frame", "timestamp_ns", "wire_bytes", "kind")

_KINDS: Final = np.array(["", "", "", "", ""], dtype="U9")
"""By the number of the kind; matched frames are in the other table."""
_KINDS[[KIND_ONLY, KIND_DUPLICATE, KIND_AMBIGUOUS]] = ["only", "duplicate", "ambiguous"]


class ComparisonTables:
    """Writes the requested tables during the comparison; a context manager that closes them.

    Parameters
    ----------
    pairs : str or None
        Path of the table of pairs, in B's order.
    misses : mapping of str to str or None
        Side, `a` or `b`, to the path of the table of its frames that match none, in its order.

    Raises
    ------
    ReportFileError
        A file cannot be written; also at the end of the block, before which no table is there.
    """

    def __init__(self, pairs: str | None, misses: Mapping[str, str | None]) -> None:
        self._files = ExitStack()
        try:
            self._pairs = None if pairs is None else self._open(pairs, PAIR_COLUMNS)
            self._misses = {side: self._open(path, MISS_COLUMNS) for side, path in misses.items() if path is not None}
        except BaseException:
            # What was begun is thrown away.
            self._files.__exit__(*sys.exc_info())
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def matched(self, pairs: NDArray[np.void], delays_ns: NDArray[np.int64]) -> None:
        """Take matched pairs, as `compare_captures` reports them."""
        if self._pairs is not None:
            timestamps = (pairs["partner_timestamp_ns"], pairs["timestamp_ns"])
            self._pairs.write((pairs["partner_frame"], pairs["frame"], *timestamps, delays_ns))

    def missed(self, side: str, events: NDArray[np.void]) -> None:
        """Take frames of a side that are not matched, as `compare_captures` reports them."""
        if side in self._misses:
            kinds = _KINDS[events["kind"]]
            self._misses[side].write((events["frame"], events["timestamp_ns"], events["length"], kinds))

    def _open(self, path: str, columns: tuple[str, ...]) -> _Table:
        return _Table(path, self._files.enter_context(report_file(path, "this table", newline="")), columns)


class _Table:
    """A table that says which it is where it cannot be written."""

    def __init__(self, path: str, stream: TextIO, columns: tuple[str, ...]) -> None:
        self._path = path
        self._writer = CsvWriter(stream, columns)

    def write(self, columns: tuple[NDArray[Any], ...]) -> None:
        try:
            self._writer.write(columns)
        except OSError as error:
            raise cannot_write(self._path, "this table", error) from error
