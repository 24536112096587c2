"""The long form of analyses: one CSV file for each table of each."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TextIO

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.histogram import Histogram
from uspcap.errors import UspcapError
from uspcap.report.hdr import percentile_distribution


class TableError(UspcapError):
    """A table cannot be written."""


def write_tables(analyses: Mapping[str, Analysis], directory: str | os.PathLike[str]) -> list[Path]:
    """Write every table as `<analysis>.<table>.csv`; each file appears whole, or not at all.

    Histograms go beside them as `<analysis>.<name>.hgrm`, the text form of the HdrHistogram tools.

    Parameters
    ----------
    analyses : mapping of str to Analysis
    directory : path
        Made where it does not exist. Files of these names are replaced.

    Returns
    -------
    list of Path
        The files, in the order of the analyses. A table without columns makes none.

    Raises
    ------
    TableError
        The directory cannot be made, or a file in it cannot be written.
    """
    target = Path(directory)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(
            f"{target}: cannot make this directory for CSV tables ({error.strerror}); name one that can be written to"
        ) from error
    written = []
    for name, analysis in analyses.items():
        for table_name, table in analysis.tables().items():
            if table:
                written.append(target / _file_name(f"{name}.{table_name}.csv"))
                _write_file(partial(write_table, table), written[-1])
        for histogram_name, histogram in analysis.histograms().items():
            written.append(target / _file_name(f"{name}.{histogram_name}.hgrm"))
            _write_file(partial(_write_distribution, histogram), written[-1])
    return written


def _file_name(name: str) -> str:
    """Return a name for a file in the directory: what users and captures name may hold slashes."""
    return name.replace("/", "_")


def _write_file(write: Callable[[TextIO], None], path: Path) -> None:
    """Write beside the target first, so that a reader never sees half a table."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                write(stream)
            # mkstemp keeps others out; a report is as readable as the umask lets it be.
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(0o666 & ~umask)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TableError(
            f"{path}: cannot write this table ({error.strerror}); free space or name another directory"
        ) from error


def write_table(table: Table, stream: TextIO) -> None:
    """Write one table as CSV: a row of column names, then the values; None is an empty field."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))


def _write_distribution(histogram: Histogram, stream: TextIO) -> None:
    stream.write(percentile_distribution(histogram))
