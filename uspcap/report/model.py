"""The content of a report, as data: pages of sections, text, tables and findings, and headlines.

Views of analyses and reports of commands make these; renderers show them and know neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from uspcap.records import Record, as_json
from uspcap.report.format import clock, plural, safe_text
from uspcap.report.units import Unit
from uspcap.stats.histogram import ENOUGH_BEYOND, Histogram

Result = dict[str, Any]
"""Of an analysis, as the JSON report holds it."""

Values = Record | Mapping[str, Any]
"""Figures by the names that they have in JSON."""

Tone = Literal["", "strong", "subject", "warning", "caution", "problem", "alarm", "note", "bar"]
"""How text is meant: as it is, what matters most, what something is about, a warning, one that nobody may miss, a
problem, one that nobody may miss, an explanation, a bar of a chart."""

Severity = Literal["ok", "unknown", "advice", "warning", "problem"]
"""How much a finding matters, lowest first; `unknown` is what could not be determined."""

BAR_CELLS = 24


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    title : str
    values : sequence of object
        One a row, in `unit`; text is shown as it is, and a newline in it folds the cell.
    left : bool
        Names stand left, numbers right.
    short : sequence of str, optional
        Cells to fall back on where the width does not suffice.
    rank : int
        Columns of the highest rank go first where the width still does not suffice; 0 stays.
    tone : str
    unit : Unit
        What the values are.
    cells : sequence of str
        The values as people read them.
    """

    title: str
    values: Sequence[Any]
    left: bool = False
    short: Sequence[str] | None = None
    rank: int = 0
    tone: Tone = ""
    unit: Unit = Unit.TEXT
    cells: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", [self.unit.text(value) for value in self.values])


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
    """Text of any length, perhaps foreign.

    Attributes
    ----------
    text : str
    tone : str
    lead : str
        Stands before it, such as a number or a name; further lines begin behind it.
    """

    text: str
    tone: Tone = ""
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence on a line of its own, as the result in one sentence does; never wrapped."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Lines that are shown as they are, as decoded frames are."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts, a line each: a name and a text, perhaps foreign.

    Attributes
    ----------
    rows : tuple of (str, str)
        Names and texts; a row without a name goes on with the one before.
    width : int
        Cells that a name takes.
    cut : bool
        What does not fit may lose its middle; else it runs on.
    """

    rows: tuple[tuple[str, str], ...]
    width: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one length; without rows it is not shown.

    Attributes
    ----------
    columns : tuple of Column
    """

    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """Histograms of times, drawn over each other by percentile; those with too few values are left out.

    Attributes
    ----------
    histograms : mapping of str to Histogram
        By the name of the curve.
    """

    histograms: Mapping[str, Histogram]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: its severity, its subject, and its remedy.

    Attributes
    ----------
    severity : str
    name : str
        What was looked at.
    what : str
        What was found, in a sentence or less.
    consequences : tuple of str
        What it means; or what is behind it.
    commands : tuple of str
        What changes it or shows more, to be copied into a shell.
    remark : str
        Said at the end.
    """

    severity: Severity
    name: str
    what: str
    consequences: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings below each other."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One of several items, such as an interface, and its description.

    Attributes
    ----------
    lead : str
        Stands before the name, such as a number.
    name : str
    state : str
        In a word or two.
    severity : str
        Of the state.
    texts : tuple of str
    """

    lead: str
    name: str
    state: str
    severity: Severity
    texts: tuple[str, ...]


Block = Line | Paragraph | Statement | Verbatim | Facts | Table | Curves | Findings | Entry


@dataclass(slots=True)
class Section:
    """A part of a report, from top to bottom.

    Attributes
    ----------
    title : str
        Empty where it needs none.
    timed : bool
        It rests on timestamps: what the report warns of concerns it.
    tone : str
        Of the title.
    aside : str
        A remark beside the title.
    blocks : list of Block
    """

    title: str = ""
    timed: bool = False
    tone: Tone = ""
    aside: str = ""
    blocks: list[Block] = field(default_factory=list)

    def line(self, text: str = "", tone: Tone = "") -> None:
        """Append text that fits on a line."""
        self.blocks.append(Line(text, tone))

    def heading(self, text: str) -> None:
        """Append a title within the section, apart from what is before it."""
        self.line()
        self.line(text, "strong")

    def paragraph(self, text: str, tone: Tone = "", *, lead: str = "") -> None:
        """Append text that may be long."""
        self.blocks.append(Paragraph(text, tone, lead))

    def statement(self, text: str, tone: Tone = "") -> None:
        """Append a sentence on a line of its own."""
        self.blocks.append(Statement(text, tone))

    def warnings(self, texts: Iterable[str]) -> None:
        """Append warnings, numbered."""
        for number, text in enumerate(texts, 1):
            self.paragraph(text, "warning", lead=f"[{number}] ")

    def facts(self, rows: Iterable[tuple[str, str]], width: int, *, cut: bool = False) -> None:
        """Append names and texts, a line each."""
        self.blocks.append(Facts(tuple(rows), width, cut))

    def curves(self, histograms: Mapping[str, Histogram]) -> None:
        """Append histograms over each other."""
        self.blocks.append(Curves(histograms))

    def verbatim(self, lines: Iterable[str]) -> None:
        """Append lines as they are."""
        self.blocks.append(Verbatim(tuple(lines)))

    def findings(self, findings: Iterable[Finding]) -> None:
        """Append findings."""
        self.blocks.append(Findings(tuple(findings)))

    def entry(self, lead: str, name: str, state: str, severity: Severity, texts: Iterable[str]) -> None:
        """Append one of several things."""
        self.blocks.append(Entry(lead, name, state, severity, tuple(texts)))

    def table(self, columns: Sequence[Column]) -> None:
        """Append a table."""
        self.blocks.append(Table(tuple(columns)))

    def more(self, hidden: int, what: str) -> None:
        """Say how many rows a list leaves out."""
        if hidden > 0:
            self.line(f"and {plural(hidden, what)} more", "note")

    def footnote(self, histograms: Sequence[Values]) -> None:
        """Explain `n<…` where it occurs."""
        if any(histogram["insufficient"] and histogram["count"] for histogram in histograms):
            self.paragraph(
                "n<10k: not given, as it takes 10,000 samples for "
                f"{ENOUGH_BEYOND} of them to lie beyond this percentile",
                "note",
            )


@dataclass(slots=True)
class Page:
    """All that a report shows.

    Attributes
    ----------
    command : str
        What made it, for the title; empty where there is none.
    subject : str
        What it is about, beside that; perhaps foreign.
    cut : bool
        A subject that does not fit may lose its middle; else it runs on.
    head : Section
        Stands directly below the title.
    sections : list of Section
        Each apart from what is before it; one that has nothing to show is left out.
    """

    command: str = ""
    subject: str = ""
    cut: bool = False
    head: Section = field(default_factory=Section)
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str = "", tone: Tone = "") -> Section:
        """Append a section, and return it."""
        self.sections.append(Section(title, tone=tone))
        return self.sections[-1]


@dataclass(frozen=True, slots=True)
class Output:
    """A command's output, for any renderer.

    Attributes
    ----------
    found : Record or mapping
        All of it.
    page : callable
        Returns what is shown of it; called by renderers that show something.
    """

    found: Record | Mapping[str, Any]
    page: Callable[[], Page]

    @property
    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        document: dict[str, Any] = as_json(self.found)
        return document


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about the whole report that views need.

    Attributes
    ----------
    one_day : bool
        All timestamps are of one UTC day, which the header names; times of day then suffice.
    resolutions_ns : dict of str to int
        What timestamps were seen to resolve, by timestamp source; those with enough timestamps to tell.
    top : int or None
        Rows of each list that were asked for.
    """

    one_day: bool = False
    resolutions_ns: dict[str, int] = field(default_factory=dict)
    top: int | None = None

    def rows(self, usual: int) -> int:
        """Return how many rows a list has: as many as were asked for, or as usual."""
        return usual if self.top is None else self.top

    def instants(self, title: str, timestamps: Sequence[int], rank: int) -> Column:
        """Return a column of instants, of the time of day where the width asks for it and the day is known."""
        short = [clock(value) for value in timestamps] if self.one_day else None
        return Column(title, timestamps, left=True, short=short, rank=rank, unit=Unit.INSTANT)


@dataclass(frozen=True, slots=True)
class Headline:
    """A name and its values, in one or more parts.

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
