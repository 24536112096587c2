"""Captures that were concatenated: every file header at a record's boundary is read on from, and said."""

import bz2
import gzip
import lzma
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.capture_files import (
    block,
    interface,
    option,
    packet,
    pcap_header,
    pcap_record,
    read_bytes,
    read_pipe,
    rows_of,
    section,
)
from support.command_line import invoke
from support.reports import report_on
from support.shared_cases import CASES, needs_cases

from uspcap.formats import open_capture, parts
from uspcap.formats.parts import continues, open_parts
from uspcap.frames import SourceFacts

lz4_frame = pytest.importorskip("lz4.frame")
zstandard = pytest.importorskip("zstandard")

SECOND = 1_700_000_000
COMPRESS = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4_frame.compress,
}


def payload(number):
    return struct.pack("<I", number) * (1 + number % 5)


def pcap(first, count, order="<", nanosecond=False, link_type=1, modified=False):
    """Return a pcap file and the rows that it holds, the interface left out."""
    magic = 0xA1B23C4D if nanosecond else 0xA1B2CD34 if modified else 0xA1B2C3D4
    content, rows = pcap_header(order, magic, link_type=link_type), []
    for number in range(first, first + count):
        extra = bytes(8) if modified else b""
        content += pcap_record(SECOND + number, number, payload(number), order=order, extra=extra)
        rows.append(((SECOND + number) * 10**9 + number * (1 if nanosecond else 1000), payload(number)))
    return content, rows


def pcapng(first, count, order="<", resolution=9):
    options = option(9, bytes([resolution]), order) + option(0, b"", order)
    content, rows = section(order) + interface(order, options=options), []
    for number in range(first, first + count):
        ticks = (SECOND + number) * 10**resolution + number
        content += packet(ticks, payload(number), order=order)
        rows.append((ticks * 10 ** (9 - resolution), payload(number)))
    return content, rows


KINDS = {
    "pcap": pcap,
    "pcap, big-endian": lambda first, count: pcap(first, count, ">"),
    "pcap, nanoseconds": lambda first, count: pcap(first, count, nanosecond=True),
    "pcap, modified": lambda first, count: pcap(first, count, modified=True),
    "pcap, raw IP": lambda first, count: pcap(first, count, link_type=101),
    "pcapng": pcapng,
    "pcapng, big-endian": lambda first, count: pcapng(first, count, ">", 6),
}


def concatenated(kinds, counts):
    contents, rows, first = [], [], 0
    for kind, count in zip(kinds, counts, strict=True):
        content, more = KINDS[kind](first, count)
        contents.append(content)
        rows += more
        first += count
    return contents, rows


def timed(rows):
    return [(row.timestamp_ns, row.captured) for row in rows]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_any_format_after_any_other_is_read_on_in_every_compression(tmp_path, compression, first, second):
    contents, expected = concatenated((first, second), (7, 5))
    # A member for each, as `cat` of compressed files has them.
    rows, facts = read_bytes(tmp_path, b"".join(map(COMPRESS[compression], contents)))
    assert timed(rows) == expected
    assert not facts.problems
    assert facts.frames == 12
    if first.startswith("pcapng") and second.startswith("pcapng"):
        assert facts.headers.count == 0  # that is a file of two sections, as the format has it
    else:
        assert facts.headers.first == (len(contents[0]), second.partition(",")[0])
        assert facts.headers.count == 1
        (note,) = facts.notes("x")
        assert f"byte {len(contents[0])}" in note


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_chains_are_read_whole_from_files_and_pipes_and_numbered_through(tmp_path_factory, data):
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=7))
    counts = [data.draw(st.integers(0, 6)) for _ in kinds]
    contents, expected = concatenated(kinds, counts)
    content = b"".join(contents)
    rows, facts = read_bytes(tmp_path_factory.mktemp("chain"), content)
    assert timed(rows) == expected
    assert not facts.all_problems("x")
    again, piped = read_pipe(content, data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=5)))
    assert again == rows
    assert piped.headers == facts.headers


def test_each_frame_is_of_the_interface_that_its_own_header_describes(tmp_path):
    contents, _ = concatenated(("pcapng", "pcap, raw IP", "pcapng", "pcap, raw IP", "pcap"), (1, 1, 1, 1, 1))
    rows, facts = read_bytes(tmp_path, b"".join(contents))
    # One that is described again alike by pcap is the same; sections of pcapng have their own.
    assert [row.interface for row in rows] == [0, 1, 2, 1, 3]
    assert [one.link_type for one in facts.interfaces] == [1, 101, 1, 1]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_header_that_is_cut_is_an_end_within_a_record(tmp_path, cut):
    content, expected = pcap(0, 4)
    rows, facts = read_bytes(tmp_path, content + pcap_header()[:cut])
    assert timed(rows) == expected or cut >= 16  # 16 bytes of it could be a record without bytes
    assert facts.truncated


def test_a_header_in_the_middle_of_a_record_is_no_header(tmp_path):
    content, expected = pcap(0, 4)
    inside = pcap_record(SECOND + 9, 9, pcap_header() + pcap_record(1, 1, b"x"))
    rows, facts = read_bytes(tmp_path, content + inside)
    assert timed(rows)[:4] == expected
    assert len(rows) == 5
    assert facts.headers.count == 0


def test_frames_of_the_years_that_magic_numbers_stand_for_are_frames(tmp_path):
    records = b"".join(pcap_record(second, 7, bytes(size)) for second in (0xA1B2C3D4, 0xA1B23C4D) for size in (0, 3, 0))
    rows, facts = read_bytes(tmp_path, pcap_header() + records)
    assert len(rows) == 6
    assert facts.headers.count == 0


def test_a_header_of_an_unknown_version_is_no_header(tmp_path):
    content, expected = pcap(0, 4)
    rows, facts = read_bytes(tmp_path, content + pcap_header(version=(3, 0)) + pcap_record(1, 1, b"x"))
    assert timed(rows)[:4] == expected
    assert facts.headers.count == 0


def test_damage_before_a_second_header_keeps_its_handling(tmp_path):
    content, expected = pcap(0, 4)
    rows, facts = read_bytes(tmp_path, content + struct.pack("<IIII", 1, 1, 1 << 30, 1 << 30) + pcap(4, 2)[0])
    assert timed(rows) == expected
    assert [problem.offset for problem in facts.problems] == [len(content)]


@pytest.mark.parametrize("kinds", [("pcap", "pcap"), ("pcap", "pcap, nanoseconds"), ("pcap", "pcapng", "pcap")])
def test_parts_of_a_chain_joined_are_the_whole(tmp_path, monkeypatch, kinds):
    monkeypatch.setattr(parts, "SMALLEST_PART", 4096)
    contents, expected = concatenated(kinds, [1500] * len(kinds))
    path = tmp_path / "capture"
    path.write_bytes(b"".join(contents))
    for most in (1, 2, 3, 8):
        readers = open_parts(str(path), most)
        facts, rows, before = SourceFacts(), timed(rows_of(readers[0])), readers[0]
        for reader in readers[1:]:
            mine = timed(rows_of(reader))
            if before.ended:
                break
            if continues(before, reader):
                facts.append(before.facts)
                rows += mine
                before = reader
            else:
                before.stop_at = reader.stop_at
                rows += timed(rows_of(before))
        facts.append(before.facts)
        for reader in readers:
            reader.close()
        assert rows == expected
        assert facts.headers.count == len(kinds) - 1
        assert facts.headers.first[0] == len(contents[0])


def test_jobs_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SMALLEST_PART", 4096)
    contents, _ = concatenated(("pcap", "pcap, nanoseconds", "pcapng"), [1500, 1500, 1500])
    path = tmp_path / "capture"
    path.write_bytes(b"".join(contents))
    reports = [report_on(path, jobs=jobs) for jobs in (1, 2, 3)]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["source"]["packets_read"] == 4500


def test_blocks_of_unknown_kinds_are_passed_over_as_ever(tmp_path):
    content, expected = pcapng(0, 3)
    rows, _ = read_bytes(tmp_path, content + block(0xA1B2C3D4 & 0x7FFFFFFF, bytes(20)) + packet(1, b"x"))
    assert timed(rows)[:3] == expected
    assert len(rows) == 4


@needs_cases
def test_the_case_of_two_files(tmp_path):
    ended = invoke("analyze", CASES / "files" / "c5_cat.pcap", "--only", "summary")
    assert ended.code == 0
    assert "20" in ended.stdout
    assert "byte 1244" in ended.stdout
    with open_capture(str(CASES / "files" / "c5_cat.pcap")) as reader:
        assert len(rows_of(reader)) == 20
