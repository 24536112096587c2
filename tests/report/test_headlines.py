"""Headlines say what the sections of the report say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from support.command_line import invoke
from support.reports import report_of, shown, shown_page
from support.streams import START_NS, Frame, streams

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings
from uspcap.frames import TimestampSource
from uspcap.report.cells import percentile_cell
from uspcap.report.document import IntervalBounds, RunReport, read_report
from uspcap.report.format import count, duration
from uspcap.report.headlines import headlines
from uspcap.report.interval_reports import interval_page

SAMPLES = Path(__file__).parents[2] / "sample_captures"
ALL = Settings(registry.default_names(live=True))
FRAMES = [Frame(START_NS + 1_000 * at, 100, 1, TimestampSource.XDP, START_NS + 1_000 * at + at) for at in range(2_000)]


def lines_of(report: RunReport) -> dict[str, str]:
    return {headline.name: str(headline) for headline in headlines(report)}


def over_a_second(report: RunReport) -> RunReport:
    bounds = IntervalBounds(start_ns=START_NS, end_ns=START_NS + 10**9, longest_unread_ns=None, left_out={})
    return replace(report, interval=bounds)


def test_headlines_of_a_steady_stream() -> None:
    report = report_of(FRAMES, ALL)
    lines = lines_of(report)
    assert lines["packets"] == "2,000"
    assert lines["timestamps"] == "XDP 2,000"
    assert lines["rate"] in shown(report)
    assert lines["gaps"] == "no gap in 1 flow"
    assert lines["inter-arrival XDP"] == "p50 1.00 µs, p99 1.00 µs, p99.9 n<10k, max 1.000 µs"
    path = report["analyses"]["path_latency"]["sources"]["XDP"]
    assert lines["path latency XDP"] == (
        f"p50 {percentile_cell(path, '50')}, p99 {percentile_cell(path, '99')}, p99.9 n<10k, max {duration(1_999)}"
    )


@pytest.mark.parametrize(
    ("sample", "words", "name", "said"),
    [
        ("feed-two-lines.pcapng", ["sequence", "--protocol", "auto"], "numbers", "46 messages lost, late 2"),
        (
            "feed-two-lines.pcapng",
            ["arbitration", "--protocol", "auto", "--pair", "A=233.252.0.1:26401,B=233.252.0.2:26402"],
            "233.252.0.1:26401,233.252.0.2:26402 SAMPLE0305",
            "A first 99.8 %, B first 0.2 %, A lost 23, B lost 23",
        ),
        ("order-session.pcap", ["orders", "--protocol", "ouch-4.2"], "orders", "unanswered 0"),
        ("order-session.pcap", ["tcp"], "TCP", "1 connection, retransmitted 1, out of order 0, resets 0"),
        ("request-response.pcapng", ["requests"], "dns", "unanswered 1"),
        (
            "request-response.pcapng",
            ["tick_to_trade", "--trigger", "icmp[0] == 8", "--response", "icmp[0] == 0"],
            "tick to trade",
            "unanswered 1",
        ),
    ],
)
def test_particular_traffic_has_headlines(sample: str, words: list[str], name: str, said: str) -> None:
    ended = invoke("analyze", SAMPLES / sample, "--format", "json", "--only", *words)
    assert lines_of(read_report(json.loads(ended.stdout)))[name] == said


def test_rate_of_an_interval_is_over_the_interval() -> None:
    report = over_a_second(report_of(FRAMES, ALL))
    assert lines_of(report)["rate"] == "2.000 kpackets/s, 1.600 Mbit/s"


def test_negative_times_and_error_bounds_are_reported_with_the_path_latency() -> None:
    frames = [
        Frame(START_NS + at, 60, 1, TimestampSource.HARDWARE, START_NS + at + 5 * (at % 3 - 1)) for at in range(30)
    ]
    report = report_of(frames, ALL, clocks=[{"error_bound_ns": 700}])
    assert lines_of(report)["path latency HARDWARE"].endswith("negative 10, ± 700 ns")


@settings(deadline=None, max_examples=60)
@given(streams(), st.sampled_from([60, 80, 120]), st.sampled_from(["utf-8", "ascii"]))
def test_any_interval_is_printed_within_the_width(frames: list[Frame], width: int, encoding: str) -> None:
    report = over_a_second(report_of(frames, ALL))
    lines = shown_page(interval_page(report, {"ring full": 3}), width, encoding).splitlines()
    assert lines[0].startswith("2023-11-14T22:13:20.000000000Z + 1.000 s")
    assert any(line.split()[:2] == ["packets", count(len(frames))] for line in lines)
    assert any(line.split() == ["dropped", "ring", "full", "3"] for line in lines)
    assert not [line for line in lines if cell_len(line) > width]
