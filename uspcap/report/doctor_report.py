"""Findings of the doctor in a terminal."""

from __future__ import annotations

import json
from importlib import resources
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from uspcap.doctor.examination import Examination
from uspcap.doctor.findings import HOST, Finding, Status
from uspcap.report.format import safe_text
from uspcap.report.terminal_table import print_line, print_paragraph

_STYLES: Final = {
    Status.OK: "green",
    Status.UNKNOWN: "dim",
    Status.ADVICE: "cyan",
    Status.WARNING: "yellow",
    Status.PROBLEM: "bold red",
}
_SCHEMA_FILE: Final = "uspcap.doctor.1.schema.json"


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of `uspcap doctor --format json`."""
    text = resources.files("uspcap.report").joinpath(_SCHEMA_FILE).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def render(examination: Examination, console: Console) -> None:
    """Print findings by subject: what was looked at and found, why it matters and what changes it."""
    for subject, group in groupby(examination.findings, key=lambda finding: finding.subject):
        heading = f"host, Linux {examination.kernel}" if subject == HOST else f"interface {safe_text(subject)}"
        print_line(console, Text(heading, style="bold"), indent="")
        findings = list(group)
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            _print_finding(console, finding, width)
        console.print()
    print_line(console, Text(_summary(examination)), indent="")
    if examination.interface is None:
        others = ", ".join(safe_text(name) for name in examination.interfaces)
        print_line(console, Text(f"Interfaces are looked at with -i: {others}."), indent="")
    if any(finding.changes for finding in examination.findings):
        text = "What has 'can be applied' beside it is changed by --apply NAME,... or --apply all, and back by --undo."
        print_paragraph(console, text)


def _print_finding(console: Console, finding: Finding, width: int) -> None:
    lead = f"{finding.status.value:<8} {finding.name:<{width}}  "
    indent = " " * (2 + len(lead))
    body = Text(safe_text(finding.evidence))
    for number, line in enumerate(body.wrap(console, max(20, console.width - len(indent)), overflow="fold")):
        if number:
            print_line(console, line, indent)
        else:
            status = Text(f"{finding.status.value:<8}", style=_STYLES[finding.status])
            print_line(console, status + Text(f" {finding.name:<{width}}  ") + line)
    if finding.consequence:
        for line in Text(finding.consequence, style="dim").wrap(console, max(20, console.width - len(indent))):
            print_line(console, line, indent)
    for command in finding.commands:
        # Never folded: it is to be copied.
        print_line(console, Text(f"$ {safe_text(command)}"), indent)
    if finding.changes:
        print_line(console, Text(f"can be applied: --apply {finding.name}", style="dim"), indent)


def _summary(examination: Examination) -> str:
    counts = dict.fromkeys(Status, 0)
    for finding in examination.findings:
        counts[finding.status] += 1
    told = [f"{count} {status.value}" for status, count in reversed(counts.items()) if count]
    return f"{len(examination.findings)} things were looked at: {', '.join(told)}."
