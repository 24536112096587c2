"""Tables as CSV: a file a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TextIO

from uspcap.report.csv_writer import CsvWriter
from uspcap.report.renderers.base import TableRenderer

if TYPE_CHECKING:
    from uspcap.analysis.base import Table
    from uspcap.stats.histogram import Histogram


class CsvRenderer(TableRenderer):
    """Writes each table as `<table>.csv`; one without columns makes none."""

    def files(
        self, tables: Mapping[str, Table], histograms: Mapping[str, Histogram]
    ) -> Iterator[tuple[str, Callable[[TextIO], object]]]:
        for name, table in tables.items():
            if table:
                yield f"{name}.csv", partial(write_table, table)


def write_table(table: Table, stream: TextIO) -> None:
    """Write one table as CSV: a row of column names, then the values; None is an empty field."""
    CsvWriter(stream, table).write(table.values())


RENDERER = CsvRenderer()
