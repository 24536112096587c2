"""The report on a terminal: what qualifies the numbers first, then a section for each analysis."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from uspcap.report.format import (
    byte_count,
    count,
    duration,
    plural,
    safe_text,
    stamp,
)
from uspcap.report.headlines import rate, stamps, stamps_span_ns
from uspcap.report.model import Line, Paragraph, Section
from uspcap.report.sections import sections
from uspcap.report.terminal_table import print_line, print_paragraph, print_table, shorten, style_of

FILES_NAMED = 3


def render(report: dict[str, Any], console: Console, top: int | None = None) -> None:
    """Show a report.

    Parameters
    ----------
    report : dict
        As `build_report` returns it, or as read back from JSON.
    console : rich.console.Console
        Its width, colours and encoding are kept to.
    top : int, optional
        Rows of each list; without it as many as suit the list.
    """
    source = report["source"]
    warnings = _warnings(report)
    _header(console, report)
    if warnings:
        print_line(console, Text())
        print_line(console, Text("Read this first", style="bold yellow"), "")
        for number, warning in enumerate(warnings, 1):
            print_paragraph(console, warning, style="yellow", lead=f"[{number}] ")
    shown, unknown = sections(report, top)
    for section in shown:
        show_section(console, section, len(warnings))
    if unknown:
        print_line(console, Text())
        print_paragraph(console, f"Not shown here, but in the JSON report: {', '.join(unknown)}.", style="dim")
    _closing(console, source)


def _header(console: Console, report: dict[str, Any]) -> None:
    source = report["source"]
    title = Text.assemble(("uspcap ", "dim"), (shorten(_files(source["files"]), console.width - 7), "bold"))
    print_line(console, title, "")
    packets, size = source["packets"], source["bytes_on_wire"]
    first, last = source["first_timestamp_ns"], source["last_timestamp_ns"]
    span = stamps_span_ns(report)
    read = source.get("packets_read", packets)
    told = f"{count(packets)}{f' of {count(read)}' if read != packets else ''}, {byte_count(size)} on the wire"
    if source["bytes_captured"] != size:
        told += f", {byte_count(source['bytes_captured'])} captured"
    rows = [("packets", told)]
    if source["filter"]:
        rows.append(("filter", safe_text(source["filter"])))
    if first is not None:
        rows.append(("first", stamp(first)))
    if span:
        rows.append(("last", f"{stamp(last)}  ({duration(span)} in all)"))
    if span:
        rows.append(("rate", f"{rate(source, span, stamped_only=True)} on average"))
    rows += [("link", ", ".join(map(safe_text, source["link_types"]))), ("stamps", str(stamps(source)))]
    for name, text in rows:
        if text:
            print_line(console, Text.assemble((f"{name:<8}", "dim"), shorten(text, console.width - 10)))
    if not packets:
        matched = "matches the filter" if source["filter"] else "is in the input"
        print_line(console, Text(f"No packet {matched}.", style="bold yellow"))
    if source["problems"]:
        problems = plural(len(source["problems"]), "problem")
        print_line(console, Text(f"{problems} with the input, listed at the end", style="bold red"))


def _files(files: list[str]) -> str:
    named = [safe_text(file) for file in files[:FILES_NAMED]]
    more = len(files) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _warnings(report: dict[str, Any]) -> list[str]:
    """Return what every number below must be read with."""
    source = report["source"]
    warnings = [warning for result in report["analyses"].values() for warning in result.get("warnings", [])]
    # Most analyses say the same.
    warnings += dict.fromkeys(caveat for result in report["analyses"].values() for caveat in result.get("caveats", ()))
    drops = {name: dropped for name, dropped in source["interface_drops"].items() if dropped}
    if drops:
        where = ", ".join(f"{count(dropped)} on interface {name}" for name, dropped in drops.items())
        warnings.append(f"the capturing host dropped frames ({where}): a gap may be loss of the capture, not silence")
    if source["truncated"]:
        warnings.append("the input ends in the middle of a record: what came after is not in this report")
    return warnings


def show_section(console: Console, section: Section, warnings: int = 0) -> None:
    """Show a section; one that rests on timestamps refers to what they are worth."""
    print_line(console, Text())
    heading = Text.assemble((section.title, "bold cyan"))
    if section.timed and warnings:
        heading.append(f"  read with {'[1]' if warnings == 1 else f'[1]-[{warnings}]'} above", "yellow")
    print_line(console, heading, "")
    for block in section.blocks:
        if isinstance(block, Line):
            print_line(console, Text(block.text, style=style_of(block.tone)))
        elif isinstance(block, Paragraph):
            print_paragraph(console, block.text, style=style_of(block.tone))
        else:
            print_table(console, block.columns)


def _closing(console: Console, source: dict[str, Any]) -> None:
    if source["notes"]:
        _title(console, "Notes", "")
        for note in source["notes"]:
            print_paragraph(console, note)
    if source["problems"]:
        _title(console, f"Problems ({len(source['problems'])})", "bold red")
        for problem in source["problems"]:
            frame = "" if problem.get("frame") is None else f", frame {problem['frame']:,}"
            where = f"{problem['file']}, byte {problem['offset']:,}{frame}"
            print_paragraph(console, f"{where}: {problem['what']}", style="red")


def _title(console: Console, text: str, style: str) -> None:
    print_line(console, Text())
    print_line(console, Text(text, style=style or "bold"), "")
