"""Headlines of a report: for the sections' first lines, for intervals, and for the live view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uspcap.analysis.base import clock_stepped
from uspcap.analysis.registry import view_of
from uspcap.frames import NANOSECONDS
from uspcap.report.format import MISSING, bit_rate, count, packet_rate
from uspcap.report.model import Headline

if TYPE_CHECKING:
    from uspcap.report.document import RunReport


def headlines(report: RunReport) -> list[Headline]:
    """Return the headlines of a report, in its own order: first those of its source, then those of its analyses."""
    source = report.source
    found = [
        Headline("packets", (("", count(source["packets"])),)),
        rate(source, _span_ns(report)),
        timestamps(source),
    ]
    for name, result in report.analyses.items():
        view = view_of(name)
        if view is not None:
            found += view.headlines(result)
    return found


def _span_ns(report: RunReport) -> int | None:
    """Return how long it took: an interval's length, or the time between the first and the last timestamp."""
    if report.interval is not None:
        return report.interval.end_ns - report.interval.start_ns
    return timestamps_span_ns(report)


def timestamps_span_ns(report: RunReport) -> int | None:
    """Return the time between the earliest and the latest timestamp, without steps; None where there is none."""
    source = report.source
    if clock_stepped(source):
        return source.get("forward_ns")
    earliest = source.get("earliest_timestamp_ns", source["first_timestamp_ns"])
    latest = source.get("latest_timestamp_ns", source["last_timestamp_ns"])
    return None if earliest is None or latest is None else int(abs(latest - earliest))


def rate(source: Mapping[str, Any], span_ns: int | None, *, timestamped_only: bool = False) -> Headline:
    """Return packets and bits a second over so long."""
    if not span_ns:
        return Headline("rate", (("", MISSING),))
    packets, size = source["packets"], source["bytes_on_wire"]
    if timestamped_only:
        packets, size = source.get("timestamped_packets", packets), source.get("timestamped_bytes_on_wire", size)
    rates = packet_rate(packets * NANOSECONDS / span_ns), bit_rate(8 * size * NANOSECONDS / span_ns)
    return Headline("rate", tuple(("", text) for text in rates))


def timestamps(source: Mapping[str, Any]) -> Headline:
    """Return how many frames each timestamp source has."""
    return Headline("timestamps", tuple((name, count(frames)) for name, frames in source["timestamp_sources"].items()))
