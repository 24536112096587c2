"""The report on a run: a record, which everything that shows or stores the run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from uspcap.analysis.base import Analysis, Result
from uspcap.analysis.registry import declarations
from uspcap.analysis.suite import Outcome, Suite
from uspcap.bpf.readings import AS_TCPDUMP, FilterReading
from uspcap.entry_points import EntryPoint
from uspcap.formats.reader import NO_LIMIT
from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.pipeline import accounts
from uspcap.records import WHERE_GIVEN, Count, Instant, Record, Span
from uspcap.version import __version__

if TYPE_CHECKING:
    # What a capture needs of the kernel takes as long to import as a million frames to analyze.
    from uspcap.pipeline.keeping import Interval
    from uspcap.pipeline.session import CaptureOutcome

SCHEMA: Final = "uspcap.report/1"
"""Name of the schema; a field that it publishes stays."""

ROWS_OF_INTERVAL = 100
"""Most rows of each list in the report of an interval; the report on the whole has all."""

ROWS_OF_ROW = 10
"""The same of a list in such a row."""


class IntervalBounds(Record):
    """Where the report is of one interval of a capture: UTC when the capture began, and monotonic time since."""

    start_ns: Instant
    end_ns: Instant
    longest_unread_ns: Annotated[
        Span | None, "The longest time for which a ring went unread in the interval; null where there is no ring."
    ]
    left_out: Annotated[
        Mapping[str, Count], "Rows that lists of the analyses lack because they are bounded, by the place of the list."
    ]


class RunReport(Record):
    """Times are whole nanoseconds and named ..._ns; sizes are bytes. A field that is published stays."""

    schema: str = SCHEMA
    version: str = __version__
    source: Mapping[str, Any]
    filter: Annotated[Mapping[str, Any] | None, WHERE_GIVEN] = None
    analyses: Mapping[str, Result]
    interval: Annotated[IntervalBounds | None, WHERE_GIVEN] = None


def build_report(
    source: Mapping[str, Any],
    analyses: Mapping[str, Analysis],
    longest_unread_ns: int | None = None,
    reading: FilterReading | None = None,
) -> RunReport:
    """Return the report of a run.

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
    return RunReport(
        source={**source, **{key: source.get(key, value) for key, value in quiet.items()}},
        filter=filter_of(source.get("filter"), reading),
        analyses={
            name: replace(analysis.result(), caveats=tuple(analysis.caveats())).with_run(source, longest_unread_ns)
            for name, analysis in analyses.items()
        },
    )


def read_report(document: Mapping[str, Any]) -> RunReport:
    """Return the report that a document was made of; analyses that there are not here stay as they are.

    Raises
    ------
    TypeError
        Something is missing.
    """
    declared = declarations()
    read = {
        name: EntryPoint("", declared[name].result).load().from_dict(result) if name in declared else result
        for name, result in document["analyses"].items()
    }
    return replace(RunReport.from_dict({**document, "analyses": {}}), analyses=read)


def filter_of(expression: str | None, reading: FilterReading | None) -> dict[str, Any] | None:
    """Return the report's `filter`: the expression and which reading applied; None without one."""
    if not expression:
        return None
    applied = reading or AS_TCPDUMP
    return {"expression": expression, "reading": applied.name, "why": applied.why}


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
        notes.append(f"{outcome.finer_than_ns} timestamps are finer than 1 ns; what is below was dropped")
    notes += [*filter(None, [outcome.filtered.hint]), *outcome.notes, *outcome.suite.summary.notes]
    return {
        "files": [file["file"] for file in outcome.files],
        "first_frames": [file["first_frame"] for file in outcome.files],
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
    """Return the requested range of time, and the part of each file that was read for it."""
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
) -> RunReport:
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
    bounds = IntervalBounds(
        start_ns=interval.start_ns,
        end_ns=interval.end_ns,
        longest_unread_ns=interval.longest_unread_ns,
        left_out=left_out,
    )
    return replace(report, analyses=_bounded(report.analyses, "", left_out), interval=bounds)


def _bounded(value: Any, place: str, left_out: dict[str, int], most: int = ROWS_OF_INTERVAL) -> Any:
    """Return a result whose lists have `most` rows at most; how many rows each place lost is added up."""
    if isinstance(value, Record):
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return replace(value, **_bounded(fields, place, left_out, most))  # type: ignore[type-var]
    if isinstance(value, Mapping):
        return {
            name: _bounded(each, f"{place}.{name}" if place else name, left_out, most) for name, each in value.items()
        }
    if not isinstance(value, tuple) or not all(isinstance(row, Record | Mapping) for row in value):
        # Numbers in a list are one thing, as counts by number of replies are.
        return value
    if len(value) > most:
        left_out[place] = left_out.get(place, 0) + len(value) - most
        value = _weightiest(value, most)
    return tuple(_bounded(each, place, left_out, ROWS_OF_ROW) for each in value)


def _weightiest(rows: Sequence[Any], most: int) -> Sequence[Any]:
    """Return `most` rows, in their order: those that lost most where they say so, else the first."""
    lost = [getattr(row, "lost", 0) for row in rows]
    if not any(lost):
        return rows[:most]
    chosen = sorted(range(len(rows)), key=lambda at: -lost[at])[:most]
    return [rows[at] for at in sorted(chosen)]
