"""Lines, paragraphs and tables that fit the terminal: a table too wide takes a shorter form, then makes room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from uspcap.report.format import encodable, safe_text
from uspcap.report.model import Column, Tone

INDENT = "  "
GUTTER = 2
SHORTEST_NAME = 16
"""A flexible column is never cut to fewer cells than these while anything else can go."""


_STYLES: Final = {
    "": "",
    "strong": "bold",
    "subject": "cyan",
    "warning": "yellow",
    "caution": "bold yellow",
    "problem": "red",
    "alarm": "bold red",
    "note": "dim",
    "bar": "cyan",
}


def style_of(tone: Tone) -> str:
    """Return how text that is meant so looks."""
    return _STYLES[tone]


def width_of(column: Column) -> int:
    """Return the terminal cells that the widest line takes."""
    lines = (line for cell in (column.title, *column.cells) for line in cell.split("\n"))
    return max(map(cell_len, lines))


def fit(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that `width` terminal cells have room for, in the form that they have room for.

    Short forms are taken first, all those that stay on one line together, then those that fold; then columns
    are left out, highest rank first; at last the widest left-hand column is cut in the middle of its names.
    """
    chosen = list(columns)
    for folded in (False, True):
        if _total(chosen) <= width:
            return chosen
        for position, column in enumerate(columns):
            if column.short is not None and any("\n" in cell for cell in column.short) == folded:
                chosen[position] = _with_cells(column, column.short)
    while _total(chosen) > width and any(column.rank for column in chosen):
        highest = max(column.rank for column in chosen)
        chosen.remove(next(column for column in reversed(chosen) if column.rank == highest))
    excess = _total(chosen) - width
    names_at = [position for position, column in enumerate(chosen) if column.left]
    if excess > 0 and names_at:
        widest = max(names_at, key=lambda position: width_of(chosen[position]))
        room = max(SHORTEST_NAME, width_of(chosen[widest]) - excess)
        chosen[widest] = _with_cells(
            chosen[widest],
            ["\n".join(shorten(line, room) for line in cell.split("\n")) for cell in chosen[widest].cells],
        )
    return chosen


def _with_cells(column: Column, cells: Sequence[str]) -> Column:
    return Column(column.title, cells, column.left, None, column.rank, column.tone)


def _total(columns: Sequence[Column]) -> int:
    return sum(width_of(column) for column in columns) + GUTTER * (len(columns) - 1)


def shorten(text: str, width: int) -> str:
    """Return text of at most `width` cells, its middle replaced by `…` where it is longer."""
    if cell_len(text) <= width:
        return text
    tail, room = len(text), (width - 1) // 2
    while tail and cell_len(text[tail - 1 :]) <= room:
        tail -= 1
    return set_cell_size(text, width - 1 - room).rstrip() + "…" + text[tail:]


def print_table(console: Console, columns: Sequence[Column]) -> None:
    """Print columns under their titles, within the width of the console."""
    if not columns or not columns[0].cells:
        return
    shown = fit(columns, console.width - len(INDENT))
    widths = [width_of(column) for column in shown]
    head = [_pad(column.title, width, column.left) for column, width in zip(shown, widths, strict=True)]
    print_line(console, Text((" " * GUTTER).join(head), style="bold"))
    for row in range(len(shown[0].cells)):
        folded = [column.cells[row].split("\n") for column in shown]
        for at in range(max(map(len, folded))):
            line = Text()
            for column, width, lines in zip(shown, widths, folded, strict=True):
                # Numbers stand beside the first line of a folded name.
                cell = lines[at] if at < len(lines) else ""
                style = "dim" if cell.startswith("n<") or cell == "-" else style_of(column.tone)
                line.append(_pad(cell, width, column.left), style=style)
                line.append(" " * GUTTER)
            print_line(console, line)


def _pad(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def print_line(console: Console, text: Text, indent: str | Text = INDENT) -> None:
    """Print one line unchanged: no markup, no wrapping; characters that the encoding lacks are spelt in ASCII."""
    line = Text.assemble(indent, text)
    line.rstrip()
    plain = encodable(line.plain, console.encoding)
    if plain != line.plain:
        line = _respelt(line, console.encoding)
    console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _respelt(line: Text, encoding: str) -> Text:
    """Spell each styled stretch again, so that styles stay on what they belong to."""
    respelt = Text(style=line.style)
    edges = sorted({0, len(line), *(edge for span in line.spans for edge in (span.start, span.end))})
    for piece in line.divide(edges[1:-1]):
        style = piece.spans[-1].style if piece.spans else ""
        respelt.append(encodable(piece.plain, encoding), style=style)
    return respelt


def print_paragraph(console: Console, text: str, *, style: str = "", lead: str | Text = "") -> None:
    """Print foreign or own text, wrapped at words to the console's width and hung under its lead.

    Parameters
    ----------
    lead : str or Text
        Stands before the first line, such as a number.
    """
    indent = Text.assemble(INDENT, lead)
    hang = " " * indent.cell_len
    body = Text(encodable(safe_text(text), console.encoding), style=style)
    for number, line in enumerate(body.wrap(console, max(20, console.width - len(hang)), overflow="fold")):
        print_line(console, line, hang if number else indent)
