"""Sections of the terminal report about requests, triggers and their responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from uspcap.analysis.requests.result import (
    AnsweredRequest,
    PairCounts,
    ReplyMeasures,
    ReplyTimes,
    RequestRule,
    RequestsResult,
    UnansweredRequest,
    UnsolicitedResponse,
)
from uspcap.report.cells import percentile_cell, spread
from uspcap.report.format import (
    count,
    duration,
    exact_duration,
    plural,
    safe_text,
)
from uspcap.report.model import Column, Context, Headline, Section
from uspcap.report.units import Unit

ROWS_SHOWN = 5
"""Rows of a list; the JSON report and the CSV tables hold more."""

MEASURES = {
    "from_first": "",
    "from_last": "from last",
    "first_reply": "first reply",
    "quorum_reply": "quorum",
    "last_reply": "last reply",
}
"""Column titles of the measures, after the timestamp source."""


def section(result: RequestsResult, context: Context) -> Section:
    """Each rule with matches: counts, times, rounds, unanswered and unsolicited frames."""
    view = Section("Requests and responses", timed=True)
    met = [rule for rule in result.rules if rule.requests or rule.responses or _left_out(rule)]
    view.paragraph(f"timeout: {exact_duration(result.timeout_ns)}", tone="note")
    if not met:
        view.paragraph(f"no request or response of {', '.join(rule.name for rule in result.rules)}")
        return view
    view.table(
        [
            Column("rule", [safe_text(rule.name) for rule in met], left=True),
            Column("requests", [rule.requests for rule in met], unit=Unit.COUNT),
            Column("retransmitted", [rule.retransmitted_requests for rule in met], rank=2, unit=Unit.COUNT),
            Column("answered", [rule.answered for rule in met], unit=Unit.COUNT),
            Column("unanswered", [rule.unanswered for rule in met], tone="strong", unit=Unit.COUNT),
            Column("responses", [rule.responses for rule in met], rank=4, unit=Unit.COUNT),
            Column("duplicate", [rule.duplicate_responses for rule in met], rank=3, unit=Unit.COUNT),
            Column("unsolicited", [rule.unsolicited_responses for rule in met], rank=1, unit=Unit.COUNT),
        ],
    )
    times(
        view,
        {
            (f"{rule.name} {source}", measure): histogram
            for rule in met
            for source, measures in rule.sources.items()
            for measure, histogram in measures.items()
            if measure == "from_first" or rule.retransmitted_requests
        },
    )
    for rule in met:
        if rule.rounds:
            _rounds(view, rule)
        costs(view, rule)
        slowest(view, f"{rule.name}: slowest", rule.slowest, context)
        alone(view, rule.name, rule.first_unanswered, rule.first_unsolicited, context, ("request", "response"))
    view.paragraph(result.definition, tone="note")
    return view


def _left_out(rule: PairCounts) -> bool:
    return bool(rule.without_timestamp or rule.without_key)


def times(view: Section, measured: dict[tuple[str, str], ReplyTimes]) -> None:
    """Print statistics as rows; columns are measures, by title and measure."""
    columns = {f"{title} {MEASURES[measure]}".strip(): one for (title, measure), one in measured.items()}
    if not columns:
        return
    view.line()
    percentiles = list(next(iter(columns.values())).percentiles_ns)
    labels = [
        "answers",
        "min",
        *(f"p{percentile}" for percentile in percentiles),
        "max",
        "max at request",
        "mean",
        "stddev",
    ]
    view.table(
        [
            Column("", labels, left=True),
            *(
                Column(
                    name,
                    [
                        count(one.count),
                        duration(one.min_ns),
                        *(percentile_cell(one, percentile) for percentile in percentiles),
                        duration(one.max_ns),
                        count(one.max_frame),
                        duration(one.mean_ns),
                        duration(one.stddev_ns),
                    ],
                )
                for name, one in columns.items()
            ),
        ],
    )
    view.footnote(list(columns.values()))


def _rounds(view: Section, rule: RequestRule) -> None:
    """Print how many rounds reached the quorum, and after what time."""
    rounds = rule.rounds
    assert rounds is not None
    view.line()
    responders = f"{'more than ' if rounds.more_responders else ''}{plural(rounds.responders, 'responder')}"
    if rounds.quorum is None:
        text = f"{plural(rounds.rounds, 'round')}, {responders}: no majority, as there are none or too many to follow"
    else:
        text = (
            f"{plural(rounds.rounds, 'round')}, {responders}: {count(rounds.reached)} reached the quorum of "
            f"{rounds.quorum}, {count(rounds.never_reached)} did not"
        )
    view.paragraph(text)
    by_replies = ", ".join(f"{count(many)} with {at}" for at, many in enumerate(rounds.by_replies) if many)
    view.paragraph(f"rounds by replies: {by_replies}", tone="note")
    if rounds.replies_before_request:
        view.paragraph(
            f"{plural(rounds.replies_before_request, 'response')} timestamped before the request", tone="warning"
        )
    if rounds.too_many_responders:
        view.paragraph(
            f"{plural(rounds.too_many_responders, 'round')} with more responders than are followed",
            tone="warning",
        )
    times(
        view,
        {
            (f"{rule.name} {source}", measure): histogram
            for source, measures in rounds.sources.items()
            for measure, histogram in measures.items()
            if histogram is not None
        },
    )


def costs(view: Section, rule: PairCounts) -> None:
    """Report what was left out, and why."""
    if rule.sampled_one_in > 1:
        view.paragraph(
            f"{safe_text(rule.name)}: too many requests at a time: only one key in {rule.sampled_one_in:,} "
            "was followed, and all figures but the frame counts are of these",
            tone="warning",
        )
    for field, what in (
        ("across_clocks", "{} left out: request and response have timestamps of different clocks"),
        ("negative", "{} with the response timestamped before the request: in no histogram"),
    ):
        if rule[field]:
            text = f"{safe_text(rule.name)}: {what.format(plural(rule[field], 'pair'))}"
            view.paragraph(text, tone="warning")
    if rule.preceding is not None:
        view.paragraph(
            f"{safe_text(rule.name)}: {plural(rule.preceding.exchanges, 'exchange')} with a response before the "
            f"request with its key, by up to {duration(rule.preceding.most_ns)}: the one unsolicited, the other "
            "unanswered",
            tone="warning",
        )
    for field, what in (
        ("without_timestamp", "without a timestamp, left out"),
        ("without_key", "without the key (too short, or cut), left out"),
        ("matched_both", "matched by both rules, taken as requests"),
    ):
        if rule[field]:
            text = f"{safe_text(rule.name)}: {plural(rule[field], 'frame')} {what}"
            view.paragraph(text, tone="warning")


def slowest(view: Section, title: str, rows: Sequence[AnsweredRequest], context: Context) -> None:
    """Show the pairs with the longest response times."""
    shown = rows[: context.rows(ROWS_SHOWN)]
    if not shown:
        return
    view.heading(safe_text(title))
    view.table(
        [
            Column("time", [row.latency_from_first_ns for row in shown], tone="strong", unit=Unit.DURATION),
            Column("frames", [f"{count(row.request_frame)} - {count(row.response_frame)}" for row in shown]),
            context.instants("from", [row.request_ns for row in shown], 1),
            Column("sent", [row.requests for row in shown], rank=2, unit=Unit.COUNT),
            Column("answers", [row.responses for row in shown], rank=3, unit=Unit.COUNT),
        ],
    )


def alone(
    view: Section,
    name: str,
    unanswered: Sequence[UnansweredRequest],
    unsolicited: Sequence[UnsolicitedResponse],
    context: Context,
    words: tuple[str, str],
) -> None:
    """Print unanswered requests and unsolicited responses."""
    asked, answered = words
    halves: tuple[tuple[Sequence[UnansweredRequest | UnsolicitedResponse], str, str, str], ...] = (
        (unanswered, "request", "requests", f"{asked}s without a {answered}"),
        (unsolicited, "response", "responses", f"{answered}s without a {asked}"),
    )
    for rows, kind, number, title in halves:
        shown = rows[: context.rows(ROWS_SHOWN)]
        if not shown:
            continue
        view.heading(f"{safe_text(name)}: first {title}")
        view.table(
            [
                Column("frame", [row[f"{kind}_frame"] for row in shown], unit=Unit.COUNT),
                context.instants("at", [row[f"{kind}_ns"] for row in shown], 1),
                Column("frames", [row[number] for row in shown], unit=Unit.COUNT),
            ],
        )


def headlines(result: RequestsResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    for rule in result.rules:
        if rule.requests or rule.responses:
            yield from answered(rule.sources, rule.unanswered, rule.name)


def answered(sources: Mapping[str, ReplyMeasures], unanswered: int, name: str) -> Iterator[Headline]:
    """Return response times by timestamp source, and how many requests are unanswered."""
    for source, measures in sources.items():
        yield spread(f"{name} {source}", measures.from_first)
    yield Headline(name, (("unanswered", count(unanswered)),))
