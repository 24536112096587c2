"""Reports on two reports: the document against its schema, the sentence, and what a terminal shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.cells import cell_len
from support.command_line import assert_one_clear_line, invoke
from support.live_outcomes import outcome_of
from support.reports import shown_page

from uspcap.comparison.reports import load
from uspcap.report.comparison_schema import load_schema
from uspcap.report.live_comparison import live_report
from uspcap.report.report_comparison import report_comparison, report_comparison_page


def written(folder: Path, name: str, **options: Any) -> str:
    path = folder / name
    path.write_text(json.dumps(live_report(outcome_of(**options))), encoding="utf-8")
    return str(path)


def checked(one: str, two: str) -> dict[str, Any]:
    report = report_comparison(load(one), load(two))
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), load_schema())
    return report


def test_verdict_says_which_path_changed_and_that_settings_did(tmp_path: Path) -> None:
    one = written(tmp_path, "1.json", runs=12, run_noise=0.02)
    two = written(tmp_path, "2.json", runs=12, run_noise=0.02, seed=2, extra_ns={"kernel": 5_000}, wakeup="spin")
    report = checked(one, two)
    assert report["verdict"].startswith("At the median, kernel is slower in 2 by ")
    assert "af_xdp is not distinguishable" in report["verdict"]
    assert report["verdict"].endswith("; 1 setting differs, too.")
    assert any(
        "design.wakeup differ: the two reports do not measure the same" in warning for warning in report["warnings"]
    )


def test_paths_that_only_one_has_are_said(tmp_path: Path) -> None:
    one = written(tmp_path, "1.json", kinds=("kernel", "af_xdp"))
    two = written(tmp_path, "2.json", kinds=("kernel", "packet_mmap"), seed=3)
    report = checked(one, two)
    assert {row["path"] for row in report["differences"]} == {"kernel"}
    assert "only report 1 has af_xdp" in report["warnings"]
    assert "only report 2 has packet_mmap" in report["warnings"]
    assert "both reports are of the same experiment" in report["warnings"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_shows_everything_in_its_width(tmp_path: Path, width: int) -> None:
    one = written(tmp_path, "1.json", lost={"kernel": 2})
    two = written(tmp_path, "2.json", seed=2, wakeup="spin", kinds=("kernel", "af_xdp"))
    text = shown_page(report_comparison_page(checked(one, two)), width)
    for words in ("Different settings", "2 minus 1", "Costs per frame", "Lost frames"):
        assert words in text
    assert "\x1b[31m" not in text
    tables = text[text.index("Different settings") : text.index("  ! ")].splitlines()
    lines = [line for line in tables if not line.lstrip().startswith("insufficient")]
    assert max(map(cell_len, lines)) <= width


def test_command_takes_reports_by_what_they_are(tmp_path: Path) -> None:
    one, two = written(tmp_path, "before", runs=8), written(tmp_path, "after", runs=8, seed=2)
    ended = invoke("compare", one, two)
    assert ended.code == 0
    assert "uspcap compare, two reports" in ended.stdout
    report = json.loads(invoke("compare", one, two, "--format", "json").stdout)
    assert report["kind"] == "reports"


def test_a_report_beside_a_capture_is_wrong_usage(tmp_path: Path) -> None:
    one = written(tmp_path, "before")
    capture = tmp_path / "x.pcap"
    capture.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    assert_one_clear_line(invoke("compare", one, capture), 2, "x.pcap is not a report")
    assert_one_clear_line(invoke("compare", one, tmp_path / "missing"), 1, "No such file")
    assert_one_clear_line(
        invoke("compare", one, one, "--key", "whole"), 2, "--key is for comparing captures, and these are reports"
    )
