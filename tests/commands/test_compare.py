"""`uspcap compare` as users start it."""

import csv
import json
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.capture_files import pcap_header, pcap_record
from support.command_line import assert_one_clear_line, invoke
from support.header_frames import ethernet, ipv4
from support.header_frames import udp as datagram
from support.two_captures import START_NS, Clock, Sent, tcp, udp, write_capture, write_pair

from uspcap.report.comparison_schema import load_schema

MS = 1_000_000


def sent(count: int = 200) -> list[Sent]:
    """Every 50th is lost, every 40th is duplicated, every 30th late enough to be overtaken."""
    return [
        Sent(
            number * MS,
            number.to_bytes(8, "big"),
            ()
            if number % 50 == 49
            else (1000, 1500)
            if number % 40 == 39
            else (2_500_000,)
            if number % 30 == 29
            else (1000,),
        )
        for number in range(count)
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_document_keeps_to_its_schema_and_says_what_was_done(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())
    a, b, truth = write_pair(tmp_path, sent())
    ended = invoke("compare", a, b, "--format", "json")
    assert (ended.code, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema())
    late = sum(number < max(truth.order[:at], default=0) for at, number in enumerate(truth.order))
    assert late
    assert report["frames"] == {
        "a": 200, "b": 200 - truth.only_a + truth.duplicate_b, "matched": len(truth.order), "only_a": truth.only_a,
        "only_b": 0, "ambiguous": 0, "ambiguous_a": 0, "ambiguous_b": 0, "duplicate_a": 0,
        "duplicate_b": truth.duplicate_b, "reordered": late,
    }  # fmt: skip
    assert report["loss"]["a_to_b"] == {"lost": truth.only_a, "sent": 200, "ratio": truth.only_a / 200}
    assert report["clock"]["mode"] == "same"
    assert (report["delay"]["min_ns"], report["delay"]["max_ns"]) == (1000, 2_500_000)
    assert report["delay"]["negative"] == 0
    assert sum(row["count"] for row in report["delay_over_time"]) == len(truth.order)
    assert report["worst"][0]["delay_ns"] == 2_500_000
    assert "UDP 10.0.0.1:3000 > 10.0.0.2:30001" in report["worst"][0]["decoded"]
    assert report["delay_variation"]["percentiles_ns"]["50"] == 0
    assert report["reordering"]["n_reordered"]["1"] == late


def test_document_keeps_to_its_schema_where_clocks_differ_and_where_nothing_matches(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, sent(), Clock(37_000_000_000, 20_000))
    report = json.loads(invoke("compare", a, b, "--format", "json").stdout)
    jsonschema.validate(report, load_schema())
    assert report["clock"]["mode"] == "offset"
    assert abs(report["clock"]["drift_ppb"] - 20_000) < 10
    assert any("one is on TAI and the other on UTC" in warning for warning in report["warnings"])
    write_capture(tmp_path / "c.pcap", [(START_NS, udp(b"other"))])
    report = json.loads(invoke("compare", a, tmp_path / "c.pcap", "--format", "json").stdout)
    jsonschema.validate(report, load_schema())
    assert report["frames"]["matched"] == 0
    assert report["warnings"][0].startswith("no frame of A is in B")


def warnings_of(tmp_path: Path, a: list[tuple[int, bytes]], b: list[tuple[int, bytes]]) -> tuple[Any, list[str]]:
    write_capture(tmp_path / "a.pcap", a)
    write_capture(tmp_path / "b.pcap", b)
    report = json.loads(invoke("compare", tmp_path / "a.pcap", tmp_path / "b.pcap", "--format", "json").stdout)
    return report, report["warnings"]


@pytest.mark.parametrize("unit_ns", [1_000, MS])
def test_a_clock_coarser_than_its_file_widens_the_bound_and_is_named(tmp_path: Path, unit_ns: int) -> None:
    frames = [(START_NS + 977_001 * number, udp(number.to_bytes(8, "big"))) for number in range(200)]
    coarse = [((at + 10_000) // unit_ns * unit_ns, data) for at, data in frames]
    report, warnings = warnings_of(tmp_path, frames, coarse)
    assert report["frames"]["matched"] == 200
    assert report["clock"]["bound_ns"] == unit_ns + 1
    assert [one for one in warnings if "all timestamps of B are multiples of 1 " in one]
    assert not [one for one in warnings if "all timestamps of A" in one]


def test_frames_alike_in_both_captures_are_not_called_missing(tmp_path: Path) -> None:
    beats = [(START_NS + (10 * MS + 13) * number, udp(b"heartbeat")) for number in range(100)]
    report, warnings = warnings_of(tmp_path, beats, [(at + 1_000, data) for at, data in beats])
    assert report["frames"]["ambiguous"] == 200
    assert len(warnings) == 1
    assert "200 frames repeat within the window, not equally often on both sides or at least 16 times" in warnings[0]


def test_two_segments_merged_into_one_are_named(tmp_path: Path) -> None:
    merged = [(START_NS + MS * number, tcp(bytes([number]) * 2920, 1 + 2920 * number)) for number in range(20)]
    apart = [
        (at + 1_000 * half, tcp(bytes([number]) * 1460, 1 + 2920 * number + 1460 * half))
        for number, (at, _) in enumerate(merged)
        for half in (0, 1)
    ]
    _, warnings = warnings_of(tmp_path, merged, apart)
    assert [
        one for one in warnings if "A has TCP payloads of up to 2,920 bytes and the other side none over 1,460" in one
    ]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_text_begins_with_the_verdict_and_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.chdir(tmp_path)
    a, b, truth = write_pair(tmp_path, sent())
    ended = invoke("compare", a.name, b.name)
    assert ended.code == 0
    fate = "2.0 % of A's frames are not in B; at the median, B is 1.000 µs later."
    assert ended.lines[0] == f"{len(truth.order)} frames matched, {fate}"
    # The first line and decoded frames are as long as they are.
    tables = ended.stdout.split("Largest delays")[0].splitlines()[1:]
    assert [line for line in tables if len(line) > int(columns)] == []
    assert "Order (RFC 4737)" in ended.stdout


def test_tables_have_every_pair_and_every_miss(tmp_path: Path) -> None:
    a, b, truth = write_pair(tmp_path, sent())
    names = ("pairs.csv", "a.csv", "b.csv")
    pairs, only_a, only_b = (tmp_path / name for name in names)
    ended = invoke("compare", a, b, "--table", pairs, "--only-a", only_a, "--only-b", only_b)
    assert ended.code == 0
    rows = rows_of(pairs)
    assert {int(row["b_frame"]): int(row["delay_ns"]) for row in rows} == truth.delays_ns
    assert all(int(row["b_timestamp_ns"]) - int(row["a_timestamp_ns"]) == int(row["delay_ns"]) for row in rows)
    assert [row["kind"] for row in rows_of(only_a)] == ["only"] * truth.only_a
    assert [row["kind"] for row in rows_of(only_b)] == ["duplicate"] * truth.duplicate_b
    assert [int(row["frame"]) for row in rows_of(only_a)] == [50, 100, 150, 200]


def test_negative_delays_are_shown_and_warned_of(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, sent(), Clock(-5000))
    ended = invoke("compare", a, b)
    assert "delays are negative" in ended.stdout
    assert "delays below 0, down to -4.000 µs" in ended.stdout
    assert "B is mostly earlier than A, by 4.0" in ended.lines[0]


def test_traffic_of_both_ways_has_no_one_median(tmp_path: Path) -> None:
    both_ways = [
        Sent(one.time_ns, one.payload, (1000 + number,) if number % 4 else (-7000,))
        for number, one in enumerate(sent())
    ]
    a, b, _ = write_pair(tmp_path, both_ways)
    ended = invoke("compare", a, b)
    shown = " ".join(ended.stdout.split())
    assert "B is later in 75.0 % of the matches, by 1.0" in shown
    assert "µs at the median, and earlier in the others, by 7.0" in shown
    assert "25.0 % of the delays are negative" in shown
    assert "traffic goes both ways" in shown


def test_loss_behind_a_clock_step_is_qualified(tmp_path: Path) -> None:
    frames = [(START_NS + number * MS, udp(number.to_bytes(8, "big"))) for number in range(200)]
    stepped = [(time_ns + 1000 - (number >= 100) * 3 * 10**9, data) for number, (time_ns, data) in enumerate(frames)]
    a, b = tmp_path / "a.pcap", tmp_path / "b.pcap"
    write_capture(a, frames)
    write_capture(b, stepped)
    shown = " ".join(invoke("compare", a, b).stdout.split())
    assert "the clock of B stepped (1 step): behind a step, frames match only where" in shown


def test_steady_rise_of_the_smallest_delays_is_warned_of(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, sent(), Clock(0, 50_000.0))
    warned = "the smallest delays rise steadily"
    assert warned in invoke("compare", a, b).stdout
    assert warned not in invoke("compare", a, b, "--clock", "offset").stdout


def test_merged_segments_are_flagged(tmp_path: Path) -> None:
    segments = [(START_NS + number, tcp(bytes([number]) * 1448, 1448 * number)) for number in range(4)]
    merged = b"".join(bytes([number]) * 1448 for number in range(4))
    write_capture(tmp_path / "wire.pcap", segments)
    write_capture(tmp_path / "host.pcap", [(START_NS + 9, tcp(merged, 0))])
    ended = invoke("compare", tmp_path / "wire.pcap", tmp_path / "host.pcap")
    assert "B has TCP payloads of up to 5,792 bytes" in " ".join(ended.stdout.split())
    assert "segments were merged there" in " ".join(ended.stdout.split())


def test_damaged_capture_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, sent())
    b.write_bytes(b.read_bytes()[:-10])
    ended = invoke("compare", a, b, "--format", "json")
    assert ended.code == 1
    report = json.loads(ended.stdout)
    assert report["problems"][0]["file"] == str(b)
    assert report["frames"]["matched"] > 190
    assert_one_clear_line(ended, 1, "b.pcap", "byte", "the file ends")


def test_wrong_use_is_one_clear_line(tmp_path: Path) -> None:
    a, b, _ = write_pair(tmp_path, sent(5))
    assert_one_clear_line(invoke("compare", a, tmp_path / "none.pcap"), 1, "none.pcap")
    assert_one_clear_line(invoke("compare", "-", "-"), 2, "standard input")
    assert_one_clear_line(invoke("compare", a, b, "--window", "0s"), 2, "window")
    assert_one_clear_line(invoke("compare", a, b, "-f", "no such filter"), 2, "no such filter")
    assert_one_clear_line(invoke("compare", a, b, "--table", tmp_path), 2, "--table")
    assert_one_clear_line(invoke("compare", a, b, "--offset", "37"), 2, "--offset")


def test_a_mirrored_capture_is_compared_with_a_plain_one(tmp_path: Path) -> None:
    packets = [ethernet(0x0800, ipv4(17, datagram(number.to_bytes(8, "big"), 1, 26400))) for number in range(50)]
    mirrored = [
        ethernet(0x0800, ipv4(47, struct.pack("!HHIHHI", 0x1000, 0x88BE, 1, 0x1000, 5, 0) + packet, "10.9.9.9"))
        for packet in packets
    ]
    paths = [tmp_path / "a.pcap", tmp_path / "b.pcap"]
    for path, frames, late in zip(paths, (packets, mirrored), (0, 7), strict=True):
        records = [pcap_record(1, 1000 * number + late, frame) for number, frame in enumerate(frames)]
        path.write_bytes(pcap_header() + b"".join(records))

    def compared(*options: str) -> dict[str, Any]:
        ended = invoke("compare", *paths, "--format", "json", *options)
        assert ended.code == 0
        report: dict[str, Any] = json.loads(ended.stdout)
        jsonschema.validate(report, load_schema())
        return report

    report = compared("-f", "udp port 26400")
    assert (report["frames"]["matched"], report["delay"]["min_ns"], report["delay"]["max_ns"]) == (50, 7000, 7000)
    assert report["filter_reading"]["reading"] == "inner"
    assert not report["a"]["decisions"]
    assert report["b"]["decisions"][0]["why"].endswith("50 of 50 frames checked are in ERSPAN")
    assert "erspan UDP" in report["worst"][0]["decoded"]
    assert compared("--no-tunnels")["frames"]["matched"] == 0
    outer = compared("--outer", "-f", "udp port 26400")
    assert (outer["filter_reading"]["reading"], outer["frames"]["b"]) == ("outer", 0)
    assert "leave out --outer" in outer["b"]["notes"][-1]
