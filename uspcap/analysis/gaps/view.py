"""Gaps within flows, shown."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.gaps.result import GapsResult
from uspcap.report.cells import frames_around
from uspcap.report.format import (
    count,
    duration,
    plural,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit


def section(result: GapsResult, context: Context) -> Section:
    """Gaps within flows: threshold, counts and the longest."""
    view = Section("Gaps within flows", timed=True)
    threshold = result.threshold_ns
    rule = f"gaps longer than {duration(threshold)}" if threshold is not None else result.rule
    view.paragraph(f"threshold: {rule}", tone="note")
    without = result.flows_without_threshold
    together = f", {duration(result.total_ns)} in total" if result.count else ""
    view.paragraph(
        counted_gaps(result)
        + together
        + (f"; {count(without)} with too few packets for a threshold" if without else ""),
    )
    if result.sampled_one_in > 1:
        view.paragraph(f"only one flow in {result.sampled_one_in:,} was tracked", tone="warning")
    shown = result.longest
    view.table(
        [
            Column("gap", [gap.gap_ns for gap in shown], tone="strong", unit=Unit.DURATION),
            names("flow", [gap.flow for gap in shown]),
            context.instants("from", [gap.start_ns for gap in shown], 1),
            frames_around(shown, rank=2),
            Column("threshold", [gap.threshold_ns for gap in shown], rank=4, unit=Unit.DURATION),
            context.instants("to", [gap.end_ns for gap in shown], 5),
        ],
    )
    view.more(result.count - len(shown), "gap")
    return view


def headlines(result: GapsResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    longest = tuple(("longest", duration(gap.gap_ns)) for gap in result.longest[:1])
    yield Headline("gaps", (("", counted_gaps(result)), *longest))


def counted_gaps(result: GapsResult) -> str:
    """Return how many gaps there are, in how many flows."""
    tracked = result.flows_tracked
    if not result.count:
        return f"no gap in {plural(tracked, 'flow')}"
    return f"{plural(result.count, 'gap')} in {count(result.flows_with_gaps)} of {plural(tracked, 'flow')}"
