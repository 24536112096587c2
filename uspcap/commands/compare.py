"""`uspcap compare`: two captures of the same traffic, frame by frame, or the paths from one interface, live."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from uspcap.bpf.classic import join_words
from uspcap.commands.compare_live import LIVE_OPTIONS, compare_live, live_options
from uspcap.commands.compare_reports import compare_reports, is_report
from uspcap.commands.inside_options import inside_options
from uspcap.commands.options import (
    TIMESTAMPS_METAVAR,
    DurationType,
    SignedDurationType,
    check_trailer,
    end_with_problems,
    refuse_same_files,
    timestamps_of_files,
)
from uspcap.commands.output import format_option, put_out
from uspcap.commands.reading_options import READING_OPTIONS, reading_options
from uspcap.errors import UsageError
from uspcap.report.renderers.registry import renderer
from uspcap.stages.reading import Input, expand_all

if TYPE_CHECKING:
    from uspcap.stages.reading import Reading
    from uspcap.timestamps.trailers import TrailerChoice

_CAPTURE_OPTIONS: Final = READING_OPTIONS | {
    *("key", "clock", "window", "offset", "table", "only_a", "only_b", "trailer", "files_a", "files_b"),
    *("tunnels", "outer"),
}
"""Parameters that mean something for two captures only."""


@click.command("compare")
@click.argument("words", metavar="[A B | REPORT1 REPORT2 | -i NAME [FILTER]...]", nargs=-1)
@click.option("--a", "files_a", multiple=True, metavar="FILE", help="Capture file of side A. Repeatable.")
@click.option("--b", "files_b", multiple=True, metavar="FILE", help="Capture file of side B. Repeatable.")
@click.option("-f", "--filter", "expression", default="", help="Compare only frames that match this filter.")
@click.option(
    "--key",
    type=click.Choice(["network", "payload", "whole", "fields"]),
    default="network",
    show_default=True,
    help="What identifies a frame: the packet from IP on, less what changes in transit (network); its payload; every "
    "byte (whole); or header fields.",
)
@click.option(
    "--clock",
    type=click.Choice(["auto", "same", "offset"]),
    default="auto",
    show_default=True,
    help="same: one clock timestamped both sides. offset: estimate the offset and drift between two clocks.",
)
@click.option(
    "--window",
    type=DurationType(),
    default="100ms",
    show_default=True,
    help="Largest difference between the two timestamps of a frame.",
)
@click.option(
    "--offset", type=SignedDurationType(), help="Approximate offset of B's clock from A's, if known, e.g. -37s."
)
@click.option(
    "--timestamps",
    "trailer",
    callback=timestamps_of_files,
    metavar=TIMESTAMPS_METAVAR,
    help="Use the timestamps that taps or switches put into the frames, instead of the files'.",
)
@click.option("--table", type=click.Path(dir_okay=False), help="Write every matched pair to this CSV file.")
@click.option("--only-a", type=click.Path(dir_okay=False), help="Write unmatched frames of A to this CSV file.")
@click.option("--only-b", type=click.Path(dir_okay=False), help="Write unmatched frames of B to this CSV file.")
@inside_options()
@reading_options(interface=False)
@live_options
@format_option
def command(
    words: tuple[str, ...], expression: str, form: str, interface: str | None, reading: Reading, **options: Any
) -> None:
    """Compare two captures of the same traffic, the paths from an interface to an application, or two reports on paths.

    A B: match the frames of A with those of B; delay is B's timestamp minus A's. Each is a file, a directory, a quoted
    glob, or one interface of a file: tap.pcapng@eth0 tap.pcapng@eth1. For several files per side, use --a and --b. The
    report has lost frames, duplicates, reordering, delays with confidence intervals, and the offset between the clocks.
    Both sides are read once, in step; memory depends only on the window. The exit code is 1 if a capture is damaged;
    what could be read is compared.

    REPORT1 REPORT2: compare two reports of -i … --format json, from two hosts or from before and after a change. The
    settings that differ come first, then, for each path, its latency in REPORT2 minus that in REPORT1.

    -i NAME: send incoming probes through the kernel's stack, PACKET_MMAP and AF_XDP, in turn or at random, and compare
    the latency of each path from the XDP hook to the application.
    """
    if interface is not None:
        _refuse_options(_CAPTURE_OPTIONS, "two captures, and -i names an interface")
        given = {name: value for name, value in options.items() if name in LIVE_OPTIONS}
        compare_live(join_words([expression, *words]), form, interface=interface, **given)
        return
    _refuse_options(LIVE_OPTIONS, "an interface: name it with -i")
    if len(words) == 2 and (is_report(words[0]) or is_report(words[1])):
        _refuse_options(_CAPTURE_OPTIONS | {"expression"}, "captures, and these are reports")
        compare_reports(*words, form)
        return
    given = {name: value for name, value in options.items() if name in _CAPTURE_OPTIONS}
    sides = _sides(words, given.pop("files_a"), given.pop("files_b"))
    _compare_captures(*sides, expression.strip(), form, reading=reading, **given)


def _sides(
    words: tuple[str, ...], files_a: tuple[str, ...], files_b: tuple[str, ...]
) -> tuple[list[Input], list[Input]]:
    """Return the files of both sides.

    Raises
    ------
    UsageError
        They are not two.
    CaptureFileError
        A directory or glob has no file.
    """
    if words and (files_a or files_b):
        raise UsageError(f"captures are given more than once, by --a or --b and by {words[0]!r}: keep one of the two")
    if len(words) > 2:
        raise UsageError(
            f"{len(words)} captures are named, and it is not clear which are A and which are B: name each side as one "
            "argument (a file, a directory or a quoted glob as 'a/*.pcap'), or repeat --a FILE and --b FILE"
        )
    if len(words) != 2 and not (files_a and files_b):
        raise UsageError("name two captures of the same traffic (or --a and --b), two reports, or an interface with -i")
    a, b = ((words[0],), (words[1],)) if words else (files_a, files_b)
    return expand_all(a), expand_all(b)


def _refuse_options(others: frozenset[str], which: str) -> None:
    """Raise UsageError for options that were given and mean nothing here."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in others and source is not click.core.ParameterSource.DEFAULT:
            raise UsageError(f"{parameter.opts[-1]} is for comparing {which}")


def _compare_captures(
    a: list[Input],
    b: list[Input],
    expression: str,
    form: str,
    *,
    reading: Reading,
    key: Any,
    clock: Any,
    window: int,
    offset: int | None,
    table: str | None,
    only_a: str | None,
    only_b: str | None,
    trailer: TrailerChoice | None,
    tunnels: bool | None,
    outer: bool,
) -> None:
    from uspcap.comparison.captures import Settings, compare_captures
    from uspcap.report.comparison_tables import ComparisonTables

    paths = [entry.path for entry in (*a, *b)]
    if paths.count("-") > 1:
        raise UsageError("standard input is one capture: name the other one as a file")
    if window < 1:
        raise UsageError("a window of 0 matches nothing: take 1ns or more")
    refuse_same_files(paths, [table, only_a, only_b])
    for side in (a, b):
        check_trailer(trailer, [side[0].path])
    settings = Settings(key, clock, window, offset, expression, trailer, reading, tunnels, outer)
    # What the report needs takes as long to import as a million frames to match: meanwhile.
    threading.Thread(target=_load_report, args=(form,), daemon=True).start()
    with ComparisonTables(table, {"a": only_a, "b": only_b}) as tables:
        comparison = compare_captures(a, b, settings, matched=tables.matched, missed=tables.missed)
    from uspcap.report.comparison import comparison_page, comparison_report
    from uspcap.report.model import Output

    report = comparison_report(comparison)
    put_out(Output(report, lambda: comparison_page(report)), form, sys.stdout)
    end_with_problems([*comparison.a.problems, *comparison.b.problems], reported=True)


def _load_report(form: str) -> None:
    import uspcap.report.comparison  # noqa: F401

    renderer(form)
