"""The frames around the longest gaps, decoded: what was on the wire before and after the silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from uspcap.formats import open_capture
from uspcap.report.decode import decode_line
from uspcap.report.format import duration

SHOWN = 5
"""Gaps whose frames are shown."""

AROUND = 1
"""Further frames shown before and after the two that a gap lies between."""


def outlier_frames(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield a title and the decoded lines for each of the longest gaps of a report, by reading its files again.

    Raises
    ------
    CaptureFileError
        A file cannot be opened any more.
    """
    analyses = report["analyses"]
    gaps = analyses.get("gaps", {}).get("longest", [])[:SHOWN]
    kind = "Gap"
    if not gaps:
        gaps = analyses.get("inter_arrival", {}).get("largest_gaps", [])[:SHOWN]
        kind = "Largest gap between any two frames"
    wanted: set[int] = set()
    for gap in gaps:
        for frame in (gap["before_frame"], gap["after_frame"]):
            wanted.update(range(frame - AROUND, frame + AROUND + 1))
    lines = _decoded(report["source"]["files"], wanted)
    for gap in gaps:
        flow = f" in {gap['flow']}" if "flow" in gap else ""
        title = f"{kind} of {duration(gap['gap_ns'])}{flow}, frames {gap['before_frame']} to {gap['after_frame']}:"
        shown: list[tuple[int, str]] = []
        for middle, mark in ((gap["before_frame"], "<"), (gap["after_frame"], ">")):
            for frame in range(middle - AROUND, middle + AROUND + 1):
                if frame in lines and (not shown or frame > shown[-1][0]):
                    shown.append((frame, f"{mark if frame == middle else ' '} {lines[frame]}"))
        yield title, [line for _, line in shown]


def _decoded(files: list[str], wanted: set[int]) -> dict[int, str]:
    """Return the decoded line of each wanted frame, numbered over all files."""
    lines: dict[int, str] = {}
    before = 0
    for path in files:
        with open_capture(path) as reader:
            read = 0
            for batch in reader.batches():
                first = before + batch.frames_before + 1
                for number in wanted.intersection(range(first, first + batch.count)):
                    lines[number] = decode_line(batch, number - first, number=number)
                read += batch.frames_read
                if len(lines) == len(wanted):
                    return lines
            before += read
    return lines
