"""Which frames of files are read: the same options, meaning the same, in every command that reads some."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.capture_files import interface, option, packet, pcap_header, section
from support.command_line import assert_one_clear_line, invoke, pcap_of, start
from support.shared_cases import CASES, needs_cases
from support.streams import START_NS, Frame
from support.two_captures import Sent, udp, write_capture, write_pair

import uspcap
from uspcap.report.comparison_schema import load_schema as comparison_schema
from uspcap.report.schema import load_schema

MS = 1_000_000
SECOND = 10**9
FRAMES = [Frame(START_NS + number * SECOND, 60 + number % 900, 1 + number % 3) for number in range(600)]
"""One a second from 22:13:20 on."""


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "made.pcap"
    path.write_bytes(pcap_of(FRAMES))
    return path


def numbers(stdout: str) -> list[int]:
    return [int(line.split(" ", 1)[0]) for line in stdout.splitlines()]


def analyzed(*arguments: Any) -> dict[str, Any]:
    ended = invoke("analyze", *arguments, "--format", "json")
    report: dict[str, Any] = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema())
    return report


RANGES = [
    (("--from", "+5m"), range(301, 601)),
    (("--from", "-10s"), range(590, 601)),
    (("--to", "+3s"), range(1, 4)),
    (("--from", "22:15", "--to", "22:16"), range(101, 161)),
    (("--from", "2023-11-14T17:15:00-05:00", "--to", "2023-11-14T22:16"), range(101, 161)),
    (("--from", "17:15", "--to", "17:16", "--tz", "-05:00"), range(101, 161)),
    (("--from", "17:15", "--to", "+200s", "--tz", "America/New_York"), range(101, 201)),
]


@pytest.mark.parametrize(("words", "expected"), RANGES)
def test_every_command_reads_the_same_range(
    capture: Path, tmp_path: Path, words: tuple[str, ...], expected: range
) -> None:
    dumped = invoke("dump", capture, *words)
    assert numbers(dumped.stdout) == list(expected)
    report = analyzed(capture, *words)
    assert report["source"]["packets"] == len(expected)
    assert report["source"]["packets_read"] == 600
    assert report["source"]["first_timestamp_ns"] == FRAMES[expected[0] - 1].timestamp_ns
    replayed = invoke("capture", "-r", capture, "--speed", "0", "-w", tmp_path / "out.pcap", *words)
    assert replayed.code == 0, replayed
    assert len(invoke("dump", tmp_path / "out.pcap").stdout.splitlines()) == len(expected)
    compared = json.loads(invoke("compare", capture, capture, "--format", "json", *words).stdout)
    jsonschema.validate(compared, comparison_schema())
    assert compared["frames"]["matched"] + compared["frames"]["ambiguous_a"] == len(expected)


@pytest.mark.parametrize("command", ["analyze", "dump"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "half past"), "is not a time"),
        (("--from", "+5"), "is not a duration"),
        (("--from", "+5m", "--to", "+4m"), "ends before it begins"),
        (("--tz", "Mars"), "there is no time zone"),
    ],
)
def test_what_is_no_range_is_refused(capture: Path, command: str, words: tuple[str, ...], said: str) -> None:
    assert_one_clear_line(invoke(command, capture, *words), 2, said)


def test_live_commands_refuse_what_is_about_files() -> None:
    assert_one_clear_line(invoke("capture", "-i", "lo", "--from", "+1s"), 2, "about capture files")
    assert_one_clear_line(invoke("compare", "-i", "lo", "--from", "+1s"), 2, "captures")


def test_text_shows_times_in_the_zone_that_was_named(capture: Path) -> None:
    line = invoke("dump", capture, "-c", "1", "--tz", "America/New_York").stdout
    assert line.startswith("1 2023-11-14T17:13:20.000000000-05:00 ")
    assert "2023-11-14T17:13:20.000000000-05:00" in invoke("analyze", capture, "--tz", "-05:00").stdout
    assert invoke("dump", capture, "-c", "1").stdout.startswith("1 2023-11-14T22:13:20.000000000Z ")


def test_standard_input_has_ranges_that_need_no_end(capture: Path) -> None:
    content = capture.read_bytes()
    ended = start("dump", "-", "--from", "2023-11-14T22:23:18", stdin=content)
    assert numbers(ended.stdout) == [599, 600]
    refused = start("dump", "-", "--from", "-1m", stdin=content)
    assert_one_clear_line(refused, 2, "read only once")


@pytest.mark.parametrize("words", [(), ("--from", "+1m", "--to", "-1m")])
def test_jobs_and_files_find_the_same_of_a_range(capture: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    whole = analyzed(capture, *words, "-j", "1")
    (tmp_path / "parts").mkdir()
    for part in range(4):
        path = tmp_path / "parts" / f"{part}.pcap"
        path.write_bytes(pcap_of(FRAMES[150 * part : 150 * part + 150]))
    for inputs in ("parts", "parts/*.pcap"):
        for jobs in ("1", "3"):
            some = analyzed(tmp_path / inputs, *words, "-j", jobs)
            assert some["analyses"] == whole["analyses"]
            assert len(some["source"]["files"]) == 4


def test_python_reads_the_same(capture: Path) -> None:
    report = uspcap.analyze(capture, start="22:15", end="+200s")
    assert report["summary"]["packets"] == 100
    batches = list(uspcap.open(capture, start="17:15", end="+200s", timezone="-05:00").batches())
    assert sum(len(batch) for batch in batches) == 100
    assert uspcap.open(capture, start="-10s").analyze()["summary"]["packets"] == 11
    compared = uspcap.compare(capture, [capture], start="+1m", end="+2m")
    assert compared.document["frames"]["a"] == 60


# Interfaces


def tap(path: Path, count: int = 200, *, lost: int | None = 77) -> Path:
    """Write what one tap saw on two ports of a switch: eth1 has all but one frame, 7.0 to 7.5 us later."""
    blocks = []
    for number in range(count):
        ns, data = START_NS + number * MS, udp(number.to_bytes(8, "big"))
        blocks.append((ns, packet(ns, data, 0)))
        if number != lost:
            blocks.append((ns + 7_000 + number % 6 * 100, packet(ns + 7_000 + number % 6 * 100, data, 1)))
    described = [
        interface(options=option(2, name) + option(9, b"\x09") + option(0, b"")) for name in (b"eth0", b"eth1")
    ]
    path.write_bytes(section() + b"".join(described) + b"".join(block for _, block in sorted(blocks)))
    return path


def compared(*arguments: Any) -> dict[str, Any]:
    ended = invoke("compare", *arguments, "--format", "json")
    report: dict[str, Any] = json.loads(ended.stdout)
    jsonschema.validate(report, comparison_schema())
    return report


def test_two_interfaces_of_one_file_compared_give_residence_times(tmp_path: Path) -> None:
    path = tap(tmp_path / "tap.pcapng")
    report = compared(f"{path}@eth0", f"{path}@eth1")
    assert report["frames"] | {"matched": 199, "only_a": 1, "only_b": 0} == report["frames"]
    assert (report["delay"]["min_ns"], report["delay"]["max_ns"]) == (7_000, 7_500)
    assert report["loss"]["a_to_b"] == {"lost": 1, "sent": 200, "ratio": 1 / 200}
    assert report["a"]["interfaces"] == ["eth0"]
    assert report["worst"][0]["decoded"] is not None


@needs_cases
def test_the_case_of_residence_times() -> None:
    path = CASES / "files" / "c3_residence.pcapng"
    report = compared(f"{path}@0", f"{path}@1")
    assert report["frames"] | {"matched": 199, "only_a": 1} == report["frames"]
    assert 7_000 <= report["delay"]["min_ns"] <= report["delay"]["max_ns"] <= 7_500


@pytest.mark.parametrize("words", [("@eth1",), ("", "--interface", "eth1"), ("", "--interface", "1"), ("@1",)])
def test_interfaces_are_named_alike_in_analyze_and_dump(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tap(tmp_path / "tap.pcapng")
    named, *options = words
    assert analyzed(f"{path}{named}", *options)["source"]["packets"] == 199
    lines = invoke("dump", f"{path}{named}", *options).stdout.splitlines()
    assert len(lines) == 199
    assert all(" eth1 " in line for line in lines)


def test_several_interfaces_are_named_by_repeating_the_option(tmp_path: Path) -> None:
    path = tap(tmp_path / "tap.pcapng")
    assert analyzed(path, "--interface", "eth0", "--interface", "eth1")["source"]["packets"] == 399


@pytest.mark.parametrize("command", ["analyze", "dump", "compare"])
def test_an_interface_that_there_is_not_is_named_with_those_there_are(tmp_path: Path, command: str) -> None:
    path = tap(tmp_path / "tap.pcapng")
    ended = invoke(command, f"{path}@eth9", *([path] if command == "compare" else []))
    assert ended.code == 1
    assert "no interface eth9; there are 0 (eth0), 1 (eth1)" in ended.stderr


# Sides of a comparison


def test_a_side_is_a_file_a_directory_a_glob_or_several_files(tmp_path: Path) -> None:
    a, b, truth = write_pair(tmp_path, [Sent(number * MS, number.to_bytes(8, "big")) for number in range(90)])
    whole = compared(a, b)
    (tmp_path / "ring").mkdir()
    times = [(START_NS + number * MS, udp(number.to_bytes(8, "big"))) for number in range(90)]
    for part, name in enumerate(("z", "y", "x")):  # not in the order of their names
        write_capture(tmp_path / "ring" / f"{name}.pcap", times[30 * part : 30 * part + 30])
    parts = [tmp_path / "ring" / f"{name}.pcap" for name in "xyz"]
    for sides in (
        [tmp_path / "ring", b],
        [f"{tmp_path}/ring/*.pcap", b],
        ["--a", parts[0], "--a", parts[1], "--a", parts[2], "--b", b],
    ):
        report = compared(*sides)
        assert report["frames"] == whole["frames"]
        assert report["delay"] == whole["delay"]
        assert len(report["a"]["files"]) == 3
    assert truth.only_a == 0


def test_more_than_two_captures_are_refused_with_what_to_do(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, [Sent(0, b"x")])
    assert_one_clear_line(invoke("compare", a, b, b), 2, "3 captures", "quoted glob", "--a FILE")
    assert_one_clear_line(invoke("compare", a), 2, "name two captures")
    assert_one_clear_line(invoke("compare", "--a", a), 2, "name two captures")
    assert_one_clear_line(invoke("compare", "--a", a, "--b", b, b), 2, "given more than once")


def test_frames_that_cross_the_ends_of_a_range_are_not_lost(tmp_path: Path) -> None:
    a, b, _ = write_pair(
        tmp_path, [Sent(number * MS, number.to_bytes(8, "big"), (2_500_000,)) for number in range(100)]
    )
    report = compared(a, b, "--from", "+10ms", "--to", "+20ms")
    assert report["frames"] | {"a": 10, "b": 10, "matched": 10, "only_a": 0, "only_b": 0} == report["frames"]


def test_clocks_that_differ_are_to_be_named_with_a_range(tmp_path: Path) -> None:
    from support.two_captures import Clock

    sent = [Sent(number * MS, number.to_bytes(8, "big")) for number in range(3000)]
    a, b, _ = write_pair(tmp_path, sent, Clock(offset_ns=1_000 * MS))
    words = (a, b, "--from", "+100ms", "--to", "+2900ms")
    assert_one_clear_line(invoke("compare", *words), 2, "clocks differ", "--offset")
    report = compared(*words, "--offset", "1s", "--clock", "offset")
    assert report["frames"] | {"a": 2800, "b": 2800, "matched": 2800} == report["frames"]


# Compression


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress])
def test_bzip2_is_read_like_the_others(capture: Path, tmp_path: Path, compress: Any) -> None:
    packed = tmp_path / "made.pcap.bz2"
    packed.write_bytes(compress(capture.read_bytes()))
    assert analyzed(packed)["analyses"] == analyzed(capture)["analyses"]


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("editcap") is None, reason="no editcap to compare with: install wireshark-common")
def test_a_range_is_what_editcap_cuts_out(capture: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    subprocess.run(
        ["editcap", "-F", "nsecpcap", "-A", "2023-11-14T22:15:00Z", "-B", "2023-11-14T22:16:00Z", capture, cut],
        check=True,
    )
    ours = invoke("dump", capture, "--from", "22:15", "--to", "22:16").stdout.splitlines()
    theirs = invoke("dump", cut).stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in ours] == [line.split(" ", 1)[1] for line in theirs]


def test_an_empty_capture_has_no_range(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcap"
    path.write_bytes(pcap_header())
    assert_one_clear_line(invoke("analyze", path, "--from", "+1s"), 2, "no frame has a timestamp")
    assert analyzed(path, "--from", "2024-03-05")["source"]["packets"] == 0
