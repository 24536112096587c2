"""Untidy captures: whatever order files, sections and frames come in, the report is that of the tidy capture."""

from __future__ import annotations

import json
import os
import random
import resource
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.command_line import assert_one_clear_line, invoke, start
from support.shared_cases import CASES, needs_cases
from support.streams import cut_streams, feed
from support.untidy import BEGIN_NS, HOUR_NS, SECOND_NS, course, frame_of, pcap, pcapng, without_frame_numbers

import uspcap
from uspcap.analysis import registry
from uspcap.analysis.declaration import Shared
from uspcap.frames import UNTRUSTED, TimestampSource
from uspcap.protocols.flows import FlowTable
from uspcap.records import as_json
from uspcap.report.comparison_schema import load_schema as comparison_schema
from uspcap.report.schema import load_schema

NAMES = tuple(name for name in registry.default_names(live=False))


def analyses(paths, **options):
    report = uspcap.analyze(paths, **options)
    return without_frame_numbers(report.document["analyses"])


def order(paths, **options):
    return uspcap.analyze(paths, only="summary", **options).document["source"]["order"]


class Tidy(tuple):
    """Frames in order, and the analyses of them; hypothesis shows what a test was given."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "tidy"


@pytest.fixture(scope="module")
def tidy(tmp_path_factory):
    frames = course(600)
    whole = analyses(pcap(tmp_path_factory.mktemp("tidy") / "tidy.pcap", frames))
    return Tidy((frames, whole))


def test_a_tidy_capture_is_said_to_be_one(tmp_path):
    found = order(pcap(tmp_path / "a.pcap", course(100)))
    assert found == {
        "window_ns": 100_000_000,
        "timestamped": 0,
        "copies_removed": 0,
        "forward_steps": [],
        "merged_inputs": 0,
        "sorted": 0,
        "furthest_ns": 0,
        "beyond_window": 0,
        "outlier_count": 0,
        "unset_count": 0,
        "outliers": [],
        "step_count": 0,
        "steps": [],
    }
    assert "Order of frames" not in str(uspcap.analyze(str(tmp_path / "a.pcap"), only="summary"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["flow", "direction", "time", "random"]),
    st.integers(2, 5),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 2, 4]),
)
def test_a_capture_split_over_files_in_any_way_and_named_in_any_order_is_the_whole(
    tmp_path, tidy, how, parts, made, jobs
):
    frames, whole = tidy
    split = [[] for _ in range(parts)]
    for number, frame in enumerate(frames):
        part = {
            "flow": number % 3,
            "direction": number % 2,
            "time": number * parts // len(frames),
            "random": made.randrange(parts),
        }[how]
        split[part % parts].append(frame)
    paths = [pcap(tmp_path / f"{number}.pcap", part) for number, part in enumerate(split)]
    made.shuffle(paths)
    assert analyses(paths, jobs=jobs) == whole


def test_a_few_frames_beyond_a_gap_count_where_another_file_has_frames_at_that_time(tmp_path):
    milliseconds = {"a.pcap": [3, *range(220, 232), 384], "b.pcap": [2, 4, *range(319, 331), 383]}
    files = {
        name: [(BEGIN_NS + 1_000_000 * at, frame_of(flow, at)) for at in times]
        for flow, (name, times) in enumerate(milliseconds.items())
    }
    whole = analyses(pcap(tmp_path / "whole.pcap", sorted(frame for frames in files.values() for frame in frames)))
    paths = [pcap(tmp_path / name, frames) for name, frames in files.items()]
    assert analyses(paths) == whole
    assert (order(paths)["merged_inputs"], order(paths)["outlier_count"]) == (2, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40_000_000), st.randoms(use_true_random=False), st.sampled_from([1, 3]))
def test_frames_shuffled_within_the_window_are_put_in_order(tmp_path, tidy, lag_ns, made, jobs):
    frames, whole = tidy
    shuffled = sorted(frames, key=lambda frame: frame[0] + made.randint(0, lag_ns))
    path = pcap(tmp_path / "a.pcap", shuffled)
    assert analyses(path, jobs=jobs) == whole
    found = order(path)
    falls = sum(frame < max(shuffled[:at], default=frame) for at, frame in enumerate(shuffled))
    assert (found["sorted"], found["beyond_window"], found["outlier_count"], found["step_count"]) == (falls, 0, 0, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 199),
    st.sampled_from([1, 2, 5]),
    st.one_of(st.integers(-3, 6), st.integers(-200, 200)),
    st.sampled_from([0, HOUR_NS, -HOUR_NS, 300_000_000, -300_000_000, -BEGIN_NS]),
)
def test_a_capture_cut_at_any_frame_is_the_whole_outliers_and_all(tmp_path, tidy, wrong, run, near, off_ns):
    frames = [(ns + off_ns * (wrong <= at < wrong + run), data) for at, (ns, data) in enumerate(tidy[0][:200])]
    cut = min(max(wrong + near, 0), 200)
    # Of a file of which half the frames are outliers nobody can say when it is.
    assume(min(cut, 200 - cut) > 4 * run or cut in (0, 200))
    whole = uspcap.analyze(pcap(tmp_path / "whole.pcap", frames)).document
    parts = [pcap(tmp_path / "z.pcap", frames[:cut]), pcap(tmp_path / "a.pcap", frames[cut:])]
    report = uspcap.analyze(parts[::-1]).document
    assert without_frame_numbers(report["analyses"]) == without_frame_numbers(whole["analyses"])
    if 20 <= wrong < 160 and 20 <= cut < 180:
        places = {parts[0]: 0, parts[1]: cut}
        outliers = report["source"]["order"]["outliers"]
        assert [(one["timestamp_ns"], one["frame"] + places[one["file"]]) for one in outliers] == [
            (one["timestamp_ns"], one["frame"]) for one in whole["source"]["order"]["outliers"]
        ]


@pytest.mark.parametrize(
    ("places", "off_ns"),
    [
        ([300], HOUR_NS),
        ([300], -HOUR_NS),
        ([300], 300_000_000),
        ([300], -300_000_000),
        ([300], -BEGIN_NS),
        ([100, 200, 300], HOUR_NS),
        ([100, 101, 102], -HOUR_NS),
        (list(range(300, 316)), HOUR_NS),
        ([100, 105, 107, 300], 10 * HOUR_NS),
    ],
)
def test_outliers_are_named_and_move_no_span_gap_or_rate(tmp_path, tidy, places, off_ns):
    frames, whole = tidy
    wrong = [(ns + off_ns, data) if at in places else (ns, data) for at, (ns, data) in enumerate(frames)]
    report = uspcap.analyze(pcap(tmp_path / "a.pcap", wrong))
    found = report.document["source"]["order"]
    assert [(one["frame"], one["kind"], one["trusted"]) for one in found["outliers"]] == [
        (at + 1, "outlier", False) for at in places
    ]
    summary = report["summary"]
    assert summary["packets"] == len(frames)
    assert (summary["earliest_timestamp_ns"], summary["latest_timestamp_ns"]) == (frames[0][0], frames[-1][0])
    assert report["inter_arrival"]["sources"]["FILE"]["max_ns"] < 40_000_000
    assert as_json(summary["protocols"]) == whole["summary"]["protocols"]
    assert f"frame {places[0] + 1}" in str(report)


@pytest.mark.parametrize(
    ("places", "off_ns", "kind", "trusted"),
    [
        ([0], -HOUR_NS, "undetermined", True),
        ([0], HOUR_NS, "undetermined", False),
        ([0], -BEGIN_NS, "outlier", False),
        ([0, 1], -BEGIN_NS, "outlier", False),
        ([599], HOUR_NS, "undetermined", True),
        ([598, 599], HOUR_NS, "undetermined", True),
        ([599], -HOUR_NS, "undetermined", False),
        ([599], -BEGIN_NS, "outlier", False),
    ],
)
def test_a_wrong_timestamp_at_either_end_is_undetermined_unless_no_clock_was_set(
    tmp_path, tidy, places, off_ns, kind, trusted
):
    frames, _ = tidy
    wrong = [(ns + off_ns, data) if at in places else (ns, data) for at, (ns, data) in enumerate(frames)]
    report = uspcap.analyze(pcap(tmp_path / "a.pcap", wrong), only="summary")
    listed = report.document["source"]["order"]["outliers"]
    assert (listed[0]["frame"], listed[0]["kind"], listed[0]["trusted"]) == (places[0] + 1, kind, trusted)
    assert sum(one["frames"] for one in listed) == len(places)
    counted = [ns for at, (ns, _) in enumerate(wrong) if trusted or at not in places]
    assert report["summary"]["duration_ns"] == max(counted) - min(counted)


def test_what_is_decided_is_said_and_reports_keep_to_their_schemas(tmp_path, tidy):
    frames, _ = tidy
    wrong = [
        (ns + HOUR_NS if at in (50, 300) else ns - HOUR_NS * (at > 400), data) for at, (ns, data) in enumerate(frames)
    ]
    path = pcap(tmp_path / "a.pcap", wrong)
    report = uspcap.analyze(path).document
    jsonschema.validate(report, load_schema())
    (decision,) = report["source"]["decisions"]
    assert (decision["file"], decision["option"]) == (path, "--sort 100ms")
    assert "2 frames with timestamps that are not to be trusted, 1 steps" in decision["why"]
    assert uspcap.analyze(path, sort="100ms").document["source"]["decisions"] == []
    compared = uspcap.compare(path, path).document
    jsonschema.validate(compared, comparison_schema())
    assert compared["a"]["decisions"] == [decision]


def test_where_hardly_any_timestamps_agree_that_is_said(tmp_path):
    made = random.Random(1)
    frames = [(BEGIN_NS + made.randrange(10**6) * SECOND_NS, frame_of(0, number)) for number in range(40)]
    report = uspcap.analyze(pcap(tmp_path / "a.pcap", frames), only="summary")
    assert "the true times cannot be determined" in str(report)


@pytest.mark.parametrize("step_ns", [200_000_000, SECOND_NS, HOUR_NS])
def test_a_step_back_that_stays_is_reported_with_both_sides_and_a_gap_is_none(tmp_path, tidy, step_ns):
    frames, _ = tidy
    back = [(ns - step_ns, data) if at >= 300 else (ns, data) for at, (ns, data) in enumerate(frames)]
    found = order(pcap(tmp_path / "a.pcap", back))
    assert found["steps"] == [
        {
            "file": str(tmp_path / "a.pcap"),
            "frame": 301,
            "timestamp_ns": back[300][0],
            "before_file": str(tmp_path / "a.pcap"),
            "before_frame": 300,
            "before_ns": back[299][0],
            "step_ns": back[300][0] - back[299][0],
        }
    ]
    assert (found["outlier_count"], found["sorted"], found["beyond_window"]) == (0, 0, 0)
    gap = [(ns + step_ns, data) if at >= 300 else (ns, data) for at, (ns, data) in enumerate(frames)]
    found = order(pcap(tmp_path / "a.pcap", gap))
    assert (found["outlier_count"], found["step_count"]) == (0, 0)


@pytest.mark.parametrize("how", ["sections", "interfaces", "concatenated"])
def test_what_overlaps_within_a_file_is_merged(tmp_path, tidy, how):
    frames, whole = tidy
    halves = frames[::2], frames[1::2]
    if how == "concatenated":
        content = [Path(pcap(tmp_path / f"{at}.pcap", half)).read_bytes() for at, half in enumerate(halves)]
        path = tmp_path / "all.pcap"
        path.write_bytes(b"".join(content))
    else:
        numbered = [
            [(ns, data, number if how == "interfaces" else 0) for ns, data in half]
            for number, half in enumerate(halves)
        ]
        path = tmp_path / "all.pcapng"
        pcapng(path, numbered if how == "sections" else [numbered[0] + numbered[1]])
    report = uspcap.analyze(str(path))
    assert report.document["source"]["order"]["merged_inputs"] == 2
    for name in set(NAMES) - {"summary"}:
        assert without_frame_numbers(report[name].as_dict()) == whole[name], name


def test_a_longer_window_sorts_what_the_automatic_one_cannot_and_off_leaves_all_as_it_is(tmp_path, tidy):
    frames, whole = tidy
    late = [(ns + 250_000_000 if number % 3 == 0 else ns, ns, data) for number, (ns, data) in enumerate(frames)]
    path = pcap(tmp_path / "a.pcap", [(ns, data) for _, ns, data in sorted(late)])
    assert order(path)["beyond_window"] + order(path)["step_count"] + order(path)["outlier_count"] > 0
    assert analyses(path, sort="1s") == whole
    assert analyses(path, sort=SECOND_NS) == whole
    off = order(path, sort="off")
    assert off["window_ns"] is None
    assert off["sorted"] == 0
    assert analyses(path, sort="off")["inter_arrival"]["sources"]["FILE"]["backward_steps"] > 0


def test_frames_are_numbered_by_file_in_order_of_time(tmp_path):
    frames = course(30)
    paths = [pcap(tmp_path / "b.pcap", frames[:10]), pcap(tmp_path / "a.pcap", frames[10:])]
    source = uspcap.analyze(paths[::-1], only="summary").document["source"]
    assert (source["files"], source["first_frames"]) == (paths, [1, 11])


class TestOtherCommands:
    """Whatever reads frames reads them in order."""

    @pytest.fixture
    def untidy(self, tmp_path, tidy):
        """Two files that overlap, with one wrong timestamp, and the frames as they are to come."""
        frames = list(tidy[0])
        wrong = frames[301][0] + HOUR_NS, frames[301][1]
        paths = [
            pcap(tmp_path / "b.pcap", frames[::2]),
            pcap(tmp_path / "a.pcap", [*frames[1:301:2], wrong, *frames[303::2]]),
        ]
        return paths[::-1], frames, wrong

    def test_batches_come_in_order_and_an_outlier_lies_where_it_lay(self, untidy):
        paths, frames, wrong = untidy
        batches = list(uspcap.open(*paths).batches())
        found = [
            (int(batch.timestamp_ns[row]), batch.frame_bytes(row), int(batch.timestamp_source[row]))
            for batch in batches
            for row in range(len(batch))
        ]
        trusted = [(ns, data) for ns, data, source in found if source == TimestampSource.FILE]
        assert trusted == frames[:301] + frames[302:]
        place = next(at for at, one in enumerate(found) if one[2] == TimestampSource.FILE | UNTRUSTED)
        assert found[place][:2] == wrong
        # Behind the frame that it lies behind in its file.
        assert found[place - 1][:2] == frames[299]
        numbers = sorted(int(number) for batch in batches for number in batch.frame_number)
        assert numbers == list(range(1, len(frames) + 1))

    def test_dump_leaves_frames_as_they_lie_unless_it_is_asked_to_sort(self, untidy):
        paths, frames, _ = untidy
        lines = invoke("dump", *paths).lines
        assert [int(line.split()[0]) for line in lines] == list(range(1, len(frames) + 1))
        result = invoke("dump", "--sort", "auto", *paths)
        assert result.code == 0
        lines = result.lines
        times = [line.split()[1] for line in lines if "(outlier)" not in line]
        assert times == sorted(times)
        assert len(times) == len(frames) - 1
        assert "2 inputs that overlap in time merged, 1 frames with timestamps" in result.stderr

    def test_a_replay_writes_frames_in_order(self, untidy, tmp_path):
        paths, frames, wrong = untidy
        out = tmp_path / "out.pcapng"
        arguments = ["capture", *(word for path in paths for word in ("-r", path)), "--speed", "0", "-w", str(out)]
        assert invoke(*arguments).code == 0
        written = [ns for batch in uspcap.open(out, sort="off").batches() for ns in batch.timestamp_ns.tolist()]
        assert [ns for ns in written if ns != wrong[0]] == [ns for ns, _ in frames[:301] + frames[302:]]
        assert len(written) == len(frames)

    @pytest.mark.parametrize("text", ["", "5", "0s", "-1ms", "sometimes"])
    def test_a_window_that_is_none_is_refused_in_a_sentence(self, untidy, text):
        assert_one_clear_line(invoke("analyze", "--sort", text, untidy[0][0]), 2, "--sort")

    def test_a_pipe_is_put_in_order_as_it_comes(self, tmp_path, tidy):
        frames, whole = tidy
        made = random.Random(5)
        content = Path(
            pcap(tmp_path / "a.pcap", sorted(frames, key=lambda frame: frame[0] + made.randint(0, 30_000_000)))
        ).read_bytes()
        reading, writing = os.pipe()
        feeding = threading.Thread(target=lambda: open_and_write(writing, content))
        feeding.start()
        try:
            assert analyses(f"/dev/fd/{reading}") == whole
        finally:
            feeding.join()
            os.close(reading)

    def test_a_tidy_pipe_gives_the_report_of_the_tidy_file(self, tmp_path, tidy):
        path = pcap(tmp_path / "a.pcap", tidy[0])
        of_pipe = json.loads(start("analyze", "-", "--format", "json", stdin=Path(path).read_bytes()).stdout)
        of_file = json.loads(invoke("analyze", path, "--format", "json").stdout)
        assert of_pipe["source"].pop("files") == ["-"]
        of_file["source"].pop("files")
        assert of_pipe == of_file

    @pytest.mark.parametrize("unset", [17, 33, 200, 4_000])
    @pytest.mark.parametrize("step_ns", [0, 1_000_000])
    def test_a_pipe_that_begins_before_its_clock_was_set_is_reported_as_the_file(self, tmp_path, unset, step_ns):
        frames = [(step_ns * at if at < unset else ns, data) for at, (ns, data) in enumerate(course(unset + 100))]
        path = pcap(tmp_path / "a.pcap", frames)
        of_pipe = json.loads(start("analyze", "-", "--format", "json", stdin=Path(path).read_bytes()).stdout)["source"]
        of_file = json.loads(invoke("analyze", path, "--format", "json").stdout)["source"]
        assert of_pipe["order"]["unset_count"] == of_file["order"]["unset_count"] == unset
        for name in ("earliest_timestamp_ns", "latest_timestamp_ns", "forward_ns"):
            assert of_pipe[name] == of_file[name]

    def test_a_pipe_whose_clock_is_set_after_4096_frames_says_what_its_times_are_worth(self, tmp_path):
        frames = [(at if at < 4_200 else ns, data) for at, (ns, data) in enumerate(course(4_400))]
        path = pcap(tmp_path / "a.pcap", frames)
        of_pipe = json.loads(start("analyze", "-", "--format", "json", stdin=Path(path).read_bytes()).stdout)["source"]
        assert of_pipe["order"]["unset_count"] == 0
        assert any(note.startswith("timestamps begin before 1980") for note in of_pipe["notes"])

    def test_more_files_that_overlap_than_may_be_open_are_merged(self, tmp_path, tidy):
        frames, whole = tidy
        paths = [pcap(tmp_path / f"{at}.pcap", frames[at::300]) for at in range(300)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        try:
            assert analyses(paths) == whole
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_each_interface_is_put_in_order_separately(self, tmp_path, tidy):
        frames, whole = tidy
        numbered = [[(ns, data, 1) for ns, data in frames[300:]], [(ns, data, 1) for ns, data in frames[:300]]]
        numbered[0] += [(BEGIN_NS, frame_of(7, 9), 0)]
        path = pcapng(tmp_path / "a.pcapng", numbered)
        found = analyses(f"{path}@if1")
        for name in set(NAMES) - {"summary"}:
            assert found[name] == whole[name], name

    def test_a_range_of_time_holds_what_lies_in_it_however_files_are_named(self, tmp_path, tidy):
        frames, _ = tidy
        paths = [pcap(tmp_path / f"{at}.pcap", frames[at::2]) for at in range(2)]
        begin, end = frames[100][0], frames[400][0]
        texts = [
            datetime.fromtimestamp(ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % SECOND_NS:09}"
            for ns in (begin, end)
        ]
        found = uspcap.analyze(paths[::-1], only="summary", start=texts[0], end=texts[1])["summary"]
        assert (found["packets"], found["first_timestamp_ns"], found["last_timestamp_ns"]) == (
            300,
            begin,
            frames[399][0],
        )


def open_and_write(descriptor, content):
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(content)


class TestCompare:
    """Sides that are untidy are compared as if they were tidy."""

    @pytest.fixture
    def sides(self, tidy):
        frames, _ = tidy
        return frames, [(ns + 10_000, data) for ns, data in frames]

    def compared(self, tmp_path, a, b, **options):
        paths = [
            [pcap(tmp_path / f"{side}{number}.pcap", part) for number, part in enumerate(parts)]
            for side, parts in (("a", a), ("b", b))
        ]
        return uspcap.compare(*paths, **options).document

    def test_a_side_of_several_files_that_overlap_is_merged(self, tmp_path, sides):
        a, b = sides
        whole = self.compared(tmp_path, [a], [b])
        split = self.compared(tmp_path, [a[1::2], a[::2]], [b[::3], b[1::3], b[2::3]])
        assert whole["frames"] == split["frames"]
        assert whole["frames"]["matched"] == len(a)
        assert whole["delay"] == split["delay"]
        assert split["reordering"] == whole["reordering"]
        assert [split[side]["order"]["merged_inputs"] for side in "ab"] == [2, 3]
        assert [whole[side]["order"]["merged_inputs"] for side in "ab"] == [0, 0]

    @pytest.mark.parametrize("off_ns", [HOUR_NS, -HOUR_NS, 300_000_000, -BEGIN_NS])
    @pytest.mark.parametrize("side", ["a", "b"])
    def test_an_outlier_costs_one_match_and_is_named(self, tmp_path, sides, side, off_ns):
        frames = {"a": list(sides[0]), "b": list(sides[1])}
        frames[side][300] = frames[side][300][0] + off_ns, frames[side][300][1]
        found = self.compared(tmp_path, [frames["a"]], [frames["b"]])
        assert found["frames"]["matched"] == len(sides[0]) - 1
        assert found["delay"]["max_ns"] == 10_000
        outliers = found[side]["order"]["outliers"]
        assert [(one["frame"], one["timestamp_ns"]) for one in outliers] == [(301, frames[side][300][0])]
        assert found[side]["untrusted_timestamps"] == 1
        assert found[side]["last_timestamp_ns"] == sides["ab".index(side)][-1][0]

    def test_local_disorder_is_no_reordering(self, tmp_path, sides):
        a, b = sides
        made = random.Random(3)
        shuffled = sorted(b, key=lambda frame: frame[0] + made.randint(0, 20_000_000))
        found = self.compared(tmp_path, [a], [shuffled])
        assert found["frames"]["matched"] == len(a)
        assert found["reordering"]["reordered"] == 0
        assert found["b"]["order"]["sorted"] > 0
        left = self.compared(tmp_path, [a], [shuffled], sort="off")
        assert left["reordering"]["reordered"] > 0


class TestNumbersOfFrames:
    """Analyses see frames in order, and reports name them as the files have them."""

    def test_a_frame_is_named_by_its_number_in_its_file_whichever_comes_first(self, tmp_path):
        frames = [(BEGIN_NS + 1_000_000 * at + 500_000_000 * (at >= 41), frame_of(0, at)) for at in range(100)]
        paths = [pcap(tmp_path / "even.pcap", frames[::2]), pcap(tmp_path / "odd.pcap", frames[1::2])]
        report = uspcap.analyze(paths, only=("gaps", "inter_arrival"), gap_threshold="100ms")
        (gap,) = report["gaps"]["longest"]
        assert report.document["source"]["first_frames"] == [1, 51]
        # Frames 40 and 41 of the whole: the 21st of the even ones, the 21st of the odd ones.
        assert (gap["before_frame"], gap["after_frame"]) == (21, 50 + 21)
        assert report["inter_arrival"]["sources"]["FILE"]["max_frame"] == 50 + 21
        table = report.tables["gaps"]["gaps"]
        assert (table["before_frame"], table["after_frame"]) == ([21], [71])

    @pytest.mark.parametrize("first", ["requests", "responses"])
    def test_responses_in_a_file_that_begins_before_that_of_the_requests_are_responses(self, tmp_path, first):
        requests = [(BEGIN_NS + 10_000_000 * at, frame_of(0, at, up=True)) for at in range(50)]
        responses = [(ns + 1_000_000, frame_of(0, at, up=False)) for at, (ns, _) in enumerate(requests)]
        early = BEGIN_NS - 1_000_000, frame_of(9, 1000)
        (requests if first == "requests" else responses).insert(0, early)
        paths = [pcap(tmp_path / "a.pcap", requests), pcap(tmp_path / "b.pcap", responses)]
        key = "key=payload[0:8]"
        found = uspcap.analyze(
            paths,
            only="requests",
            request=f"udp dst port 6000 and src port 5000; {key}",
            response=f"udp src port 6000; {key}",
        )["requests"]
        (counts,) = (rule for rule in found["rules"] if rule["name"] == "rule1")
        assert (counts["answered"], counts["unanswered"]) == (50, 0)


@needs_cases
class TestCases:
    """Captures on which uspcap was wrong."""

    def report(self, *names, **options):
        return uspcap.analyze([str(CASES / "files" / name) for name in names], **options)

    def test_one_file_a_line(self):
        pair = "A=233.252.0.1:26400,B=233.252.0.2:26401"
        for names in (("s4b_a.pcap.gz", "s4b_b.pcap.gz"), ("s4b_b.pcap.gz", "s4b_a.pcap.gz")):
            found = self.report(*names, protocol="moldudp64", pair=pair, only="arbitration")["arbitration"]
            first_by = found["pairs"][0]["skew"]["FILE"]["first_by"]
            assert found["lost"] == 0
            assert (first_by["A"]["count"], first_by["A"]["mean_ns"], first_by["B"]["count"]) == (99_997, 1_000, 0)

    @pytest.mark.parametrize(
        "names", [("c1_up.pcap", "c1_down.pcap"), ("c1_down.pcap", "c1_up.pcap"), ("c1_overlap_dir.pcapng",)]
    )
    def test_one_file_or_section_a_direction(self, names):
        report = self.report(*names, only="tcp")
        tcp = report["tcp"]
        assert "60.00 µs" in str(report)
        assert tcp["connections"]["followed"] == 1
        assert [side["retransmissions"] for _, side in tcp["counts"].items()] == [0] * 3

    def test_a_ring_in_the_order_of_its_names(self):
        report = self.report(*(f"s3_ring{number}.pcap.gz" for number in range(4)), only=("summary", "gaps"))
        assert report["summary"]["duration_ns"] == 3_999_000_000
        assert report["gaps"]["count"] == 0

    def test_two_queues(self):
        found = self.report("s5_mq.pcap.gz", only="inter_arrival")["inter_arrival"]["sources"]["FILE"]
        assert found["max_ns"] == 6_955
        assert 4_990 <= found["percentiles_ns"]["50"] <= 5_010

    def test_one_frame_timestamped_0(self):
        report = self.report("y1_zero.pcap.gz", only=("summary", "patterns"))
        assert report["summary"]["duration_ns"] == 2_998_999_945
        assert [one["frame"] for one in report.document["source"]["order"]["outliers"]] == [1501]
        assert "1.000 ms" in str(report)

    def test_compare_with_one_frame_an_hour_late(self):
        files = CASES / "files"
        found = uspcap.compare(str(files / "w1_a.pcap.gz"), str(files / "w1_b_late1h.pcap.gz")).document
        assert found["frames"]["matched"] == 1_999
        assert [one["frame"] for one in found["b"]["order"]["outliers"]] == [501]
        assert found["a"]["order"]["outliers"] == []


@given(cut_streams(), st.randoms(use_true_random=False))
def test_frames_without_a_trusted_timestamp_have_no_time_in_any_analysis_and_obey_its_law(cut, made):
    frames, parts, batch_frames = cut

    def marked(some):
        return [
            replace(frame, source=frame.source | UNTRUSTED)
            if frame.source < TimestampSource.NONE and chosen[id(frame)]
            else frame
            for frame in some
        ]

    chosen = {id(frame): made.random() < 0.2 for frame in frames}
    # Wherever such a timestamp lies, the result is the same.
    moved = [
        replace(frame, timestamp_ns=frame.timestamp_ns + HOUR_NS) if frame.source >= UNTRUSTED else frame
        for frame in marked(frames)
    ]
    for name in (*NAMES, "tcp", "patterns"):
        declared = registry.declarations()[name]
        whole = feed(declared.make(Shared(FlowTable())), marked(frames), batch_frames)
        joined = declared.make(Shared(FlowTable()))
        for part in parts:
            joined.merge(feed(declared.make(Shared(FlowTable())), marked(part), batch_frames))
        assert joined.result() == whole.result(), name
        assert feed(declared.make(Shared(FlowTable())), moved, batch_frames).result() == whole.result(), name
