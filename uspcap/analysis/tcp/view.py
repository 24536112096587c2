"""The terminal report's section on TCP connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspcap.analysis.tcp.result import Connection, SourceRoundTrips, TcpResult
from uspcap.report.cells import percentile_value, spread
from uspcap.report.format import (
    count,
    duration,
    plural,
    share,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit

SHOWN_PERCENTILES = ("50", "90", "99", "99.9")

_KINDS = {"handshake": "handshake", "data_ack": "data to ack", "timestamps": "by timestamps"}
_SIDES = {"initiator_side": "initiator side", "responder_side": "responder side", "whole": "both"}

_COUNTS = (
    ("syns", "SYNs"),
    ("retransmissions", "retransmissions"),
    ("fast_retransmissions", "fast retransmissions"),
    ("retransmitted_bytes", "retransmitted bytes"),
    ("out_of_order", "out of order"),
    ("duplicate_acks", "duplicate acks"),
    ("zero_windows", "zero windows"),
    ("resets", "resets"),
    ("keep_alives", "keep-alives"),
    ("uncaptured_bytes", "bytes not captured"),
)


def section(result: TcpResult, context: Context) -> Section:
    """Round trips on both sides of the capture point, losses and resets, and the busiest connections."""
    view = Section("TCP", timed=True)
    connections = result.connections
    view.paragraph(f"{plural(connections.followed, 'connection')}, {plural(result.segments, 'segment')}")
    if not connections.followed:
        return view
    for source, kinds in result.sources.items():
        _round_trips(view, source, kinds)
    _counts(view, result)
    _connections(view, result)
    _qualifications(view, result)
    view.footnote([one for kinds in result.sources.values() for _, sides in kinds.items() for _, one in sides.items()])
    definitions = result.definitions
    view.paragraph(definitions["sides"], tone="note")
    measured = {
        kind
        for kinds in result.sources.values()
        for kind, sides in kinds.items()
        for _, one in sides.items()
        if one.count
    }
    for kind, label in _KINDS.items():
        if kind in measured:
            view.paragraph(f"{label}: {definitions[kind]}", tone="note")
    view.paragraph(f"retransmissions: {definitions['retransmissions']}", tone="note")
    return view


def _round_trips(view: Section, source: str, kinds: SourceRoundTrips) -> None:
    rows = [
        (f"{label}, {_SIDES[side]}", one)
        for kind, label in _KINDS.items()
        for side, one in kinds[kind].items()
        if one.count
    ]
    if not rows:
        return
    view.heading(f"round trips ({source})")
    view.table(
        [
            Column("", [label for label, _ in rows], left=True),
            Column("count", [one.count for _, one in rows], unit=Unit.COUNT),
            Column("min", [one.min_ns for _, one in rows], unit=Unit.DURATION),
            *(
                Column(
                    f"p{percentile}",
                    [percentile_value(one, percentile) for _, one in rows],
                    unit=Unit.PERCENTILE,
                    rank=rank,
                )
                for percentile, rank in zip(SHOWN_PERCENTILES, (0, 2, 1, 2), strict=True)
            ),
            Column("max", [one.max_ns for _, one in rows], unit=Unit.DURATION),
            Column("max at frame", [one.max_frame for _, one in rows], rank=1, unit=Unit.COUNT),
        ],
    )


def _counts(view: Section, result: TcpResult) -> None:
    counts = result.counts
    shown = [(name, label) for name, label in _COUNTS if counts.total[name] or name == "retransmissions"]
    view.line()
    view.table(
        [
            Column("", ["segments", *(label for _, label in shown)], left=True),
            *(
                Column(
                    title, [counts[key][name] for name in ("segments", *(name for name, _ in shown))], unit=Unit.COUNT
                )
                for title, key in (
                    ("from initiators", "from_initiator"),
                    ("from responders", "from_responder"),
                    ("both", "total"),
                )
            ),
        ],
    )


def _connections(view: Section, result: TcpResult) -> None:
    listed = result.listed
    view.line()
    view.table(
        [
            names("initiator > responder", [f"{row.initiator} > {row.responder}" for row in listed]),
            Column("segments", _both(listed, "segments")),
            Column("handshake", [_cell(row, "handshake", "whole", "min_ns") for row in listed], rank=1),
            Column(
                "min RTT, initiator", [_cell(row, "data_ack", "initiator_side", "min_ns") for row in listed], rank=2
            ),
            Column("responder", [_cell(row, "data_ack", "responder_side", "min_ns") for row in listed], rank=2),
            Column("retrans.", _both(listed, "retransmissions")),
            Column("out of order", _both(listed, "out_of_order"), rank=3),
            Column("resets", _both(listed, "resets"), rank=3),
        ],
    )
    view.more(result.connections.followed - len(listed), "connection")


def _both(listed: Sequence[Connection], name: str) -> list[str]:
    """Return a count of both ends of each connection."""
    return [count(row.from_initiator[name] + row.from_responder[name]) for row in listed]


def _cell(row: Connection, kind: str, side: str, key: str) -> str:
    """Return a time of a connection, by the first timestamp source that has it."""
    for kinds in row.round_trips.values():
        times = kinds.get(kind, {}).get(side)
        if times is not None:
            return duration(times[key])
    return duration(None)


def _qualifications(view: Section, result: TcpResult) -> None:
    """Say what is missing in the figures above, and why."""
    connections, total = result.connections, result.counts.total
    notes = (
        (
            connections.roles_by_ports,
            "{} without a SYN: the end with the lower port is taken for the responder",
            "connection",
        ),
        (
            total.before_join,
            "{} from before the first one captured of a stream: not classified",
            "segment",
        ),
        (
            total.after_acknowledgment,
            "{} captured after the acknowledgment of its bytes: another clock, or out of order; no retransmission",
            "segment",
        ),
        (total.restarts, "{} so far from the expected number that the stream restarted", "segment"),
        (total.unmatched, "{} without a time: its segment was not kept (too much in flight)", "acknowledgment"),
        (total.different_sources, "{} left out: start and end have timestamps of different sources, or none", "time"),
        (total.negative, "{} left out: it ends before it begins", "time"),
        (total.crowded_holes, "{} given up for newer ones: what fills them counts as retransmitted", "hole"),
        (result.undecoded, "{} left out: the header is truncated or inconsistent", "segment"),
        (result.fragments, "{} of which only the first IP fragment is read", "segment"),
        (
            result.unsettled_connections,
            "{} not known exactly where parts of the capture were joined: counts and times there are approximate",
            "connection",
        ),
    )
    for number, text, what in notes:
        if number:
            view.paragraph(text.format(plural(number, what)), tone="warning")
    ambiguous = total.ambiguous
    if ambiguous:
        view.paragraph(
            f"{plural(ambiguous, 'acknowledgment')} without a time: bytes before it were retransmitted, out of order "
            "or not captured",
            tone="note",
        )
    if connections.sampled_one_in > 1:
        view.paragraph(
            f"a sample: one in {count(connections.sampled_one_in)} connections, about "
            f"{count(connections.estimated)} in all; "
            f"{share(result.segments_followed, result.segments)} of segments are of these",
            tone="warning",
        )


def headlines(result: TcpResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    total = result.counts.total
    values = (
        ("", plural(result.connections.estimated, "connection")),
        ("retransmitted", count(total.retransmissions)),
    )
    yield Headline("TCP", (*values, ("out of order", count(total.out_of_order)), ("resets", count(total.resets))))
    for source, kinds in result.sources.items():
        for side, histogram in kinds.data_ack.items():
            if histogram.count:
                yield spread(f"data to ack, {side.replace('_', ' ')} {source}", histogram)
