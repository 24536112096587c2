"""Reports against each other: what is found, what is refused, and how often a difference is made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.live_outcomes import outcome_of

from uspcap.comparison.reports import compare_reports, different_settings, load
from uspcap.errors import CaptureFileError
from uspcap.report.live_comparison import live_report
from uspcap.report.report_comparison import report_comparison


def saved(folder: Path, name: str, **options: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(live_report(outcome_of(**options))), encoding="utf-8")
    return path


def test_runs_come_back_as_they_were_written(tmp_path: Path) -> None:
    outcome = outcome_of(lost={"af_xdp": 3})
    path = tmp_path / "one.json"
    path.write_text(json.dumps(live_report(outcome)), encoding="utf-8")
    read = load(str(path)).paths
    for one in outcome.paths:
        runs = outcome.runs_of(one)
        assert [run.lost for run in read[one.name]] == [run.lost for run in runs]
        for again, run in zip(read[one.name], runs, strict=True):
            assert np.array_equal(again.latency.counts, run.latency.histogram.counts)


def test_a_path_that_became_slower_is_found_and_the_other_is_not_blamed(tmp_path: Path) -> None:
    one = load(str(saved(tmp_path, "1.json", runs=12, run_noise=0.02)))
    two = load(str(saved(tmp_path, "2.json", runs=12, run_noise=0.02, seed=2, extra_ns={"kernel": 5_000})))
    medians = {shift.path: shift for shift in compare_reports(one, two) if shift.percentile == "50"}
    kernel, af_xdp = medians["kernel"], medians["af_xdp"]
    assert kernel.verdict == "1 faster"
    assert kernel.low_ns is not None
    assert kernel.high_ns is not None
    assert 0 < kernel.low_ns < 5_000 < kernel.high_ns
    assert af_xdp.verdict == "not distinguishable"
    back = {shift.path: shift for shift in compare_reports(two, one) if shift.percentile == "50"}["kernel"]
    assert (back.verdict, back.difference_ns) == ("2 faster", -(kernel.difference_ns or 0))


def test_equal_experiments_are_seldom_called_different(tmp_path: Path) -> None:
    reports = [load(str(saved(tmp_path, f"{seed}.json", runs=6, frames=120, seed=seed))) for seed in range(40)]
    called = 0
    for one, two in zip(reports[::2], reports[1::2], strict=True):
        shifts = compare_reports(one, two, percentiles=("50",))
        called += any(shift.verdict != "not distinguishable" for shift in shifts)
    # 1 of 20 is to be expected at most; 5 or more come by chance in 3 of 1,000 cases.
    assert called <= 4


def test_too_few_runs_and_thin_tails_are_said_and_not_guessed(tmp_path: Path) -> None:
    one, two = (load(str(saved(tmp_path, f"{runs}.json", runs=runs))) for runs in (2, 3))
    shifts = {(shift.path, shift.percentile): shift for shift in compare_reports(one, two)}
    assert shifts["kernel", "50"].verdict == "insufficient n"
    assert shifts["kernel", "50"].reason == "2 and 3 runs are too few for 0.975"
    assert "100000 are needed" in shifts["kernel", "99.99"].reason
    assert shifts["kernel", "50"].one_ns is not None


def test_a_percentile_among_lost_frames_has_no_value(tmp_path: Path) -> None:
    one = load(str(saved(tmp_path, "1.json")))
    two = load(str(saved(tmp_path, "2.json", lost={"af_xdp": 900})))
    (shift,) = (one for one in compare_reports(one, two) if (one.path, one.percentile) == ("af_xdp", "50"))
    assert shift.reason == "the percentile lies among the lost frames of report 2"
    assert shift.two_ns is None


def test_settings_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    one = load(str(saved(tmp_path, "1.json", wakeup="block")))
    two = load(str(saved(tmp_path, "2.json", wakeup="spin", runs=9)))
    assert different_settings(one, one) == []
    assert different_settings(one, two) == [("design.wakeup", "block", "spin"), ("design.runs", 8, 9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a complete JSON document"),
        ('{"schema": "uspcap.comp', "not a complete JSON document"),
        ("[1, 2]", "JSON, but not a report"),
        (r'{"schema": "a\n\u001b[31m"}', r"a report of a\x0a\x1b[31m;"),
        (r'{"schema": "uspcap.comparison/1", "kind": "a\nb"}', r"a report of a\x0ab, which"),
        ('{"schema": "uspcap.report/1"}', "a report of uspcap.report/1"),
        ('{"schema": "uspcap.comparison/1", "kind": "captures"}', "a report of captures, which has no runs"),
        ('{"schema": "uspcap.comparison/1", "kind": "live", "paths": {}}', "the report is damaged"),
        ('{"schema": "uspcap.comparison/1", "kind": "live", "paths": 7}', "the report is damaged"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CaptureFileError, match=re.escape(said)):
        load(str(path))


@pytest.mark.parametrize("change", ["lowest_ns", "count"])
def test_buckets_that_are_none_are_refused(tmp_path: Path, change: str) -> None:
    path = saved(tmp_path, "1.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    report["paths"]["kernel"]["runs"][0]["latency"]["buckets"][change][0] = -5
    path.write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(CaptureFileError, match="the report is damaged"):
        load(str(path))


@pytest.mark.parametrize("value", [None, "x", -1.5, [], {"a": []}, True])
@pytest.mark.parametrize(
    "place",
    [
        ("version",),
        ("start_ns",),
        ("design", "delays_ns", "kernel"),
        ("design", "interrupted"),
        ("host",),
        ("paths", "kernel", "end"),
        ("paths", "kernel", "dropped"),
        ("paths", "kernel", "cost", "cpu_ns_per_frame"),
        ("paths", "kernel", "runs"),
        ("paths", "kernel", "runs", 0, "latency", "buckets", "count"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    sound = saved(tmp_path, "1.json")
    report = json.loads(sound.read_text(encoding="utf-8"))
    inner = report
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path = tmp_path / "2.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    fits = {
        ("start_ns",): False,
        ("paths", "kernel", "cost", "cpu_ns_per_frame"): value is None or isinstance(value, float),
        ("design", "interrupted"): value is True,
        ("version",): value == "x",
        ("paths", "kernel", "end"): value == "x",
        ("paths", "kernel", "runs"): value == [],
        ("host",): isinstance(value, dict),
    }.get(place, False)
    if fits:
        report_comparison(load(str(path)), load(str(sound)))
        return
    named = re.escape(".".join(map(str, place)).replace(".0.", "[0]."))
    with pytest.raises(CaptureFileError, match=rf"the report is damaged \(({named} |these are no columns)"):
        load(str(path))


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity", "9" * 400, "[" * 100_000])
def test_numbers_that_are_none_and_endless_nesting_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'{{"schema": "uspcap.comparison/1", "kind": "live", "start_ns": {text}', encoding="utf-8")
    with pytest.raises(CaptureFileError, match="not a complete JSON document"):
        load(str(path))
