"""The sections of a report, from the views of its analyses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uspcap.analysis.registry import declarations, view_of
from uspcap.analysis.timestamps.result import TimestampsResult
from uspcap.analysis.timestamps.view import resolutions
from uspcap.report.format import timestamp
from uspcap.report.model import Context, Section

if TYPE_CHECKING:
    from uspcap.report.document import RunReport


def sections(report: RunReport, top: int | None = None) -> tuple[list[Section], list[str]]:
    """Return the sections of a report's analyses, and the names of those that have no view here.

    Parameters
    ----------
    report : RunReport
    top : int, optional
        Rows of each list; without it as many as suit the list.
    """
    source, analyses = report.source, report.analyses
    quality = analyses.get("timestamps")
    resolved = resolutions(quality) if isinstance(quality, TimestampsResult) else {}
    context = Context(_one_day(source), resolved, top)
    # Without packets the header has said everything.
    known = [name for name in declarations() if name in analyses] if source["packets"] else []
    views = [(name, view_of(name)) for name in known]
    shown = [view.section(analyses[name], context) for name, view in views if view is not None]
    return shown, [name for name in analyses if name not in declarations()]


def _one_day(source: Mapping[str, Any]) -> bool:
    first, last = source["first_timestamp_ns"], source["last_timestamp_ns"]
    return first is not None and timestamp(first)[:10] == timestamp(last)[:10]
