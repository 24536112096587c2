"""Inputs that overlap in time are read in slices by all cores: the report is that of one thread that merges them."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.capture_files import block, interface, option, packet, section
from support.untidy import BEGIN_NS, HOUR_NS, SECOND_NS, course, frame_of, pcap, pcapng

import uspcap
from uspcap import formats
from uspcap.analysis import suite
from uspcap.analysis.registry import default_names
from uspcap.stages import slicing

NAMES = (*default_names(live=False), "tcp", "patterns")
NANOSECONDS = option(9, b"\x09")


def report(paths, jobs, **options):
    """Return a report as it is printed."""
    return json.dumps(uspcap.analyze(paths, jobs=jobs, only=NAMES, **options).document)


@pytest.fixture
def straightened(monkeypatch):
    """A function that makes the report of inputs that one thread merges, where any overlap."""

    def make(paths, **options):
        with monkeypatch.context() as patched:
            patched.setattr(suite, "_in_slices", lambda *arguments: None)
            return report(paths, 1, **options)

    return make


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of a few frames, and places that are looked for as in files of gigabytes."""
    monkeypatch.setattr(slicing, "SMALLEST_PART", 300)
    monkeypatch.setattr(slicing, "NARROW_BYTES", 256)
    monkeypatch.setattr(slicing, "TAIL_BYTES", (3_000, 9_000))
    monkeypatch.setattr(slicing, "SMALL_FILE", 2_000)
    monkeypatch.setattr(formats, "BATCH_FRAMES", 32)
    monkeypatch.setattr(formats, "SMALLEST_BATCH", 32)


@pytest.fixture
def in_slices(monkeypatch):
    """How many slices each run was read in, where that held to its end."""
    concluded = []
    conclude = slicing.conclude

    def note(surveyed, slices):
        conclude(surveyed, slices)
        concluded.append(len(slices))

    monkeypatch.setattr(slicing, "conclude", note)
    return concluded


def written(directory: Path, number: int, frames, form: str) -> str:
    """Write (time, frame) as a file; return its path."""
    path = directory / f"{number}.{form}"
    if form == "pcap":
        return pcap(path, frames)
    if form == "gz":
        path.write_bytes(gzip.compress(Path(pcap(path, frames)).read_bytes(), 1))
    elif form == "two interfaces":
        pcapng(path, [[(ns, data, at % 2) for at, (ns, data) in enumerate(frames)]])
    elif form == "big-endian":
        content = section(order=">") + interface(options=option(9, b"\x09", order=">"), order=">")
        path.write_bytes(content + b"".join(packet(ns, data, order=">") for ns, data in frames))
    else:
        pcapng(path, [[(ns, data, 0) for ns, data in frames]])
    return str(path)


@st.composite
def inputs(draw):
    """Files, each of frames in order or nearly so, and what they are written as."""
    made = draw(st.randoms(use_true_random=False))
    many = draw(st.integers(2, 5))
    longest_ns = draw(st.sampled_from([1, 1_000, 3_000_000, 400_000_000]))
    begin_ns = draw(st.sampled_from([BEGIN_NS, 0, 4_000_000_000 * SECOND_NS]))
    files = [[] for _ in range(many)]
    now = begin_ns
    turn = 0
    for number in range(draw(st.integers(0, 200))):
        # Equal times are common, long gaps are not.
        now += made.choice([0, 0, made.randint(0, longest_ns), made.randint(0, 2 * longest_ns)])
        now += SECOND_NS if made.random() < 0.005 else 0
        turn = turn if made.random() < 0.5 else made.randrange(many)
        # Frames that are alike in two files at a time, too.
        files[turn].append((now, frame_of(number % 3, number if made.random() < 0.9 else 7, bool(number % 2))))
    wrong = draw(st.sampled_from([0, 0, 0, 1, 3]))
    for _ in range(wrong):
        frames = made.choice(files)
        if frames:
            at = made.randrange(len(frames))
            off_ns = made.choice([HOUR_NS, -1_000_000, 2_000_000, -HOUR_NS, -300_000_000])
            frames[at] = max(frames[at][0] + off_ns, 0), frames[at][1]
    forms = ["pcap", "pcap", "pcapng", "two interfaces", "big-endian", "gz"]
    return [(frames, draw(st.sampled_from(forms))) for frames in files]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(inputs(), st.integers(1, 6), st.sampled_from([{}, {"sort": "1s"}]))
def test_slices_give_the_report_of_one_thread_to_the_last_byte(
    tmp_path, small_slices, straightened, files, jobs, options
):
    paths = [written(tmp_path, at, frames, form) for at, (frames, form) in enumerate(files)]
    assert report(paths, jobs, **options) == straightened(paths, **options)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(st.integers(2, 6), st.integers(1, 5), st.randoms(use_true_random=False), st.booleans())
@example(2, 4, random.Random(1), True)
def test_tidy_inputs_are_read_in_as_many_slices_as_there_are_cores(
    tmp_path, small_slices, in_slices, straightened, many, jobs, made, equal
):
    frames = course(600, step_ns=1_000)
    if equal:
        frames = [(ns - ns % 10_000, data) for ns, data in frames]
    split = [[] for _ in range(many)]
    for frame in frames:
        split[made.randrange(many)].append(frame)
    # What goes into one file only overlaps nothing.
    assume(min(map(len, split)) > 40)
    paths = [written(tmp_path, at, part, made.choice(["pcap", "pcapng"])) for at, part in enumerate(split)]
    in_slices.clear()
    found = report(paths, jobs)
    assert in_slices == [jobs]
    assert found == straightened(paths)


def test_files_that_follow_each_other_in_two_rings_are_read_in_slices(tmp_path, small_slices, in_slices, straightened):
    frames = course(800, step_ns=1_000)
    paths = []
    for ring in range(2):
        its = frames[ring::2]
        paths += [written(tmp_path, 10 * ring + at, its[at * 50 : at * 50 + 50], "pcap") for at in range(8)]
    found = report(paths[::-1], 3)
    assert in_slices == [3]
    assert found == straightened(paths[::-1])


def test_frames_of_interfaces_that_are_not_wanted_count_in_frame_numbers(
    tmp_path, small_slices, in_slices, straightened
):
    frames = course(400, step_ns=1_000)
    # Where there are gaps, the report names frames.
    frames = [(ns + SECOND_NS * (at > 130) + SECOND_NS * (at > 250), data) for at, (ns, data) in enumerate(frames)]
    both = written(tmp_path, 0, frames[::2], "two interfaces")
    paths = [f"{both}@if1", written(tmp_path, 1, frames[1::2], "pcap")]
    found = report(paths, 3)
    assert in_slices == [3]
    assert found == straightened(paths)


@pytest.mark.parametrize("at", [0, 100, 299])
def test_an_input_that_is_not_in_order_is_straightened(tmp_path, small_slices, in_slices, straightened, at):
    frames = course(600, step_ns=1_000)
    one, other = list(frames[::2]), frames[1::2]
    one[at] = one[at][0] + HOUR_NS, one[at][1]
    paths = [written(tmp_path, number, part, "pcap") for number, part in enumerate((one, other))]
    assert report(paths, 3) == straightened(paths)
    assert in_slices == []


def test_frames_without_a_timestamp_stay_behind_the_frame_before_them(tmp_path, small_slices, in_slices, straightened):
    frames = course(300, step_ns=1_000)
    content = section() + interface(options=NANOSECONDS)
    for at, (ns, data) in enumerate(frames[::2]):
        content += packet(ns, data)
        if at % 7 == 0:
            simple = frame_of(5, at)
            content += block(3, len(simple).to_bytes(4, "little") + simple)
    (tmp_path / "simple.pcapng").write_bytes(content)
    paths = [str(tmp_path / "simple.pcapng"), written(tmp_path, 1, frames[1::2], "pcap")]
    found = report(paths, 3)
    assert in_slices == [3]
    assert found == straightened(paths)


def test_compressed_files_that_overlap_are_found_to_before_they_are_analyzed(tmp_path, monkeypatch):
    frames = course(20_000, step_ns=1_000)
    paths = [written(tmp_path, at, frames[at::2], "gz") for at in range(2)]
    read = []
    read_part = suite._read_part

    def note(*arguments):
        part = read_part(*arguments)
        read.append(part.frames_read)
        return part

    monkeypatch.setattr(suite, "_read_part", note)
    assert uspcap.analyze(paths, only="summary", jobs=1)["summary"]["packets"] == 20_000
    # A batch, which ends beyond the other file's first frame.
    assert read[0] <= formats.BATCH_FRAMES


def test_a_thousand_files_that_overlap_need_neither_their_number_of_descriptors_nor_much_memory(tmp_path):
    frames = course(30_000, step_ns=1_000)
    for number in range(1_000):
        written(tmp_path, number, frames[number::1_000], "pcap")
    made = (
        "import resource, sys, uspcap\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 256))\n"
        f"summary = uspcap.analyze({str(tmp_path)!r}, only='summary', jobs=2)['summary']\n"
        # The peak of what getrusage knows is that of the process which started this one, where that was higher.
        "status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "print(summary['packets'], status['VmHWM'].split()[0])\n"
    )
    packets, peak_kib = subprocess.run(
        [sys.executable, "-c", made], capture_output=True, check=True, text=True
    ).stdout.split()
    assert int(packets) == 30_000
    assert int(peak_kib) < 200 * 1024


def test_interfaces_that_are_described_late_are_left_to_one_thread(tmp_path, small_slices, in_slices, straightened):
    frames = course(300, step_ns=1_000)
    content = section() + interface(options=NANOSECONDS)
    content += b"".join(packet(ns, data) for ns, data in frames[:200:2])
    content += interface(options=NANOSECONDS + option(2, b"late"))
    content += b"".join(packet(ns, data, 1) for ns, data in frames[200::2])
    (tmp_path / "late.pcapng").write_bytes(content)
    paths = [str(tmp_path / "late.pcapng"), written(tmp_path, 1, frames[1::2], "pcap")]
    assert report(paths, 3) == straightened(paths)
