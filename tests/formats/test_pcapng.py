"""The pcapng reader on files made block by block."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import (
    Row,
    block,
    interface,
    option,
    packet,
    peak_growth_bytes,
    read,
    read_bytes,
    read_pipe,
    rows_of,
    section,
)
from support.hostile_captures import MOMENTS_NS, OFFSETS_S, RESOLUTIONS

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.formats.pcapng import resolution
from uspcap.formats.window import WINDOW_BYTES
from uspcap.frames import CLAMPED_LISTED, LATEST_NS, TimestampSource

TICKS = 1_700_000_000_123_456
"""A timestamp in the default resolution, microseconds."""


def simple_packet(data, wire_length, order="<"):
    return block(3, struct.pack(order + "I", wire_length) + data, order)


def old_packet(ticks, data, number=0, drops=0xFFFF, order="<", options=b""):
    fields = struct.pack(order + "HHIIII", number, drops, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(2, fields + data + bytes(-len(data) % 4) + options, order)


def columns_of(path, *names):
    """Return the first batch's frame columns, copied."""
    with open_capture(str(path)) as reader:
        batch = next(reader.batches())
        return [batch.column(name).tolist() for name in names]


@pytest.mark.parametrize("order", ["<", ">"])
def test_enhanced_packets_in_either_byte_order(tmp_path, order):
    content = section(order) + interface(order) + packet(TICKS, b"abcde", wire_length=1500, order=order)
    rows, facts = read_bytes(tmp_path, content)
    assert rows == [Row(TICKS * 1000, b"abcde", 1500)]
    assert facts.interfaces[0].ticks_per_second == 10**6
    assert not facts.problems


def test_sections_of_either_byte_order_follow_each_other(tmp_path):
    content = b""
    for number, order in enumerate("<><"):
        content += section(order) + interface(order, link_type=number + 1) + interface(order, link_type=101)
        content += packet(number, bytes([number]), number=0, order=order) + packet(9, b"x", number=1, order=order)
    rows, facts = read_bytes(tmp_path, content)
    assert [row.interface for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.captured for row in rows] == [b"\0", b"x", b"\1", b"x", b"\2", b"x"]
    assert [one.link_type for one in facts.interfaces] == [1, 101, 2, 101, 3, 101]
    assert not facts.problems


@pytest.mark.parametrize("exponent", range(0, 20))
def test_resolutions_of_powers_of_ten(tmp_path, exponent):
    seconds = (2**64 - 1) // 10**exponent // 2
    seconds = min(seconds, 1_700_000_000)
    ticks = seconds * 10**exponent + 7 % 10**exponent
    content = section() + interface(options=option(9, bytes([exponent]))) + packet(ticks, b"x")
    rows, facts = read_bytes(tmp_path, content)
    assert rows[0].timestamp_ns == ticks * 10**9 // 10**exponent
    assert facts.interfaces[0].ticks_per_second == 10**exponent
    assert facts.finer_than_ns == (1 if exponent > 9 else 0)


@pytest.mark.parametrize("exponent", [0, 1, 10, 20, 30, 32, 50, 63, 64, 65, 100, 127])
def test_resolutions_of_powers_of_two(tmp_path, exponent):
    ticks = [0, 1, 2**20 + 1, 2**40, 2**62, 2**64 - 1]
    content = section() + interface(options=option(9, bytes([0x80 | exponent])))
    content += b"".join(packet(tick, b"x") for tick in ticks)
    rows, facts = read_bytes(tmp_path, content)
    exact = [tick * 10**9 >> exponent for tick in ticks]
    whole = [min(value, LATEST_NS) for value in exact]
    assert [row.timestamp_ns for row in rows] == whole
    assert facts.interfaces[0].ticks_per_second == 2**exponent
    assert facts.finer_than_ns == sum(tick * 10**9 % 2**exponent != 0 for tick in ticks)
    assert facts.clamped.count == sum(value > LATEST_NS for value in exact)


@pytest.mark.parametrize("octet", range(256))
def test_every_resolution_octet_converts_as_exact_arithmetic_does(octet):
    ticks_per_second, multiplier, divisor, shift = resolution(octet)
    assert ticks_per_second == (2 if octet & 0x80 else 10) ** (octet & 0x7F)
    assert max(multiplier, divisor) < 2**64
    for ticks in (0, 1, 999, 10**12, 2**63, 2**64 - 1):
        assert (ticks * multiplier // divisor) >> shift == ticks * 10**9 // ticks_per_second


def test_timestamps_are_clamped_at_either_end_and_each_is_a_problem_with_its_frame(tmp_path):
    head = section() + interface(options=option(9, b"\x09"))
    head += interface(options=option(9, b"\x09") + option(14, struct.pack("<q", -(2**33))))
    blocks = [
        packet(LATEST_NS - 1, b"x"),
        packet(LATEST_NS, b"x"),
        packet(LATEST_NS + 1, b"x"),
        packet(2**64 - 1, b"x"),
        packet(2**33 * 10**9 - LATEST_NS, b"x", 1),
        packet(2**33 * 10**9 - LATEST_NS - 1, b"x", 1),
        packet(0, b"x", 1),
    ]
    rows, facts = read_bytes(tmp_path, head + b"".join(blocks))
    assert [row.timestamp_ns for row in rows] == [LATEST_NS - 1, *[LATEST_NS] * 3, *[-LATEST_NS] * 3]
    assert facts.clamped.count == 4
    problems = facts.all_problems("x")
    assert [(problem.frame, problem.offset) for problem in problems] == [
        (number, len(head) + sum(map(len, blocks[: number - 1]))) for number in (3, 4, 6, 7)
    ]
    assert ["after 2116" in problem.what for problem in problems] == [True, True, False, False]
    assert ["before 1823" in problem.what for problem in problems] == [False, False, True, True]


def test_of_many_clamped_timestamps_the_first_are_named_and_the_others_counted(tmp_path):
    content = section() + interface(options=option(9, b"\0")) + packet(2**63, b"x") * 5000
    _, facts = read_bytes(tmp_path, content)
    problems = facts.all_problems("x")
    assert [problem.frame for problem in problems[:-1]] == list(range(1, CLAMPED_LISTED + 1))
    assert problems[-1].what.startswith(f"and {5000 - CLAMPED_LISTED} more timestamps")


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("offset_s", sorted(set(OFFSETS_S)))
def test_any_ticks_resolution_and_offset_are_converted_exactly_and_then_clamped(tmp_path, resolution, offset_s):
    options = option(9, bytes([resolution])) + option(14, struct.pack("<q", offset_s))
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    wanted = [(moment - offset_s * 10**9) * per_second // 10**9 for moment in MOMENTS_NS]
    ticks = [0, 1, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, *(one for one in wanted if 0 <= one < 2**64)]
    content = section() + interface(options=options) + b"".join(packet(one, b"x") for one in ticks)
    rows, facts = read_bytes(tmp_path, content)
    exact = [one * 10**9 // per_second + offset_s * 10**9 for one in ticks]
    assert [row.timestamp_ns for row in rows] == [max(-LATEST_NS, min(LATEST_NS, one)) for one in exact]
    assert facts.clamped.count == sum(abs(one) > LATEST_NS for one in exact)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("offset_s", [0, 1_600_000_000, -5, -(2**32)])
def test_timestamp_offset_is_added(tmp_path, order, offset_s):
    options = option(14, struct.pack(order + "q", offset_s), order)
    content = section(order) + interface(order, options=options) + packet(1_500_000, b"x", order=order)
    rows, facts = read_bytes(tmp_path, content)
    assert rows[0].timestamp_ns == offset_s * 10**9 + 1_500_000_000
    assert facts.interfaces[0].timestamp_offset_s == offset_s


def test_simple_packets_have_no_timestamp_and_are_cut_at_the_snaplen(tmp_path):
    content = section() + interface(snaplen=6) + simple_packet(b"abcd", 4) + simple_packet(b"abcdef", 1500)
    rows, facts = read_bytes(tmp_path, content)
    assert rows == [Row(0, b"abcd", 4), Row(0, b"abcdef", 1500)]
    assert columns_of(tmp_path / "capture", "timestamp_source") == [[TimestampSource.NONE] * 2]
    assert not facts.problems


def test_obsolete_packets_count_drops(tmp_path):
    content = section() + interface() + interface(link_type=101)
    content += old_packet(TICKS, b"abc", number=1, drops=7, options=option(2, struct.pack("<I", 1)))
    content += old_packet(TICKS, b"abc")
    rows, _ = read_bytes(tmp_path, content)
    assert rows == [Row(TICKS * 1000, b"abc", 3, 1), Row(TICKS * 1000, b"abc", 3, 0)]
    assert columns_of(tmp_path / "capture", "drop_count", "flags") == [[7, 0], [1, 0]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_options_of_packets_have_columns_and_a_place(tmp_path, order):
    def number(code, form, value):
        return option(code, struct.pack(order + form, value), order)

    comment = option(1, b"a comment", order)
    options = comment + number(2, "I", 2) + number(4, "Q", 2**40) + number(6, "I", 3) + number(99, "I", 5)
    content = section(order) + interface(order)
    content += packet(1, b"abcde", order=order, options=options + option(0, b"", order))
    content += packet(2, b"abcde", order=order)
    rows, facts = read_bytes(tmp_path, content)
    assert len(rows) == 2
    path = tmp_path / "capture"
    flags, queues, drops, lengths, starts = columns_of(
        path, "flags", "queue", "drop_count", "options_length", "options_offset"
    )
    assert (flags, queues, drops, lengths) == ([2, 0], [3, 0], [2**40, 0], [len(options), 0])
    with open_capture(str(path)) as reader:
        data = next(reader.batches()).data
        assert data[starts[0] : starts[0] + lengths[0]].tobytes() == options
    assert not facts.problems


def test_an_option_that_claims_more_than_its_block_ends_the_options(tmp_path):
    flags = option(2, struct.pack("<I", 1))
    content = section() + interface()
    content += packet(1, b"abcd", options=flags + struct.pack("<HH", 6, 400) + bytes(4))
    content += packet(2, b"abcd")
    rows, facts = read_bytes(tmp_path, content)
    assert len(rows) == 2
    assert columns_of(tmp_path / "capture", "flags", "queue", "options_length") == [[1, 0], [0, 0], [len(flags), 0]]
    assert not facts.problems


def test_interface_options_describe_it(tmp_path):
    options = option(2, b"eth0") + option(3, b"feed A\0") + option(8, struct.pack("<Q", 10**10))
    options += option(11, b"\0udp port 5000") + option(12, b"Linux 6.1") + option(13, b"\4") + option(15, b"X710")
    _, facts = read_bytes(tmp_path, section() + interface(link_type=276, snaplen=128, options=options))
    one = facts.interfaces[0]
    assert (one.name, one.description, one.filter) == ("eth0", "feed A", "udp port 5000")
    assert (one.operating_system, one.hardware, one.speed_bps) == ("Linux 6.1", "X710", 10**10)
    assert (one.link_type, one.snaplen, one.fcs_length) == (276, 128, 4)


def test_interface_statistics_count_drops(tmp_path):
    counters = option(5, struct.pack("<Q", 3)) + option(7, struct.pack("<Q", 4)) + option(4, struct.pack("<Q", 9))
    content = section() + interface() + interface() + block(5, struct.pack("<III", 1, 0, 0) + counters)
    _, facts = read_bytes(tmp_path, content)
    assert facts.interface_drops == {1: 7}
    assert not facts.problems


@pytest.mark.parametrize("kind", [4, 9, 10, 0xBAD, 0x40000BAD, 0x0B16B00B, 0x80000001])
@pytest.mark.parametrize("size", [0, 4, 100, WINDOW_BYTES, 3 * WINDOW_BYTES])
def test_other_blocks_are_stepped_over(tmp_path, kind, size):
    content = section() + block(kind, bytes(size)) + interface() + block(kind, bytes(size)) + packet(1, b"abc")
    rows, facts = read_bytes(tmp_path, content + block(kind, bytes(size)))
    assert rows == [Row(1000, b"abc", 3)]
    assert not facts.problems


def test_a_huge_unknown_block_costs_no_memory(tmp_path):
    path = tmp_path / "capture"
    huge = 512 << 20
    with path.open("wb") as file:
        file.write(section() + interface() + struct.pack("<II", 0x0B16B00B, huge))
        file.seek(huge - 12, 1)
        file.write(struct.pack("<I", huge) + packet(1, b"abc") + packet(2, b"abc")[:-3])
    rows, facts = read(path)
    assert len(rows) == 1
    assert facts.truncated
    assert peak_growth_bytes(path) < 8 << 20


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 0x0B16B00B])
@pytest.mark.parametrize("length", [0xFFFFFFFC, 0xFFFFFFFF, 1 << 30, 15 << 20])
def test_claimed_length_costs_no_memory(tmp_path, kind, length):
    path = tmp_path / "capture"
    path.write_bytes(section() + interface() + packet(1, b"abc") + block(kind, bytes(1000), length=length))
    rows, facts = read(path)
    assert len(rows) == 1
    assert facts.problems


def test_a_packet_that_claims_gigabytes_of_a_large_file_costs_no_memory(tmp_path):
    path = tmp_path / "capture"
    with path.open("wb") as file:
        file.write(section() + interface() + block(6, bytes(20), length=400 << 20))
        file.truncate(300 << 20)
    assert peak_growth_bytes(path) < 8 << 20


def damaged(bad):
    """Return a file with `bad` between two good packets."""
    return section() + interface() + packet(1, b"first") + bad + packet(2, b"second")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (packet(5, b"abc", number=1), "names interface 1"),
        (packet(5, b"abc", number=0xFFFFFFFF), "names interface 4294967295"),
        (packet(5, b"abcd", captured=5), "claims 5 captured bytes in a block with room for 4"),
        (packet(5, b"abcd", captured=0xFFFFFFFF), "claims 4294967295 captured bytes"),
        (old_packet(5, b"abc", number=9), "names interface 9"),
        (block(6, bytes(16)), "too short for its own header"),
        (block(6, b""), "too short for its own header"),
        (block(3, b""), "too short for its own header"),
        (block(2, bytes(4)), "too short for its own header"),
        (block(6, bytes(40), closing=56), "two lengths differ"),
        (block(4, bytes(40), closing=56), "two lengths differ"),
        (block(1, bytes(8), closing=24), "two lengths differ"),
        (block(4, bytes(2 * WINDOW_BYTES), closing=56), "two lengths differ"),
        (block(1, bytes(4)), "interface description is too short"),
        (block(1, b""), "interface description is too short"),
        (block(5, bytes(8)), "interface statistics are too short"),
        (block(6, bytes(17 << 20)), "more than the 16777216 allowed"),
    ],
)
def test_reading_goes_on_after_a_damaged_block(tmp_path, bad, said):
    rows, facts = read_bytes(tmp_path, damaged(bad))
    assert [row.captured for row in rows] == [b"first", b"second"]
    assert len(facts.problems) == 1
    assert said in facts.problems[0].what
    at = len(section() + interface() + packet(1, b"first"))
    assert facts.problems[0].offset == at
    assert f"next block, byte {at + len(bad)}" in facts.problems[0].what
    assert not facts.truncated


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (block(6, bytes(40), length=8), "claims a length of 8"),
        (block(6, bytes(40), length=60), "two lengths differ"),
        (block(0x0A0D0D0A, bytes(16)), "no byte-order magic"),
        (section(version=(2, 0)), "version 2.0"),
        (block(0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D)), "section header is too short"),
        (block(1, bytes(8), length=4), "claims a length of 4"),
    ],
)
def test_reading_ends_where_no_next_block_can_be_seen(tmp_path, bad, said):
    rows, facts = read_bytes(tmp_path, damaged(bad))
    assert [row.captured for row in rows] == [b"first"]
    assert len(facts.problems) == 1
    assert said in facts.problems[0].what
    assert facts.problems[0].what.endswith("nothing after it was read")


def test_a_length_without_its_padding_is_read_as_it_is_meant(tmp_path):
    # As early ntar wrote them: the file has the padding, the length has not.
    data = b"abcde"
    fields = struct.pack("<IIIII", 0, 0, 7, len(data), len(data))
    odd = struct.pack("<II", 6, 37) + fields + data + bytes(3) + struct.pack("<I", 37)
    rows, facts = read_bytes(tmp_path, damaged(odd))
    assert [row.captured for row in rows] == [b"first", data, b"second"]
    assert not facts.problems


def test_packets_without_an_interface_are_damage(tmp_path):
    rows, facts = read_bytes(tmp_path, section() + packet(1, b"abc") + simple_packet(b"abc", 3))
    assert not rows
    assert len(facts.problems) == 2


def test_interfaces_of_a_former_section_do_not_count(tmp_path):
    rows, facts = read_bytes(tmp_path, section() + interface() + packet(1, b"abc") + section() + packet(1, b"abc"))
    assert len(rows) == 1
    assert "names interface 0" in facts.problems[0].what


def small_file():
    """Return the blocks of a small file, and how many frames each adds."""
    options = option(1, b"comment") + option(0, b"")
    return [
        (section(options=option(4, b"made by hand") + option(0, b"")), 0),
        (interface(snaplen=9, options=option(2, b"eth0") + option(9, b"\x09") + option(0, b"")), 0),
        (packet(10**18, b"abcde"), 1),
        (packet(10**18 + 1, b"", wire_length=60), 1),
        (block(4, bytes(8)), 0),
        (packet(10**18 + 2, b"abcdefg", options=options), 1),
        (simple_packet(b"abcdefghi", 14), 1),
        (old_packet(10**18 + 3, b"abc", drops=2), 1),
        (block(5, struct.pack("<III", 0, 0, 0) + option(5, struct.pack("<Q", 1))), 0),
        (section(">"), 0),
        (interface(">"), 0),
        (packet(TICKS, b"z", order=">"), 1),
    ]


def test_cut_anywhere_yields_the_blocks_that_are_whole(tmp_path):
    blocks = small_file()
    content = b"".join(one for one, _ in blocks)
    whole, facts = read_bytes(tmp_path, content)
    assert len(whole) == sum(frames for _, frames in blocks)
    assert not facts.problems
    ends, frames_at = [0], {0: 0}
    for one, frames in blocks:
        frames_at[ends[-1] + len(one)] = frames_at[ends[-1]] + frames
        ends.append(ends[-1] + len(one))
    for cut in range(4, len(content)):
        rows, facts = read_bytes(tmp_path, content[:cut])
        last_end = max(end for end in ends if end <= cut)
        assert rows == whole[: frames_at[last_end]]
        assert facts.truncated == (cut != last_end)
        assert [problem.offset for problem in facts.problems] == ([last_end] if facts.truncated else [])


def test_stopping_at_any_offset_and_going_on_gives_the_same_frames(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(b"".join(one for one, _ in small_file()))
    whole, _ = read(path)
    for stop_at in range(path.stat().st_size + 2):
        with open_capture(str(path)) as reader:
            reader.stop_at = stop_at
            first = rows_of(reader)
            assert reader.stopped_at >= min(stop_at, path.stat().st_size)
            reader.stop_at = 1 << 60
            assert first + rows_of(reader) == whole
            assert not reader.facts.problems


def test_two_readers_meet_at_a_block_boundary(tmp_path):
    path = tmp_path / "capture"
    packets = [packet(TICKS + i, bytes([i % 251]) * (40 + i * 7 % 90)) for i in range(3000)]
    path.write_bytes(section() + interface() + b"".join(packets))
    whole, _ = read(path)
    for part in range(1, 8):
        with open_capture(str(path)) as earlier, open_capture(str(path)) as later:
            assert later.jump_near(path.stat().st_size * part // 8)
            earlier.stop_at = later.began_at
            first = rows_of(earlier)
            assert earlier.stopped_at == later.began_at
            assert earlier.knowledge == later.initial_knowledge
            assert first + rows_of(later) == whole
            assert 0 < len(first) < len(whole)


@pytest.mark.parametrize("sizes", [[1], [7], [1, 2, 3, 4, 5, 6, 7]])
def test_a_pipe_that_delivers_a_few_bytes_at_a_time_is_read_whole(tmp_path, sizes):
    content = b"".join(one for one, _ in small_file()) * 5
    assert read_pipe(content, sizes)[0] == read_bytes(tmp_path, content)[0]


@pytest.mark.parametrize("size", [0, 47, 48, 49, 1500, 65535, 3 * WINDOW_BYTES])
def test_packets_that_straddle_windows_and_batches_are_whole(tmp_path, size):
    count = 3 * WINDOW_BYTES // (size + 32) + 5
    datas = [struct.pack("<Q", i)[:size].ljust(size, b"p") for i in range(count)]
    content = section() + interface() + b"".join(packet(i, data) for i, data in enumerate(datas))
    rows, facts = read_bytes(tmp_path, content)
    assert [row.captured for row in rows] == datas
    assert [row.timestamp_ns for row in rows] == [i * 1000 for i in range(count)]
    assert not facts.problems


def test_more_interfaces_than_a_column_can_name_are_reported_and_left_out(tmp_path):
    content = section() + interface() * 65537 + packet(1, b"abc", number=65535)
    rows, facts = read_bytes(tmp_path, content)
    assert [row.interface for row in rows] == [65535]
    assert "more than 65536 interfaces" in facts.problems[0].what


@given(data=st.data())
def test_flipped_bytes_never_raise_anything_but_a_clear_error(tmp_path_factory, data):
    content = bytearray(b"".join(one for one, _ in small_file()))
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
def test_any_bytes_after_a_section_header_never_raise(tmp_path_factory, content):
    rows, facts = read_bytes(tmp_path_factory.getbasetemp(), section() + interface() + content)
    assert not content or rows or facts.problems or len(facts.interfaces) > 1


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 0x0A0D0D0A]), st.binary(max_size=60)), max_size=12))
def test_any_bodies_in_sound_blocks_never_raise(tmp_path_factory, blocks):
    content = section() + interface() + b"".join(block(kind, body) for kind, body in blocks)
    rows, facts = read_bytes(tmp_path_factory.getbasetemp(), content + packet(1, b"last"))
    if all(kind != 0x0A0D0D0A for kind, _ in blocks):
        assert rows[-1].captured == b"last"
        assert len(rows) + len(facts.problems) >= 1
