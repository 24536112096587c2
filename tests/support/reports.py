"""Reports for the tests of what shows and stores them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from support.streams import Frame, batch_of

from uspcap.analysis.suite import Outcome, Settings, Suite, analyze_files
from uspcap.report.document import RunReport, build_report, source_of
from uspcap.report.model import Page
from uspcap.report.page import report_page
from uspcap.report.renderers.text import show

REPOSITORY = Path(__file__).parents[2]
CAPTURES = Path(os.environ.get("USPCAP_SHARED", REPOSITORY.parent / "shared")) / "captures"

ENDS_BADLY = "corrupt"
"""Folder of captures that are damaged."""


def suite_of(frames: Sequence[Frame], settings: Settings | None = None) -> Suite:
    """All analyses of some frames."""
    suite = Suite(settings or Settings())
    if frames:
        suite.update(batch_of(frames))
    return suite


def report_of(frames: Sequence[Frame], settings: Settings | None = None, **source: Any) -> RunReport:
    """The report on some frames; further arguments go into its `source`."""
    suite = suite_of(frames, settings)
    facts = source_of(Outcome(suite, len(frames), files=[{"file": "made.pcap", "first_frame": 1}]))
    return build_report(facts | source, suite.analyses)


def report_on(path: Path, settings: Settings | None = None, *, jobs: int = 1) -> RunReport:
    """The report on a capture file."""
    outcome = analyze_files([str(path)], settings or Settings(), jobs=jobs)
    return build_report(source_of(outcome), outcome.suite.analyses)


def shown(report: RunReport, width: int = 80, encoding: str = "utf-8", *, colour: bool = False) -> str:
    """What a terminal of this width and encoding gets to see of a report on analyses."""
    return shown_page(report_page(report), width, encoding, colour=colour)


def shown_page(page: Page, width: int = 80, encoding: str = "utf-8", *, colour: bool = False) -> str:
    """What a terminal of this width and encoding gets to see."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(page, Console(file=stream, width=width, force_terminal=colour, color_system="256" if colour else None))
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(encoding)
