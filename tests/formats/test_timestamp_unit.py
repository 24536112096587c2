"""Fractions of a second in pcap files that are not counted in what the file says."""

import gzip
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record, read_pipe, rows_of
from support.command_line import invoke
from support.reports import report_on
from support.shared_cases import CASES, needs_cases

from uspcap.formats import open_capture, parts
from uspcap.formats.pcap import SAMPLE_BYTES

SECOND = 1_700_000_000
NANOSECOND_MAGIC = 0xA1B23C4D


def nanoseconds(count, step_ns=125_000, begin_ns=0, size=40):
    """Return records of nanoseconds and their times."""
    times = [SECOND * 10**9 + begin_ns + number * step_ns for number in range(count)]
    return b"".join(pcap_record(*divmod(ns, 10**9), bytes(size)) for ns in times), times


def microseconds(count, step_us=125, begin_us=0, size=40):
    times = [SECOND * 10**6 + begin_us + number * step_us for number in range(count)]
    return b"".join(pcap_record(*divmod(us, 10**6), bytes(size)) for us in times), [us * 1000 for us in times]


def opened(path, unit="auto"):
    """Return times, problems and decisions of a file."""
    with open_capture(str(path), unit=unit) as reader:
        times = [row.timestamp_ns for row in rows_of(reader)]
        return times, reader.facts.all_problems("x"), reader.facts.decisions


@pytest.fixture(params=["plain", "gzip"])
def write(request, tmp_path):
    def write(content):
        path = tmp_path / "capture"
        path.write_bytes(gzip.compress(content) if request.param == "gzip" else content)
        return path

    return write


@pytest.mark.parametrize("order", ["<", ">"])
def test_nanoseconds_under_the_microsecond_magic_are_read_as_such_and_that_is_said(write, order):
    _, times = nanoseconds(2000)
    records = b"".join(pcap_record(*divmod(ns, 10**9), bytes(40), order=order) for ns in times)
    found, problems, decisions = opened(write(pcap_header(order) + records))
    assert found == times
    assert not problems
    (decision,) = decisions
    assert decision.option == "--timestamp-unit ns"
    assert "of 2000" in decision.why


def test_the_option_forces_either_unit(write):
    records, times = nanoseconds(2000)
    path = write(pcap_header() + records)
    assert opened(path, "ns") == (times, [], [])
    found, problems, decisions = opened(path, "us")
    assert found == [ns // 10**9 * 10**9 + ns % 10**9 * 1000 for ns in times]
    assert not decisions
    (problem,) = problems
    beyond = sum(ns % 10**9 >= 10**6 for ns in times)
    assert f"{beyond} timestamps" in problem.what
    assert problem.frame == next(number for number, ns in enumerate(times, 1) if ns % 10**9 >= 10**6)
    assert "--timestamp-unit ns" in problem.what


def test_microseconds_stay_microseconds(write):
    records, times = microseconds(3000)
    assert opened(write(pcap_header() + records)) == (times, [], [])


def test_microseconds_under_the_nanosecond_magic_can_be_forced(write):
    records, times = microseconds(3000)
    assert opened(write(pcap_header(magic=NANOSECOND_MAGIC) + records), "us") == (times, [], [])


@pytest.mark.parametrize("odd", [1, 3, 1000, 1700])
def test_some_fractions_too_large_are_a_problem_with_a_count(write, odd):
    fractions = [999_999] * (2000 - odd) + [40_000_000] * odd
    records = b"".join(pcap_record(SECOND + at, fraction, b"x") for at, fraction in enumerate(fractions))
    found, problems, decisions = opened(write(pcap_header() + records))
    assert found[-1] == (SECOND + 1999) * 10**9 + 40_000_000_000
    assert not decisions
    (problem,) = problems
    assert f"{odd} timestamps" in problem.what
    assert problem.frame == 2000 - odd + 1
    assert problem.offset == 24 + 17 * (2000 - odd)


def test_seconds_that_were_not_carried_over_are_no_nanoseconds(write):
    records = b"".join(pcap_record(SECOND, 1_000_000 + at, b"x") for at in range(1000))
    found, problems, decisions = opened(write(pcap_header() + records))
    assert found[0] == (SECOND + 1) * 10**9
    assert problems
    assert not decisions


def test_beyond_a_second_of_nanoseconds_is_a_problem(write):
    records = pcap_record(SECOND, 999_999_999, b"x") + pcap_record(SECOND, 1_000_000_000, b"x")
    _, problems, _ = opened(write(pcap_header(magic=NANOSECOND_MAGIC) + records))
    (problem,) = problems
    assert "1 timestamps" in problem.what
    assert "nanoseconds" in problem.what


def test_a_file_that_is_nanoseconds_only_at_its_beginning_is_left_alone(tmp_path):
    size = 1000
    count = 3 * SAMPLE_BYTES // size
    path = tmp_path / "capture"
    path.write_bytes(pcap_header() + nanoseconds(count, size=size)[0] + microseconds(3 * count, size=size)[0])
    _, problems, decisions = opened(path)
    assert not decisions
    assert "timestamps" in problems[0].what


def test_frames_that_contradict_the_decision_are_a_problem(tmp_path):
    path = tmp_path / "capture.gz"
    size = 1000
    count = 2 * SAMPLE_BYTES // size
    path.write_bytes(
        gzip.compress(pcap_header() + nanoseconds(count, size=size)[0] + microseconds(count, size=size)[0])
    )
    _, problems, decisions = opened(path)
    assert decisions
    assert "could be microseconds" in problems[0].what


def test_every_part_and_job_decides_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SMALLEST_PART", 8192)
    records, times = nanoseconds(6000, begin_ns=10_000_000)
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap_header() + records)
    reports = [report_on(path, jobs=jobs) for jobs in (1, 2, 4)]
    assert reports[0] == reports[1] == reports[2]
    source = reports[0]["source"]
    assert source["last_timestamp_ns"] == times[-1]
    assert [one["option"] for one in source["decisions"]] == ["--timestamp-unit ns"]
    assert source["problems"] == []


def test_every_header_of_a_chain_is_decided_by_its_own_frames(write):
    first, times = nanoseconds(300, begin_ns=20_000_000)
    second, more = microseconds(300)
    found, problems, decisions = opened(write(pcap_header() + first + pcap_header() + second + pcap_header() + first))
    assert found == times + more + times
    assert not problems
    assert len(decisions) == 2


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_pipe_is_decided_by_its_first_frames(data):
    records, times = nanoseconds(50, begin_ns=20_000_000)
    rows, facts = read_pipe(pcap_header() + records, data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4)))
    assert [row.timestamp_ns for row in rows] == times
    assert len(facts.decisions) == 1


@settings(deadline=None, max_examples=60)
@given(fractions=st.lists(st.integers(0, 2**32 - 1), max_size=40), order=st.sampled_from("<>"))
def test_any_fractions_are_read_and_each_one_too_large_is_counted(tmp_path_factory, fractions, order):
    path = tmp_path_factory.mktemp("any") / "capture"
    path.write_bytes(pcap_header(order) + b"".join(struct.pack(order + "IIII", 5, one, 0, 0) for one in fractions))
    found, problems, decisions = opened(path)
    unit = 1 if decisions else 1000
    assert found == [5 * 10**9 + one * unit for one in fractions]
    beyond = sum(one >= 10**9 // unit for one in fractions)
    assert bool(problems) == bool(beyond)
    assert not beyond or f"{beyond} timestamps" in problems[0].what


@needs_cases
def test_the_case_of_nanoseconds_in_microseconds():
    report = report_on(CASES / "files" / "c4_ns_in_us.pcap", jobs=1)
    assert report["analyses"]["inter_arrival"]["sources"]["FILE"]["percentiles_ns"]["50"] in range(124_500, 125_500)
    ended = invoke("analyze", CASES / "files" / "c4_ns_in_us.pcap", "--only", "summary")
    assert "--timestamp-unit ns" in ended.stdout
    forced = invoke("analyze", CASES / "files" / "c4_ns_in_us.pcap", "--only", "summary", "--timestamp-unit", "us")
    assert forced.code == 1
