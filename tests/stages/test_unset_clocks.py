"""Timestamps of a clock that nobody had set, and the time that is left where a clock stepped."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import invoke
from support.untidy import frame_of, pcap, without_frame_numbers

import uspcap

BEGIN_NS = 1_700_000_000 * 10**9
STEP_NS = 1_000_000
FRAMES = 1_000
SECOND_NS = 10**9


def times() -> list[int]:
    return [BEGIN_NS + STEP_NS * number for number in range(FRAMES)]


def unset(case: str) -> list[int]:
    """Return 1,000 times, a millisecond apart, of which the clock had not been set for some."""
    course = times()
    return {
        "a tail of zeros": course + [0] * 300,
        "zeros first": [0] * 300 + course,
        "zeros between": course[:400] + [0] * 300 + course[400:],
        "boot first": [STEP_NS * number for number in range(300)] + course,
        "boot last": course + [STEP_NS * number for number in range(300)],
        "zeros here and there": [0 if number % 3 else ns for number, ns in enumerate(course)],
    }[case]


CASES = ("a tail of zeros", "zeros first", "zeros between", "boot first", "boot last", "zeros here and there")


def capture(path: Path, course: list[int]) -> Path:
    pcap(path, [(ns, frame_of(0, number)) for number, ns in enumerate(course)])
    return path


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("jobs", [1, 2])
def test_frames_of_an_unset_clock_count_and_have_no_time(tmp_path: Path, case: str, jobs: int) -> None:
    course = unset(case)
    timed = [ns for ns in course if ns >= BEGIN_NS]
    path = capture(tmp_path / "unset.pcap", course)
    document = uspcap.analyze(path, only=("summary", "gaps", "inter_arrival", "bursts"), jobs=jobs).document
    source, analyses = document["source"], document["analyses"]
    assert source["packets"] == len(course)
    assert source["timestamped_packets"] == len(timed)
    assert source["order"]["outlier_count"] == len(course) - len(timed)
    assert source["order"]["step_count"] == 0
    assert analyses["summary"]["duration_ns"] == timed[-1] - timed[0]
    assert analyses["summary"]["packets_per_second"] == round(len(timed) * SECOND_NS / (timed[-1] - timed[0]), 3)
    assert analyses["gaps"]["total_ns"] < SECOND_NS
    alone = pcap(
        tmp_path / "alone.pcap", [(ns, frame_of(0, number)) for number, ns in enumerate(course) if ns in timed]
    )
    windows = without_frame_numbers(uspcap.analyze(alone, only=("bursts",)).document["analyses"]["bursts"])
    assert without_frame_numbers(analyses["bursts"]) == windows


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_them_is_one_line_of_the_report(tmp_path: Path, case: str) -> None:
    course = unset(case)
    path = capture(tmp_path / "unset.pcap", course)
    more = sum(ns < BEGIN_NS for ns in course) - 1
    shown = " ".join(invoke("analyze", path, "--only", "gaps").stdout.split())
    assert shown.count(f"its timestamp is 1970-01-01T00:00:00.000000000Z, as those of {more} more frames") == 1
    assert "more timestamp" not in shown and "no course of time" not in shown


@pytest.mark.parametrize("wrong", [(), (0,), (500,), (999,), tuple(range(400, 416))])
def test_times_that_count_from_zero_are_times_whatever_single_ones_say(tmp_path: Path, wrong: tuple[int, ...]) -> None:
    course = [STEP_NS * number + BEGIN_NS * (number in wrong) for number in range(FRAMES)]
    source = uspcap.analyze(capture(tmp_path / "relative.pcap", course), only=("summary",)).document["source"]
    # Of a jump at the end nobody knows whether time goes on there: it counts.
    assert source["timestamped_packets"] == FRAMES - len(wrong) + (wrong == (999,))
    assert source["order"]["unset_count"] == 0


@pytest.mark.parametrize("step_ns", [-3_600 * SECOND_NS, -450_000_000])
@pytest.mark.parametrize("jobs", [1, 2])
def test_rates_are_of_the_time_that_went_by_where_the_clock_stepped(tmp_path: Path, step_ns: int, jobs: int) -> None:
    course = [ns if number < 500 else ns + step_ns for number, ns in enumerate(times())]
    path = capture(tmp_path / "stepped.pcap", course)
    document = uspcap.analyze(path, only=("summary", "bursts"), jobs=jobs).document
    assert document["source"]["order"]["step_count"] == 1
    # All gaps but the one across the step.
    assert document["analyses"]["summary"]["duration_ns"] == STEP_NS * (FRAMES - 2)
    assert document["analyses"]["summary"]["packets_per_second"] == round(FRAMES * 1_000 / (FRAMES - 2), 3)
    assert {window["peak_to_mean"] for window in document["analyses"]["bursts"]["windows"]} == {None}
    assert "(998.0 ms without steps)" in invoke("analyze", path, "--only", "gaps").stdout
