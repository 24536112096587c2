"""Path latency, shown."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.path_latency.result import Path, PathLatencyResult
from uspcap.report.cells import percentile_cell, spread
from uspcap.report.format import (
    count,
    duration,
    plural,
)
from uspcap.report.model import Column, Context, Headline, Section


def section(result: PathLatencyResult, context: Context) -> Section:
    """Time from timestamp to read, by timestamp source and ring."""
    view = Section("Path latency", timed=True)
    sources = result.sources
    columns = {name: _path_cells(one) for name, one in sources.items()}
    for name, one in sources.items():
        if len(one.rings) > 1:
            columns |= {f"{name} ring {ring.ring}": _path_cells(ring) for ring in one.rings}
    if columns:
        first = next(iter(columns.values()))
        view.table(
            [
                Column("", list(first), left=True),
                *(
                    Column(name, list(cells.values()), rank=at // len(sources))
                    for at, (name, cells) in enumerate(columns.items())
                ),
            ],
        )
    else:
        view.line("no packet has a timestamp from before it was read", "note")
    for name, one in sources.items():
        if one.error_bound_ns is not None:
            bound = f"{name}: each time may be off by {duration(one.error_bound_ns)}, the error bound of the timestamps"
            view.paragraph(bound, tone="warning")
    if result.longest_unread_ns is not None:
        unread = duration(result.longest_unread_ns)
        view.paragraph(
            f"longest time for which a ring was not read: {unread}; frames that arrived then waited as long",
            tone="note",
        )
    for field, what in (
        ("frames_timestamped_on_reading", "timestamped when read, so that there is no path to measure"),
        ("frames_without_timestamp", "without a timestamp"),
        ("frames_without_reading", "that did not come from a ring"),
    ):
        if result[field]:
            view.paragraph(f"left out: {plural(result[field], 'frame')} {what}", tone="note")
    view.footnote(list(sources.values()))
    view.paragraph(result.definition, tone="note")
    return view


def _path_cells(row: Path) -> dict[str, str]:
    """Return the cells of one histogram of path latencies, by label."""
    return {
        "frames": count(row.count),
        "min": duration(row.min_ns),
        **{f"p{percentile}": percentile_cell(row, percentile) for percentile in row.percentiles_ns},
        "max": duration(row.max_ns),
        "max at frame": count(row.max_frame),
        "mean": duration(row.mean_ns),
        "stddev": duration(row.stddev_ns),
        "negative": count(row.negative),
        "most negative": duration(row.most_negative_ns or None),
    }


def headlines(result: PathLatencyResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    for source, one in result.sources.items():
        headline = spread(f"path latency {source}", one)
        if one.negative:
            headline = Headline(headline.name, (*headline.values, ("negative", count(one.negative))))
        if one.error_bound_ns is not None:
            headline = Headline(headline.name, (*headline.values, ("±", duration(one.error_bound_ns))))
        yield headline
