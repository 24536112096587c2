"""Sections of a report, from the views of its analyses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.reports import report_on

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings
from uspcap.report.document import read_report
from uspcap.report.model import Line
from uspcap.report.sections import sections

SAMPLES = sorted(
    one for one in (Path(__file__).parents[2] / "sample_captures").glob("*.pcap*") if one.suffix != ".json"
)
WITHOUT_OPTIONS = tuple(
    name for name in registry.names(live=False) if name not in ("sequence", "arbitration", "tick_to_trade", "trailer")
)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_lists_have_as_many_rows_as_asked_for_and_say_what_they_leave_out(path: Path) -> None:
    report = report_on(path, Settings(WITHOUT_OPTIONS))
    short, _ = sections(report, 1)
    whole, _ = sections(report, 1_000)
    left_out = [block.text for section in short for block in section.blocks if isinstance(block, Line)]
    left_out = [text for text in left_out if text.startswith("and ")]
    for text in left_out:
        assert re.fullmatch(r"and (1 [a-z]+[a-rt-z]|[\d,]+ [a-z]+[a-rt-z]s) more", text), text
    assert [one.title for one in short] == [one.title for one in whole]


def test_some_lists_leave_something_out() -> None:
    shown, _ = sections(report_on(SAMPLES[-1], Settings(WITHOUT_OPTIONS)), 1)
    assert any(block.text.startswith("and ") for one in shown for block in one.blocks if isinstance(block, Line))


def test_what_there_is_no_view_of_is_named() -> None:
    document = report_on(SAMPLES[0], Settings(("summary",))).as_dict()
    document["analyses"]["elsewhere"] = {}
    shown, unknown = sections(read_report(document))
    assert [one.title for one in shown] == ["Summary"]
    assert unknown == ["elsewhere"]
