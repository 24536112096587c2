"""The page of the doctor's findings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, starmap
from typing import Any, Final

from uspcap.doctor import findings as doctor
from uspcap.doctor.examination import Examination, worst_of
from uspcap.doctor.findings import HOST, Status
from uspcap.network.links import Link
from uspcap.report.model import Finding, Page, Section, Severity
from uspcap.report.published import published_schema

_SEVERITIES: Final[Mapping[Status, Severity]] = {
    Status.OK: "ok",
    Status.UNKNOWN: "unknown",
    Status.ADVICE: "advice",
    Status.WARNING: "warning",
    Status.PROBLEM: "problem",
}
_SCHEMA_FILE: Final = "uspcap.doctor.1.schema.json"


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of `uspcap doctor --format json`."""
    return published_schema(_SCHEMA_FILE)


def examination_page(examination: Examination) -> Page:
    """Return the page: by subject the checks, their findings and consequences, and the commands that change them."""
    page = Page()
    for subject, findings in groupby(examination.findings, key=lambda finding: finding.subject):
        title = f"host, Linux {examination.kernel}" if subject == HOST else f"interface {subject}"
        page.section(title).findings(map(_shown, findings))
    end = page.section()
    end.statement(_summary(examination))
    if examination.interface is None:
        end = _overview(page, examination)
    if any(finding.changes for finding in examination.findings):
        end.paragraph("--apply NAME,... or --apply all makes the changes marked 'can be applied'; --undo reverts them.")
    return page


def _shown(found: doctor.Finding) -> Finding:
    return Finding(
        _SEVERITIES[found.status],
        found.name,
        found.evidence,
        (found.consequence,) if found.consequence else (),
        found.commands,
        f"can be applied: --apply {found.name}" if found.changes else "",
    )


def _overview(page: Page, examination: Examination) -> Section:
    """Append a finding for each interface, with what is to be fixed there."""
    section = page.section("interfaces")
    section.findings(starmap(_interface, examination.overview))
    missing = len(examination.interfaces) - len(examination.overview)
    more = f"; {missing} more interfaces exist" if missing > 0 else ""
    section.statement(f"-i{more} shows each of them in full.")
    return section


def _interface(link: Link, findings: tuple[doctor.Finding, ...]) -> Finding:
    evidence = next((finding.evidence for finding in findings if finding.name == "link"), "")
    names = f"; also {', '.join(link.other_names)}" if link.other_names else ""
    named = {
        status: [finding.name for finding in findings if finding.status is status]
        for status in (Status.PROBLEM, Status.WARNING, Status.ADVICE)
    }
    behind = tuple(f"{status}: {', '.join(those)}" for status, those in named.items() if those)
    return Finding(_SEVERITIES[worst_of(findings)], link.name, f"{evidence}{names}", behind)


def _summary(examination: Examination) -> str:
    counts = dict.fromkeys(Status, 0)
    for finding in examination.findings:
        counts[finding.status] += 1
    counted = [f"{count} {status.value}" for status, count in reversed(counts.items()) if count]
    return f"{len(examination.findings)} checks: {', '.join(counted)}."
