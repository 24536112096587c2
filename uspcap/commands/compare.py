"""`uspcap compare`: two captures of the same traffic, frame by frame."""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.commands.options import DurationType, SignedDurationType
from uspcap.errors import CaptureFileError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KINDS = {1: "matched", 2: "only", 3: "duplicate", 4: "ambiguous"}


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

    if path_a == path_b == "-":
        raise UsageError("standard input is one capture: name the other one as a file")
    if window < 1:
        raise UsageError("a window of 0 matches nothing: take 1ns or more")
    settings = Settings(key, clock, window, offset, expression.strip())
    with ExitStack() as files:
        pairs = None if table is None else _Pairs(files.enter_context(_open(table)))
        misses = {
            side: _Misses(files.enter_context(_open(path)))
            for side, path in (("a", only_a), ("b", only_b))
            if path is not None
        }
        try:
            comparison = compare_captures(
                path_a,
                path_b,
                settings,
                matched=pairs.write if pairs is not None else _ignore,
                missed=lambda side, events: misses[side].write(events) if side in misses else None,
            )
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


def _ignore(pairs: NDArray[np.void], delays_ns: NDArray[np.int64]) -> None:
    """Take what nobody asked for."""


def _open(path: str) -> TextIO:
    try:
        return Path(path).open("w", encoding="ascii", newline="")
    except OSError as error:
        raise CaptureFileError(f"{path}: cannot be written: {error.strerror}; name another file") from error


class _Pairs:
    """The table of matched pairs, in B's order."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        csv.writer(file).writerow(["a_frame", "b_frame", "a_timestamp_ns", "b_timestamp_ns", "delay_ns"])

    def write(self, pairs: NDArray[np.void], delays_ns: NDArray[np.int64]) -> None:
        """Append pairs."""
        import pandas as pd

        pd.DataFrame(
            {
                "a_frame": pairs["partner_frame"],
                "b_frame": pairs["frame"],
                "a_timestamp_ns": pairs["partner_timestamp_ns"],
                "b_timestamp_ns": pairs["timestamp_ns"],
                "delay_ns": delays_ns,
            }
        ).to_csv(self._file, header=False, index=False)


class _Misses:
    """The frames of one side that match none, in its order, and why."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        csv.writer(file).writerow(["frame", "timestamp_ns", "wire_bytes", "kind"])

    def write(self, events: NDArray[np.void]) -> None:
        """Append frames."""
        import pandas as pd

        pd.DataFrame(
            {
                "frame": events["frame"],
                "timestamp_ns": events["timestamp_ns"],
                "wire_bytes": events["length"],
                "kind": pd.Series(events["kind"]).map(_KINDS),
            }
        ).to_csv(self._file, header=False, index=False)
