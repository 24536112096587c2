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
    """From timestamp to reading, by timestamp source and ring."""
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
        view.line("no packet has a timestamp from before its reading", "note")
    for name, one in sources.items():
        if one.error_bound_ns is not None:
            bound = f"{name}: each time may be off by {duration(one.error_bound_ns)}, the error bound of the timestamps"
            view.paragraph(bound, tone="warning")
    if result.longest_unread_ns is not None:
        unread = duration(result.longest_unread_ns)
        view.paragraph(f"a ring went unread for {unread} at most: frames that came then waited as long", tone="note")
    for field, what in (
        ("frames_timestamped_on_reading", "timestamped on reading, which leaves no path to measure"),
        ("frames_without_timestamp", "without a timestamp"),
        ("frames_without_reading", "from no ring"),
    ):
        if result[field]:
            view.paragraph(f"left out: {plural(result[field], 'frame')} {what}", tone="note")
    view.footnote(list(sources.values()))
    view.paragraph(result.definition, tone="note")
    return view


def _path_cells(row: Path) -> dict[str, str]:
    """Return what is shown of one histogram of path latencies, by its label."""
    return {
        "frames": count(row.count),
        "min": duration(row.min_ns),
        **{f"p{one}": percentile_cell(row, one) for one in row.percentiles_ns},
        "max": duration(row.max_ns),
        "of frame": count(row.max_frame),
        "mean": duration(row.mean_ns),
        "stddev": duration(row.stddev_ns),
        "negative": count(row.negative),
        "at most": duration(row.most_negative_ns or None),
    }


def headlines(result: PathLatencyResult) -> Iterator[Headline]:
    """What the intervals of a capture and its live view say."""
    for source, one in result.sources.items():
        headline = spread(f"path latency {source}", one)
        if one.negative:
            headline = Headline(headline.name, (*headline.values, ("negative", count(one.negative))))
        if one.error_bound_ns is not None:
            headline = Headline(headline.name, (*headline.values, ("±", duration(one.error_bound_ns))))
        yield headline
