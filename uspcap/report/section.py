"""What the sections of the terminal report share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from uspcap.analysis.histogram import ENOUGH_BEYOND
from uspcap.report.format import clock, plural, stamp
from uspcap.report.headlines import Result
from uspcap.report.terminal_table import Column, print_line, print_paragraph

BAR_CELLS = 24


@dataclass(frozen=True, slots=True)
class Context:
    """What sections need to know of the report around them.

    Attributes
    ----------
    one_day : bool
        All stamps are of one UTC day, which the header names; times of day then suffice.
    warnings : int
        Warnings that the report opens with.
    resolutions_ns : dict of str to int
        What stamps were seen to resolve, by stamp source; those with enough stamps to tell.
    """

    one_day: bool
    warnings: int
    resolutions_ns: dict[str, int]

    def instants(self, title: str, stamps: Sequence[int], rank: int) -> Column:
        """Return a column of instants, of the time of day where the width asks for it and the day is known."""
        short = [clock(value) for value in stamps] if self.one_day else None
        return Column(title, [stamp(value) for value in stamps], left=True, short=short, rank=rank)


def open_section(console: Console, title: str, context: Context | None = None) -> None:
    """Start a section; one that rests on timestamps refers to what they are worth."""
    print_line(console, Text())
    heading = Text.assemble((title, "bold cyan"))
    if context is not None and context.warnings:
        numbers = "[1]" if context.warnings == 1 else f"[1]-[{context.warnings}]"
        heading.append(f"  read with {numbers} above", "yellow")
    print_line(console, heading, "")


def more(console: Console, hidden: int, what: str) -> None:
    """Say how many rows a list leaves out."""
    if hidden > 0:
        print_line(console, Text(f"and {plural(hidden, what)} more", style="dim"))


def bar(part: float, whole: float) -> str:
    """Return a bar as long as its part of the whole."""
    return "█" * max(1, round(BAR_CELLS * part / whole)) if whole and part else ""


def footnote(console: Console, histograms: Sequence[Result]) -> None:
    """Explain `n<…` where it occurs."""
    if any(histogram["insufficient"] and histogram["count"] for histogram in histograms):
        print_paragraph(
            console,
            f"n<10k: not given, as it takes 10,000 samples for {ENOUGH_BEYOND} of them to lie beyond this percentile",
            style="dim",
        )
