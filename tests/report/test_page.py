"""The report on a terminal."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from support.reports import CAPTURES, report_of, report_on, shown
from support.streams import START_NS, Frame, streams

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings
from uspcap.frames import TimestampSource
from uspcap.report.cells import percentile_cell, samples_needed
from uspcap.report.document import read_report
from uspcap.report.format import count, duration, timestamp

WIDTHS = (80, 120, 200)
LINE = {"bursts": {"line_rate_bps": 10**9}}
TITLES = {
    "summary": "Summary",
    "timestamps": "Timestamps",
    "inter_arrival": "Inter-arrival times",
    "gaps": "Gaps within flows",
    "bursts": "Bursts",
    "overhead": "Overhead",
    "path_latency": "Path latency",
}


def steady(packets: int, step_ns: int = 1_000, flows: int = 1) -> list[Frame]:
    return [Frame(START_NS + at * step_ns + at * at % 11, 60 + at % 100, 1 + at % flows) for at in range(packets)]


def key_numbers(report: dict[str, Any]) -> list[str]:
    """What must be readable at any width."""
    source, analyses = report["source"], report["analyses"]
    numbers = [count(source["packets"])]
    if not source["packets"]:
        return numbers
    if source["first_timestamp_ns"] is not None:
        numbers.append(timestamp(source["first_timestamp_ns"]))
    for histogram in analyses["inter_arrival"]["sources"].values():
        if histogram["count"]:
            numbers += [count(histogram["count"]), duration(histogram["max_ns"]), duration(histogram["mean_ns"])]
            numbers += [percentile_cell(histogram, percentile) for percentile in histogram["percentiles_ns"]]
    numbers += [duration(gap["gap_ns"]) for gap in analyses["gaps"]["longest"]]
    numbers += [row["protocol"] for row in analyses["overhead"]["protocols"][:10]]
    numbers += [count(row["peak_bytes_first_frame"]) for row in analyses["bursts"]["windows"]]
    return numbers


@pytest.mark.oracle
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures to read: set USPCAP_SHARED")
def test_reports_on_captures_by_others_show_their_key_numbers_within_the_width() -> None:
    paths = sorted(CAPTURES.glob("*/*"))
    assert len(paths) > 500
    for path in paths:
        report = report_on(path)
        for width in WIDTHS:
            text = shown(report, width)
            missing = [number for number in key_numbers(report) if number not in text]
            assert not missing, (path.name, width)
            wide = [line for line in text.splitlines() if cell_len(line) > width]
            assert not wide, (path.name, width)


@settings(max_examples=60)
@given(streams(), st.sampled_from([20, 40, 80, 120]), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_any_report_is_shown_at_any_width_in_any_encoding(frames: list[Frame], width: int, encoding: str) -> None:
    for chosen in (
        Settings(),
        Settings(arguments={**LINE, "gaps": {"threshold_ns": 1_000}, "overhead": {"framing": True}}),
    ):
        assert shown(report_of(frames, chosen), width, encoding).startswith("uspcap made.pcap\n")


def test_sections_come_in_order_and_only_those_of_the_report() -> None:
    text = shown(report_of(steady(20)))
    places = [text.index(f"\n{TITLES[name]}") for name in registry.default_names(live=False)]
    assert places == sorted(places)
    text = shown(report_of(steady(20), Settings(names=("gaps", "summary"))))
    assert [name for name in registry.default_names(live=False) if f"\n{TITLES[name]}" in text] == ["summary", "gaps"]


def test_no_packets_are_said_in_one_line() -> None:
    assert shown(report_of([])) == "uspcap made.pcap\n  packets     0, 0 B on the wire\n  No packet is in the input.\n"
    filtered = shown(report_of([], filter="tcp port 1", packets_read=7))
    assert "packets     0 of 7," in filtered and "  filter      tcp port 1\n" in filtered
    assert "No packet matches the filter." in filtered


def test_one_packet_has_no_time_between_two() -> None:
    text = shown(report_of(steady(1)))
    assert "packets     1, 60 B on the wire" in text
    assert "too few timestamped packets for an inter-arrival time" in text
    assert "no gap in 1 flow; 1 with too few packets" in text
    assert "  last " not in text and "  rate " not in text


def test_packets_without_timestamps_are_shown_without_times() -> None:
    text = shown(report_of([Frame(0, 64, 1, TimestampSource.NONE)] * 3))
    assert "timestamps  NONE 3" in text and "1970" not in text
    assert "[1] 3 frames have no timestamp" in text
    assert "no packet has a timestamp" in text and "no timestamped packets" in text


def test_timestamp_sources_have_a_column_each() -> None:
    frames = steady(3_000)
    mixed = [
        Frame(one.timestamp_ns, one.length, 1, TimestampSource.HARDWARE if at % 3 else TimestampSource.KERNEL)
        for at, one in enumerate(frames)
    ]
    report = report_of(mixed)
    text = shown(report)
    assert re.search(r"^ +HARDWARE +KERNEL$", text, re.MULTILINE)
    sources = report["analyses"]["inter_arrival"]["sources"]
    cells = [percentile_cell(sources[name], "99") for name in ("HARDWARE", "KERNEL")]
    assert re.search(rf"^  p99 +{re.escape(cells[0])} +{re.escape(cells[1])}$", text, re.MULTILINE)
    assert "timestamps come from 2 sources" in text


def paths(source: TimestampSource = TimestampSource.XDP, rings: int = 1) -> list[Frame]:
    return [
        replace(one, source=source, read_ns=one.timestamp_ns + 1_000 + at, ring=at % rings)
        for at, one in enumerate(steady(2_000))
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_path_latency_shows_percentiles_by_timestamp_source_and_ring(width: int) -> None:
    report = report_of(
        [*paths(rings=2), *paths(TimestampSource.USER), Frame(START_NS, 60, 1, TimestampSource.XDP, START_NS - 7)],
        Settings(names=("path_latency",)),
    )
    text = shown(report, width)
    assert not [line for line in text.splitlines() if cell_len(line) > width]
    assert re.search(r"^ +XDP +XDP ring 0 +XDP ring 1$", text, re.MULTILINE)
    assert re.search(r"^  frames +2,000 +1,000 +1,000$", text, re.MULTILINE)
    one = report["analyses"]["path_latency"]["sources"]["XDP"]
    assert re.search(rf"^  p99 +{re.escape(percentile_cell(one, '99'))} ", text, re.MULTILINE)
    assert re.search(rf"^  max +{re.escape(duration(2_999))} ", text, re.MULTILINE)
    assert re.search(r"^  negative +1 +1 +0$", text, re.MULTILINE)
    assert "left out: 2,000 frames timestamped when read" in text
    assert "n<100k" in text and "not given" in text


def test_path_latency_of_nic_timestamps_shows_their_error_bound_beside_the_histogram() -> None:
    clock = {"error_bound_ns": 1_234, "interface": "eth0"}
    report = report_of(paths(TimestampSource.HARDWARE), Settings(names=("path_latency",)), clocks=[clock])
    assert report["analyses"]["path_latency"]["sources"]["HARDWARE"]["error_bound_ns"] == 1_234
    assert f"each time may be off by {duration(1_234)}" in shown(report)
    report = report_of(paths(), Settings(names=("path_latency",)), clocks=[clock])
    assert report["analyses"]["path_latency"]["sources"]["XDP"]["error_bound_ns"] is None
    assert "may be off" not in shown(report)


def test_path_latency_without_any_path_says_so() -> None:
    text = shown(report_of(steady(3), Settings(names=("path_latency",))))
    assert "no packet has a timestamp from before it was read" in text
    assert "left out: 3 frames that did not come from a ring" in text


def test_warnings_come_before_the_numbers_and_timing_sections_refer_to_them() -> None:
    report = report_of([Frame(START_NS - at, 60, 1) for at in range(150)])
    text = shown(report)
    warnings = report["analyses"]["timestamps"]["warnings"]
    assert warnings and text.index("Read this first") < text.index("\nSummary")
    for number, warning in enumerate(warnings, 1):
        assert f"[{number}] {warning.split()[0]}" in text
    reference = "[1]" if len(warnings) == 1 else f"[1]-[{len(warnings)}]"
    for name in ("inter_arrival", "gaps", "bursts"):
        assert f"\n{TITLES[name]}  read with {reference} above" in text
    assert "Read this first" not in shown(report_of(steady(150)))


def test_loss_of_the_capture_and_a_cut_file_are_warnings() -> None:
    text = shown(report_of(steady(5), interface_drops={"made.pcap:0": 12, "made.pcap:1": 0}, truncated=True), 200)
    assert "[1] the capturing host dropped frames (12 on interface made.pcap:0): a gap may be loss" in text
    assert "[2] the input ends in the middle of a record" in text


@pytest.mark.parametrize(("percentile", "needed"), [("50", 20), ("99", 1_000), ("99.9", 10_000), ("99.999", 1_000_000)])
def test_percentiles_of_too_few_samples_are_no_numbers(percentile: str, needed: int) -> None:
    assert samples_needed(percentile) == needed
    for packets, given_one in ((needed, False), (needed + 1, True)):
        if packets > 20_000:
            continue
        histogram = report_of(steady(packets))["analyses"]["inter_arrival"]["sources"]["FILE"]
        assert percentile_cell(histogram, percentile).startswith("n<") is not given_one


def test_percentiles_of_too_few_samples_have_a_footnote() -> None:
    text = shown(report_of(steady(30)))
    assert re.search(r"^  p99 +n<1k$", text, re.MULTILINE)
    assert "n<10k: not given, as it takes 10,000 samples for 10 of them to lie beyond" in text


def test_percentiles_show_the_digits_that_histograms_hold() -> None:
    report = report_of(steady(500, step_ns=12_345))
    median = report["analyses"]["inter_arrival"]["sources"]["FILE"]["percentiles_ns"]["50"]
    assert 12_340 <= median <= 12_360
    assert re.search(r"^  p50 +12\.[34] µs$", shown(report), re.MULTILINE)


def test_windows_that_timestamps_do_not_resolve_are_marked() -> None:
    coarse = [Frame(START_NS + at * 10_000, 60, 1) for at in range(200)]
    assert "windows of up to 10 µs are no wider than the timestamp resolution" in shown(report_of(coarse))
    assert "no wider" not in shown(report_of(steady(200)))


def test_resolution_of_few_timestamps_is_a_bound() -> None:
    few, many = (shown(report_of([Frame(START_NS + at * 1_000, 60, 1) for at in range(n)])) for n in (50, 150))
    assert "≤1 µs" in few and "≤1 µs" not in many


def test_a_line_rate_adds_a_column() -> None:
    report = report_of(steady(50), Settings(arguments={"bursts": {"line_rate_bps": 10**10}}))
    text = shown(report)
    assert "of line" in text and "line rate: 10.00 Gbit/s" in text
    assert "of line" not in shown(report_of(steady(50)))
    assert "more than 100 % of line" not in text
    assert "more than 100 % of line" in shown(
        report_of(steady(50), Settings(arguments={"bursts": {"line_rate_bps": 10**8}}))
    )


def test_quality_columns_go_in_the_order_of_what_they_are_worth() -> None:
    report = report_of(steady(150))
    titles = [line for line in shown(report, 70).splitlines() if line.startswith("  source ")]
    assert titles[0].split("  ")[1:] == [
        "source",
        "frames",
        "resolution",
        "repeated",
        "backward",
        "largest",
        "TAI-like",
    ]
    assert "common divisor" in shown(report, 120) and "longest run" in shown(report, 120)


def test_a_sample_of_flows_says_so() -> None:
    text = shown(report_of(steady(200, flows=40), Settings(maximum_flows=8)))
    assert re.search(r"about \d+ flows in all; one in \d+ was tracked", text)
    assert re.search(r"only one flow in \d+ was tracked", text)


def test_problems_and_notes_come_last_and_problems_in_red() -> None:
    problems = [{"file": "made.pcap", "offset": 12_345, "what": "the record is longer than the file"}]
    report = report_of(steady(3), problems=problems, notes=["a note [bold]of[/bold] sorts"])
    text = shown(report)
    assert "1 problem with the input, listed at the end" in text
    assert (
        text.index("\nOverhead")
        < text.index("\nNotes\n  a note [bold]of[/bold] sorts\n")
        < text.index("\nProblems (1)")
    )
    assert text.endswith("made.pcap, byte 12,345: the record is longer than the file\n")
    assert "\x1b[31mmade.pcap, byte 12,345" in shown(report, colour=True)


def test_an_analysis_that_is_not_known_is_named() -> None:
    document = report_of(steady(3)).as_dict()
    document["analyses"]["sequence\x1b"] = {}
    assert "Only in the JSON report: sequence\\x1b." in shown(read_report(document))


def test_no_foreign_text_reaches_the_terminal_raw() -> None:
    attack = "[red]x[/red]\x1b]0;owned\x07\r\n\u202e:smile:"
    report = report_of(steady(30), Settings(arguments=LINE), filter=attack, notes=[attack]).as_dict()
    report["source"]["files"] = [attack]
    report["source"]["link_types"] = [attack]
    report["source"]["problems"] = [{"file": attack, "offset": 0, "what": attack}]
    report["source"]["interface_drops"] = {attack: 3}
    analyses = report["analyses"]
    interface = analyses["summary"]["interfaces"][0]
    interface["name"] = interface["description"] = interface["link_type"] = attack
    for flow in (*analyses["inter_arrival"]["flows"]["by_count"], *analyses["gaps"]["longest"]):
        flow["flow"] = attack
    for row in (*analyses["summary"]["protocols"], *analyses["overhead"]["protocols"]):
        row["protocol"] = attack
    for width in WIDTHS:
        text = shown(read_report(report), width)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
        assert not any(line.startswith("\u202e:smile:") for line in text.splitlines())
    wide = shown(read_report(report), 400)
    assert wide.count("[red]x[/red]\\x1b]0;owned\\x07\\x0d\\x0a\\u202e:smile:") >= 10


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    report = report_of(steady(3_000), Settings(arguments=LINE))
    text = shown(report, encoding="ascii")
    assert text.isascii() and " us" in text and "#" in text and "\\x" not in text and "\\u" not in text


def test_plain_output_has_no_escapes_and_colour_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(steady(30))
    assert "\x1b" not in shown(report)
    assert "\x1b[" in shown(report, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown(report, colour=True))


def test_a_report_read_back_from_json_shows_the_same() -> None:
    report = report_of(steady(100, flows=3), Settings(arguments=LINE))
    before = copy.deepcopy(report)
    assert shown(read_report(json.loads(json.dumps(report.as_dict())))) == shown(report)
    assert report == before, "rendering changes nothing"
