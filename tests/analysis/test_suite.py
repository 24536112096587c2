"""Files cut into parts on several threads give the report that one thread gives."""

import gzip
import json
import os
from pathlib import Path

import jsonschema
import pytest
from support.capture_files import packet, section
from support.hard_to_cut import cases, mimicking_pcapng, named_interface, packets, pcap_file, pcapng_file
from support.hostile_captures import hostile_capture, hostile_settings
from support.streams import START_NS, Frame, seeded_stream

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings, analyze_files
from uspcap.errors import UspcapError
from uspcap.formats import parts
from uspcap.report.document import build_report, source_of
from uspcap.report.page import report_page
from uspcap.report.renderers.text import as_text
from uspcap.report.schema import load_schema
from uspcap.stages.reading import Reading

CASES = cases()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)


def everything(paths, jobs, **settings):
    """Return all that a run has found: the report, every table, and the files."""
    outcome = analyze_files([str(path) for path in paths], Settings(**settings), jobs=jobs)
    report = build_report(source_of(outcome), outcome.suite.analyses).as_dict()
    tables = {name: analysis.tables() for name, analysis in outcome.suite.analyses.items()}
    return json.loads(json.dumps(report)), tables, outcome.files, outcome.frames_read


@pytest.mark.parametrize("sorting", ["off", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_threads_change_nothing(tmp_path, name, sorting):
    path = tmp_path / "capture"
    path.write_bytes(CASES[name].content)
    reading = Reading(sorting=sorting)
    alone = everything([path], 1, reading=reading)
    assert alone[0]["source"]["packets"] == CASES[name].frames
    for jobs in (2, 3, 4, 13) if sorting == "off" else (3,):
        assert everything([path], jobs, reading=reading) == alone


@pytest.mark.parametrize(
    "settings",
    [
        {"expression": "udp port 1003", "reading": Reading(sorting="off")},
        {"maximum_flows": 3, "arguments": {"gaps": {"threshold_ns": 100}}, "reading": Reading(sorting="off")},
    ],
)
@pytest.mark.parametrize("name", ["pcap", "pcap in pcap", "pcapng, an interface described late"])
def test_threads_change_nothing_with_filters_and_bounds(tmp_path, name, settings):
    if "expression" in settings:
        pytest.importorskip("cypcap", reason="filters need libpcap")
    path = tmp_path / "capture"
    path.write_bytes(CASES[name].content)
    alone = everything([path], 1, **settings)
    for jobs in (2, 4):
        assert everything([path], jobs, **settings) == alone


@pytest.mark.parametrize("jobs", [2, 3, 4, 8])
def test_several_files_are_one_stream(tmp_path, jobs):
    frames = seeded_stream(71, 6_000, flows=9)
    late = (
        section()
        + named_interface(name="eth7", link_type=1)
        + b"".join(packets(frames[4000:4500]))
        + named_interface(name="tun0", link_type=101)
        + b"".join(packets(frames[4500:4600], of=1) + packets(frames[4600:]))
    )
    contents = {
        "a.pcap": pcap_file(frames[:2000]),
        "b.pcapng": mimicking_pcapng(frames[2000:2200]),
        "c.pcapng.gz": gzip.compress(pcapng_file(frames[2200:4000])),
        "d.pcapng": late,
        "e.pcap": CASES["pcap, damaged at 3/8"].content,
    }
    paths = [tmp_path / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    for some in (paths, paths[:2], paths[3:], [paths[3], paths[3]]):
        alone = everything(some, 1)
        assert everything(some, jobs) == alone
        assert sorted(one["file"] for one in alone[2]) == sorted(map(str, some))
        firsts = [one["first_frame"] for one in alone[2]]
        assert firsts == sorted(firsts)


def test_frames_are_numbered_through_all_files(tmp_path):
    frames = seeded_stream(72, 3_000, flows=5)
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    whole.write_bytes(pcap_file(frames))
    first.write_bytes(pcap_file(frames[:1700]))
    second.write_bytes(pcap_file(frames[1700:]))
    report, tables, files, read = everything([first, second], 4)
    expected = everything([whole], 1)
    assert (report["analyses"], tables, read) == (expected[0]["analyses"], expected[1], expected[3])
    assert [one["first_frame"] for one in files] == [1, 1701]


def test_a_compressed_file_gives_the_report_of_the_plain_one(tmp_path):
    plain, packed = tmp_path / "capture.pcap", tmp_path / "capture.pcap.gz"
    plain.write_bytes(CASES["pcap"].content)
    packed.write_bytes(gzip.compress(CASES["pcap"].content))
    assert everything([packed], 4)[0]["analyses"] == everything([plain], 4)[0]["analyses"]


def test_progress_adds_up_to_all_frames_and_bytes_when_no_guess_was_wrong(tmp_path):
    path = tmp_path / "capture.pcap"
    path.write_bytes(CASES["pcap"].content)
    calls = []
    analyze_files([str(path)], Settings(names=("summary",)), jobs=3, progress=lambda *one: calls.append(one))
    assert sum(frames for _, frames in calls) == CASES["pcap"].frames


def test_what_fails_in_one_part_does_not_wait_for_the_others(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(CASES["pcap"].content)
    paths = [str(path)] * 50
    frames = []

    def progress(bytes_read, count):
        frames.append(count)
        if len(frames) > 3:
            raise MemoryError

    with pytest.raises(MemoryError):
        analyze_files(paths, Settings(), jobs=4, progress=progress)
    assert sum(frames) < 25 * CASES["pcap"].frames


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_files_that_stay_quiet_do_not_hold_up_an_end(tmp_path, error):
    fifo, path = tmp_path / "fifo", tmp_path / "capture"
    os.mkfifo(fifo)
    path.write_bytes(CASES["pcap"].content)
    writing = os.open(fifo, os.O_RDWR)
    os.write(writing, CASES["pcap"].content[:1000])
    before = len(list(Path("/proc/self/fd").iterdir()))

    def progress(bytes_read, count):
        raise error

    try:
        with pytest.raises(error):
            analyze_files([str(path), str(fifo)], Settings(), jobs=2, progress=progress)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        os.close(writing)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(16))
def test_threads_change_nothing_of_hostile_captures(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(parts, "SMALLEST_PART", 256)
    path = tmp_path / "capture"
    path.write_bytes(hostile_capture(seed))
    settings = hostile_settings(seed, registry.names(live=False))
    found = []
    for jobs in (1, 2, 4):
        try:
            outcome = analyze_files([str(path)], settings, jobs=jobs)
        except UspcapError as error:
            found.append(str(error))
            continue
        report = build_report(source_of(outcome), outcome.suite.analyses)
        document = report.as_dict()
        found.append(json.dumps(document, indent=1, allow_nan=False))
        jsonschema.validate(document, load_schema())
        as_text(report_page(report), 80 + seed)
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_clamped_timestamps_are_named_by_their_number_in_the_file_whatever_part_they_are_in(
    tmp_path, monkeypatch, jobs
):
    monkeypatch.setattr(parts, "SMALLEST_PART", 2048)
    frames = [Frame(START_NS + at, 60, 1) for at in range(3000)]
    blocks = packets(frames)
    late = [7, 1499, 1500, 2999, *range(2000, 2040)]
    for number in late:
        blocks[number - 1] = packet(2**63, frames[0].wire())
    paths = []
    for name in ("a", "b"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(section() + named_interface() + b"".join(blocks))
    # Put in order, most of them are outliers, whose timestamps nothing rests on.
    report, *_ = everything(paths, jobs, reading=Reading(sorting="off"))
    problems = report["source"]["problems"]
    for path, of_file in zip(paths, (problems[:17], problems[17:]), strict=True):
        assert [problem["frame"] for problem in of_file[:16]] == sorted(late)[:16]
        assert {problem["file"] for problem in of_file} == {str(path)}
        starts = [len(section() + named_interface()) + sum(map(len, blocks[: one - 1])) for one in sorted(late)[:16]]
        assert [problem["offset"] for problem in of_file[:16]] == starts
        assert of_file[16]["what"].startswith("and 28 more timestamps")
    for name, result in report["analyses"].items():
        warned = [f"{2 * len(late)} frames have timestamps" in caveat for caveat in result["caveats"]]
        assert warned == ([] if name == "overhead" else [True])
