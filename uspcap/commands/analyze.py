"""`uspcap analyze`: capture files in, a report out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.analysis.names import FILE_NAMES, NAMES
from uspcap.analysis.suite import Outcome, Settings, analyze_files
from uspcap.commands.options import (
    STAMPS_METAVAR,
    CountType,
    DurationType,
    RateType,
    analysis_names,
    check_names_for_files,
    check_trailer,
    end_with_problems,
    files_and_filter,
    refuse_same_files,
    stamps_of_files,
)
from uspcap.commands.traffic_options import traffic_names, traffic_options, traffic_settings
from uspcap.errors import UsageError
from uspcap.protocols.flows import MAXIMUM_FLOWS
from uspcap.report.document import build_report, source_of
from uspcap.report.format import encodable
from uspcap.report.progress import Progress
from uspcap.report.report_file import report_file

if TYPE_CHECKING:
    from uspcap.timestamps.trailers import TrailerChoice


@click.command("analyze")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [FILTER]...")
@click.option(
    "--only", callback=analysis_names, metavar="NAME,...", help=f"Analyses to run, of {', '.join(FILE_NAMES)}."
)
@click.option("-f", "--filter", "expression", default="", help="Filter expression, instead of trailing words.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the report there, not to stdout.")
@click.option(
    "--tables",
    type=click.Path(file_okay=False),
    help="Also write tables as CSV, and histograms as .hgrm, into this directory.",
)
@click.option(
    "--timestamps",
    "trailer",
    callback=stamps_of_files,
    metavar=STAMPS_METAVAR,
    help="Stamps that a tap or switch put into the frames: metamako, exablaze, arista, vss, expcap, or told by itself.",
)
@click.option("--gap-threshold", type=DurationType(), help="Gaps longer than this count, as 1ms; else each flow's own.")
@click.option("--line-rate", type=RateType(), help="Compare bursts with this rate, as 10G.")
@click.option("--framing", is_flag=True, help="Count preamble, FCS and inter-frame gap as overhead.")
@click.option("--tunnels", is_flag=True, help="Decode the innermost headers: GRE, VXLAN, GENEVE, IP in IP.")
@click.option(
    "--top", type=CountType(1, 10_000), default=10, show_default=True, help="Rows in lists of flows and gaps."
)
@click.option(
    "--max-flows",
    type=CountType(1, 1 << 23),
    default=MAXIMUM_FLOWS,
    show_default=True,
    help="Flows followed one by one; beyond it, a sample.",
)
@traffic_options
@click.option("--show-outliers", is_flag=True, help="Show the frames around the longest gaps, decoded.")
@click.option("-j", "--jobs", type=CountType(1, 256), help="Threads; as many as there are cores by default.")
@click.option("-n", "no_names", is_flag=True, hidden=True, help="Accepted as in tcpdump; names are never looked up.")
def command(
    words: tuple[str, ...],
    only: tuple[str, ...] | None,
    expression: str,
    form: str,
    output: str | None,
    tables: str | None,
    trailer: TrailerChoice | None,
    gap_threshold: int | None,
    line_rate: int | None,
    framing: bool,
    tunnels: bool,
    top: int,
    max_flows: int,
    show_outliers: bool,
    jobs: int | None,
    no_names: bool,
    **traffic: Any,
) -> None:
    """Report timing, gaps, bursts and overhead of capture FILEs, `-` being standard input.

    pcap and pcapng are read, plain or in gzip, zstd, xz or lz4. Several files are one stream, in the order given.
    What follows the files is a FILTER as tcpdump takes it: uspcap analyze day.pcap udp port 30001

    The exit code is 1 where a file was damaged; what could be read of it is in the report all the same.
    """
    files, expression = files_and_filter(words, expression)
    refuse_same_files(files, [output])
    names = traffic_names(NAMES if only is None else only, named=only, **traffic)
    check_trailer(trailer, names, files)
    if trailer is not None and "trailer" not in names:
        names = (*names, "trailer")
    settings = Settings(
        names=names,
        expression=expression,
        maximum_flows=max_flows,
        gap_threshold_ns=gap_threshold,
        line_rate_bps=line_rate,
        framing=framing,
        tunnels=tunnels,
        top=top,
        trailer=trailer,
    )
    settings = traffic_settings(settings, files, asked_with="--only", named=only, **traffic)
    check_names_for_files(settings.names)
    if show_outliers:
        if trailer is not None:
            raise UsageError("--show-outliers shows frames with the file's stamps: leave out it or --timestamps")
        _check_outliers(files, form, settings.names)
    Thread(target=_load_renderer, args=(form,), daemon=True).start()
    with Progress(_total_bytes(files)) as progress:
        outcome = analyze_files(files, settings, jobs=jobs or os.cpu_count() or 1, progress=progress.advance)
    if output is None:
        _write(sys.stdout, form, outcome, settings, show_outliers)
    else:
        with report_file(output, "the report") as stream:
            _write(stream, form, outcome, settings, show_outliers)
    if tables is not None:
        from uspcap.report.tables import write_tables

        write_tables(outcome.suite.analyses, tables)
    end_with_problems(outcome.problems, reported=True)


def _load_renderer(form: str) -> None:
    """Import what will show the report while the analysis runs: it takes as long as a tenth of a million frames."""
    if form == "text":
        import uspcap.report.terminal  # noqa: F401


def _check_outliers(files: list[str], form: str, names: tuple[str, ...]) -> None:
    """Refuse to show the frames around gaps where that cannot be."""
    if form == "json" or any(file == "-" or Path(file).is_fifo() for file in files):
        raise UsageError("--show-outliers reads the files again and shows text: not for standard input, pipes or JSON")
    if not {"gaps", "inter_arrival"} & set(names):
        raise UsageError("--show-outliers shows what gaps or inter_arrival find; name one of them in --only")


def _total_bytes(files: list[str]) -> int | None:
    """Return how many bytes there are to read, None where that is not known."""
    try:
        return sum(Path(file).stat().st_size for file in files)
    except OSError:
        return None


def _write(stream: TextIO, form: str, outcome: Outcome, settings: Settings, show_outliers: bool) -> None:
    report = build_report(source_of(outcome, settings.expression), outcome.suite.analyses)
    if form == "json":
        from uspcap.report.json_report import write_json

        write_json(report, stream)
        return
    from rich.console import Console
    from rich.text import Text

    from uspcap.report.terminal import render

    # Left alone, rich would drop the colours only and go on writing bold and dim (https://no-color.org).
    console = Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto")
    render(report, console)
    if show_outliers:
        from uspcap.report.outliers import outlier_frames

        for title, lines in outlier_frames(report, tunnels=settings.tunnels):
            for line in ("", title, *lines):
                # As Text, for in a string rich takes `:ab:` of a MAC address for an emoji.
                console.print(Text(encodable(line, console.encoding)), soft_wrap=True)
