"""The frames around the longest gaps, decoded: what was on the wire before and after the gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uspcap.analysis.gaps.result import Gap, GapsResult
from uspcap.analysis.inter_arrival.result import InterArrivalResult, LargestGap
from uspcap.report.decode import decoded_lines
from uspcap.report.format import duration
from uspcap.report.model import Page
from uspcap.stages.reading import PlannedInput

if TYPE_CHECKING:
    from uspcap.report.document import RunReport

SHOWN = 5
"""Gaps whose frames are shown."""

AROUND = 1
"""Further frames shown before and after the two that a gap lies between."""


def append_outliers(page: Page, report: RunReport, inputs: Sequence[PlannedInput], *, tunnels: bool = False) -> None:
    """Append a section with the decoded frames around each of the longest gaps of a report; its files are read again.

    Parameters
    ----------
    page : Page
    report : RunReport
    inputs : sequence of PlannedInput
        What it was made of, which can be read again.
    tunnels : bool
        Decode the innermost headers, as the report's run did.

    Raises
    ------
    CaptureFileError
        A file cannot be opened any more.
    """
    analyses = report.analyses
    within_flows, between_all = analyses.get("gaps"), analyses.get("inter_arrival")
    gaps: Sequence[Gap | LargestGap] = within_flows.longest[:SHOWN] if isinstance(within_flows, GapsResult) else ()
    kind = "Gap"
    if not gaps and isinstance(between_all, InterArrivalResult):
        gaps = between_all.largest_gaps[:SHOWN]
        kind = "Largest gap between any two frames"
    wanted: set[int] = set()
    for gap in gaps:
        for frame in (gap.before_frame, gap.after_frame):
            wanted.update(_around(frame))
    lines = decoded_lines(inputs, wanted, tunnels=tunnels)
    for gap in gaps:
        flow = f" in {gap.flow}" if isinstance(gap, Gap) else ""
        title = f"{kind} of {duration(gap.gap_ns)}{flow}, frames {gap.before_frame} to {gap.after_frame}:"
        marks = {gap.before_frame: "<", gap.after_frame: ">"}
        shown = sorted({near for frame in marks for near in _around(frame)} & lines.keys())
        page.section(title).verbatim(f"{marks.get(frame, ' ')} {lines[frame]}" for frame in shown)


def _around(frame: int) -> range:
    return range(frame - AROUND, frame + AROUND + 1)
