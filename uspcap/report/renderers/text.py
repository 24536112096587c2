"""Reports as text, fit to the terminal, or to 80 columns in a pipe."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from uspcap.report.format import safe_text
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
from uspcap.report.percentile_plot import percentile_plot
from uspcap.report.renderers.base import Renderer
from uspcap.report.renderers.terminal import (
    INDENT,
    print_line,
    print_paragraph,
    print_table,
    shorten,
    style_of,
)

WIDEST_PLOT: Final = 100
"""Cells of a plot, at most."""

_SEVERITIES: Final = {"ok": "green", "unknown": "dim", "advice": "cyan", "warning": "yellow", "problem": "bold red"}
_WIDEST_SEVERITY: Final = 8


class TextRenderer(Renderer):
    """Shows the page."""

    def write(self, output: Output, stream: TextIO) -> None:
        show(output.page(), _console_on(stream))


class _Console(Console):
    """A console that leaves the handling of a closed pipe to its user."""

    def on_broken_pipe(self) -> None:
        """Let the error through, in place of ending the process: a capture has a file to close."""
        raise


def _console_on(stream: TextIO) -> Console:
    """Return a console on a stream, without any style where NO_COLOR is set (https://no-color.org)."""
    # Left alone, rich would drop the colours only and go on writing bold and dim.
    return _Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto")


def as_text(page: Page, width: int) -> str:
    """Return a page as plain text."""
    stream = io.StringIO()
    show(page, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def show(page: Page, console: Console) -> None:
    """Show a page.

    Parameters
    ----------
    page : Page
    console : rich.console.Console
        Its width, colours and encoding are kept to.
    """
    begun = bool(page.command or page.head.blocks)
    if page.command:
        command, subject = f"{page.command} " if page.subject else page.command, safe_text(page.subject)
        if page.cut:
            subject = shorten(subject, console.width - len(command))
        print_line(console, Text.assemble((command, "dim"), (subject, "bold")), "")
    for block in page.head.blocks:
        _show_block(console, block)
    for section in page.sections:
        if any(_has_something(console, block) for block in section.blocks):
            if begun:
                print_line(console, Text())
            begun = True
            show_section(console, section)


def show_section(console: Console, section: Section) -> None:
    """Show a section under its title."""
    if section.title:
        heading = Text.assemble((safe_text(section.title), f"bold {style_of(section.tone)}".rstrip()))
        if section.aside:
            heading.append(f"  {section.aside}", "yellow")
        print_line(console, heading, "")
    for block in section.blocks:
        _show_block(console, block)


def _has_something(console: Console, block: Block) -> bool:
    """Whether there is anything to see of a block."""
    if isinstance(block, Table):
        return bool(block.columns and block.columns[0].cells)
    if isinstance(block, Curves):
        return bool(_plot(console, block))
    return True


def _show_block(console: Console, block: Block) -> None:
    _SHOWN[type(block)](console, block)


def _show_line(console: Console, line: Line) -> None:
    print_line(console, Text(line.text, style=style_of(line.tone)))


def _show_paragraph(console: Console, paragraph: Paragraph) -> None:
    print_paragraph(console, paragraph.text, style=style_of(paragraph.tone), lead=paragraph.lead)


def _show_statement(console: Console, statement: Statement) -> None:
    print_line(console, Text(statement.text, style=style_of(statement.tone)), "")


def _show_verbatim(console: Console, verbatim: Verbatim) -> None:
    for line in verbatim.lines:
        print_line(console, Text(line), "")


def _show_facts(console: Console, facts: Facts) -> None:
    for name, text in facts.rows:
        lead, safe = f"{name:<{facts.width}}", safe_text(text)
        if facts.cut:
            safe = shorten(safe, console.width - len(INDENT) - facts.width)
        print_line(console, Text.assemble((lead, "dim"), safe))


def _show_table(console: Console, table: Table) -> None:
    print_table(console, table.columns)


def _plot(console: Console, curves: Curves) -> list[str]:
    return percentile_plot(curves.histograms, min(console.width, WIDEST_PLOT) - len(INDENT))


def _show_curves(console: Console, curves: Curves) -> None:
    for line in _plot(console, curves):
        print_line(console, Text(line))


def _show_findings(console: Console, findings: Findings) -> None:
    width = max((len(safe_text(finding.name)) for finding in findings.findings), default=0)
    for finding in findings.findings:
        _show_finding(console, finding, width)


def _show_finding(console: Console, finding: Finding, width: int) -> None:
    severity = f"{finding.severity:<{_WIDEST_SEVERITY}}"
    name = f" {safe_text(finding.name):<{width}}  "
    indent = " " * (len(severity) + len(name))
    lead = Text.assemble((severity, _SEVERITIES[finding.severity]), name)
    print_paragraph(console, finding.what, lead=lead)
    for consequence in finding.consequences:
        print_paragraph(console, consequence, style="dim", lead=indent)
    for command in finding.commands:
        # Never folded: it is to be copied.
        print_line(console, Text(f"$ {safe_text(command)}"), INDENT + indent)
    if finding.remark:
        print_line(console, Text(finding.remark, style="dim"), INDENT + indent)


def _show_entry(console: Console, entry: Entry) -> None:
    heading = Text.assemble((entry.lead, "dim"), (safe_text(entry.name), "bold"), "  ")
    print_line(console, heading.append(entry.state, _SEVERITIES[entry.severity]), "")
    for text in entry.texts:
        print_paragraph(console, text, lead=2 * INDENT)


_SHOWN: Final[dict[type[Block], Callable[[Console, Any], None]]] = {
    Line: _show_line,
    Paragraph: _show_paragraph,
    Statement: _show_statement,
    Verbatim: _show_verbatim,
    Facts: _show_facts,
    Table: _show_table,
    Curves: _show_curves,
    Findings: _show_findings,
    Entry: _show_entry,
}

RENDERER = TextRenderer()
