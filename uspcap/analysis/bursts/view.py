"""Bursts, shown."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.bursts.result import BurstsResult
from uspcap.report.format import (
    bit_rate,
    exact_duration,
)
from uspcap.report.model import Column, Context, Headline, Section
from uspcap.report.units import Unit

HEADLINE_WINDOWS_NS = (10_000, 1_000_000, 100_000_000)
"""Windows whose peaks make headlines: 10 us, 1 ms, 100 ms."""


def section(result: BurstsResult, context: Context) -> Section:
    """The busiest windows of each width."""
    view = Section("Bursts", timed=True)
    rows = result.windows
    if not rows:
        view.line("no timestamped packets", "note")
        return view
    sources = [row.source for row in rows]
    columns = [
        Column("window", [row.window_ns for row in rows], unit=Unit.EXACT_DURATION),
        Column("peak rate", [row.peak_bits_per_second for row in rows], tone="strong", unit=Unit.BIT_RATE),
        Column("peak/mean", [row.peak_to_mean for row in rows], unit=Unit.RATIO),
        Column("bytes", [row.peak_bytes for row in rows], rank=2, unit=Unit.COUNT),
        Column("packets", [row.peak_bytes_frames for row in rows], rank=3, unit=Unit.COUNT),
        context.instants("from", [row.peak_bytes_start_ns for row in rows], 1),
        Column("first frame", [row.peak_bytes_first_frame for row in rows], unit=Unit.COUNT),
        Column("peak packets", [row.peak_frames for row in rows], rank=4, unit=Unit.COUNT),
        Column("from frame", [row.peak_frames_first_frame for row in rows], rank=5, unit=Unit.COUNT),
    ]
    if len(set(sources)) > 1:
        columns.insert(0, Column("source", sources, left=True))
    if result.line_rate_bps:
        columns.insert(2, Column("of line", [row.line_rate_share for row in rows], unit=Unit.SHARE))
    view.table(columns)
    unresolved = [row.window_ns for row in rows if row.window_ns <= context.resolutions_ns.get(row.source, 0)]
    if unresolved:
        view.paragraph(
            f"windows of up to {exact_duration(max(unresolved))} are no wider than the timestamp resolution: "
            "their peaks show how frames share timestamps, not how close together they arrived",
            tone="warning",
        )
    view.paragraph(result.definition, tone="note")
    if any((row.line_rate_share or 0) > 1 for row in rows):
        view.paragraph(
            "more than 100 % of line rate: a packet counts whole at its timestamp, even where its transmission takes "
            "longer than the window; or the timestamps bunch packets that were spread on the line",
            tone="warning",
        )
    if result.line_rate_bps:
        view.paragraph(
            f"line rate: {bit_rate(result.line_rate_bps)}; shares count preamble, FCS and gap, 24 bytes a frame",
            tone="note",
        )
    return view


def headlines(result: BurstsResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    for source in dict.fromkeys(row.source for row in result.windows):
        peaks = [
            (exact_duration(row.window_ns), bit_rate(row.peak_bits_per_second))
            for row in result.windows
            if row.source == source and row.window_ns in HEADLINE_WINDOWS_NS
        ]
        yield Headline(f"peak {source}", tuple(peaks))
