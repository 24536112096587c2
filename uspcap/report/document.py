"""The report: one plain dict, which everything that shows or stores a run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from uspcap.analysis.base import Analysis
from uspcap.analysis.suite import Outcome, Suite
from uspcap.bpf.readings import AS_TCPDUMP, FilterReading
from uspcap.formats.reader import NO_LIMIT
from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.pipeline import accounts
from uspcap.version import __version__

if TYPE_CHECKING:
    # What a capture needs of the kernel takes as long to import as a million frames to analyze.
    from uspcap.pipeline.keeping import Interval
    from uspcap.pipeline.session import CaptureOutcome

SCHEMA = "uspcap.report/1"
"""Name of the schema; a field that it publishes stays."""

ROWS_OF_INTERVAL = 100
"""Most rows of each list in the report of an interval; the report on the whole has all."""

ROWS_OF_ROW = 10
"""The same of a list in such a row."""


def build_report(
    source: Mapping[str, Any],
    analyses: Mapping[str, Analysis],
    longest_unread_ns: int | None = None,
    reading: FilterReading | None = None,
) -> dict[str, Any]:
    """Return the report of a run, ready for JSON.

    Parameters
    ----------
    source : mapping
        What the run read: `files` and `Summary.facts`, and where there is something to say `truncated`,
        `problems`, `notes`, `order`, `interface_drops` and `filter`.
    analyses : mapping of str to Analysis
        In the order in which they are to be shown.
    longest_unread_ns : int, optional
        The longest time for which a ring went unread.
    reading : FilterReading, optional
        What the filter spoke of; as tcpdump reads it where nothing else is said.
    """
    quiet: dict[str, Any] = {
        "truncated": False,
        "problems": [],
        "notes": [],
        "decisions": [],
        "order": None,
        "time_range": None,
        "interface_drops": {},
        "filter": None,
    }
    results = {name: {**analysis.result(), "caveats": analysis.caveats()} for name, analysis in analyses.items()}
    _state_error_bounds(results, source.get("clocks", ()))
    if "path_latency" in results:
        results["path_latency"]["longest_unread_ns"] = longest_unread_ns
    return {
        "schema": SCHEMA,
        "version": __version__,
        "source": {**source, **{key: source.get(key, value) for key, value in quiet.items()}},
        **filter_of(source.get("filter"), reading),
        "analyses": results,
    }


def filter_of(expression: str | None, reading: FilterReading | None) -> dict[str, Any]:
    """Return the report's `filter` under its name: the expression and which reading applied; nothing without one."""
    if not expression:
        return {}
    applied = reading or AS_TCPDUMP
    return {"filter": {"expression": expression, "reading": applied.name, "why": applied.why}}


def _state_error_bounds(results: Mapping[str, Any], clocks: Sequence[Mapping[str, Any]]) -> None:
    """Put the error bound of the NIC's stamps beside the path latencies that they are part of."""
    by_nic = results.get("path_latency", {}).get("sources", {}).get("HARDWARE")
    if by_nic is not None and clocks:
        by_nic["error_bound_ns"] = max(clock["error_bound_ns"] for clock in clocks)


def source_of(outcome: Outcome, expression: str = "") -> dict[str, Any]:
    """Return the report's `source` for a run over files.

    Parameters
    ----------
    outcome : Outcome
    expression : str
        The filter, empty where there was none.
    """
    notes = [f"no frame of link type {link_type} can match: {why}" for link_type, why in outcome.refused.items()]
    if outcome.finer_than_ns:
        notes.append(f"{outcome.finer_than_ns} stamps are finer than 1 ns; what is below was dropped")
    notes += [*filter(None, [outcome.filtered.hint]), *outcome.notes]
    return {
        "files": [one["file"] for one in outcome.files],
        "first_frames": [one["first_frame"] for one in outcome.files],
        **outcome.suite.summary.facts,
        "packets_read": outcome.frames_read,
        "truncated": outcome.truncated,
        "problems": [asdict(problem) for problem in outcome.problems],
        "notes": notes,
        "decisions": [asdict(decision) for decision in outcome.decisions],
        "order": outcome.order.as_dict(),
        "time_range": _time_range(outcome),
        "interface_drops": outcome.interface_drops,
        "filter": expression or None,
    }


def _time_range(outcome: Outcome) -> dict[str, Any] | None:
    """Return the range of time that was asked for, and what of each file was read for it."""
    if outcome.time_range is None:
        return None
    return {
        "from_ns": None if outcome.time_range.from_ns <= EARLIEST_NS else outcome.time_range.from_ns,
        "to_ns": None if outcome.time_range.to_ns > LATEST_NS else outcome.time_range.to_ns,
        "files": [
            {
                "file": one.path,
                "first_byte": one.stretch.begin,
                "end_byte": None if one.stretch.end == NO_LIMIT else one.stretch.end,
                "read_whole_because": one.stretch.why_whole or None,
            }
            for one in outcome.inputs
            if one.stretch is not None
        ],
    }


def source_of_capture(outcome: CaptureOutcome, suite: Suite, expression: str = "") -> dict[str, Any]:
    """Return the report's `source` for a live capture; its line and its accounts are among the notes.

    Parameters
    ----------
    outcome : CaptureOutcome
    suite : Suite
        The capture's analyses.
    expression : str
        The filter, empty where there was none.
    """
    statistics = outcome.accounts.statistics
    each = statistics.by_interface or {outcome.what: statistics}
    return {
        "files": list(each),
        **suite.summary.facts,
        "packets_read": statistics.received,
        "problems": [asdict(problem) for problem in outcome.problems],
        "notes": [
            outcome.description,
            str(outcome.accounts),
            *map(str, outcome.clocks),
            *outcome.happened,
            *([str(outcome.failure)] if outcome.failure else []),
        ],
        "accounts": accounts.as_dict(outcome.accounts),
        "clocks": [clock.as_dict() for clock in outcome.clocks],
        "interface_drops": {name: counted.dropped_total for name, counted in each.items() if counted.dropped_total},
        "filter": expression or None,
    }


def report_of_interval(
    interval: Interval, what: str, expression: str = "", reading: FilterReading | None = None
) -> dict[str, Any]:
    """Return the report of one interval of a capture, whose bounds are its `interval`; its lists are bounded.

    Parameters
    ----------
    interval : Interval
    what : str
        Interface or files.
    expression : str
        The filter, empty where there was none.
    reading : FilterReading, optional
        What it spoke of, where that is not tcpdump's.
    """
    dropped = sum(interval.dropped.values())
    source = {
        "files": [what],
        **interval.suite.summary.facts,
        "packets_read": interval.received,
        "clocks": [clock.as_dict() for clock in interval.clocks],
        "interface_drops": {what: dropped} if dropped else {},
        "filter": expression or None,
    }
    report = build_report(source, interval.suite.analyses, interval.longest_unread_ns, reading)
    left_out: dict[str, int] = {}
    report["analyses"] = _bounded(report["analyses"], "", left_out)
    return {
        **report,
        "interval": {
            "start_ns": interval.start_ns,
            "end_ns": interval.end_ns,
            "longest_unread_ns": interval.longest_unread_ns,
            "left_out": left_out,
        },
    }


def _bounded(value: Any, place: str, left_out: dict[str, int], most: int = ROWS_OF_INTERVAL) -> Any:
    """Return a result whose lists have `most` rows at most; how many rows each place lost is added up."""
    if isinstance(value, dict):
        return {
            name: _bounded(each, f"{place}.{name}" if place else name, left_out, most) for name, each in value.items()
        }
    if not isinstance(value, list) or not all(isinstance(row, dict | list) for row in value):
        # Numbers in a list are one thing, as counts by number of replies are.
        return value
    if len(value) > most:
        left_out[place] = left_out.get(place, 0) + len(value) - most
        value = _weightiest(value, most)
    return [_bounded(each, place, left_out, ROWS_OF_ROW) for each in value]


def _weightiest(rows: list[Any], most: int) -> list[Any]:
    """Return `most` rows, in their order: those that lost most where they say so, else the first."""
    lost = [row.get("lost", 0) if isinstance(row, dict) else 0 for row in rows]
    if not any(lost):
        return rows[:most]
    chosen = sorted(range(len(rows)), key=lambda at: -lost[at])[:most]
    return [rows[at] for at in sorted(chosen)]
