"""The terminal report's section on recurring patterns."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.patterns.result import PatternsResult
from uspcap.report.format import (
    count,
    duration,
    plural,
    safe_text,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit

ROWS_SHOWN = 10


def section(result: PatternsResult, context: Context) -> Section:
    """Periods, phases and heartbeats; where there is none, that there is none."""
    view = Section("Patterns", timed=True)
    _periods(view, result, context)
    _phases(view, result, context)
    _heartbeats(view, result, context)
    return view


def _head(view: Section, title: str, found: bool) -> None:
    view.line(title, "strong")
    if not found:
        view.line("none found", "note")


def _chance(p_value: float) -> str:
    return f"{p_value:.0e}" if p_value > 1e-99 else "<1e-99"


def _periods(view: Section, result: PatternsResult, context: Context) -> None:
    rows = result.periods
    shown = rows[: context.rows(ROWS_SHOWN)]
    _head(view, "Periods in the arrivals", bool(rows))
    if rows:
        columns = [
            Column("period", [row.period_ns for row in shown], tone="strong", unit=Unit.DURATION),
            Column("±", [row.uncertainty_ns for row in shown], unit=Unit.DURATION),
            Column("frames in step", [row.coherence for row in shown], unit=Unit.SHARE),
            Column("by chance", [_chance(row.p_value) for row in shown]),
            Column("cycles", [f"{row.cycles:,.1f}" for row in shown], rank=1),
            Column("harmonics", [row.harmonics for row in shown], rank=2, unit=Unit.COUNT),
            Column("window", [row.window_ns for row in shown], rank=3, unit=Unit.DURATION),
        ]
        if len({row.source for row in rows}) > 1:
            columns.insert(0, Column("source", [row.source for row in shown], left=True))
        view.table(columns)
        view.more(len(rows) - len(shown), "period")
    view.paragraph(result.period_test, tone="note")


def _phases(view: Section, result: PatternsResult, context: Context) -> None:
    several = len({one.source for one in result.phases}) > 1
    for one in result.phases:
        view.line()
        of = f", timestamped by {one.source}" if several else ""
        title = f"Phases of the {'second' if one.period_ns == 10**9 else 'millisecond'}{of}"
        if not one.tested:
            view.line(title, "strong")
            view.line(f"not tested: {plural(one.periods, 'period')}, {one.why_not}", "note")
            continue
        rows = one.found
        shown = rows[: context.rows(ROWS_SHOWN)]
        _head(view, title, bool(rows))
        if rows:
            view.table(
                [
                    Column("from", [row.start_ns for row in shown], tone="strong", unit=Unit.EXACT_DURATION),
                    Column("to", [row.end_ns for row in shown], unit=Unit.EXACT_DURATION),
                    Column("frames", [row.frames for row in shown], unit=Unit.COUNT),
                    Column("share", [row.share for row in shown], unit=Unit.SHARE),
                    Column("expected", [row.share_by_chance for row in shown], unit=Unit.SHARE),
                    Column("hit", [f"{count(row.periods_hit)} of {count(one.periods)}" for row in shown], rank=1),
                    Column("by chance", [_chance(row.p_value) for row in shown]),
                ],
            )
            view.more(len(rows) - len(shown), "phase")
    if result.phases:
        view.paragraph(result.phase_test, tone="note")


def _heartbeats(view: Section, result: PatternsResult, context: Context) -> None:
    rows = result.heartbeats
    shown = rows[: context.rows(ROWS_SHOWN)]
    view.line()
    _head(view, "Heartbeats", bool(rows))
    if rows:
        view.table(
            [
                names("flow", [safe_text(row.flow) for row in shown]),
                Column("period", [row.period_ns for row in shown], tone="strong", unit=Unit.DURATION),
                Column("at least", [row.between_ns[0] for row in shown], rank=1, unit=Unit.DURATION),
                Column("at most", [row.between_ns[1] for row in shown], rank=1, unit=Unit.DURATION),
                Column("regular", [f"{count(row.regular_gaps)} of {count(row.gaps)}" for row in shown]),
                Column("frames", ["all" if row.frame_bytes is None else f"of {row.frame_bytes} B" for row in shown]),
                Column("by chance", [_chance(row.p_value) for row in shown]),
            ],
        )
        view.more(len(rows) - len(shown), "flow")
    if result.sampled_one_in > 1:
        view.paragraph(
            f"one flow in {result.sampled_one_in:,} was tracked ({count(result.flows_tracked)})",
            tone="warning",
        )
    view.paragraph(result.heartbeat_test, tone="note")


def headlines(result: PatternsResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    strongest = tuple(("strongest", duration(row.period_ns)) for row in result.periods[:1])
    found = (plural(len(result.periods), "period"), plural(len(result.heartbeats), "heartbeat"))
    yield Headline("patterns", (*(("", text) for text in found), *strongest))
