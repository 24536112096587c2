"""Timestamps in frames, taken alike by every command that reads frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.capture_files import pcap_header, pcap_record
from support.command_line import invoke
from support.trailer_frames import FILE_NS, plain, timestamped

from uspcap.formats.pcap import NANOSECOND_MAGIC

DELAY_NS = 5_000


def capture(path: Path, *, file_delay_ns: int = 0, trailer_delay_ns: int = 0) -> Path:
    """Write 500 frames with timestamps in them 3 us before the file's."""
    records = []
    for at in range(500):
        ns = FILE_NS + at * 20_000
        case = timestamped("metamako", plain(1 + at % 90, fill=at % 251), ns - 3_000 + trailer_delay_ns)
        records.append(
            pcap_record(*divmod(ns + file_delay_ns + at % 7 * 1_000, 10**9), case.captured, case.wire_length)
        )
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))
    return path


def document(*words: str | Path) -> dict[str, Any]:
    ended = invoke(*words, "--format", "json")
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("how", ["trailer", "trailer:metamako"])
def test_compare_takes_the_timestamps_that_taps_put_into_both_captures(tmp_path: Path, how: str) -> None:
    a = capture(tmp_path / "a.pcap")
    b = capture(tmp_path / "b.pcap", file_delay_ns=1_000_000, trailer_delay_ns=DELAY_NS)
    by_file = document("compare", a, b, "--key", "payload")
    by_trailer = document("compare", a, b, "--key", "payload", "--timestamps", how)
    assert by_file["a"]["timestamp_sources"] == ["FILE"]
    assert by_trailer["a"]["timestamp_sources"] == by_trailer["b"]["timestamp_sources"] == ["TRAILER"]
    assert by_trailer["frames"]["matched"] == 500
    assert by_trailer["delay"]["min_ns"] == by_trailer["delay"]["max_ns"] == DELAY_NS


def test_compare_says_where_frames_agree_on_no_format(tmp_path: Path) -> None:
    a = capture(tmp_path / "a.pcap")
    sample = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"
    ended = invoke("compare", a, sample, "--timestamps", "trailer")
    assert ended.code == 1
    assert f"{sample}: the first 593 frames do not agree on one format" in ended.stderr


@pytest.mark.parametrize("how", ["trailer", "trailer:metamako"])
def test_a_replay_analyses_them_and_writes_the_frames_as_they_are(tmp_path: Path, how: str) -> None:
    path, copy = capture(tmp_path / "a.pcap"), tmp_path / "copy.pcap"
    words = ("capture", "-r", path, "--speed", "0", "--analyze", "trailer,overhead", "--timestamps", how)
    replayed = document(*words, "-w", copy)
    analysed = document("analyze", path, "--only", "trailer,overhead", "--timestamps", how)
    assert replayed["analyses"] == analysed["analyses"]
    assert replayed["source"]["timestamp_sources"] == {"TRAILER": 500}
    assert document("analyze", copy, "--only", "overhead") == {
        **document("analyze", path, "--only", "overhead"),
        "source": document("analyze", copy, "--only", "overhead")["source"],
    }
    assert copy.read_bytes()[24:] == path.read_bytes()[24:]


def test_a_format_that_no_file_can_say_is_to_be_named() -> None:
    ended = invoke("capture", "-i", "lo", "--timestamps", "trailer", "--analyze", "trailer")
    assert ended.code == 2
    assert "name the format, as in --timestamps trailer:metamako" in ended.stderr


def test_who_timestamps_must_be_one_of_those_there_are() -> None:
    ended = invoke("capture", "-i", "lo", "--timestamps", "nobody")
    assert ended.code == 2
    assert "write auto, hardware, hardware:ptp, xdp, kernel, user, trailer or trailer:FORMAT, of" in ended.stderr
