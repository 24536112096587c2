"""Reports on two reports of live comparisons: the JSON document, and its page."""

from __future__ import annotations

from typing import Any

from uspcap.comparison.reports import UNFAIR, SavedComparison, Shift, compare_reports, different_settings
from uspcap.comparison.statistics import PRIMARY
from uspcap.report.comparison_schema import SCHEMA
from uspcap.report.format import duration, plural, safe_text, timestamp
from uspcap.report.live_comparison import COSTS, cost_cell
from uspcap.report.model import Column, Page, Section
from uspcap.version import __version__

_WIDEST_VALUE = 34
"""Cells of a setting's value; the JSON has all of it."""


def report_comparison(one: SavedComparison, two: SavedComparison) -> dict[str, Any]:
    """Return the report on two reports."""
    shifts = compare_reports(one, two)
    settings = different_settings(one, two)
    common = [name for name in one.paths if name in two.paths]
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "kind": "reports",
        "verdict": _verdict(shifts, settings),
        "reports": [_described(saved) for saved in (one, two)],
        "settings": [{"name": name, "1": first, "2": second} for name, first, second in settings],
        "differences": [shift.as_dict() for shift in shifts],
        "costs": {
            name: {
                key: {str(at): saved.report["paths"][name]["cost"].get(key) for at, saved in enumerate((one, two), 1)}
                for key in COSTS
            }
            for name in common
        },
        "dropped": {
            name: {
                str(at): {key: saved.report["paths"][name][key] for key in ("frames", "dropped")}
                for at, saved in enumerate((one, two), 1)
            }
            for name in common
        },
        "statistics": {
            "replicate": "run",
            "interval": "exact interval of Wilcoxon, Mann and Whitney for the shift between independent runs",
            "confidence": 0.95,
            "primary_percentile": PRIMARY,
            "families": "primary percentile; all others (Bonferroni within each)",
        },
        "warnings": _warnings(one, two, settings),
    }
    return report


def _described(saved: SavedComparison) -> dict[str, Any]:
    report = saved.report
    return {
        "file": saved.file,
        "version": report["version"],
        "interface": report["interface"],
        "start_ns": report["start_ns"],
        "end_ns": report["end_ns"],
        "paths": {name: len(runs) for name, runs in saved.paths.items()},
        "verdict": report["verdict"],
    }


def _verdict(shifts: list[Shift], settings: list[tuple[str, Any, Any]]) -> str:
    tested = [shift for shift in shifts if shift.percentile == PRIMARY]
    if not tested:
        return "The reports have no path in common."
    sentence = "; ".join(map(_said, tested))
    differing = sum(name not in ("interface", "version") for name, _, _ in settings)
    beside = f"; {plural(differing, 'setting')} differ{'s' * (differing == 1)}, too" if differing else ""
    return f"At the median, {sentence}{beside}."


def _said(shift: Shift) -> str:
    if shift.verdict == "insufficient n":
        return f"{shift.path} cannot be determined ({shift.reason})"
    low, high = shift.low_ns, shift.high_ns
    confidence = f"{100 * shift.confidence:.4g} %"
    if shift.verdict == "not distinguishable":
        return (
            f"{shift.path} is not distinguishable (2 minus 1: {duration(low, 3)} to {duration(high, 3)}, {confidence})"
        )
    sign = 1 if shift.verdict == "1 faster" else -1
    ends = sorted(sign * (end or 0) for end in (low, high))
    by = duration(sign * (shift.difference_ns or 0), 3)
    word = "slower" if sign > 0 else "faster"
    return f"{shift.path} is {word} in 2 by {by} ({duration(ends[0], 3)} to {duration(ends[1], 3)}, {confidence})"


def _warnings(one: SavedComparison, two: SavedComparison, settings: list[tuple[str, Any, Any]]) -> list[str]:
    said = []
    unfair = [name for name, _, _ in settings if name in UNFAIR]
    if unfair:
        said.append(f"{', '.join(unfair)} differ: the two reports do not measure the same")
    ends = [name for name, _, _ in settings if name.startswith("paths.") and name.endswith(".end")]
    if ends:
        said.append(f"{', '.join(name.split('.')[1] for name in ends)} ended differently in the two reports")
    for number, saved, other in ((1, one, two), (2, two, one)):
        alone = [name for name in saved.paths if name not in other.paths]
        if alone:
            said.append(f"only report {number} has {', '.join(alone)}")
        if saved.report["design"]["delays_ns"]:
            said.append(f"in report {number}, readers were delayed on purpose")
        if saved.report["design"]["interrupted"]:
            said.append(f"report {number} was stopped before all runs were done")
    if one.report["start_ns"] == two.report["start_ns"]:
        said.append("both reports are of the same experiment")
    said.append(
        "all runs of a report were made in one session: whatever else changed between the two, such as the load of "
        "other hosts, is part of the difference. Compare two reports with equal settings to see how much that is"
    )
    return said


def report_comparison_page(report: dict[str, Any]) -> Page:
    """Return the page of a report."""
    page = Page("uspcap compare, two reports")
    page.section().paragraph(report["verdict"], "strong")
    reports = page.section()
    for number, one in enumerate(report["reports"], 1):
        paths = ", ".join(f"{name} {runs} runs" for name, runs in one["paths"].items())
        text = f"{one['file']}: {one['interface']}, {timestamp(one['start_ns'])}, {paths}"
        reports.paragraph(text, lead=f"{number}  ")
    _settings(page.section("Different settings"), report["settings"])
    _differences(page.section("Latency, hook to user: 2 minus 1"), report["differences"])
    _costs(page.section("Costs per frame"), report["costs"])
    _drops(page.section("Lost frames"), report["dropped"])
    end = page.section()
    for warning in report["warnings"]:
        end.paragraph(warning, "warning", lead="! ")
    return page


def _settings(section: Section, settings: list[dict[str, Any]]) -> None:
    if not settings:
        section.line("none")
        return

    def cell(value: Any) -> str:
        text = "-" if value is None else safe_text(str(value))
        return text if len(text) <= _WIDEST_VALUE else f"{text[: _WIDEST_VALUE - 1]}…"

    columns = [Column("", [setting["name"] for setting in settings], left=True)]
    columns += [Column(which, [cell(setting[which]) for setting in settings], left=True) for which in ("1", "2")]
    section.table(columns)


def _differences(section: Section, differences: list[dict[str, Any]]) -> None:
    shown = [row for row in differences if row["difference_ns"] is not None]
    if shown:
        percent = ["-" if row["difference_percent"] is None else f"{row['difference_percent']:+.1f} %" for row in shown]
        section.table(
            [
                Column("path", [row["path"] for row in shown], left=True),
                Column("at", [f"p{row['percentile']}" for row in shown]),
                Column("1", [duration(row["1_ns"], 3) for row in shown], rank=2),
                Column("2", [duration(row["2_ns"], 3) for row in shown], rank=2),
                Column("difference", [duration(row["difference_ns"], 3) for row in shown]),
                Column("from", [duration(row["low_ns"], 3) for row in shown]),
                Column("to", [duration(row["high_ns"], 3) for row in shown]),
                Column("of 1", percent, rank=3),
                Column("conf.", [f"{100 * row['confidence']:.4g} %" for row in shown], rank=4),
                Column("verdict", [row["verdict"] for row in shown], left=True, rank=1),
            ]
        )
    thin: dict[str, list[str]] = {}
    for one in differences:
        if one["difference_ns"] is None:
            thin.setdefault(one["path"], []).append(f"p{one['percentile']}")
    for path, percentiles in thin.items():
        section.line(f"insufficient n for {path} at {', '.join(percentiles)}", "note")


def _costs(section: Section, costs: dict[str, Any]) -> None:
    rows = [
        (name, title.strip(), key, of_path[key])
        for name, of_path in costs.items()
        for key, (title, _) in COSTS.items()
        if any(value is not None for value in of_path[key].values())
    ]
    columns = [Column("path", [row[0] for row in rows], left=True), Column("", [row[1] for row in rows], left=True)]
    columns += [Column(which, [cost_cell(row[2], row[3][which]) for row in rows]) for which in ("1", "2")]
    section.table(columns)


def _drops(section: Section, dropped: dict[str, Any]) -> None:
    lossy = {name: one for name, one in dropped.items() if any(side["dropped"] for side in one.values())}
    columns = [Column("path", list(lossy), left=True)]
    for which in ("1", "2"):
        cells = [f"{one[which]['dropped']:,} of {one[which]['frames']:,}" for one in lossy.values()]
        columns.append(Column(which, cells))
    section.table(columns)
