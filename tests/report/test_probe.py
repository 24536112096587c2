"""Reports of probes: the document against its schema, and what a terminal shows."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from typing import Any

import jsonschema
import numpy as np
import pytest
from support.reports import shown_page

from uspcap.probe.endpoints import Endpoint
from uspcap.probe.reflecting import ReflectOutcome, ReflectSettings
from uspcap.probe.schedules import Schedule, at_rate
from uspcap.probe.sending import Answers, SendOutcome, SendSettings
from uspcap.report.probe import load_schema, probe_page, reflect_report, send_report
from uspcap.stats.histogram import Histogram

VALIDATOR = jsonschema.Draft202012Validator(load_schema())
START_NS = 1_700_000_000_000_000_000


def outcome_of(
    sent: int, in_time: int, late: int = 0, *, answers: bool = True, kind: str = "constant", lateness_ns: int = 0
) -> SendOutcome:
    schedule = at_rate(Fraction(1_000), "poisson" if kind == "poisson" else "constant", 3)
    if kind == "like":
        about = {"kind": "like", "files": ["a\x1b[31m.pcap"], "frames": 9, "without_timestamp": 0, "backwards": 1}
        schedule = Schedule(schedule.times, about)
    times = Histogram.from_values(np.arange(in_time) + 1_000)
    came = Answers(in_time, late, 0, 0, 0, 0, 0, 0, times, times, Histogram(), times)
    return SendOutcome(
        settings=SendSettings(Endpoint("192.0.2.2", 7000), schedule, answers=answers),
        session=0xABC,
        source="192.0.2.1:5555",
        start_ns=START_NS,
        end_ns=START_NS + 10**9,
        scheduled=sent + 2,
        sent=sent,
        unsent=2,
        refused=1,
        lateness=Histogram.from_values(np.arange(sent) + lateness_ns),
        answers=came if answers else None,
        clock_change_ns=-7,
        failure=None,
    )


def reflected() -> dict[str, Any]:
    settings = ReflectSettings(Endpoint("::", 7000), "eth0", "spin")
    return reflect_report(ReflectOutcome(settings, "[::]:7000", 5, 1, 2, 3, None))


def shown(report: dict[str, Any], width: int = 80, encoding: str = "utf-8") -> str:
    return shown_page(probe_page(report), width, encoding)


REPORTS = [
    send_report(outcome_of(1_000, 990, 4)),
    send_report(outcome_of(1_000, 0, answers=False, kind="poisson")),
    send_report(outcome_of(0, 0, kind="like")),
    reflected(),
]


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())


@pytest.mark.parametrize("report", REPORTS, ids=["answered", "one-way", "nothing", "reflect"])
def test_reports_keep_to_the_schema(report: dict[str, Any]) -> None:
    VALIDATOR.validate(json.loads(json.dumps(report, allow_nan=False)))


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.update(schema="uspcap.probe/2"),
        lambda report: report.update(role="listen"),
        lambda report: report.update(extra=1),
        lambda report: report["frames"].pop("sent"),
        lambda report: report["answers"].update(lost="many"),
        lambda report: report.pop("service_time"),
        lambda report: report["schedule"].update(kind="random"),
        lambda report: report["lateness"].pop("count"),
    ],
)
def test_the_schema_refuses_what_is_not_published(change: Any) -> None:
    report = copy.deepcopy(REPORTS[0])
    change(report)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(report)


def test_lost_and_late_frames_are_in_the_percentiles_of_all_sent() -> None:
    report = send_report(outcome_of(1_000, 900, 60))
    assert report["answers"]["lost"] == 40
    of_all = {one["percentile"]: one["value_ns"] for one in report["response_time_of_all_sent"]}
    # 1,000 ns is the first; the 500th and the 900th of 1,000.
    assert (of_all["50"], of_all["90"], of_all["99"]) == (1_499, 1_899, None)
    assert report["response_time"]["percentiles_ns"]["50"] == 1_449


def test_the_terminal_shows_what_the_document_says() -> None:
    text = shown(REPORTS[0], 100)
    for part in (
        "192.0.2.1:5555 > 192.0.2.2:7000",
        "constant, 1,000 frames/s",
        "1,000 of 64 B payload, 2 not taken by the kernel, 1 times refused",
        "990 in time (99.0 %), 6 lost (0.6 %), 4 late, 0 duplicate, 0 reordered",
        "due to answer read",
        "round trips, and never halved",
        "p50 1.50 µs (",
    ):
        assert part in text, text
    one_way = shown(REPORTS[1])
    assert "Poisson, 1,000 frames/s on average, seed 3" in one_way
    assert "answers" not in one_way
    there = shown(REPORTS[3])
    assert "[::]:7000" in there
    assert "5 answered, 1 unanswered" in there


def test_a_sender_that_does_not_keep_up_is_reported() -> None:
    assert "cannot keep" not in shown(send_report(outcome_of(1_000, 990)))
    assert "were sent 2.00 ms or more after they were due" in shown(
        send_report(outcome_of(1_000, 990, lateness_ns=2_000_000))
    )


@pytest.mark.parametrize("report", REPORTS, ids=["answered", "one-way", "nothing", "reflect"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_reports_fit_eighty_columns_and_any_encoding(report: dict[str, Any], encoding: str) -> None:
    text = shown(report, 80, encoding)
    assert "\x1b" not in text
    table = [line for line in text.splitlines() if not line.startswith(("  sent ", "  answers", "  from"))]
    assert all(len(line) <= 80 for line in table), text
