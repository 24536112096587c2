"""Inter-arrival times, shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspcap.analysis.inter_arrival.result import Arrivals, FlowArrivals, InterArrivalResult
from uspcap.report.cells import frames_around, percentile_cell, percentile_value, spread
from uspcap.report.format import (
    count,
    duration,
    plural,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit

FLOW_TAILS = 2
"""Percentiles beyond the median in lists of flows: the farthest that any flow listed has."""


def section(result: InterArrivalResult, context: Context) -> Section:
    """Percentiles by timestamp source, flows and the largest gaps."""
    view = Section("Inter-arrival times", timed=True)
    sources = {name: one for name, one in result.sources.items() if one.count}
    if not sources:
        view.line("too few timestamped packets for an inter-arrival time", "note")
        return view
    rows = list(sources.values())
    _statistics(view, sources)
    flows = result.flows
    sampled = flows.sampled_one_in > 1
    _flows(view, "Flows with the most packets", flows.by_count, tail_first=False)
    if flows.estimated > 1:
        _flows(view, f"Flows with the longest {flows.worst_by}", flows.worst, tail_first=True)
    text = f"{plural(flows.estimated, 'flow')} in all"
    if sampled:
        text = (
            f"about {text}; one in {flows.sampled_one_in:,} was tracked ({count(flows.tracked)}); "
            f"{plural(flows.frames_untracked, 'frame')} of the others are not in the flow lists"
        )
    view.paragraph(text, tone="warning" if sampled else "note")
    gaps = result.largest_gaps
    if gaps:
        view.heading("Longest gaps without any packet")
        columns = [
            Column("gap", [gap.gap_ns for gap in gaps], tone="strong", unit=Unit.DURATION),
            context.instants("from", [gap.start_ns for gap in gaps], 1),
            context.instants("to", [gap.end_ns for gap in gaps], 3),
            frames_around(gaps),
        ]
        if len(sources) > 1:
            columns.append(Column("source", [gap.source for gap in gaps], left=True))
        view.table(columns)
    view.footnote([*rows, *flows.by_count, *flows.worst])
    view.paragraph(f"jitter: {result.jitter}", tone="note")
    return view


def _statistics(view: Section, sources: dict[str, Arrivals]) -> None:
    """Print statistics as rows and timestamp sources as columns."""
    rows = list(sources.values())
    percentiles = list(rows[0].percentiles_ns)
    labels = [
        "samples",
        "min",
        *(f"p{percentile}" for percentile in percentiles),
        "max",
        "max at frame",
        "mean",
        "stddev",
        "jitter",
    ]
    columns = [Column("", labels, left=True)]
    for name, row in sources.items():
        cells = [
            count(row.count),
            duration(row.min_ns),
            *(percentile_cell(row, percentile) for percentile in percentiles),
            duration(row.max_ns),
            count(row.max_frame),
            duration(row.mean_ns),
            duration(row.stddev_ns),
            duration(row.jitter_ns),
        ]
        if any(arrivals.backward_steps for arrivals in rows):
            cells.append(count(row.backward_steps))
        columns.append(Column(name, cells))
    if len(columns[1].cells) > len(labels):
        labels.append("backward steps")
    view.table(columns)


def _flows(view: Section, title: str, flows: Sequence[FlowArrivals], *, tail_first: bool) -> None:
    if not flows:
        return
    percentiles = list(flows[0].percentiles_ns)
    given = [p for p in percentiles[1:] if any(flow.percentiles_ns[p] is not None for flow in flows)]
    shown = [*percentiles[:1], *given[-FLOW_TAILS:]]
    view.heading(title)
    view.table(
        [
            names("flow", [flow.flow for flow in flows]),
            Column("packets", [flow.frames for flow in flows], rank=4 if tail_first else 0, unit=Unit.COUNT),
            Column("bytes", [flow.bytes_on_wire for flow in flows], rank=9, unit=Unit.BYTES),
            *(
                Column(
                    f"p{p}",
                    [percentile_value(flow, p) for flow in flows],
                    unit=Unit.PERCENTILE,
                    rank=2 if p == shown[-1] else 5,
                )
                for p in shown
            ),
            Column("max", [flow.max_ns for flow in flows], rank=1, unit=Unit.DURATION),
            Column("at frame", [flow.max_frame if flow.count else "-" for flow in flows], rank=7, unit=Unit.COUNT),
            Column("jitter", [flow.jitter_ns if flow.count else "-" for flow in flows], rank=6, unit=Unit.DURATION),
            Column("backward", [flow.backward_steps for flow in flows], rank=8, unit=Unit.COUNT),
        ],
    )


def headlines(result: InterArrivalResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    for source, histogram in result.sources.items():
        yield spread(f"inter-arrival {source}", histogram)
