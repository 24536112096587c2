"""Two reports of live comparisons against each other: did the upgrade help, is this host like that one?

The two share no pairs of runs, as they were made at different times or on different hosts: what is compared is the runs
of one with the runs of the other. `docs/statistics.md` has the method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

from uspcap.comparison.statistics import PRIMARY
from uspcap.errors import CaptureFileError
from uspcap.foreign_text import safe_text
from uspcap.stats.histogram import ENOUGH_BEYOND, PERCENTILES, Histogram, enough_for, rank_of
from uspcap.stats.intervals import rank_sum_interval, runs_suffice
from uspcap.stats.runs import Located, Ranked, Run, grouped, locate
from uspcap.system_errors import reason, remedy

_SCHEMA: Final = "uspcap.comparison/1"

MOST_GROUPS: Final = 100
"""More runs of a report are merged with their neighbours, as all differences of two are formed."""

Verdict = Literal["1 faster", "2 faster", "not distinguishable", "insufficient n"]

_NOT_SETTINGS: Final = frozenset({"reason", "order", "interrupted", "runs_asked_for", "seed", "delays_ns"})
"""What a design has beside what was chosen."""

UNFAIR: Final = (
    "design.wakeup",
    "design.kind",
    "traffic.payload_bytes",
    "traffic.schedule.kind",
    "traffic.schedule.rate_per_s",
)
"""Settings without which two experiments do not measure the same."""


_LARGEST: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class _OrNull:
    """A form that may also be null."""

    form: Any


_EACH: Final = "each"
_PER_FRAME: Final = "each …_per_frame"
_NUMBER: Final = (int, float)
_RUN: Final = {"latency": {"buckets": {"lowest_ns": [int], "count": [int]}}, "dropped": int}
_PATH: Final = {"end": str, "cpu": _OrNull(int), "cost": {_PER_FRAME: _OrNull(_NUMBER)}, "frames": int, "dropped": int}
_FORM: Final = {
    "version": str,
    "interface": str,
    "filter": _OrNull(str),
    "verdict": str,
    "start_ns": int,
    "end_ns": int,
    "design": {"delays_ns": {_EACH: int}, "interrupted": bool},
    "hook": {"mode": _OrNull(str)},
    "traffic": _OrNull({}),
    "paths": {_EACH: _OrNull({**_PATH, "runs": [_RUN]})},
    "host": {},
}
"""What is read of a report: a type; an object with these fields, or with one form for each; a list of a form."""


@dataclass(frozen=True, slots=True)
class SavedComparison:
    """A report of a live comparison, read again.

    Attributes
    ----------
    file : str
    report : dict
        As it was written.
    paths : dict of str to list of Run
    """

    file: str
    report: dict[str, Any]
    paths: dict[str, list[Run]]

    def settings(self) -> dict[str, Any]:
        """Return the settings and the host's properties: dotted names to plain values."""
        report = self.report
        design = {name: value for name, value in report["design"].items() if name not in _NOT_SETTINGS}
        chosen: dict[str, Any] = {
            "version": report["version"],
            "interface": report["interface"],
            "filter": report["filter"],
            "design": design,
            "hook": {"mode": report["hook"]["mode"]},
            "traffic": {
                name: value
                for name, value in (report["traffic"] or {}).items()
                if name in ("payload_bytes", "schedule", "cpu")
            },
            "paths": {name: {"end": path["end"], "cpu": path["cpu"]} for name, path in report["paths"].items() if path},
            "host": report["host"],
        }
        flat = dict(_flattened(chosen))
        flat.pop("traffic.schedule.seed", None)
        return flat


def _flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif not isinstance(value, Mapping):
        yield name, value


@dataclass(frozen=True, slots=True)
class Shift:
    """One percentile of a path in report 2 minus the same in report 1.

    Attributes
    ----------
    path, percentile : str
    verdict : Verdict
    confidence : float
        Of this interval, so that the error rate of its family holds.
    replicates : tuple of int
        Runs, or groups of neighbouring runs, of either report.
    one_ns, two_ns : int or None
        The percentile of all runs of either report together.
    difference_ns, low_ns, high_ns : int or None
        The median of all differences between a run of one and a run of the other, and its interval.
    reason : str
        Why n does not suffice, empty otherwise.
    """

    path: str
    percentile: str
    verdict: Verdict
    confidence: float
    replicates: tuple[int, int] = (0, 0)
    one_ns: int | None = None
    two_ns: int | None = None
    difference_ns: int | None = None
    low_ns: int | None = None
    high_ns: int | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the report's form."""
        percent = None
        if self.difference_ns is not None and self.one_ns:
            percent = round(100 * self.difference_ns / self.one_ns, 3)
        return {
            "path": self.path,
            "percentile": self.percentile,
            "1_ns": self.one_ns,
            "2_ns": self.two_ns,
            "difference_ns": self.difference_ns,
            "low_ns": self.low_ns,
            "high_ns": self.high_ns,
            "difference_percent": percent,
            "verdict": self.verdict,
            "confidence": round(self.confidence, 6),
            "replicates": list(self.replicates),
            "reason": self.reason,
        }


def load(path: str) -> SavedComparison:
    """Read a report of `uspcap compare -i … --format json`.

    Raises
    ------
    CaptureFileError
        The file cannot be read, is damaged, or is another kind of report.
    """
    try:
        report = json.loads(
            Path(path).read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite, parse_int=_whole
        )
    except OSError as error:
        advice = remedy(error, "check the path and its permissions")
        raise CaptureFileError(f"{path}: cannot read: {reason(error)}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise CaptureFileError(f"{path}: not a complete JSON document: {error}; write the report again") from error
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != _SCHEMA or report.get("kind") != "live":
        what = f"a report of {schema}" if schema else "JSON, but not a report"
        if schema == _SCHEMA:
            what = f"a report of {report.get('kind')}, which has no runs to compare"
        raise CaptureFileError(f"{path}: {safe_text(what)}; give what 'uspcap compare -i IF --format json' wrote")
    try:
        _check_form(report, _FORM, "")
        paths = {
            name: [Run(Histogram.from_table(run["latency"]["buckets"]), max(0, run["dropped"])) for run in path["runs"]]
            for name, path in report["paths"].items()
            if path
        }
        saved = SavedComparison(path, report, paths)
        saved.settings()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CaptureFileError(f"{path}: the report is damaged ({safe_text(str(error))}); write it again") from error
    return saved


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a number")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) > _LARGEST:
        raise ValueError(f"{text[:20]}… is larger than any number of a report")
    return value


def _check_form(value: Any, form: Any, where: str) -> None:
    """Raise ValueError where a value is not of the form that `_FORM` explains."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the document'} is not an object")
        if _EACH in form:
            form = dict.fromkeys(value, form[_EACH])
        elif _PER_FRAME in form:
            form = dict.fromkeys((name for name in value if name.endswith("_per_frame")), form[_PER_FRAME])
        for name, inner in form.items():
            if name not in value:
                raise ValueError(f"{where}.{name} is missing".lstrip("."))
            _check_form(value[name], inner, f"{where}.{name}".lstrip("."))
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        for at, inner in enumerate(value):
            _check_form(inner, form[0], f"{where}[{at}]")
    elif isinstance(form, _OrNull):
        if value is not None:
            _check_form(value, form.form, where)
    elif isinstance(value, bool) is not (form is bool) or not isinstance(value, form):
        raise ValueError(f"{where} is {'null' if value is None else type(value).__name__}, which is not allowed")


def different_settings(one: SavedComparison, two: SavedComparison) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ: name, value in report 1, value in report 2; None where it has none."""
    first, second = one.settings(), two.settings()
    return [
        (name, first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def compare_reports(
    one: SavedComparison,
    two: SavedComparison,
    *,
    percentiles: Sequence[str] = PERCENTILES,
    primary: str = PRIMARY,
    confidence: float = 0.95,
) -> list[Shift]:
    """Compare every path that both reports have, percentile by percentile.

    The primary percentile is tested at the full error rate, 1 - confidence for all paths together; all others, of all
    paths together, have the same rate again.
    """
    common = [name for name in one.paths if name in two.paths]
    shifts = []
    for name in common:
        for percentile in percentiles:
            tests = len(common) * (1 if percentile == primary else max(1, len(percentiles) - 1))
            of_one, of_two = one.paths[name], two.paths[name]
            shifts.append(_shift(name, percentile, of_one, of_two, 1 - (1 - confidence) / tests))
    return shifts


def _shift(path: str, percentile: str, of_one: Sequence[Run], of_two: Sequence[Run], confidence: float) -> Shift:
    one_ns, two_ns = _percentile(of_one, percentile), _percentile(of_two, percentile)

    def insufficient(reason: str) -> Shift:
        return Shift(path, percentile, "insufficient n", confidence, (0, 0), one_ns, two_ns, reason=reason)

    located: list[Located] = []
    for number, runs in enumerate((of_one, of_two), 1):
        groups = _groups(runs, percentile)
        if groups is None:
            needed = math.ceil(ENOUGH_BEYOND / (1 - Fraction(percentile) / 100))
            return insufficient(f"report {number} has too few frames, even in all runs together: {needed} are needed")
        found = locate(groups, percentile)
        if found is None:
            return insufficient(f"the percentile lies among the lost frames of report {number}")
        located.append(found)
    middles = [side.middles for side in located]
    if not runs_suffice(len(middles[0]), len(middles[1]), confidence):
        return insufficient(f"{len(middles[0])} and {len(middles[1])} runs are too few for {confidence:.6g}")
    interval = rank_sum_interval(middles[0], middles[1], confidence)
    assert interval is not None
    half_width = sum(side.half_width for side in located)
    low, high = interval.low - half_width, interval.high + half_width
    verdict: Verdict = "1 faster" if low > 0 else "2 faster" if high < 0 else "not distinguishable"
    return Shift(
        path,
        percentile,
        verdict,
        confidence,
        (len(middles[0]), len(middles[1])),
        one_ns,
        two_ns,
        round(interval.centre),
        math.floor(low),
        math.ceil(high),
    )


def _groups(runs: Sequence[Run], percentile: str) -> list[Ranked] | None:
    """Return runs, or as few neighbours merged as it takes for ten frames beyond the percentile in each."""
    for size in range(max(1, -(-len(runs) // MOST_GROUPS)), len(runs) + 1):
        groups = list(grouped(runs, size))
        if all(enough_for(percentile, group.total) for group in groups):
            return groups
    return None


def _percentile(runs: Sequence[Run], percentile: str) -> int | None:
    """Return a percentile of all runs together; None where too few frames lie beyond it, or it is a lost one."""
    if not runs:
        return None
    ranked = Ranked(runs)
    if not enough_for(percentile, ranked.total):
        return None
    ends = ranked.ends(rank_of(percentile, ranked.total))
    return None if ends is None else ends[1]
