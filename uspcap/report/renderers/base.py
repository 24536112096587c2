"""Interfaces of renderers: one writes a report to a stream, one writes tables to files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, TextIO

if TYPE_CHECKING:
    # Every command imports this to know which formats there are; numpy is imported by what fills them.
    from uspcap.analysis.base import Table
    from uspcap.report.model import Output
    from uspcap.stats.histogram import Histogram


class Renderer(ABC):
    """Writes a report in one format, that of `--format`."""

    shows_page: ClassVar[bool] = True
    """It shows the page, what a user asks to see beside the results included; one of documents does not."""

    @abstractmethod
    def write(self, output: Output, stream: TextIO) -> None:
        """Write a report that is alone in its stream."""

    def write_next(self, output: Output, stream: TextIO) -> None:
        """Write one of several reports in a stream, such as that of an interval."""
        self.write(output, stream)


class TableRenderer(ABC):
    """Writes what analyses list in full, into the files of `--tables`."""

    @abstractmethod
    def files(
        self, tables: Mapping[str, Table], histograms: Mapping[str, Histogram]
    ) -> Iterator[tuple[str, Callable[[TextIO], object]]]:
        """Yield the files of one analysis.

        Parameters
        ----------
        tables : mapping of str to mapping
            By name: columns of one length; one without columns has nothing to say.
        histograms : mapping of str to Histogram
            By name; in ns.

        Yields
        ------
        name : str
            Of the file, without that of the analysis; names of tables may be foreign, and are made safe by the caller.
        write : callable
            Writes it to a stream, whose newlines are not altered.
        """
