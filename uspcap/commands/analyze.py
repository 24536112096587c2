"""`uspcap analyze`: capture files in, a report out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.analysis.declaration import TOP
from uspcap.analysis.registry import default_names
from uspcap.analysis.suite import Outcome, Settings, analyze_files, settings_for
from uspcap.commands.analysis_options import analysis_options, check_names_for_files, given_options
from uspcap.commands.inside_options import outer_option
from uspcap.commands.options import (
    TIMESTAMPS_METAVAR,
    CountType,
    check_trailer,
    end_with_problems,
    files_and_filter,
    refuse_same_files,
    timestamps_of_files,
)
from uspcap.commands.output import format_option, put_out
from uspcap.commands.reading_options import reading_options
from uspcap.errors import UsageError, UspcapError
from uspcap.report.document import build_report, source_of
from uspcap.report.model import Output
from uspcap.report.progress import Progress
from uspcap.report.renderers.registry import renderer, table_formats, table_renderers
from uspcap.report.report_file import report_file

if TYPE_CHECKING:
    from uspcap.report.model import Page
    from uspcap.stages.reading import Reading
    from uspcap.timestamps.trailers import TrailerChoice


@click.command("analyze")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [FILTER]...")
@click.option("-f", "--filter", "expression", default="", help="Filter expression, instead of words after the files.")
@format_option
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write the report to this file instead of stdout."
)
@click.option(
    "--tables",
    type=click.Path(file_okay=False),
    help=f"Also write tables and histograms to this directory, as {', '.join(table_formats())}.",
)
@click.option(
    "--timestamps",
    "trailer",
    callback=timestamps_of_files,
    metavar=TIMESTAMPS_METAVAR,
    help="Use the timestamps that taps or switches put into the frames: metamako, exablaze, arista, vss, expcap or "
    "erspan; auto-detected without FORMAT.",
)
@reading_options()
@analysis_options("--only", "only", live=False)
@outer_option()
@click.option("--show-outliers", is_flag=True, help="Show the decoded frames around the longest gaps.")
@click.option("-j", "--jobs", type=CountType(1, 256), metavar="N", help="Number of threads. Default: one per core.")
@click.option("-n", "no_names", is_flag=True, hidden=True, help="Accepted as in tcpdump; names are never looked up.")
def command(
    words: tuple[str, ...],
    only: tuple[str, ...] | None,
    expression: str,
    form: str,
    output: str | None,
    tables: str | None,
    trailer: TrailerChoice | None,
    tunnels: bool | None,
    outer: bool,
    max_flows: int,
    show_outliers: bool,
    jobs: int | None,
    no_names: bool,
    reading: Reading,
    **options: Any,
) -> None:
    """Report timing, gaps, bursts and overhead of capture FILEs; `-` is standard input.

    Reads pcap and pcapng, plain or compressed with gzip, bzip2, zstd, xz or lz4. A FILE may be a directory, a quoted
    glob, or one interface of a file: day.pcapng@eth0. Several files are analyzed as one stream, in time order.

    A FILTER (pcap-filter syntax, as in tcpdump) follows the files: uspcap analyze day.pcap udp port 30001

    The exit code is 1 if a file is damaged; the report still covers what could be read.
    """
    inputs, expression = files_and_filter(words, expression)
    files = [entry.path for entry in inputs]
    refuse_same_files(files, [output])
    check_trailer(trailer, files)
    settings = settings_for(
        given_options(options),
        default=default_names(live=False),
        named=only,
        naming="--only",
        files=files,
        expression=expression,
        maximum_flows=max_flows,
        tunnels=tunnels,
        trailer=trailer,
        reading=reading,
        outer=outer,
    )
    check_names_for_files(settings.names)
    if show_outliers:
        if trailer is not None:
            raise UsageError("--show-outliers shows frames with the file's timestamps: leave out one of the two")
        _check_outliers(files, form, settings.names)
    if tables is not None:
        table_renderers()
    Thread(target=_load_report, args=(form,), daemon=True).start()
    with Progress(_total_bytes(files)) as progress:
        outcome = analyze_files(inputs, settings, jobs=jobs or os.cpu_count() or 1, progress=progress.advance)
    if output is None:
        _write(sys.stdout, form, outcome, settings, show_outliers, options[TOP.parameter])
    else:
        with report_file(output, "the report") as stream:
            _write(stream, form, outcome, settings, show_outliers, options[TOP.parameter])
    if tables is not None:
        from uspcap.report.tables import write_tables

        write_tables(outcome.suite.analyses, tables)
    end_with_problems(outcome.problems, reported=True)


def _load_report(form: str) -> None:
    """Import what will show the report while the analysis runs: it takes as long as a tenth of a million frames."""
    import uspcap.report.page  # noqa: F401

    renderer(form)


def _check_outliers(files: list[str], form: str, names: tuple[str, ...]) -> None:
    """Refuse to show the frames around gaps where that cannot be."""
    if not renderer(form).shows_page or any(file == "-" or Path(file).is_fifo() for file in files):
        raise UsageError(
            f"--show-outliers reads the files again and shows lines of text: not for standard input, pipes or {form}"
        )
    if not {"gaps", "inter_arrival"} & set(names):
        raise UsageError("--show-outliers shows what gaps or inter_arrival find; name one of them in --only")


def _total_bytes(files: list[str]) -> int | None:
    """Return how many bytes there are to read, None where that is not known."""
    try:
        return sum(Path(file).stat().st_size for file in files)
    except OSError:
        return None


def _write(
    stream: TextIO, form: str, outcome: Outcome, settings: Settings, show_outliers: bool, top: int | None
) -> None:
    source = source_of(outcome, settings.expression)
    report = build_report(source, outcome.suite.analyses, reading=outcome.filtered.reading)

    failures: list[UspcapError] = []

    def page() -> Page:
        from uspcap.report.page import report_page

        made = report_page(report, top)
        if show_outliers:
            from uspcap.report.outliers import append_outliers

            try:
                append_outliers(made, report, outcome.inputs, tunnels=outcome.tunnels)
            except UspcapError as error:
                # The report itself is there.
                failures.append(error)
        return made

    put_out(Output(report, page), form, stream)
    if failures:
        raise failures[0]
