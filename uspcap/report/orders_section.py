"""The section of orders in the terminal report."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from uspcap.report.format import count, duration, plural, safe_text
from uspcap.report.headlines import Result, percentile_cell
from uspcap.report.section import Context, footnote, more, open_section
from uspcap.report.terminal_table import Column, names, print_line, print_paragraph, print_table

SHOWN_PERCENTILES = ("50", "90", "99", "99.9")


def orders(console: Console, result: Result, context: Context) -> None:
    """Requests and answers, how long they took, and what was not answered."""
    open_section(console, "Orders", context)
    _counts(console, result)
    _versions(console, result)
    for source, measures in result["sources"].items():
        print_line(console, Text())
        print_line(console, Text(f"by capture stamps ({source}), to the whole answer", style="bold"))
        _measures(console, measures)
        firsts = {
            name: {**measure["first_byte"], "negative": 0}
            for name, measure in measures.items()
            if measure["first_byte"] and measure["first_byte"] != {key: measure[key] for key in measure["first_byte"]}
        }
        if firsts:
            print_line(console, Text())
            print_line(console, Text(f"to the first byte of the answer ({source}), where that differs", style="bold"))
            _measures(console, firsts)
    if result["venue"]:
        print_line(console, Text())
        print_line(console, Text("in the venue, by its own stamps", style="bold"))
        _measures(console, result["venue"])
    _unanswered(console, result, context)
    _connections(console, result)
    _qualifications(console, result)
    footnote(console, [one for measures in (*result["sources"].values(), result["venue"]) for one in measures.values()])
    print_paragraph(console, result["definition"], style="dim")
    if result["venue"]:
        print_paragraph(console, f"in the venue: {result['venue_definition']}", style="dim")


def _counts(console: Console, result: Result) -> None:
    for title in ("requests", "answers"):
        told = ", ".join(f"{name} {count(number)}" for name, number in result[title].items() if number)
        print_paragraph(console, f"{title}: {told or 'none'}")


def _versions(console: Console, result: Result) -> None:
    """Say which OUCH version SoupBinTCP messages fit, where none was given or another one fits better."""
    found = result["ouch_versions"]
    total = found["application_messages"]
    if not total or result["protocol"] == "fix":
        return
    fits = {"ouch-4.2": found["fit_4_2"], "ouch-5.0": found["fit_5_0"]}
    best = max(fits, key=lambda name: fits[name])
    told = " and ".join(f"{count(fit)} those of {name}" for name, fit in fits.items())
    lengths = f"of {plural(total, 'message')} in SoupBinTCP packets, {told} have the length of their type"
    if result["protocol"] is None:
        advice = f"--protocol {best} reads them" if fits[best] else "they are of neither version"
        print_paragraph(console, f"OUCH does not say its version: {lengths}; {advice}", style="yellow")
    elif fits[best] > fits.get(result["protocol"], 0):
        print_paragraph(console, f"{lengths}: is {result['protocol']} right?", style="yellow")


def _measures(console: Console, measures: Result) -> None:
    rows = list(measures.values())
    print_table(
        console,
        [
            Column("", [name.replace("_", " ") for name in measures], left=True),
            Column("count", [count(row["count"]) for row in rows]),
            Column("min", [duration(row["min_ns"]) for row in rows]),
            *(
                Column(f"p{one}", [percentile_cell(row, one) for row in rows], rank=2 if one == "90" else 0)
                for one in SHOWN_PERCENTILES
            ),
            Column("max", [duration(row["max_ns"]) for row in rows]),
            Column("mean", [duration(row["mean_ns"]) for row in rows], rank=3),
        ],
    )
    for name, row in measures.items():
        if row["negative"]:
            negative = plural(row["negative"], "answer")
            print_paragraph(
                console,
                f"{name.replace('_', ' ')}: {negative} stamped before what it answers, counted here only",
                style="yellow",
            )


def _unanswered(console: Console, result: Result, context: Context) -> None:
    total = sum(result["unanswered"].values())
    if not total:
        return
    print_line(console, Text())
    told = ", ".join(f"{name} {count(number)}" for name, number in result["unanswered"].items() if number)
    print_line(console, Text(f"without an answer: {told}", style="bold"))
    listed = result["unanswered_listed"]
    print_table(
        console,
        [
            Column("request", [row["request"] for row in listed], left=True),
            Column("id", [safe_text(row["id"]) for row in listed], left=True),
            context.instants("at", [row["first_ns"] for row in listed], rank=1),
            Column("frame", [count(row["first_frame"]) for row in listed]),
            names("connection", [row["connection"] for row in listed]),
        ],
    )
    more(console, total - len(listed), "request")


def _connections(console: Console, result: Result) -> None:
    listed = result["connections"]
    if not listed:
        return
    print_line(console, Text())
    print_table(
        console,
        [
            names("connection", [row["ends"] for row in listed]),
            Column("protocol", [safe_text(row["protocol"]) for row in listed], left=True),
            Column("messages", [count(row["messages"]) for row in listed]),
            Column("requests", [count(row["requests"]) for row in listed]),
            Column("answers", [count(row["answers"]) for row in listed]),
            Column("again", [count(row["repeated_bytes"]) for row in listed], rank=2),
            Column("lost", [count(row["lost_bytes"]) for row in listed], rank=1),
            Column("unread", [count(row["unread_bytes"]) for row in listed], rank=1),
        ],
    )
    more(console, result["connections_with_orders"] - len(listed), "connection")


def _qualifications(console: Console, result: Result) -> None:
    """Say what the times above do not hold, and why."""
    streams, bounds = result["streams"], result["bounds"]
    sampled = result["sampled_one_in"]
    told = (
        (result["repeated_requests"], "{} sent again with an id that was used: the first counts", "request"),
        (result["possible_duplicates"], "{} marked as possible duplicate (43=Y): left out", "message"),
        (result["answers_without_request"], "{} to no request seen before", "answer"),
        (result["different_sources"], "{} left out: its ends have stamps of different sources, or none", "time"),
        (streams["holes"], "{} in streams that nothing filled: what was in them is missing above", "hole"),
        (streams["cut_segments"], "{} captured only in part", "segment"),
        (streams["malformed"], "{} too short, or of no type of the version", "message"),
        (streams["checksum_mismatches"], "{} whose FIX checksum does not fit: read all the same", "message"),
        (bounds["cut_connections"], "{} cut where parts were joined: orders across the cut are missing", "connection"),
        (bounds["dropped_bytes"], "{} of connections before they began anew were not read", "byte"),
    )  # fmt: skip
    for number, text, what in told:
        if number:
            print_paragraph(console, text.format(plural(number, what)), style="yellow")
    if sampled["connections"] > 1:
        sample = (
            f"a sample: one in {count(sampled['connections'])} connections, and one in {count(sampled['requests'])}"
        )
        print_paragraph(console, f"{sample} of their requests", style="yellow")
