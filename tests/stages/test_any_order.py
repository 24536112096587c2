"""Shuffle a capture within the window, split it over files in any way, name them in any order: nothing changes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.any_traffic import Asked, Sent, ways_to_ask
from support.capture_files import pcap_header, pcap_record
from support.untidy import without_frame_numbers

import uspcap
from uspcap.analysis import registry
from uspcap.errors import UsageError
from uspcap.stages.order import WINDOW_NS

pytestmark = pytest.mark.thorough

WAYS = ways_to_ask()


def written(path: Path, frames: list[Sent]) -> str:
    """Write a pcap file with nanoseconds; return its path."""
    path.write_bytes(
        pcap_header(magic=0xA1B23C4D)
        + b"".join(pcap_record(*divmod(one.ns, 10**9), one.data, one.wire_length) for one in frames)
    )
    return str(path)


@st.composite
def untidy(draw: st.DrawFn, frames: list[Sent]) -> list[list[Sent]]:
    """The frames in files, each shuffled within the window."""
    made = random.Random(draw(st.integers(0, 1 << 32)))
    count = draw(st.integers(1, 4))
    files: list[list[Sent]] = [[] for _ in range(count)]
    how = draw(st.sampled_from(["line", "direction", "time", "random"]))
    for number, one in enumerate(frames):
        part = {
            "line": one.line,
            "direction": int(one.back),
            "time": number * count // len(frames),
            "random": made.randrange(count),
        }[how]
        files[part % count].append(one)
    lag_ns = draw(st.sampled_from([0, 0, 1, 100_000, WINDOW_NS // 2, WINDOW_NS]))
    files = [sorted(part, key=lambda one: one.ns + made.randint(0, lag_ns)) for part in files]
    made.shuffle(files)
    return files


def outcome(paths: list[str], files: list[list[Sent]], asked: Asked, **options: Any) -> Any:
    """Return what is found, with frames named by their timestamps, or that no protocol can be detected."""
    try:
        report = uspcap.analyze(paths, asked.only, **asked.options, **options)
    except UsageError as error:
        assert "no known protocol explains half of the first" in str(error)
        return None
    by_path = dict(zip(paths, files, strict=True))
    source = report.document["source"]
    times = [0]
    for path, first in zip(source["files"], source["first_frames"], strict=True):
        assert first == len(times)
        times += [one.ns for one in by_path[path]]

    def named(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: named(each, key) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [named(each, name) for each in value]
        is_frame = name.endswith("frame") and type(value) is int
        return times[value] if is_frame else value

    return named({**report.document["analyses"], "tables": report.tables})


def differences(found: Any, whole: Any, place: str = "") -> list[str]:
    """Return where two results differ."""
    if isinstance(found, dict) and isinstance(whole, dict):
        return [
            one
            for key in sorted({*found, *whole})
            for one in differences(found.get(key), whole.get(key), f"{place}.{key}")
        ]
    if isinstance(found, list) and isinstance(whole, list) and len(found) == len(whole):
        return [
            one
            for at, (mine, other) in enumerate(zip(found, whole, strict=True))
            for one in differences(mine, other, f"{place}[{at}]")
        ]
    return [] if found == whole else [f"{place}: {found!r} and not {whole!r}"]


def test_it_is_asked_of_every_analysis_that_files_may_be_asked() -> None:
    assert {way.split()[0] for way in WAYS} == set(registry.names(live=False))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_capture_shuffled_and_split_in_any_way_is_the_sorted_one(
    tmp_path: Path, way: str, data: st.DataObject
) -> None:
    asked = data.draw(WAYS[way])
    files = data.draw(untidy(asked.frames))
    whole = outcome([written(tmp_path / "whole.pcap", asked.frames)], [asked.frames], asked)
    names = data.draw(st.permutations([f"{at}.pcap" for at in range(len(files))]))
    paths = [written(tmp_path / name, part) for name, part in zip(names, files, strict=True)]
    found = outcome(paths, files, asked, jobs=data.draw(st.sampled_from([1, 3])))
    assert not differences(found, whole)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_frames_of_one_time_come_in_one_order_however_files_are_named(tmp_path: Path, data: st.DataObject) -> None:
    asked = data.draw(WAYS["tcp"])
    coarse = [replace(one, ns=one.ns // 1_000_000 * 1_000_000) for one in asked.frames]
    files = data.draw(untidy(coarse))
    found = []
    for names in (("a", "b", "c", "d"), data.draw(st.permutations(["a", "b", "c", "d"]))):
        paths = [written(tmp_path / name, part) for name, part in zip(names, files, strict=False)]
        report = uspcap.analyze(paths, ("tcp", "inter_arrival", "timestamps", "patterns"))
        found.append(report.document["analyses"])
    assert not differences(without_frame_numbers(found[1]), without_frame_numbers(found[0]))
