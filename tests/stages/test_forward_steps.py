"""A clock that may have gone forward: named where an interface beside it goes on, and a gap everywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.untidy import BEGIN_NS, HOUR_NS, frame_of, pcap, pcapng

import uspcap

STEP_NS = 1_000_000
Frame = tuple[int, bytes, int]


def beside(count: int = 600, interfaces: int = 2) -> list[Frame]:
    """Frames of interfaces that take turns, a ms apart."""
    return [(BEGIN_NS + STEP_NS * at, frame_of(at % interfaces, at), at % interfaces) for at in range(count)]


def moved(frames: list[Frame], first: int, by_ns: int, interface: int | None) -> list[Frame]:
    return [
        (ns + by_ns * (at >= first and interface in (None, number)), data, number)
        for at, (ns, data, number) in enumerate(frames)
    ]


def order_of(tmp_path: Path, frames: list[Frame], **options: Any) -> dict[str, Any]:
    report = uspcap.analyze(pcapng(tmp_path / "a.pcapng", [frames]), "summary", **options)
    found: dict[str, Any] = report.document["source"]["order"]
    return found


@pytest.mark.parametrize("by_ns", [150_000_000, 5_000_000_000, HOUR_NS])
@pytest.mark.parametrize("interfaces", [2, 3])
def test_a_clock_that_runs_ahead_of_another_is_named_with_both_sides(
    tmp_path: Path, by_ns: int, interfaces: int
) -> None:
    frames = moved(beside(interfaces=interfaces), 301, by_ns, 1)
    (step,) = order_of(tmp_path, frames)["forward_steps"]
    at = next(place for place in range(301, 600) if frames[place][2] == 1)
    assert step["frame"] == at + 1
    assert step["before_frame"] == at + 1 - interfaces
    assert (step["before_ns"], step["timestamp_ns"]) == (frames[at - interfaces][0], frames[at][0])
    assert step["step_ns"] == by_ns + interfaces * STEP_NS
    assert step["interface"] == "if1"
    assert "of if0, written among those behind it, go on where time had been" in step["evidence"]


def test_it_is_said_in_text_and_changes_no_timestamp(tmp_path: Path) -> None:
    frames = moved(beside(), 301, HOUR_NS, 1)
    report = uspcap.analyze(pcapng(tmp_path / "a.pcapng", [frames]), "summary")
    assert "the clock of if1 may have stepped forward by 1 h 0 min" in " ".join(str(report).split())
    assert report["summary"]["latest_timestamp_ns"] == frames[-1][0]
    assert "1 possible steps of the clock forward" in report.document["source"]["decisions"][0]["why"]


@pytest.mark.parametrize("by_ns", [150_000_000, HOUR_NS])
def test_a_jump_of_all_interfaces_and_a_pause_of_one_are_gaps(tmp_path: Path, by_ns: int) -> None:
    assert order_of(tmp_path, moved(beside(), 301, by_ns, None))["forward_steps"] == []
    silent = [one for at, one in enumerate(beside()) if one[2] == 0 or not 201 <= at < 401]
    assert order_of(tmp_path, silent)["forward_steps"] == []


def test_what_was_written_in_blocks_or_file_by_file_is_no_step(tmp_path: Path) -> None:
    frames = beside(4000)
    blocks = [
        one for at in range(0, 4000, 800) for number in (1, 0) for one in frames[at : at + 800] if one[2] == number
    ]
    assert order_of(tmp_path, blocks)["forward_steps"] == []
    # The same with a pause in one of them.
    paused = [
        one
        for at in range(0, 4000, 800)
        for number in (1, 0)
        for one in moved(frames, 2000, 300_000_000, None)[at : at + 800]
        if one[2] == number
    ]
    assert order_of(tmp_path, paused)["forward_steps"] == []
    apart = [pcap(tmp_path / f"{way}.pcap", [one[:2] for one in frames if one[2] == way]) for way in (0, 1)]
    report = uspcap.analyze(apart, "summary")
    assert report.document["source"]["order"]["forward_steps"] == []


def test_a_single_wrong_timestamp_is_an_outlier_and_no_step(tmp_path: Path) -> None:
    frames = beside()
    frames[301] = (frames[301][0] + HOUR_NS, *frames[301][1:])
    found = order_of(tmp_path, frames)
    assert (found["outlier_count"], found["forward_steps"]) == (1, [])


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_where_batches_end_makes_no_difference(tmp_path: Path, batch: int) -> None:
    from uspcap.frames import FrameBatch, Interface
    from uspcap.stages.forward_steps import ForwardSteps

    frames = moved(beside(), 301, HOUR_NS, 1)
    watch = ForwardSteps(100_000_000)
    for start in range(0, len(frames), batch):
        part = frames[start : start + batch]
        made = FrameBatch.from_frames(
            [data for _, data, _ in part],
            [ns for ns, _, _ in part],
            interfaces=(Interface(link_type=1), Interface(link_type=1)),
            first_frame_number=start + 1,
        )
        made.storage("interface")[: len(part)] = [number for _, _, number in part]
        watch.update(made)
    watch.finish()
    assert [(step.before_frame, step.frame, step.interface, step.other) for step in watch.found] == [(300, 302, 1, 0)]
