"""Sections of the terminal report about requests, triggers and their responses."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from uspcap.report.format import count, duration, exact_duration, plural, safe_text
from uspcap.report.headlines import Result, percentile_cell
from uspcap.report.section import Context, footnote, open_section
from uspcap.report.terminal_table import Column, print_line, print_paragraph, print_table

ROWS_SHOWN = 5
"""Rows of a list; the JSON report and the CSV tables hold more."""

MEASURES = {
    "from_first": "",
    "from_last": "last sent",
    "first_reply": "first reply",
    "quorum_reply": "quorum",
    "last_reply": "last reply",
}
"""How a measure's column is headed, behind the stamp source."""


def requests(console: Console, result: Result, context: Context) -> None:
    """Each rule that met something: counts, times, rounds, and what has no other half."""
    open_section(console, "Requests and responses", context)
    met = [rule for rule in result["rules"] if rule["requests"] or rule["responses"] or _left_out(rule)]
    print_paragraph(console, f"an answer is waited for {exact_duration(result['timeout_ns'])}", style="dim")
    if not met:
        print_paragraph(console, f"none met of {', '.join(rule['name'] for rule in result['rules'])}")
        return
    print_table(
        console,
        [
            Column("rule", [safe_text(rule["name"]) for rule in met], left=True),
            Column("requests", [count(rule["requests"]) for rule in met]),
            Column("again", [count(rule["retransmitted_requests"]) for rule in met], rank=2),
            Column("answered", [count(rule["answered"]) for rule in met]),
            Column("unanswered", [count(rule["unanswered"]) for rule in met], style="bold"),
            Column("responses", [count(rule["responses"]) for rule in met], rank=4),
            Column("duplicate", [count(rule["duplicate_responses"]) for rule in met], rank=3),
            Column("unsolicited", [count(rule["unsolicited_responses"]) for rule in met], rank=1),
        ],
    )
    _times(
        console,
        {
            (f"{rule['name']} {source}", measure): histogram
            for rule in met
            for source, measures in rule["sources"].items()
            for measure, histogram in measures.items()
            if measure == "from_first" or rule["retransmitted_requests"]
        },
    )
    for rule in met:
        if rule["rounds"]:
            _rounds(console, rule)
        _costs(console, rule)
        _slowest(console, f"{rule['name']}: slowest", rule["slowest"], context)
        _alone(console, rule, context, ("request", "response"))
    print_paragraph(console, result["definition"], style="dim")


def tick_to_trade(console: Console, result: Result, context: Context) -> None:
    """Counts, times, and triggers or responses that have no other half."""
    open_section(console, "Tick to trade", context)
    print_paragraph(console, safe_text(f"from {result['trigger']} to {result['response']}, by {result['matched_by']}"))
    told = (
        f"{plural(result['triggers'], 'trigger')}, {count(result['answered'])} with a response, "
        f"{count(result['unanswered'])} without; {plural(result['responses'], 'response')}, "
        f"{count(result['responses_without_trigger'])} without a trigger"
    )
    if result["repeated_triggers"]:
        told += f"; {count(result['repeated_triggers'])} triggers came again"
    if result["with_several_responses"]:
        told += (
            f"; {plural(result['with_several_responses'], 'trigger')} with several responses "
            f"({count(result['further_responses'])} after the first)"
        )
    print_paragraph(console, told)
    _times(
        console,
        {
            (source, measure): histogram
            for source, measures in result["sources"].items()
            for measure, histogram in measures.items()
            if measure == "from_first" or result["repeated_triggers"]
        },
    )
    _costs(console, result)
    _slowest(console, "Slowest", result["slowest"], context)
    _alone(console, result, context, ("trigger", "response"))
    print_paragraph(console, result["definition"], style="dim")


def _left_out(rule: Result) -> bool:
    return bool(rule["without_stamp"] or rule["without_key"])


def _times(console: Console, measured: dict[tuple[str, str], Result]) -> None:
    """Print statistics as rows; columns are what was measured, by title and measure."""
    columns = {f"{title} {MEASURES[measure]}".strip(): one for (title, measure), one in measured.items()}
    if not columns:
        return
    print_line(console, Text())
    percentiles = list(next(iter(columns.values()))["percentiles_ns"])
    labels = ["answers", "min", *(f"p{one}" for one in percentiles), "max", "asked by frame", "mean", "stddev"]
    print_table(
        console,
        [
            Column("", labels, left=True),
            *(
                Column(
                    name,
                    [
                        count(one["count"]),
                        duration(one["min_ns"]),
                        *(percentile_cell(one, percentile) for percentile in percentiles),
                        duration(one["max_ns"]),
                        count(one["max_frame"]),
                        duration(one["mean_ns"]),
                        duration(one["stddev_ns"]),
                    ],
                )
                for name, one in columns.items()
            ),
        ],
    )
    footnote(console, list(columns.values()))


def _rounds(console: Console, rule: Result) -> None:
    """Print how many rounds reached the quorum, and how long that took."""
    rounds = rule["rounds"]
    print_line(console, Text())
    responders = f"{'more than ' if rounds['more_responders'] else ''}{plural(rounds['responders'], 'responder')}"
    if rounds["quorum"] is None:
        told = (
            f"{plural(rounds['rounds'], 'round')}, {responders}: of so many, or of none, there is no majority to tell"
        )
    else:
        told = (
            f"{plural(rounds['rounds'], 'round')}, {responders}: {count(rounds['reached'])} reached the quorum of "
            f"{rounds['quorum']}, {count(rounds['never_reached'])} never did"
        )
    print_paragraph(console, told)
    by_replies = ", ".join(f"{count(many)} with {at}" for at, many in enumerate(rounds["by_replies"]) if many)
    print_paragraph(console, f"rounds by replies: {by_replies}", style="dim")
    if rounds["replies_before_request"]:
        print_paragraph(
            console, f"{plural(rounds['replies_before_request'], 'response')} from before the request", style="yellow"
        )
    if rounds["too_many_responders"]:
        print_paragraph(
            console,
            f"{plural(rounds['too_many_responders'], 'round')} with more responders than are kept",
            style="yellow",
        )
    _times(
        console,
        {
            (f"{rule['name']} {source}", measure): histogram
            for source, measures in rounds["sources"].items()
            for measure, histogram in measures.items()
            if histogram is not None
        },
    )


def _costs(console: Console, rule: Result) -> None:
    """Say what was left out, and why."""
    if rule["sampled_one_in"] > 1:
        print_paragraph(
            console,
            f"{safe_text(rule['name'])}: more came at a time than is followed: one key in {rule['sampled_one_in']:,} "
            "was, and all but the counts of frames is of these",
            style="yellow",
        )
    for field, what in (
        ("across_clocks", "{} stamped by different clocks, which makes no time"),
        ("negative", "{} with the answer stamped before the question, which is in no histogram"),
    ):
        if rule[field]:
            told = f"{safe_text(rule['name'])}: {what.format(plural(rule[field], 'pair'))}"
            print_paragraph(console, told, style="yellow")
    for field, what in (
        ("without_stamp", "without a stamp, left out"),
        ("without_key", "without the key (too short, or cut), left out"),
        ("matched_both", "matched by both rules, taken for what asks"),
    ):
        if rule[field]:
            told = f"{safe_text(rule['name'])}: {plural(rule[field], 'frame')} {what}"
            print_paragraph(console, told, style="yellow")


def _slowest(console: Console, title: str, rows: Sequence[Result], context: Context) -> None:
    shown = rows[:ROWS_SHOWN]
    if not shown:
        return
    print_line(console, Text())
    print_line(console, Text(safe_text(title), style="bold"))
    print_table(
        console,
        [
            Column("time", [duration(row["latency_from_first_ns"]) for row in shown], style="bold"),
            Column("frames", [f"{count(row['request_frame'])} - {count(row['response_frame'])}" for row in shown]),
            context.instants("from", [row["request_ns"] for row in shown], 1),
            Column("sent", [count(row["requests"]) for row in shown], rank=2),
            Column("answers", [count(row["responses"]) for row in shown], rank=3),
        ],
    )


def _alone(console: Console, rule: Result, context: Context, words: tuple[str, str]) -> None:
    """Print what has no other half."""
    asked, answered = words
    for rows, kind, number, title in (
        (rule["first_unanswered"], "request", "requests", f"without a {answered}"),
        (rule["first_unsolicited"], "response", "responses", f"without a {asked}"),
    ):
        shown = rows[:ROWS_SHOWN]
        if not shown:
            continue
        print_line(console, Text())
        print_line(console, Text(f"{safe_text(rule['name'])}: {title}, the first ones", style="bold"))
        print_table(
            console,
            [
                Column("frame", [count(row[f"{kind}_frame"]) for row in shown]),
                context.instants("at", [row[f"{kind}_ns"] for row in shown], 1),
                Column("frames", [count(row[number]) for row in shown]),
            ],
        )
