"""Quality of the timestamps, shown."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.timestamps.result import SourceQuality, TimestampsResult
from uspcap.report.format import (
    exact_duration,
    plural,
)
from uspcap.report.model import Column, Context, Headline, Section
from uspcap.report.units import Unit

ROWS_SHOWN = 10
"""Rows of a list; the JSON report holds more."""


ENOUGH_TIMESTAMPS = 100
"""Timestamps needed to determine their resolution."""


def section(result: TimestampsResult, context: Context) -> Section:
    """Quality by timestamp source, and clock steps."""
    view = Section("Timestamps")
    sources = result.sources
    if not sources:
        view.line("no packet has a timestamp", "note")
        return view
    rows = list(sources.values())
    view.table(
        [
            Column("source", list(sources), left=True),
            Column("frames", [row.frames for row in rows], unit=Unit.COUNT),
            Column("resolution", [_resolution(row) for row in rows]),
            Column("repeated", [(row.duplicates, row.frames) for row in rows], rank=2, unit=Unit.SHARE),
            Column("longest run", [row.longest_run for row in rows], rank=3, unit=Unit.COUNT),
            Column("backward", [row.backward_steps for row in rows], unit=Unit.COUNT),
            Column("largest", [row.backward_largest_ns or None for row in rows], rank=1, unit=Unit.DURATION),
            Column("TAI-like", [row.tai_like_jumps for row in rows], unit=Unit.COUNT),
            Column("common divisor", [row.common_divisor_ns or None for row in rows], rank=4, unit=Unit.EXACT_DURATION),
        ],
    )
    shown = result.steps[: context.rows(ROWS_SHOWN)]
    if shown:
        view.heading("First steps backward and jumps of 35 to 38 s")
        view.table(
            [
                Column("frame", [step.frame for step in shown], unit=Unit.COUNT),
                Column("step", [step.step_ns for step in shown], unit=Unit.DURATION),
                context.instants("from", [step.before_ns for step in shown], 2),
                context.instants("to", [step.after_ns for step in shown], 3),
                Column("source", [step.source for step in shown], left=True, rank=1),
            ],
        )
        view.more(len(result.steps) - len(shown), "step")
    return view


def _resolution(quality: SourceQuality) -> str:
    """Return the resolution; few timestamps give only an upper bound."""
    bound = "" if quality.frames >= ENOUGH_TIMESTAMPS else "≤"
    return bound + exact_duration(quality.observed_resolution_ns)


def headlines(result: TimestampsResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    if result.warnings:
        yield Headline("timestamp quality", (("", plural(len(result.warnings), "warning")),))


def resolutions(result: TimestampsResult) -> dict[str, int]:
    """Return the observed resolution in ns by timestamp source, where there are enough timestamps."""
    return {
        name: quality.observed_resolution_ns
        for name, quality in result.sources.items()
        if quality.frames >= ENOUGH_TIMESTAMPS
    }
