"""The terminal report's section on TCP connections."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from uspcap.report.format import count, duration, plural, share
from uspcap.report.headlines import Result, percentile_cell
from uspcap.report.section import Context, footnote, more, open_section
from uspcap.report.terminal_table import Column, names, print_line, print_paragraph, print_table

SHOWN_PERCENTILES = ("50", "90", "99", "99.9")

_KINDS = {"handshake": "handshake", "data_ack": "data to ack", "timestamps": "by timestamps"}
_SIDES = {"initiator_side": "initiator side", "responder_side": "responder side", "whole": "both"}

_COUNTS = (
    ("syns", "SYNs"),
    ("retransmissions", "retransmissions"),
    ("fast_retransmissions", "after three duplicate acks"),
    ("retransmitted_bytes", "bytes sent again"),
    ("out_of_order", "out of order"),
    ("duplicate_acks", "duplicate acks"),
    ("zero_windows", "zero windows"),
    ("resets", "resets"),
    ("keep_alives", "keep-alives"),
    ("uncaptured_bytes", "bytes not captured"),
)


def tcp(console: Console, result: Result, context: Context) -> None:
    """Round trips on both sides of the capture point, what was lost or refused, and the busiest connections."""
    open_section(console, "TCP", context)
    connections = result["connections"]
    print_paragraph(
        console, f"{plural(connections['followed'], 'connection')}, {plural(result['segments'], 'segment')}"
    )
    if not connections["followed"]:
        return
    for source, kinds in result["sources"].items():
        _round_trips(console, source, kinds)
    _counts(console, result)
    _connections(console, result)
    _qualifications(console, result)
    footnote(
        console, [one for kinds in result["sources"].values() for sides in kinds.values() for one in sides.values()]
    )
    definitions = result["definitions"]
    print_paragraph(console, definitions["sides"], style="dim")
    measured = {
        kind
        for kinds in result["sources"].values()
        for kind, sides in kinds.items()
        for one in sides.values()
        if one["count"]
    }
    for kind, label in _KINDS.items():
        if kind in measured:
            print_paragraph(console, f"{label}: {definitions[kind]}", style="dim")
    print_paragraph(console, f"retransmissions: {definitions['retransmissions']}", style="dim")


def _round_trips(console: Console, source: str, kinds: Result) -> None:
    rows = [
        (f"{label}, {_SIDES[side]}", one)
        for kind, label in _KINDS.items()
        for side, one in kinds[kind].items()
        if one["count"]
    ]
    if not rows:
        return
    print_line(console, Text())
    print_line(console, Text(f"round trips ({source})", style="bold"))
    print_table(
        console,
        [
            Column("", [label for label, _ in rows], left=True),
            Column("count", [count(one["count"]) for _, one in rows]),
            Column("min", [duration(one["min_ns"]) for _, one in rows]),
            *(
                Column(f"p{percentile}", [percentile_cell(one, percentile) for _, one in rows], rank=rank)
                for percentile, rank in zip(SHOWN_PERCENTILES, (0, 2, 1, 2), strict=True)
            ),
            Column("max", [duration(one["max_ns"]) for _, one in rows]),
            Column("of frame", [count(one["max_frame"]) for _, one in rows], rank=1),
        ],
    )


def _counts(console: Console, result: Result) -> None:
    counts = result["counts"]
    shown = [(name, label) for name, label in _COUNTS if counts["total"][name] or name == "retransmissions"]
    print_line(console, Text())
    print_table(
        console,
        [
            Column("", ["segments", *(label for _, label in shown)], left=True),
            *(
                Column(title, [count(counts[key][name]) for name in ("segments", *(name for name, _ in shown))])
                for title, key in (
                    ("from initiators", "from_initiator"),
                    ("from responders", "from_responder"),
                    ("both", "total"),
                )
            ),
        ],
    )


def _connections(console: Console, result: Result) -> None:
    listed = result["listed"]
    both = [
        {key: row["from_initiator"][key] + row["from_responder"][key] for key in row["from_initiator"]}
        for row in listed
    ]
    print_line(console, Text())
    print_table(
        console,
        [
            names("initiator > responder", [f"{row['initiator']} > {row['responder']}" for row in listed]),
            Column("segments", [count(one["segments"]) for one in both]),
            Column("handshake", [_cell(row, "handshake", "whole", "min_ns") for row in listed], rank=1),
            Column(
                "least ack, initiator", [_cell(row, "data_ack", "initiator_side", "min_ns") for row in listed], rank=2
            ),
            Column("responder", [_cell(row, "data_ack", "responder_side", "min_ns") for row in listed], rank=2),
            Column("again", [count(one["retransmissions"]) for one in both]),
            Column("out of order", [count(one["out_of_order"]) for one in both], rank=3),
            Column("resets", [count(one["resets"]) for one in both], rank=3),
        ],
    )
    more(console, result["connections"]["followed"] - len(listed), "connection")


def _cell(row: Result, kind: str, side: str, key: str) -> str:
    """Return a time of a connection, by the first stamp source that has it."""
    for kinds in row["round_trips"].values():
        times = kinds.get(kind, {}).get(side)
        if times is not None:
            return duration(times[key])
    return duration(None)


def _qualifications(console: Console, result: Result) -> None:
    """Say what the figures above do not hold, and why."""
    connections, total = result["connections"], result["counts"]["total"]
    told = (
        (
            connections["roles_by_ports"],
            "{} without a SYN: the end with the lower port is taken for the responder",
            "connection",
        ),
        (total["before_join"], "{} from before the first that was captured of a stream: not told apart", "segment"),
        (total["restarts"], "{} so far from what was expected that a stream began anew", "segment"),
        (total["unmatched"], "{} of a segment that is not kept: no time (too much was in flight)", "acknowledgment"),
        (total["different_sources"], "{} left out: its ends have stamps of different sources, or none", "time"),
        (total["negative"], "{} left out: it ends before it begins", "time"),
        (total["crowded_holes"], "{} given up for newer ones: what fills them counts as sent again", "hole"),
        (result["undecoded"], "{} left out: the header is cut or contradicts itself", "segment"),
        (result["fragments"], "{} of whose data only the first fragment is read", "segment"),
        (
            result["unsettled_connections"],
            "{} not known exactly where parts of the capture were joined: counts and times there are approximate",
            "connection",
        ),
    )
    for number, text, what in told:
        if number:
            print_paragraph(console, text.format(plural(number, what)), style="yellow")
    ambiguous = total["ambiguous"]
    if ambiguous:
        print_paragraph(
            console,
            f"{plural(ambiguous, 'acknowledgment')} without a time: bytes before it were sent again, out of order or "
            "not captured",
            style="dim",
        )
    if connections["sampled_one_in"] > 1:
        print_paragraph(
            console,
            f"a sample: one in {count(connections['sampled_one_in'])} connections, about "
            f"{count(connections['estimated'])} in all; "
            f"{share(result['segments_followed'], result['segments'])} of segments are of these",
            style="yellow",
        )
