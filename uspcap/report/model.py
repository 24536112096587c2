"""What a report shows, as data: sections of text and tables, and headlines.

Views of analyses make these; renderers show them and know no analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from uspcap.report.format import clock, plural, safe_text, stamp
from uspcap.stats.histogram import ENOUGH_BEYOND

Result = dict[str, Any]
"""Of an analysis, as the JSON report holds it."""

Tone = Literal["", "strong", "warning", "note", "bar"]
"""How text is meant: as it is, a title or what matters most, a warning, an explanation, a bar of a chart."""

BAR_CELLS = 24


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, as text.

    Attributes
    ----------
    title : str
    cells : sequence of str
        One a row; a newline folds the cell.
    left : bool
        Names stand left, numbers right.
    short : sequence of str, optional
        Cells to fall back on where the width does not suffice.
    rank : int
        Columns of the highest rank go first where the width still does not suffice; 0 stays.
    tone : str
    """

    title: str
    cells: Sequence[str]
    left: bool = False
    short: Sequence[str] | None = None
    rank: int = 0
    tone: Tone = ""


def names(title: str, texts: Sequence[str]) -> Column:
    """Return a column of foreign names, such as flows: safe to show, and folded at ` > ` where narrow."""
    safe = [safe_text(text) for text in texts]
    return Column(title, safe, left=True, short=[text.replace(" > ", "\n  > ", 1) for text in safe])


@dataclass(frozen=True, slots=True)
class Line:
    """Text that is never wrapped; without any, an empty line."""

    text: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text of any length, perhaps foreign."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one length; without rows it is not shown.

    Attributes
    ----------
    columns : tuple of Column
    """

    columns: tuple[Column, ...]


Block = Line | Paragraph | Table


@dataclass(slots=True)
class Section:
    """What a report shows of one analysis, from top to bottom.

    Attributes
    ----------
    title : str
    timed : bool
        It rests on timestamps: what the report warns of concerns it.
    blocks : list of Block
    """

    title: str
    timed: bool = False
    blocks: list[Block] = field(default_factory=list)

    def line(self, text: str = "", tone: Tone = "") -> None:
        """Append text that fits on a line."""
        self.blocks.append(Line(text, tone))

    def heading(self, text: str) -> None:
        """Append a title within the section, apart from what is before it."""
        self.line()
        self.line(text, "strong")

    def paragraph(self, text: str, tone: Tone = "") -> None:
        """Append text that may be long."""
        self.blocks.append(Paragraph(text, tone))

    def table(self, columns: Sequence[Column]) -> None:
        """Append a table."""
        self.blocks.append(Table(tuple(columns)))

    def more(self, hidden: int, what: str) -> None:
        """Say how many rows a list leaves out."""
        if hidden > 0:
            self.line(f"and {plural(hidden, what)} more", "note")

    def footnote(self, histograms: Sequence[Result]) -> None:
        """Explain `n<…` where it occurs."""
        if any(histogram["insufficient"] and histogram["count"] for histogram in histograms):
            self.paragraph(
                "n<10k: not given, as it takes 10,000 samples for "
                f"{ENOUGH_BEYOND} of them to lie beyond this percentile",
                "note",
            )


@dataclass(frozen=True, slots=True)
class Context:
    """What views need to know of the report around them.

    Attributes
    ----------
    one_day : bool
        All stamps are of one UTC day, which the header names; times of day then suffice.
    resolutions_ns : dict of str to int
        What stamps were seen to resolve, by stamp source; those with enough stamps to tell.
    top : int or None
        Rows of each list that were asked for.
    """

    one_day: bool = False
    resolutions_ns: dict[str, int] = field(default_factory=dict)
    top: int | None = None

    def rows(self, usual: int) -> int:
        """Return how many rows a list has: as many as were asked for, or as usual."""
        return usual if self.top is None else self.top

    def instants(self, title: str, stamps: Sequence[int], rank: int) -> Column:
        """Return a column of instants, of the time of day where the width asks for it and the day is known."""
        short = [clock(value) for value in stamps] if self.one_day else None
        return Column(title, [stamp(value) for value in stamps], left=True, short=short, rank=rank)


@dataclass(frozen=True, slots=True)
class Headline:
    """A name and what there is to say, in one or more parts.

    Attributes
    ----------
    name : str
    values : tuple of (str, str)
        What each part is, perhaps nothing, and its text.
    """

    name: str
    values: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(f"{label} {text}".lstrip() for label, text in self.values)


def bar(part: float, whole: float) -> str:
    """Return a bar as long as its part of the whole."""
    return "█" * max(1, round(BAR_CELLS * part / whole)) if whole and part else ""
