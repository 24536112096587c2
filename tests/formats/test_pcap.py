"""The pcap reader on files made byte by byte."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import (
    Row,
    pcap_header,
    pcap_record,
    peak_growth_bytes,
    read,
    read_bytes,
    read_pipe,
    rows_of,
)

from uspcap.errors import CaptureFileError, NotACaptureFile
from uspcap.formats import open_capture
from uspcap.formats.reader import LONGEST_FRAME
from uspcap.formats.window import WINDOW_BYTES

SECOND = 1_700_000_000
TIMESTAMP_NS = SECOND * 10**9 + 123_456_000


@pytest.mark.parametrize("order", ["<", ">"])
def test_microseconds_in_either_byte_order(tmp_path, order):
    content = pcap_header(order) + pcap_record(SECOND, 123_456, b"abc", 1500, order)
    rows, facts = read_bytes(tmp_path, content)
    assert rows == [Row(TIMESTAMP_NS, b"abc", 1500)]
    assert facts.interfaces[0].ticks_per_second == 10**6
    assert not facts.problems


@pytest.mark.parametrize("order", ["<", ">"])
def test_nanoseconds_in_either_byte_order(tmp_path, order):
    content = pcap_header(order, magic=0xA1B23C4D) + pcap_record(SECOND, 123_456_789, b"abc", order=order)
    rows, facts = read_bytes(tmp_path, content)
    assert rows == [Row(SECOND * 10**9 + 123_456_789, b"abc", 3)]
    assert facts.interfaces[0].ticks_per_second == 10**9


@pytest.mark.parametrize("order", ["<", ">"])
def test_modified_format_has_eight_more_bytes_a_record(tmp_path, order):
    # ifindex, protocol, packet type and padding follow the usual record header.
    extra = struct.pack(order + "IHBx", 2, 0x0800, 0)
    content = pcap_header(order, magic=0xA1B2CD34)
    content += pcap_record(SECOND, 123_456, b"abc", order=order, extra=extra)
    content += pcap_record(SECOND + 1, 0, b"defg", order=order, extra=extra)
    rows, facts = read_bytes(tmp_path, content)
    assert rows == [Row(TIMESTAMP_NS, b"abc", 3), Row((SECOND + 1) * 10**9, b"defg", 4)]
    assert not facts.problems


def test_timestamps_use_all_32_bits_of_seconds(tmp_path):
    rows, _ = read_bytes(tmp_path, pcap_header() + pcap_record(0xFFFFFFFF, 999_999, b"x"))
    assert rows[0].timestamp_ns == 0xFFFFFFFF * 10**9 + 999_999_000


def test_fraction_beyond_a_second_is_added(tmp_path):
    rows, _ = read_bytes(tmp_path, pcap_header() + pcap_record(10, 2_500_000, b"x"))
    assert rows[0].timestamp_ns == 12_500_000_000


def test_frame_check_sequence_length_comes_from_the_link_type_field(tmp_path):
    _, facts = read_bytes(tmp_path, pcap_header(link_type=0x24000001))
    assert (facts.interfaces[0].link_type, facts.interfaces[0].fcs_length) == (1, 4)
    _, facts = read_bytes(tmp_path, pcap_header(link_type=101))
    assert (facts.interfaces[0].link_type, facts.interfaces[0].fcs_length) == (101, -1)
    assert not facts.problems


def test_reserved_bits_of_the_link_type_field_are_a_problem(tmp_path):
    rows, facts = read_bytes(tmp_path, pcap_header(link_type=0x00300001) + pcap_record(1, 0, b"abc"))
    assert len(rows) == 1
    assert [problem.offset for problem in facts.problems] == [20]


@pytest.mark.parametrize(
    ("minor", "first", "second", "captured", "wire"),
    [(2, 100, 4, 4, 100), (2, 4, 4, 4, 4), (3, 100, 4, 4, 100), (3, 4, 100, 4, 100), (4, 4, 100, 4, 100)],
)
def test_lengths_were_swapped_before_format_2_4(tmp_path, minor, first, second, captured, wire):
    record = struct.pack("<IIII", 1, 0, first, second) + bytes(range(4))
    rows, facts = read_bytes(tmp_path, pcap_header(version=(2, minor)) + record * 3)
    assert [(len(row.captured), row.wire_length) for row in rows] == [(captured, wire)] * 3
    assert not facts.problems


@pytest.mark.parametrize("version", [(1, 0), (3, 0), (543, 0)])
def test_unknown_version_is_refused(tmp_path, version):
    with pytest.raises(CaptureFileError, match=rf"version {version[0]}\.{version[1]}"):
        read_bytes(tmp_path, pcap_header(version=version))


@pytest.mark.parametrize("content", [b"", b"\xd4", b"\0\0\0\0", b"not a capture at all", bytes(100)])
def test_other_content_is_no_capture_file(tmp_path, content):
    with pytest.raises(NotACaptureFile):
        read_bytes(tmp_path, content)


def test_frames_without_bytes_are_frames(tmp_path):
    rows, facts = read_bytes(tmp_path, pcap_header() + pcap_record(1, 0, b"", 60) * 5000)
    assert rows == [Row(10**9, b"", 60)] * 5000
    assert not facts.problems


def small_file():
    sizes = [0, 1, 5, 5, 5, 60, 0, 3]
    records = [pcap_record(10 + i, i, bytes([i]) * size, size + i) for i, size in enumerate(sizes)]
    return pcap_header(), records


def test_cut_anywhere_yields_the_records_that_are_whole(tmp_path):
    header, records = small_file()
    content = header + b"".join(records)
    whole, _ = read_bytes(tmp_path, content)
    assert len(whole) == len(records)
    ends = [len(header)]
    for record in records:
        ends.append(ends[-1] + len(record))
    for cut in range(len(content)):
        if cut < len(header):
            with pytest.raises(CaptureFileError):
                read_bytes(tmp_path, content[:cut])
            continue
        rows, facts = read_bytes(tmp_path, content[:cut])
        there = sum(end <= cut for end in ends) - 1
        assert rows == whole[:there]
        assert facts.truncated == (cut not in ends)
        assert len(facts.problems) == facts.truncated
        if facts.truncated:
            assert facts.problems[0].offset == ends[there]


def test_stopping_at_any_offset_and_going_on_gives_the_same_frames(tmp_path):
    header, records = small_file()
    path = tmp_path / "capture"
    path.write_bytes(header + b"".join(records))
    whole, _ = read(path)
    for stop_at in range(len(header), path.stat().st_size + 2):
        with open_capture(str(path)) as reader:
            reader.stop_at = stop_at
            first = rows_of(reader)
            assert reader.stopped_at >= min(stop_at, path.stat().st_size)
            reader.stop_at = 1 << 60
            assert first + rows_of(reader) == whole
            assert not reader.facts.problems


def test_two_readers_meet_at_a_record_boundary(tmp_path):
    path = tmp_path / "capture"
    records = [pcap_record(SECOND + i // 100, i, bytes([i % 251]) * (40 + i * 7 % 90)) for i in range(3000)]
    path.write_bytes(pcap_header() + b"".join(records))
    whole, _ = read(path)
    for part in range(1, 8):
        with open_capture(str(path)) as earlier, open_capture(str(path)) as later:
            assert later.jump_near(path.stat().st_size * part // 8)
            earlier.stop_at = later.began_at
            first = rows_of(earlier)
            assert earlier.stopped_at == later.began_at
            assert first + rows_of(later) == whole
            assert 0 < len(first) < len(whole)


def test_longest_frame_is_read_and_a_longer_one_is_damage(tmp_path):
    longest = pcap_record(1, 0, bytes(LONGEST_FRAME))
    rows, facts = read_bytes(tmp_path, pcap_header() + longest + pcap_record(2, 0, b"x"))
    assert [len(row.captured) for row in rows] == [LONGEST_FRAME, 1]
    assert not facts.problems
    beyond = pcap_record(1, 0, bytes(LONGEST_FRAME + 1))
    rows, facts = read_bytes(tmp_path, pcap_header() + pcap_record(2, 0, b"x") + beyond)
    assert len(rows) == 1
    assert facts.problems[0].offset == 24 + 17
    assert not facts.truncated


def test_big_frames_of_link_types_that_have_them_outgrow_the_window(tmp_path):
    data = bytes(range(256)) * (3 * WINDOW_BYTES // 256)
    datas = [b"before", data, b"after"]
    content = pcap_header(link_type=249) + b"".join(pcap_record(1, 0, data) for data in datas)
    rows, facts = read_bytes(tmp_path, content)
    assert [row.captured for row in rows] == datas
    assert not facts.problems


@pytest.mark.parametrize("size", [0, 47, 48, 49, 1500, 65535])
def test_records_that_straddle_windows_and_batches_are_whole(tmp_path, size):
    count = 3 * WINDOW_BYTES // (size + 16) + 5
    datas = [struct.pack("<Q", i)[: size or 0].ljust(size, b"p") for i in range(count)]
    content = pcap_header() + b"".join(pcap_record(1, i % 10**6, data) for i, data in enumerate(datas))
    rows, facts = read_bytes(tmp_path, content)
    assert [row.captured for row in rows] == datas
    assert [row.timestamp_ns for row in rows] == [10**9 + i % 10**6 * 1000 for i in range(count)]
    assert not facts.problems


@pytest.mark.parametrize("sizes", [[1], [7], [1, 2, 3, 4, 5, 6, 7]])
def test_a_pipe_that_delivers_a_few_bytes_at_a_time_is_read_whole(tmp_path, sizes):
    header, records = small_file()
    content = header + b"".join(records) * 20
    assert read_pipe(content, sizes)[0] == read_bytes(tmp_path, content)[0]


@pytest.mark.parametrize("before", [0, 1])
def test_largest_length_that_can_be_written_is_damage_wherever_it_stands(tmp_path, before):
    path = tmp_path / "claimed.pcap"
    empty = struct.pack("<IIII", 1, 0, 0, 0)
    path.write_bytes(pcap_header() + empty * before + struct.pack("<IIII", 1, 0, 0xFFFFFFFF, 60) + empty * 3)
    with open_capture(str(path)) as reader:
        assert sum(batch.count for batch in reader.batches()) == before
        (problem,) = reader.facts.problems
        assert "claims 4294967295 captured bytes" in problem.what


def test_claimed_length_costs_no_memory(tmp_path):
    # USBPcap frames may have 128 MiB: the claim passes, the bytes never come.
    path = tmp_path / "capture"
    path.write_bytes(pcap_header(link_type=249) + struct.pack("<IIII", 1, 0, 128 << 20, 128 << 20) + bytes(1000))
    assert peak_growth_bytes(path) < 8 << 20
    path.write_bytes(pcap_header() + struct.pack("<IIII", 1, 0, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(1000))
    assert peak_growth_bytes(path) < 8 << 20


@given(data=st.data())
def test_flipped_bytes_never_raise_anything_but_a_clear_error(tmp_path_factory, data):
    header, records = small_file()
    content = bytearray(header + b"".join(records))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    directory = tmp_path_factory.getbasetemp()
    try:
        rows, _ = read_bytes(directory, bytes(content))
    except CaptureFileError as error:
        assert str(directory) in str(error)
    else:
        assert sum(len(row.captured) for row in rows) <= len(content)


@given(st.binary(max_size=400))
def test_any_bytes_after_a_header_never_raise(tmp_path_factory, content):
    rows, facts = read_bytes(tmp_path_factory.getbasetemp(), pcap_header() + content)
    used = sum(16 + len(row.captured) for row in rows)
    assert used == len(content) or facts.problems
