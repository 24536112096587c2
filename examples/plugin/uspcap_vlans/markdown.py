"""Reports as Markdown (CommonMark with GitHub's tables), as an output format of uspcap."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from uspcap.foreign_text import safe_text
from uspcap.report.cells import percentile_cell
from uspcap.report.model import (
    Block,
    Curves,
    Entry,
    Facts,
    Finding,
    Findings,
    Line,
    Output,
    Page,
    Paragraph,
    Section,
    Statement,
    Table,
    Verbatim,
)
from uspcap.report.renderers.base import Renderer

PERCENTILES = ("50", "90", "99", "99.9")


class MarkdownRenderer(Renderer):
    """Writes the page."""

    def write(self, output: Output, stream: TextIO) -> None:
        for part in page_parts(output.page()):
            stream.write(f"{part}\n\n")


RENDERER = MarkdownRenderer()


def page_parts(page: Page) -> Iterator[str]:
    """Yield what stands between two empty lines."""
    if page.command:
        yield f"# {escaped(f'{page.command} {page.subject}')}".rstrip()
    for block in page.head.blocks:
        yield from block_parts(block)
    for section in page.sections:
        yield from section_parts(section)


def section_parts(section: Section) -> Iterator[str]:
    """Yield a title and what stands under it, where there is something."""
    parts = [part for block in section.blocks for part in block_parts(block)]
    if section.title and parts:
        yield f"## {escaped(section.title)}"
    if section.aside and parts:
        yield f"*{escaped(section.aside)}*"
    yield from parts


def block_parts(block: Block) -> Iterator[str]:
    """Yield a block; nothing where it has nothing to show."""
    match block:
        case Line(text, tone) | Statement(text, tone):
            if text.strip():
                yield strong(text) if tone == "strong" else escaped(text)
        case Paragraph(text, tone, lead):
            yield strong(lead + text) if tone == "strong" else escaped(lead + text)
        case Verbatim(lines):
            yield fenced(lines)
        case Facts(rows):
            yield "\n".join(f"- {strong(name)} {escaped(text)}" for name, text in rows)
        case Table(columns):
            if columns and columns[0].cells:
                heads = [column.title for column in columns]
                rows = list(zip(*(column.cells for column in columns), strict=True))
                yield table(heads, rows, [column.left for column in columns])
        case Curves(histograms):
            rows = [
                (name, *(percentile_cell(histogram.result(), percentile) for percentile in PERCENTILES))
                for name, histogram in histograms.items()
            ]
            if rows:
                yield table(["", *(f"p{percentile}" for percentile in PERCENTILES)], rows, [True])
        case Findings(findings):
            yield "\n".join(line for finding in findings for line in finding_lines(finding))
        case Entry(lead, name, state, _, texts):
            yield f"{strong(lead + name)} {escaped(state)}"
            yield "\n".join(f"- {escaped(text)}" for text in texts)


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield an item and what belongs to it, one level down."""
    yield f"- {strong(finding.severity)} {escaped(f'{finding.name}: {finding.what}')}"
    yield from (f"  - {escaped(text)}" for text in finding.consequences)
    yield from (f"  - {code(command)}" for command in finding.commands)
    if finding.remark:
        yield f"  - {escaped(finding.remark)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Return a table; columns that do not stand left stand right."""
    stands = [":---" if number < len(left) and left[number] else "---:" for number in range(len(heads))]
    lines = [[cell(head) for head in heads], stands, *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Return the text of a cell, its lines apart."""
    return "<br>".join(escaped(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    """Return foreign text of which nothing is taken for Markdown or HTML, nor steers a terminal."""
    safe = re.sub(r"([\\`*_{}\[\]<>|#~&!])", r"\\\1", safe_text(text.replace("\n", " ")).strip())
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+]+(?:\s|$)|=))", r"\1\\", safe)


def strong(text: str) -> str:
    """Return text that matters, or nothing."""
    return f"**{escaped(text)}**" if text.strip() else ""


def code(text: str) -> str:
    """Return a command, to be copied."""
    safe = safe_text(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", safe)), default=0))
    return f"{ticks} {safe} {ticks}"


def fenced(lines: Sequence[str]) -> str:
    """Return lines as they are."""
    safe = [safe_text(line) for line in lines]
    fence = "`" * max(3, 1 + max((len(run) for line in safe for run in re.findall("`+", line)), default=0))
    return "\n".join([fence, *safe, fence])
