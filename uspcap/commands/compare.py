"""`uspcap compare`: two captures of the same traffic, frame by frame."""

from __future__ import annotations

import sys
from typing import Any

import click

from uspcap.commands.options import DurationType, SignedDurationType
from uspcap.errors import CaptureFileError, UsageError


@click.command("compare")
@click.argument("path_a", metavar="A")
@click.argument("path_b", metavar="B")
@click.option("-f", "--filter", "expression", default="", help="Compare only frames that match, as tcpdump takes it.")
@click.option(
    "--key",
    type=click.Choice(["network", "payload", "whole", "fields"]),
    default="network",
    show_default=True,
    help="What makes a frame the same: from IP on without what changes on the way, the payload, every byte, "
    "or header fields.",
)
@click.option(
    "--clock",
    type=click.Choice(["auto", "same", "offset"]),
    default="auto",
    show_default=True,
    help="Whether one clock stamped both; offset: find how far the clocks are apart, and drift.",
)
@click.option(
    "--window", type=DurationType(), default="100ms", show_default=True, help="Most that a frame's stamps may differ."
)
@click.option("--offset", type=SignedDurationType(), help="B's clock minus A's, roughly, where it is known: as -37s.")
@click.option("--table", type=click.Path(dir_okay=False), help="Write every matched pair to this CSV file.")
@click.option("--only-a", type=click.Path(dir_okay=False), help="Write frames of A that match none to this CSV file.")
@click.option("--only-b", type=click.Path(dir_okay=False), help="The same for B.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    path_a: str,
    path_b: str,
    expression: str,
    key: str,
    clock: Any,
    window: int,
    offset: int | None,
    table: str | None,
    only_a: str | None,
    only_b: str | None,
    form: str,
) -> None:
    """Match the frames of captures A and B of the same traffic; delay is B's stamp minus A's.

    Each capture is read once, both in step, and memory depends on the window only. Lost frames, duplicates, reordering,
    delays with their intervals, and how far clocks are apart are in the report. The exit code is 1 where a capture is
    damaged; what could be read is compared.
    """
    from uspcap.compare.captures import Settings, compare_captures
    from uspcap.report.comparison import comparison_report, render
    from uspcap.report.comparison_tables import ComparisonTables

    if path_a == path_b == "-":
        raise UsageError("standard input is one capture: name the other one as a file")
    if window < 1:
        raise UsageError("a window of 0 matches nothing: take 1ns or more")
    settings = Settings(key, clock, window, offset, expression.strip())
    with ComparisonTables(table, {"a": only_a, "b": only_b}) as tables:
        try:
            comparison = compare_captures(path_a, path_b, settings, matched=tables.matched, missed=tables.missed)
        except OSError as error:
            raise CaptureFileError(
                f"cannot write the tables: {error.strerror}; free space or name another place"
            ) from error
    report = comparison_report(comparison)
    if form == "json":
        from uspcap.report.json_report import write_json

        write_json(report, sys.stdout)
    else:
        from rich.console import Console

        render(report, Console())
    if report["problems"]:
        sys.exit(1)
