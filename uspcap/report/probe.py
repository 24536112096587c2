"""Reports of probes: the JSON document, and its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from uspcap.comparison.statistics import Run, percentile_interval
from uspcap.report.format import byte_count, count, duration, share, timestamp
from uspcap.report.model import Column, Page
from uspcap.report.published import published_schema
from uspcap.report.units import Unit
from uspcap.stats.histogram import PERCENTILES
from uspcap.version import __version__

if TYPE_CHECKING:
    from uspcap.probe.reflecting import ReflectOutcome
    from uspcap.probe.sending import SendOutcome

SCHEMA: Final = "uspcap.probe/1"

TIMES: Final = {
    "lateness": "sent late by",
    "response_time": "due to answer read",
    "service_time": "sent to answer read",
    "service_time_kernel": "sent to kernel's timestamp",
    "reflector_time": "at the reflector",
}
"""Histograms of a report, and how its table names them."""

TOO_LATE_NS: Final = 1_000_000
"""Above this median lateness the report warns that the sender does not keep up."""

_NAME_CELLS: Final = 9

_SHOWN_PERCENTILES: Final = ("50", "90", "99", "99.9")


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema that reports of probes keep to."""
    return published_schema("uspcap.probe.1.schema.json")


def send_report(outcome: SendOutcome) -> dict[str, Any]:
    """Return the report of a run of `uspcap probe send`.

    Percentiles of `response_time_of_all_sent` count lost and late frames as slower than all others.
    """
    settings, answers = outcome.settings, outcome.answers
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "role": "send",
        "target": str(settings.target),
        "source": outcome.source,
        "interface": settings.interface,
        "session": f"{outcome.session:016x}",
        "payload_bytes": settings.size,
        "schedule": settings.schedule.about,
        "spin_ns": settings.spin_ns,
        "start_ns": outcome.start_ns,
        "end_ns": outcome.end_ns,
        "clock_change_ns": outcome.clock_change_ns,
        "frames": {
            "scheduled": outcome.scheduled,
            "sent": outcome.sent,
            "unsent": outcome.unsent,
            "refused": outcome.refused,
        },
        "lateness": outcome.lateness.result(),
    }
    if answers is None:
        return report
    missing = outcome.lost + answers.late
    run = Run(answers.response, missing)
    return report | {
        "wakeup": settings.wakeup,
        "patience_ns": settings.patience_ns,
        "answers": {
            "in_time": answers.answered,
            "late": answers.late,
            "lost": outcome.lost,
            "pending": outcome.pending,
            "duplicate": answers.duplicate,
            "reordered": answers.reordered,
            "older_than_window": answers.older,
            "foreign": answers.foreign,
            "malformed": answers.malformed,
            "without_kernel_timestamp": answers.without_timestamp,
        },
        "response_time": answers.response.result(),
        "response_time_of_all_sent": [percentile_interval(run, percentile).as_dict() for percentile in PERCENTILES],
        "service_time": answers.service.result(),
        "service_time_kernel": answers.kernel.result(),
        "reflector_time": answers.residence.result(),
    }


def reflect_report(outcome: ReflectOutcome) -> dict[str, Any]:
    """Return the report of a run of `uspcap probe reflect`."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "role": "reflect",
        "local": outcome.local,
        "interface": outcome.settings.interface,
        "through": outcome.settings.through,
        "wakeup": outcome.settings.wakeup,
        "frames": {
            "answered": outcome.answered,
            "unanswered": outcome.unanswered,
            "foreign": outcome.foreign,
            "without_kernel_timestamp": outcome.without_timestamp,
        },
    }


def probe_page(report: dict[str, Any]) -> Page:
    """Return the page of a report of either role."""
    if report["role"] == "reflect":
        frames = report["frames"]
        page = Page("uspcap probe reflect", report["local"])
        answered = f"{count(frames['answered'])} answered, {count(frames['unanswered'])} unanswered (sending failed)"
        other = f"{count(frames['foreign'])} datagrams that are not probes, ignored"
        page.head.facts([("probes", answered), ("other", other)], _NAME_CELLS)
        return page
    page = Page("uspcap probe send", f"{report['source']} > {report['target']}")
    page.head.facts([*_sent(report), *(_answers(report) if "answers" in report else [])], _NAME_CELLS)
    _times(page, report)
    late_ns = report["lateness"]["percentiles_ns"]["50"]
    if late_ns is not None and late_ns >= TOO_LATE_NS:
        page.section().paragraph(
            f"Half of the frames were sent {duration(late_ns, 3)} or more after they were due: this host cannot keep "
            "up with this rate. Times from due include that; lower --rate, or give the sender its own CPUs (--cpu).",
            "warning",
        )
    if "answers" in report:
        timeout = duration(report["patience_ns"])
        page.section().paragraph(
            "Times of answers are round trips, and never halved. 'due' is the time in the schedule, even if the frame "
            f"was sent later. Late: {timeout} or more after it was due. 'of all sent' counts lost and late frames as "
            "slowest.",
            "note",
        )
    return page


def _sent(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    frames = report["frames"]
    yield "schedule", _schedule(report["schedule"])
    text = f"{count(frames['sent'])} of {byte_count(report['payload_bytes'])} payload"
    if frames["unsent"]:
        text += f", {count(frames['unsent'])} not taken by the kernel"
    if frames["refused"]:
        text += f", {count(frames['refused'])} times refused by the target (ICMP port unreachable)"
    yield "sent", text
    if frames["scheduled"]:
        yield "from", f"{timestamp(report['start_ns'])}  ({duration(report['end_ns'] - report['start_ns'])} in total)"


def _schedule(about: dict[str, Any]) -> str:
    if about["kind"] == "like":
        return f"as in {', '.join(about['files'])}, {count(about['frames'])} frames"
    rate = f"{about['rate_per_s']:,.10g} frames/s"
    return f"Poisson, {rate} on average, seed {about['seed']}" if about["kind"] == "poisson" else f"constant, {rate}"


def _answers(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    answers, sent = report["answers"], report["frames"]["sent"]
    text = f"{count(answers['in_time'])} in time ({share(answers['in_time'], sent)}), {count(answers['lost'])} lost"
    text += f" ({share(answers['lost'], sent)}), {count(answers['late'])} late, {count(answers['duplicate'])} duplicate"
    yield "answers", f"{text}, {count(answers['reordered'])} reordered"
    others = {
        "pending": "pending when the run was stopped",
        "older_than_window": "too old to classify",
        "foreign": "not of this session",
        "malformed": "with impossible times",
        "without_kernel_timestamp": "without a kernel timestamp",
    }
    rest = [f"{count(answers[name])} {what}" for name, what in others.items() if answers[name]]
    if rest:
        yield "", ", ".join(rest)


def _times(page: Page, report: dict[str, Any]) -> None:
    shown = {title: report[name] for name, title in TIMES.items() if name in report and report[name]["count"]}
    columns = [
        Column("", list(shown), left=True),
        Column("frames", [histogram["count"] for histogram in shown.values()], unit=Unit.COUNT),
        Column("min", [duration(histogram["min_ns"], 3) for histogram in shown.values()], rank=2),
    ]
    for percentile in _SHOWN_PERCENTILES:
        cells = [duration(histogram["percentiles_ns"][percentile], 3) for histogram in shown.values()]
        columns.append(Column(f"p{percentile}", cells))
    columns.append(Column("max", [duration(histogram["max_ns"], 3) for histogram in shown.values()]))
    page.section().table(columns)
    if "answers" not in report:
        return
    given = [one for one in report["response_time_of_all_sent"] if one["percentile"] in _SHOWN_PERCENTILES]
    cells = [
        f"p{one['percentile']} {duration(one['value_ns'], 3)} ({duration(one['low_ns'], 3)} to "
        f"{duration(one['high_ns'], 3) if one['high_ns'] is not None else 'lost'})"
        for one in given
        if one["value_ns"] is not None
    ]
    if cells:
        page.section().paragraph(f"due to answer read, of all sent, with 95 % intervals: {', '.join(cells)}")
