"""Inter-arrival times, shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspcap.report.cells import frames_around, percentile_cell, spread
from uspcap.report.format import (
    byte_count,
    count,
    duration,
    plural,
)
from uspcap.report.model import Column, Context, Headline, Result, Section, names

FLOW_TAILS = 2
"""Percentiles beyond the median in lists of flows: the farthest that any flow listed has."""


def section(result: Result, context: Context) -> Section:
    """Percentiles by stamp source, flows and the largest gaps."""
    view = Section("Inter-arrival times", timed=True)
    sources = {name: one for name, one in result["sources"].items() if one["count"]}
    if not sources:
        view.line("too few stamped packets for a time between two", "note")
        return view
    rows = list(sources.values())
    _statistics(view, sources)
    flows = result["flows"]
    sampled = flows["sampled_one_in"] > 1
    _flows(view, "Flows with most packets", flows["by_count"], tail_first=False)
    if flows["estimated"] > 1:
        _flows(view, f"Flows with the longest {flows['worst_by']}", flows["worst"], tail_first=True)
    told = f"{plural(flows['estimated'], 'flow')} in all"
    if sampled:
        told = (
            f"about {told}; one in {flows['sampled_one_in']:,} was tracked ({count(flows['tracked'])}), which leaves "
            f"{plural(flows['frames_untracked'], 'frame')} out of the flow lists"
        )
    view.paragraph(told, tone="warning" if sampled else "note")
    gaps = result["largest_gaps"]
    if gaps:
        view.heading("Longest times without any packet")
        columns = [
            Column("gap", [duration(gap["gap_ns"]) for gap in gaps], tone="strong"),
            context.instants("from", [gap["start_ns"] for gap in gaps], 1),
            context.instants("to", [gap["end_ns"] for gap in gaps], 3),
            frames_around(gaps),
        ]
        if len(sources) > 1:
            columns.append(Column("stamped by", [gap["source"] for gap in gaps], left=True))
        view.table(columns)
    view.footnote([*rows, *flows["by_count"], *flows["worst"]])
    view.paragraph(f"jitter: {result['jitter']}", tone="note")
    return view


def _statistics(view: Section, sources: dict[str, Result]) -> None:
    """Print statistics as rows and stamp sources as columns."""
    rows = list(sources.values())
    percentiles = list(rows[0]["percentiles_ns"])
    labels = [
        "samples",
        "min",
        *(f"p{one}" for one in percentiles),
        "max",
        "ended by frame",
        "mean",
        "stddev",
        "jitter",
    ]
    columns = [Column("", labels, left=True)]
    for name, row in sources.items():
        cells = [
            count(row["count"]),
            duration(row["min_ns"]),
            *(percentile_cell(row, one) for one in percentiles),
            duration(row["max_ns"]),
            count(row["max_frame"]),
            duration(row["mean_ns"]),
            duration(row["stddev_ns"]),
            duration(row["jitter_ns"]),
        ]
        if any(one["backward_steps"] for one in rows):
            cells.append(count(row["backward_steps"]))
        columns.append(Column(name, cells))
    if len(columns[1].cells) > len(labels):
        labels.append("backward steps")
    view.table(columns)


def _flows(view: Section, title: str, flows: Sequence[Result], *, tail_first: bool) -> None:
    if not flows:
        return
    percentiles = list(flows[0]["percentiles_ns"])
    given = [p for p in percentiles[1:] if any(flow["percentiles_ns"][p] is not None for flow in flows)]
    shown = [*percentiles[:1], *given[-FLOW_TAILS:]]
    view.heading(title)
    view.table(
        [
            names("flow", [flow["flow"] for flow in flows]),
            Column("packets", [count(flow["frames"]) for flow in flows], rank=4 if tail_first else 0),
            Column("bytes", [byte_count(flow["bytes_on_wire"]) for flow in flows], rank=9),
            *(
                Column(f"p{p}", [percentile_cell(flow, p) for flow in flows], rank=2 if p == shown[-1] else 5)
                for p in shown
            ),
            Column("max", [duration(flow["max_ns"]) for flow in flows], rank=1),
            Column("by frame", [count(flow["max_frame"]) if flow["count"] else "-" for flow in flows], rank=7),
            Column("jitter", [duration(flow["jitter_ns"]) if flow["count"] else "-" for flow in flows], rank=6),
            Column("backward", [count(flow["backward_steps"]) for flow in flows], rank=8),
        ],
    )


def headlines(result: Result) -> Iterator[Headline]:
    """What the intervals of a capture and its live view say."""
    for source, histogram in result["sources"].items():
        yield spread(f"inter-arrival {source}", histogram)
