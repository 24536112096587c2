"""What became of timestamps in frames: the law, cut files on several threads, filters, counts, and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record
from support.command_line import NANOSECOND_MAGIC, assert_one_clear_line, invoke, start
from support.shared_captures import CAPTURES, needs_captures
from support.trailer_frames import FILE_NS, metamako, plain, timestamped, with_arista

from uspcap.analysis.suite import Settings, analyze_files
from uspcap.analysis.trailer.analysis import Trailer
from uspcap.formats import parts
from uspcap.frames import FrameBatch
from uspcap.report.document import build_report, source_of
from uspcap.report.schema import load_schema
from uspcap.timestamps.trailer_decoding import MAXIMUM_PORTS, TrailerFormat
from uspcap.timestamps.trailers import FORMATS, TrailerChoice, TrailerStage

Made = tuple[bytes, int]
"""A frame and the file's timestamp."""

REAL = "timestamp-trailers/rust_metamako_exercise__metamako_trailer_rec1-60.pcap"
METAMAKO = TrailerChoice(TrailerFormat.METAMAKO)


@st.composite
def streams(draw: st.DrawFn) -> list[Made]:
    """Frames with timestamps of few ports, before and after the file's, and frames without."""
    frames = []
    for at in range(draw(st.integers(0, 40))):
        file_ns = FILE_NS + at * 1_000
        trailer = draw(
            st.one_of(
                st.just(b""),
                st.builds(
                    metamako,
                    st.integers(file_ns - 10**12, file_ns + 10**6),
                    device=st.integers(0, 9),
                    port=st.integers(0, 5),
                    flags=st.sampled_from([0, 1, 5, 17]),
                ),
            )
        )
        frames.append((plain(draw(st.integers(0, 60))) + trailer, file_ns))
    return frames


def feed(frames: Sequence[Made], analysis: Trailer, size: int = 4096) -> Trailer:
    stage = TrailerStage(TrailerFormat.METAMAKO)
    for start_at in range(0, len(frames), size):
        some = frames[start_at : start_at + size]
        batch = FrameBatch.from_frames(
            [one[0] for one in some], [one[1] for one in some], first_frame_number=start_at + 1
        )
        stage.apply(batch)
        analysis.update(batch)
    return analysis


def outcome(analysis: Trailer) -> Any:
    return analysis.result().as_dict(), analysis.tables(), analysis.frames_read


@pytest.mark.parametrize("most", [3, MAXIMUM_PORTS])
@settings(deadline=None, max_examples=120)
@given(frames=streams(), cuts=st.lists(st.integers(0, 40), max_size=3), size=st.sampled_from([1, 7, 4096]))
def test_cutting_and_merging_changes_nothing(most: int, frames: list[Made], cuts: list[int], size: int) -> None:
    def new() -> Trailer:
        return Trailer(METAMAKO, maximum_ports=most)

    whole = feed(frames, new())
    edges = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    merged = new()
    for start_at, end in pairwise(edges):
        part = feed(frames[start_at:end], new(), size)
        merged.merge(part)
    assert outcome(merged) == outcome(whole)
    later = new()
    for start_at, end in reversed(list(pairwise(edges))):
        earlier = feed(frames[start_at:end], new(), size)
        earlier.merge(later)
        later = earlier
    assert outcome(later) == outcome(whole)


def test_counts_are_those_of_the_frames() -> None:
    frames = [
        (plain() + metamako(FILE_NS - 500, device=1, port=2, flags=0x15), FILE_NS),
        (plain() + metamako(FILE_NS - 700, device=1, port=2), FILE_NS),
        (plain() + metamako(FILE_NS + 30, device=1, port=3), FILE_NS),
        (plain(), FILE_NS),
    ]
    result = feed(frames, Trailer(METAMAKO)).result().as_dict()
    assert result["frames"] | {"found": 3, "implausible": 0, "absent": 1} == result["frames"]
    difference = result["difference"]
    assert (difference["count"], difference["min_ns"], difference["max_ns"], difference["mean_ns"]) == (
        2,
        500,
        700,
        600,
    )
    assert (difference["negative"], difference["most_negative_ns"]) == (1, -30)
    assert (result["degraded"], result["duplicates"], result["bad_fcs"]) == (1, 1, 0)
    assert [(row["device"], row["port"], row["frames"], row["negative"]) for row in result["ports"]] == [
        ("1", 2, 2, 0),
        ("1", 3, 1, 1),
    ]
    assert [row["lowest_difference_ns"] for row in result["ports"]] == [500, -30]


def test_more_ports_than_the_bound_are_sampled_and_those_followed_are_exact() -> None:
    frames = [
        (plain() + metamako(FILE_NS, device=at % 700, port=at % 7), FILE_NS) for at in range(4_000)
    ]  # 700 devices of one port each
    result = feed(frames, Trailer(METAMAKO, maximum_ports=100)).result().as_dict()
    assert result["ports_sampled_one_in"] in (8, 16)
    assert 20 < len(result["ports"]) <= 100
    everything = feed(frames, Trailer(METAMAKO)).result().as_dict()
    assert everything["ports_sampled_one_in"] == 1
    assert len(everything["ports"]) == 700
    assert all(row in everything["ports"] for row in result["ports"])


def test_a_clock_that_is_37_s_ahead_is_reported() -> None:
    frames = [(plain() + metamako(FILE_NS - 37 * 10**9 + at), FILE_NS) for at in range(20)]
    warnings = feed(frames, Trailer(METAMAKO)).result().as_dict()["warnings"]
    assert any("not on UTC" in warning for warning in warnings)
    ahead = [(plain() + metamako(FILE_NS + 37 * 10**9 + at), FILE_NS) for at in range(20)]
    assert any("not on UTC" in warning for warning in feed(ahead, Trailer(METAMAKO)).result().as_dict()["warnings"])


def capture(path: Path, kind: str, count: int, *, every: int = 1) -> Path:
    """A pcap file each `every`-th frame of which has a timestamp 3 us before the file's."""
    records = []
    for at in range(count):
        ns = FILE_NS + at * 20_000
        frame = plain(at % 90)
        captured, wire = frame, len(frame)
        if at % every == 0:
            case = timestamped(kind, frame, ns - 3_000, fcs=at % 2 == 0)
            captured, wire = case.captured, case.wire_length
        records.append(pcap_record(*divmod(ns, 10**9), captured, wire))
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))
    return path


def report_of(paths: Sequence[Path], jobs: int, choice: TrailerChoice, **options: Any) -> dict[str, Any]:
    names = ("summary", "timestamps", "inter_arrival", "gaps", "bursts", "overhead", "trailer")
    outcome = analyze_files([str(path) for path in paths], Settings(names=names, trailer=choice, **options), jobs=jobs)
    return build_report(source_of(outcome), outcome.suite.analyses).as_dict()


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)
    path = capture(tmp_path / "a.pcap", kind, 2_000, every=3)
    choice = TrailerChoice(FORMATS[kind])
    alone = report_of([path], 1, choice)
    assert alone["analyses"]["trailer"]["frames"]["found"] == 667
    assert alone["analyses"]["trailer"]["difference"]["max_ns"] == 3_000
    assert alone["source"]["timestamp_sources"] == {"TRAILER": 667, "FILE": 1333}
    jsonschema.Draft202012Validator(load_schema()).validate(alone)
    for jobs in (2, 5):
        assert report_of([path], jobs, choice) == alone


def test_the_format_is_detected_from_the_file_whose_frames_agree_and_counts_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)
    paths = [capture(tmp_path / "a.pcap", "metamako", 1_500), capture(tmp_path / "b.pcap", "metamako", 800, every=4)]
    alone = report_of(paths, 1, TrailerChoice(None))
    trailer = alone["analyses"]["trailer"]
    assert trailer["format"] == "metamako"
    assert trailer["detection"]["frames_looked_at"] == 1000
    assert trailer["frames"]["found"] == 1_700
    assert report_of(paths, 4, TrailerChoice(None)) == alone
    assert report_of(paths[::-1], 1, TrailerChoice(None))["analyses"]["trailer"]["detection"] == trailer["detection"]
    assert report_of(paths[:1], 4, TrailerChoice(None)) == report_of(paths[:1], 1, TrailerChoice(None))


def test_flows_of_two_clocks_are_kept_apart(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", "metamako", 60, every=2)
    flows = report_of([path], 1, METAMAKO)["analyses"]["inter_arrival"]["flows"]["by_count"]
    assert [flow["frames"] for flow in flows] == [30, 30]


def test_what_was_behind_the_payload_is_no_trailer_in_the_overhead(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", "metamako", 180)
    total = report_of([path], 1, METAMAKO)["analyses"]["overhead"]["total"]
    padding = sum(max(60 - 42 - at % 90, 0) for at in range(180))
    assert total["trailer_bytes"] == padding
    assert total["payload_bytes"] == sum(at % 90 for at in range(180))


def test_filters_see_frames_without_a_header_and_only_what_they_keep_counts(tmp_path: Path) -> None:
    pytest.importorskip("cypcap", reason="filters need libpcap")
    path = tmp_path / "a.pcap"
    records = []
    for at in range(50):
        frame = with_arista(plain(at), FILE_NS // 10**9, 5, 0x0110)
        records.append(pcap_record(*divmod(FILE_NS, 10**9), frame))
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))
    choice = TrailerChoice(TrailerFormat.ARISTA)
    for expression, kept in (("udp port 5000", 50), ("udp port 9", 0), ("greater 70", 22)):
        report = report_of([path], 2, choice, expression=expression)
        assert report["source"]["packets"] == kept
        assert report["analyses"]["trailer"]["frames"]["found"] == kept


def test_a_capture_without_trailers_is_an_error_where_none_is_named(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", "metamako", 60, every=100)
    assert_one_clear_line(invoke("analyze", path, "--timestamps", "trailer"), 1, "do not agree on one format")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--timestamps", "trailer:fusion"), "trailer:FORMAT"),
        (("--timestamps", "hardware"), "not a timestamp source"),
        (("--only", "trailer"), "--timestamps trailer"),
        (("--timestamps", "trailer", "--show-outliers"), "leave out"),
    ],
)
def test_wrong_usage_is_refused(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    path = capture(tmp_path / "a.pcap", "metamako", 20)
    assert_one_clear_line(invoke("analyze", path, *arguments), 2, word)


def test_standard_input_needs_the_name(tmp_path: Path) -> None:
    content = capture(tmp_path / "a.pcap", "metamako", 30).read_bytes()
    assert_one_clear_line(start("analyze", "-", "--timestamps", "trailer", stdin=content), 2, "trailer:metamako")
    ended = start("analyze", "-", "--timestamps", "trailer:metamako", "--format", "json", stdin=content)
    assert json.loads(ended.stdout)["analyses"]["trailer"]["frames"]["found"] == 30


@pytest.mark.oracle
@needs_captures
def test_a_capture_of_a_real_tap_is_detected_and_read() -> None:
    ended = invoke("analyze", CAPTURES / REAL, "--timestamps", "trailer", "--format", "json")
    report = json.loads(ended.stdout)
    trailer = report["analyses"]["trailer"]
    assert (trailer["format"], trailer["frames"]["found"]) == ("metamako", 60)
    assert [(row["device"], row["port"], row["frames"]) for row in trailer["ports"]] == [("165", 14, 60)]
    assert report["source"]["bytes_on_wire"] == 8138 - 60 * 20
    assert report["source"]["first_timestamp_ns"] == 1454635868495676994
    text = invoke("analyze", CAPTURES / REAL, "--timestamps", "trailer", "--only", "timestamps")
    assert "metamako, detected from the first 60 frames" in text.stdout
    assert "less than the resolution of the file's timestamps (1000 ns)" in " ".join(text.stdout.split())


def test_tables_and_histogram_are_written(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", "exablaze", 100)
    ended = invoke("analyze", path, "--timestamps", "trailer", "--tables", tmp_path / "t", "-o", tmp_path / "r.txt")
    assert ended.code == 0, ended.stderr
    written = {one.name for one in (tmp_path / "t").iterdir()}
    assert {"trailer.ports.csv", "trailer.difference.csv", "trailer.difference.hgrm"} <= written
