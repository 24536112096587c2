"""The section of orders in the terminal report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from uspcap.analysis.orders.result import OrdersResult, OrderTimes
from uspcap.report.cells import percentile_value, spread
from uspcap.report.format import (
    count,
    plural,
    safe_text,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit
from uspcap.stats.histogram import HistogramSummary

SHOWN_PERCENTILES = ("50", "90", "99", "99.9")


def section(result: OrdersResult, context: Context) -> Section:
    """Requests and answers, response times, and unanswered requests."""
    view = Section("Orders", timed=True)
    _counts(view, result)
    _versions(view, result)
    for source, measures in result.sources.items():
        view.heading(f"by capture timestamps ({source}), to the last byte of the answer")
        _measures(view, measures)
        firsts = {
            name: measure.first_byte
            for name, measure in measures.items()
            if measure.first_byte is not None and not measure.first_byte.is_part_of(measure)
        }
        if firsts:
            view.heading(f"to the first byte of the answer ({source}), where that differs")
            _measures(view, firsts)
    if result.venue:
        view.heading("in the venue, by its own timestamps")
        _measures(view, result.venue)
    _unanswered(view, result, context)
    _connections(view, result)
    _qualifications(view, result)
    view.footnote([one for measures in (*result.sources.values(), result.venue) for one in measures.values()])
    view.paragraph(result.definition, tone="note")
    if result.venue:
        view.paragraph(f"in the venue: {result.venue_definition}", tone="note")
    return view


def _counts(view: Section, result: OrdersResult) -> None:
    for title in ("requests", "answers"):
        text = ", ".join(f"{name} {count(number)}" for name, number in result[title].items() if number)
        view.paragraph(f"{title}: {text or 'none'}")


def _versions(view: Section, result: OrdersResult) -> None:
    """Report which OUCH version SoupBinTCP messages fit, where none was given or another one fits better."""
    found = result.ouch_versions
    total = found.application_messages
    if not total or result.protocol == "fix":
        return
    fits = {"ouch-4.2": found.fit_4_2, "ouch-5.0": found.fit_5_0}
    best = max(fits, key=lambda name: fits[name])
    text = " and ".join(f"{count(fit)} in {name}" for name, fit in fits.items())
    lengths = f"of {plural(total, 'message')} in SoupBinTCP packets, those with the length of their type: {text}"
    if result.protocol is None:
        advice = f"--protocol {best} reads them" if fits[best] else "they match neither version"
        view.paragraph(f"OUCH messages do not state their version: {lengths}; {advice}", tone="warning")
    elif fits[best] > fits.get(result.protocol, 0):
        view.paragraph(f"{lengths}: is {result.protocol} right?", tone="warning")


def _measures(view: Section, measures: Mapping[str, HistogramSummary]) -> None:
    rows = list(measures.values())
    view.table(
        [
            Column("", [name.replace("_", " ") for name in measures], left=True),
            Column("count", [row.count for row in rows], unit=Unit.COUNT),
            Column("min", [row.min_ns for row in rows], unit=Unit.DURATION),
            *(
                Column(
                    f"p{one}",
                    [percentile_value(row, one) for row in rows],
                    unit=Unit.PERCENTILE,
                    rank=2 if one == "90" else 0,
                )
                for one in SHOWN_PERCENTILES
            ),
            Column("max", [row.max_ns for row in rows], unit=Unit.DURATION),
            Column("mean", [row.mean_ns for row in rows], rank=3, unit=Unit.DURATION),
        ],
    )
    for name, row in measures.items():
        if isinstance(row, OrderTimes) and row.negative:
            negative = plural(row.negative, "answer")
            view.paragraph(
                f"{name.replace('_', ' ')}: {negative} timestamped before the request: counted here only",
                tone="warning",
            )


def _unanswered(view: Section, result: OrdersResult, context: Context) -> None:
    total = sum(result.unanswered.values())
    if not total:
        return
    view.line()
    text = ", ".join(f"{name} {count(number)}" for name, number in result.unanswered.items() if number)
    view.line(f"unanswered: {text}", "strong")
    listed = result.unanswered_listed
    view.table(
        [
            Column("request", [row.request for row in listed], left=True),
            Column("id", [safe_text(row.id) for row in listed], left=True),
            context.instants("at", [row.first_ns for row in listed], rank=1),
            Column("frame", [row.first_frame for row in listed], unit=Unit.COUNT),
            names("connection", [row.connection for row in listed]),
        ],
    )
    view.more(total - len(listed), "request")


def _connections(view: Section, result: OrdersResult) -> None:
    listed = result.connections
    if not listed:
        return
    view.line()
    view.table(
        [
            names("connection", [row.ends for row in listed]),
            Column("protocol", [safe_text(row.protocol) for row in listed], left=True),
            Column("messages", [row.messages for row in listed], unit=Unit.COUNT),
            Column("requests", [row.requests for row in listed], unit=Unit.COUNT),
            Column("answers", [row.answers for row in listed], unit=Unit.COUNT),
            Column("repeated", [row.repeated_bytes for row in listed], rank=2, unit=Unit.COUNT),
            Column("lost", [row.lost_bytes for row in listed], rank=1, unit=Unit.COUNT),
            Column("unread", [row.unread_bytes for row in listed], rank=1, unit=Unit.COUNT),
        ],
    )
    view.more(result.connections_with_orders - len(listed), "connection")


def _qualifications(view: Section, result: OrdersResult) -> None:
    """Report what is missing in the times above, and why."""
    streams, bounds = result.streams, result.bounds
    sampled = result.sampled_one_in
    notes = (
        (result.repeated_requests, "{} with an id that was used before: the first counts", "request"),
        (result.possible_duplicates, "{} marked as possible duplicate (43=Y): left out", "message"),
        (result.answers_without_request, "{} without a request", "answer"),
        (result.different_sources, "{} left out: its ends have timestamps of different sources, or none", "time"),
        (streams.holes, "{} in TCP streams that nothing filled: messages there are missing above", "hole"),
        (streams.after_acknowledgment, "{} captured after the acknowledgment of its bytes", "segment"),
        (streams.cut_segments, "{} captured only in part", "segment"),
        (streams.malformed, "{} too short, or of a type unknown in this version", "message"),
        (streams.checksum_mismatches, "{} with a wrong FIX checksum: read anyway", "message"),
        (bounds.cut_connections, "{} cut where parts were joined: orders across the cut are missing", "connection"),
        (bounds.dropped_bytes, "{} of connections from before they restarted: not read", "byte"),
    )  # fmt: skip
    for number, text, what in notes:
        if number:
            view.paragraph(text.format(plural(number, what)), tone="warning")
    if sampled.connections > 1:
        sample = f"a sample: one in {count(sampled.connections)} connections, and one in {count(sampled.requests)}"
        view.paragraph(f"{sample} of their requests", tone="warning")


def headlines(result: OrdersResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    for source, measures in result.sources.items():
        for name, histogram in measures.items():
            if histogram.count:
                yield spread(f"{name.replace('_', ' ')} {source}", histogram)
    yield Headline("orders", (("unanswered", count(sum(result.unanswered.values()))),))
