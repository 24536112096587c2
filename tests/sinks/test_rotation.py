"""Which frame goes into which file, what the files are called, and which stay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_cases import ETHERNET, RAW_IP, blocks, run, tool

from uspcap.formats import open_capture
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.record_output import FileOutput
from uspcap.formats.writer import make_writer
from uspcap.frames import FrameBatch
from uspcap.sinks.rotation import FileNames, FileRing, RotatingWriter, RotationRules

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 10**9


def batches_of(timestamps: Sequence[int], lengths: Sequence[int], sizes: Sequence[int]) -> list[FrameBatch]:
    """Frames numbered in their last four bytes, cut into batches."""
    frames = [bytes(length - 4) + number.to_bytes(4, "big") for number, length in enumerate(lengths)]
    batches, at = [], 0
    for size in sizes:
        if frames[at : at + size]:
            batches.append(
                FrameBatch.from_frames(frames[at : at + size], timestamps[at : at + size], interfaces=[ETHERNET])
            )
        at += size
    return batches


def rotate(
    directory: Path,
    rules: RotationRules,
    batches: Sequence[FrameBatch],
    name: str = "out.pcapng",
    ring: FileRing | None = None,
) -> list[Path]:
    """Write batches and return the files in the order in which they were finished."""
    finished: list[Path] = []
    output = FileOutput(
        opening=None if ring is None else ring.opening, finished=lambda path: finished.append(Path(path))
    )
    form = "pcap" if name.endswith(".pcap") else "pcapng"
    writer = RotatingWriter(make_writer(form, output), rules, FileNames(f"{directory}/{name}"), interfaces=[ETHERNET])
    for batch in batches:
        writer.write(batch)
    writer.close({0: InterfaceStatistics(received=1)})
    assert writer.frames_written == sum(batch.count for batch in batches)
    return finished


def read(path: Path) -> tuple[list[int], list[int]]:
    """Return the numbers and timestamps of a file's frames; the file must be without fault."""
    numbers: list[int] = []
    timestamps: list[int] = []
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            numbers += [int.from_bytes(batch.frame_bytes(row)[-4:], "big") for row in range(batch.count)]
            timestamps += batch.timestamp_ns.tolist()
        assert reader.facts.problems == []
    return numbers, timestamps


def expected_files(rules: RotationRules, timestamps: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """The rules again, frame by frame: `sizes` are the bytes that each frame counts with."""
    files: list[list[int]] = []
    count = filled = 0
    end = start = 0
    for number, timestamp in enumerate(timestamps):
        if rules.period_ns is not None and not files:
            start = timestamp // rules.period_ns * rules.period_ns if rules.aligned else timestamp
            end = start + rules.period_ns
        full = (rules.frames is not None and count == rules.frames) or (
            rules.file_bytes is not None and count > 0 and filled + sizes[number] > rules.file_bytes
        )
        if rules.period_ns is not None and timestamp >= end:
            full = True
            end = start + ((timestamp - start) // rules.period_ns + 1) * rules.period_ns
        if full or not files:
            files.append([])
            count = filled = 0
        files[-1].append(number)
        count += 1
        filled += sizes[number]
    return files


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_frame_is_in_the_file_that_the_rules_say(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory):
    count = data.draw(st.integers(1, 40))
    steps = data.draw(st.lists(st.integers(-2 * SECOND_NS, 5 * SECOND_NS), min_size=count, max_size=count))
    timestamps, now = [], START_NS + data.draw(st.integers(0, 3 * SECOND_NS))
    for step in steps:
        now += step
        timestamps.append(now)
    lengths = data.draw(st.lists(st.integers(14, 300), min_size=count, max_size=count))
    rules = RotationRules(
        file_bytes=data.draw(st.none() | st.integers(1, 1500)),
        period_ns=data.draw(st.none() | st.sampled_from([1, SECOND_NS, 3 * SECOND_NS])),
        aligned=data.draw(st.booleans()),
        frames=data.draw(st.none() | st.integers(1, 9)),
    )
    if rules.period_ns is None and rules.frames is None and rules.file_bytes is None:
        rules = RotationRules(frames=3)
    # pcap has records of one header size, so that bytes can be counted here: 16 and the frame, after a header of 24.
    if rules.file_bytes is not None:
        rules = RotationRules(rules.file_bytes + 24, rules.period_ns, rules.aligned, rules.frames)
    cuts = data.draw(st.lists(st.integers(1, 20), min_size=count, max_size=count))
    directory = tmp_path_factory.mktemp("files")
    files = rotate(directory, rules, batches_of(timestamps, lengths, cuts), "out.pcap")
    bytes_left = None if rules.file_bytes is None else rules.file_bytes - 24
    expected = expected_files(
        RotationRules(bytes_left, rules.period_ns, rules.aligned, rules.frames),
        timestamps,
        [16 + length for length in lengths],
    )
    contents = [read(path) for path in files]
    assert [numbers for numbers, _ in contents] == expected
    assert [timestamp for _, some in contents for timestamp in some] == timestamps
    assert sorted(files) == files
    if bytes_left is not None:
        for path, numbers in zip(files, expected, strict=True):
            assert len(numbers) == 1 or path.stat().st_size <= bytes_left + 24


@tool("capinfos")
@tool("mergecap")
@tool("tshark")
@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
def test_others_read_every_file_and_all_together_in_order(name: str, tmp_path: Path) -> None:
    timestamps = [START_NS + number * 1_000_003 for number in range(5000)]
    batches = batches_of(timestamps, [60 + number % 700 for number in range(5000)], [4096, 904])
    files = rotate(tmp_path, RotationRules(file_bytes=100_000), batches, name)
    assert len(files) > 10
    counts = []
    for path in files:
        assert path.stat().st_size <= 100_000 + 200
        said = run("capinfos", "-T", "-r", "-c", str(path))
        counts.append(int(said.split("\t")[1]))
    assert sum(counts) == 5000
    merged = tmp_path / "merged.pcapng"
    run("mergecap", "-a", "-w", str(merged), *map(str, files))
    listed = run("tshark", "-n", "-r", str(merged), "-T", "fields", "-e", "frame.time_epoch").split()
    assert listed == [f"{timestamp // SECOND_NS}.{timestamp % SECOND_NS:09d}" for timestamp in timestamps]


@tool("tcpdump")
def test_tcpdump_reads_a_rotated_file(tmp_path: Path) -> None:
    batches = batches_of([START_NS + number for number in range(10)], [60] * 10, [10])
    files = rotate(tmp_path, RotationRules(frames=4), batches, "out.pcap")
    assert [len(run("tcpdump", "-r", str(path)).splitlines()) for path in files] == [4, 4, 2]


def test_each_file_has_section_all_interfaces_so_far_and_its_statistics(tmp_path: Path) -> None:
    batches = batches_of([START_NS] * 3, [60] * 3, [1, 1, 1])
    batches[1].set_interfaces([RAW_IP])
    finished: list[str] = []
    calls = iter(range(1, 10))
    writer = RotatingWriter(
        make_writer("pcapng", FileOutput(finished=finished.append), comment="made here"),
        RotationRules(frames=1),
        FileNames(str(tmp_path / "out.pcapng")),
        interfaces=[ETHERNET],
        statistics=lambda: {0: InterfaceStatistics(received=next(calls))},
    )
    for batch in batches:
        writer.write(batch)
    writer.close({0: InterfaceStatistics(received=99)})
    writer.close()
    contents = [blocks(Path(path).read_bytes()) for path in finished]
    assert [[kind for kind, _ in content] for content in contents] == [
        [0x0A0D0D0A, 1, 6, 5],
        [0x0A0D0D0A, 1, 1, 6, 5],
        [0x0A0D0D0A, 1, 1, 6, 5],
    ]
    assert all(b"made here" in content[0][1] for content in contents)
    received = [content[-1][1].index(b"\x04\0\x08\0") + 4 for content in contents]
    assert [content[-1][1][at] for content, at in zip(contents, received, strict=True)] == [1, 2, 99]


def test_capture_without_frames_leaves_one_valid_file(tmp_path: Path) -> None:
    (path,) = rotate(tmp_path, RotationRules(frames=1), [])
    assert read(path) == ([], [])


def test_frames_without_timestamp_begin_no_file_in_1970(tmp_path: Path) -> None:
    (path, later) = rotate(tmp_path, RotationRules(frames=1), batches_of([0, START_NS], [60, 60], [2]))
    assert not path.name.startswith("out_00001_1970")
    assert read(later) == ([1], [START_NS])


def test_aligned_files_begin_on_the_clock_and_are_named_after_it(tmp_path: Path) -> None:
    hour_ns = 3600 * SECOND_NS
    hour = START_NS // hour_ns * hour_ns
    timestamps = [hour + hour_ns - 1, hour + hour_ns, hour + 2 * hour_ns - 1, hour + 5 * hour_ns + 1]
    files = rotate(
        tmp_path,
        RotationRules(period_ns=hour_ns, aligned=True),
        batches_of(timestamps, [60] * 4, [4]),
        "out-%Y%m%dT%H%M%S.pcapng",
    )
    assert [read(path)[0] for path in files] == [[0], [1, 2], [3]]
    assert [path.name for path in files] == [
        time.strftime("out-%Y%m%dT%H%M%S.pcapng", time.gmtime((hour + hours * hour_ns) // SECOND_NS))
        for hours in (0, 1, 5)
    ]


def test_oldest_files_are_deleted_and_foreign_ones_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out_00000_other.pcapng").write_bytes(b"not ours")
    batches = batches_of([START_NS] * 10, [60] * 10, [10])
    ring = FileRing(3)
    files = rotate(tmp_path, RotationRules(frames=1, keep=3), batches, ring=ring)
    assert len(files) == 10
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out_00000_other.pcapng", *files[-3:]]
    assert ring.warning == ""


def test_file_that_cannot_be_deleted_is_reported_once_and_one_that_was_moved_is_not(tmp_path: Path) -> None:
    ring = FileRing(1)
    for name in ("gone", "directory", "directory2", "last"):
        ring.opening(str(tmp_path / name))
        if name.startswith("directory"):
            (tmp_path / name).mkdir()
    assert ring.warning.startswith(f"{tmp_path}/directory should have been deleted but remains: Is a directory")


def test_name_that_comes_again_on_purpose_counts_once_in_the_ring(tmp_path: Path) -> None:
    ring = FileRing(2)
    for name in ("a", "b", "a", "c"):
        ring.opening(str(tmp_path / name))
        (tmp_path / name).write_bytes(b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


@pytest.mark.parametrize(
    ("pattern", "times_s", "names"),
    [
        ("x.pcapng", [0, 1], ["x_00001_19700101000000.pcapng", "x_00002_19700101000001.pcapng"]),
        ("x.pcap.zst", [0], ["x_00001_19700101000000.pcap.zst"]),
        ("d.d/x", [0], ["d.d/x_00001_19700101000000"]),
        (".x", [0], [".x_00001_19700101000000"]),
        ("x%M.pcapng", [0, 59, 60, 61], ["x00.pcapng", "x00_00002.pcapng", "x01.pcapng", "x01_00004.pcapng"]),
        ("%H/x.pcap.zst", [0, 0], ["00/x.pcap.zst", "00/x_00002.pcap.zst"]),
        # A clock that steps back brings no earlier name again, but one that goes round does, as is meant.
        ("x%M.pcapng", [60, 0, 120], ["x01.pcapng", "x01_00002.pcapng", "x02.pcapng"]),
        ("x%M.pcapng", [0, 60, 3600], ["x00.pcapng", "x01.pcapng", "x00.pcapng"]),
    ],
)
def test_names_follow_the_pattern(pattern: str, times_s: list[int], names: list[str]) -> None:
    made = FileNames(pattern)
    assert [made.next(one * SECOND_NS) for one in times_s] == names
