"""Findings of the doctor in a terminal."""

from __future__ import annotations

import json
from importlib import resources
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.containers import Lines
from rich.text import Text

from uspcap.doctor.examination import Examination, worst_of
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
        heading = (
            f"host, Linux {safe_text(examination.kernel)}" if subject == HOST else f"interface {safe_text(subject)}"
        )
        print_line(console, Text(heading, style="bold"), indent="")
        findings = list(group)
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            _print_finding(console, finding, width)
        console.print()
    print_line(console, Text(_summary(examination)), indent="")
    if examination.interface is None:
        console.print()
        _print_overview(examination, console)
    if any(finding.changes for finding in examination.findings):
        text = "What has 'can be applied' beside it is changed by --apply NAME,... or --apply all, and back by --undo."
        print_paragraph(console, text)


def _print_overview(examination: Examination, console: Console) -> None:
    """Print a line for each interface, and what is to be mended there."""
    print_line(console, Text("interfaces", style="bold"), indent="")
    width = max((len(safe_text(link.name)) for link, _ in examination.overview), default=0)
    for link, findings in examination.overview:
        worst = worst_of(findings)
        evidence = next((finding.evidence for finding in findings if finding.name == "link"), "")
        names = f"; also {', '.join(link.other_names)}" if link.other_names else ""
        indent = _print_beside(console, worst, f"{safe_text(link.name):<{width}}", f"{evidence}{names}")
        for status in (Status.PROBLEM, Status.WARNING, Status.ADVICE):
            named = [finding.name for finding in findings if finding.status is status]
            if named:
                _print_dim(console, f"{status.value}: {', '.join(named)}", indent)
    missing = len(examination.interfaces) - len(examination.overview)
    more = f"; {missing} more are there" if missing > 0 else ""
    print_line(console, Text(f"Each of them is told in full with -i{more}."), indent="")


def _print_finding(console: Console, finding: Finding, width: int) -> None:
    indent = _print_beside(console, finding.status, f"{finding.name:<{width}}", finding.evidence)
    if finding.consequence:
        _print_dim(console, finding.consequence, indent)
    for command in finding.commands:
        # Never folded: it is to be copied.
        print_line(console, Text(f"$ {safe_text(command)}"), indent)
    if finding.changes:
        print_line(console, Text(f"can be applied: --apply {finding.name}", style="dim"), indent)


def _print_beside(console: Console, status: Status, name: str, text: str) -> str:
    """Print a status and a name with a text beside them; return what its further lines begin with."""
    lead = f" {name}  "
    indent = " " * (10 + len(lead))
    for number, line in enumerate(_wrapped(console, Text(safe_text(text)), indent)):
        if number:
            print_line(console, line, indent)
        else:
            print_line(console, Text(f"{status.value:<8}", style=_STYLES[status]) + Text(lead) + line)
    return indent


def _print_dim(console: Console, text: str, indent: str) -> None:
    for line in _wrapped(console, Text(safe_text(text), style="dim"), indent):
        print_line(console, line, indent)


def _wrapped(console: Console, text: Text, indent: str) -> Lines:
    return text.wrap(console, max(20, console.width - len(indent)), overflow="fold")


def _summary(examination: Examination) -> str:
    counts = dict.fromkeys(Status, 0)
    for finding in examination.findings:
        counts[finding.status] += 1
    told = [f"{count} {status.value}" for status, count in reversed(counts.items()) if count]
    return f"{len(examination.findings)} things were looked at: {', '.join(told)}."
