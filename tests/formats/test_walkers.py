"""Raw bytes of capture files into rows, window by window, against what was packed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import block, interface, option, packet, pcap_header, pcap_record, section

from uspcap.formats.walkers import PcapngWalker, PcapWalker, Stop
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

FILE = TimestampSource.FILE
LONGEST = 1000
Row = tuple[int, bytes, int]
"""Timestamp, captured bytes and wire length."""


def array_of(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8).copy()


def rows_of(frames: FrameBatch) -> list[Row]:
    return [
        (int(frames.timestamp_ns[row]), frames.frame_bytes(row), int(frames.wire_length[row]))
        for row in range(frames.count)
    ]


def walked(walker: Any, data: bytes, capacity: int, windows: list[int], *source: int) -> tuple[list[Row], Stop, int]:
    """Walk data through windows that grow, as a reader does; return the rows, and why and where it stopped."""
    array = array_of(data)
    frames = FrameBatch(capacity)
    frames.set_data(array)
    found: list[Row] = []
    start = 0
    ends = iter([*windows, len(data)])
    end = next(ends)
    while True:
        stop = Stop(walker.walk(frames, array, start, min(end, len(data)), len(data), *source))
        assert frames.frames_read == frames.count
        assert frames.frame_number.tolist() == list(range(len(found) + 1, len(found) + frames.count + 1))
        found += rows_of(frames)
        start = walker.position
        if stop == Stop.NEED_MORE and end < len(data):
            end = max(end, next(ends))
        elif stop != Stop.FULL:
            return found, stop, start


SECONDS = st.sampled_from([0, 1, 1_700_000_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
CONTENT = st.binary(max_size=30)
RECORDS = st.lists(st.tuples(SECONDS, st.integers(0, (1 << 32) - 1), CONTENT, st.integers(0, 5)), max_size=12)
WINDOWS = st.lists(st.integers(0, 300), max_size=5).map(sorted)


@given(
    records=RECORDS, order=st.sampled_from("<>"), fraction_ns=st.sampled_from([1, 1000]), capacity=st.integers(1, 5),
    windows=WINDOWS,
)  # fmt: skip
def test_records_are_those_that_were_packed_through_any_windows(
    records: list[Any], order: str, fraction_ns: int, capacity: int, windows: list[int]
) -> None:
    data = b"".join(
        pcap_record(second, fraction, content, len(content) + more, order)
        for second, fraction, content, more in records
    )
    walker = PcapWalker(order == ">", fraction_ns, 16, LONGEST)
    found, stop, position = walked(walker, data, capacity, windows, FILE)
    assert (stop, position) == (Stop.LIMIT, len(data))
    assert found == [
        (second * 10**9 + fraction * fraction_ns, content, len(content) + more)
        for second, fraction, content, more in records
    ]
    units = 10**9 // fraction_ns
    overflowing = [number for number, (_, fraction, _, _) in enumerate(records, 1) if fraction >= units]
    assert (walker.overflowing, walker.first_overflowing) == (len(overflowing), (overflowing or [0])[0])
    assert walker.below_million == sum(fraction < 10**6 for _, fraction, _, _ in records)
    assert walker.fractions(array_of(data), 0, len(data), 3).tolist() == [fraction for _, fraction, _, _ in records[:3]]
    walker.restart()
    assert (walker.frames_seen, walker.overflowing, walker.below_million) == (0, 0, 0)


@pytest.mark.parametrize(("length", "stop"), [(LONGEST, Stop.LIMIT), (LONGEST + 1, Stop.DAMAGED)])
def test_a_record_longer_than_allowed_is_damage(length: int, stop: Stop) -> None:
    data = pcap_record(1, 0, b"ab") + pcap_record(1, 0, bytes(length))
    walker = PcapWalker(False, 1, 16, LONGEST)
    found, why, position = walked(walker, data, 8, [], FILE)
    assert why == stop
    assert len(found) == 1 + (stop == Stop.LIMIT)
    assert position == (len(data) if stop == Stop.LIMIT else 18)
    if stop == Stop.DAMAGED:
        assert f"claims {length} captured bytes" in walker.damage


@given(cut=st.integers(0, 40), header=st.sampled_from([pcap_header(), pcap_header(">"), section(), section(">")]))
def test_the_header_of_another_file_stops_the_walk_where_it_stands(cut: int, header: bytes) -> None:
    record = pcap_record(1, 0, b"abc")
    data = (record + header)[: len(record) + cut]
    walker = PcapWalker(False, 1, 16, LONGEST)
    found, stop, position = walked(walker, data, 8, [], FILE)
    assert (len(found), position) == (1, len(record))
    needed = 24 if header[:4] != section()[:4] else 12
    # Less than a record's header says nothing yet.
    expected = Stop.HEADER if min(cut, len(header)) >= max(needed, 16) else Stop.NEED_MORE
    assert stop == (Stop.LIMIT if cut == 0 else expected)


def test_lengths_of_the_old_formats_are_exchanged_where_they_stand_so() -> None:
    data = pcap_record(1, 0, b"abc", 9)
    exchanged = data[:8] + data[12:16] + data[8:12] + data[16:]
    for swapped, stored in ((0, data), (1, exchanged), (2, data), (2, exchanged)):
        found, _, _ = walked(PcapWalker(False, 1, 16, LONGEST, swapped), stored, 8, [], FILE)
        assert found == [(10**9, b"abc", 9)]


TICKS = st.one_of(st.integers(0, 10**16), st.sampled_from([(1 << 64) - 1, 1 << 63, LATEST_NS, LATEST_NS + 1]))


@given(
    packets=st.lists(st.tuples(TICKS, CONTENT), max_size=8),
    clock=st.sampled_from([(10**9, 10**6, 0), (1, 1, 0), (1000, 1, 0), (10**9, 1, 10), (1, 1000, 0), (10**9, 1, 127)]),
    offset_s=st.sampled_from([0, 1, -1, 1 << 33, -(1 << 33), (1 << 63) - 1, -(1 << 63)]),
    order=st.sampled_from("<>"),
    windows=WINDOWS,
)
def test_ticks_are_converted_exactly_and_clamped_at_the_ends(
    packets: list[Any], clock: tuple[int, int, int], offset_s: int, order: str, windows: list[int]
) -> None:
    walker = PcapngWalker(LONGEST)
    walker.begin_section(order == ">")
    walker.add_interface(*clock, offset_s, 0, FILE)
    data = b"".join(packet(ticks, content, order=order) for ticks, content in packets)
    found, stop, position = walked(walker, data, 3, windows)
    assert (stop, position) == (Stop.LIMIT, len(data))
    multiplier, divisor, shift = clock
    exact = [Fraction(ticks * multiplier, divisor << shift) for ticks, _ in packets]
    times = [int(value // 1) + offset_s * 10**9 for value in exact]
    assert found == [
        (max(EARLIEST_NS, min(LATEST_NS, at_ns)), content, len(content))
        for at_ns, (_, content) in zip(times, packets, strict=True)
    ]
    assert walker.finer_than_ns == sum(value.denominator > 1 for value in exact)
    clamped = [number for number, at_ns in enumerate(times, 1) if abs(at_ns) > LATEST_NS]
    assert walker.clamped == len(clamped)
    taken = walker.take_clamped()
    assert [(number, later) for number, _, later in taken] == [(at, times[at - 1] > 0) for at in clamped]
    assert walker.take_clamped() == []


@pytest.mark.parametrize(
    ("content", "stop", "damage"),
    [
        (interface(), Stop.BLOCK, ""),
        (section(), Stop.BLOCK, ""),
        (pcap_header(), Stop.HEADER, ""),
        (block(77, bytes(8)) + section(), Stop.BLOCK, ""),
        (block(77, bytes(8), length=400), Stop.SKIP, ""),
        (block(77, bytes(8), closing=24), Stop.DAMAGED, "two lengths differ"),
        (block(6, bytes(8), length=8), Stop.DAMAGED, "no block can have"),
        (block(6, bytes(8)), Stop.DAMAGED, "too short for its own header"),
        (block(6, bytes(LONGEST)), Stop.DAMAGED, "more than the 1000 allowed"),
        (packet(1, b"abcd", number=1), Stop.DAMAGED, "names interface 1"),
        (packet(1, b"abcd", captured=5), Stop.DAMAGED, "claims 5 captured bytes in a block with room for 4"),
        (packet(1, b"abcd")[:-1], Stop.NEED_MORE, ""),
    ],
)
def test_a_block_that_is_no_packet_or_damaged_stops_the_walk_where_it_stands(
    content: bytes, stop: Stop, damage: str
) -> None:
    walker = PcapngWalker(LONGEST)
    walker.begin_section(False)
    walker.add_interface(1, 1, 0, 0, 0, FILE)
    before = packet(7, b"ab")
    found, why, position = walked(walker, before + content, 8, [])
    assert (found, why) == ([(7, b"ab", 2)], stop)
    assert position == len(before) + (20 if content[:4] == b"\x4d\0\0\0" and stop == Stop.BLOCK else 0)
    assert damage in walker.damage
    assert bool(walker.damage) == bool(damage)


def test_options_with_columns_are_read_and_where_all_lie_is_kept() -> None:
    options = option(2, b"\3\0\0\0") + option(4, b"\5" + bytes(7)) + option(6, b"\7\0\0\0") + option(0, b"")
    walker = PcapngWalker(LONGEST)
    walker.begin_section(False)
    walker.add_interface(1, 1, 0, 0, 0, FILE)
    array = array_of(packet(1, b"abc", options=options) + packet(2, b"d"))
    frames = FrameBatch(2)
    frames.set_data(array)
    assert walker.walk(frames, array, 0, len(array), len(array)) == Stop.LIMIT
    for name, value in (("flags", 3), ("drop_count", 5), ("queue", 7)):
        assert frames.column(name).tolist() == [value, 0]
    assert frames.column("options_offset")[0] == 32
    assert frames.column("options_length").tolist() == [len(options) - 4, 0]


@given(noise=st.binary(max_size=20), whole=st.booleans())
def test_a_plausible_start_is_no_later_than_where_records_begin(noise: bytes, whole: bool) -> None:
    records = b"".join(pcap_record(1_700_000_000 + at, at, b"abc") for at in range(4))
    walker = PcapWalker(False, 1, 16, LONGEST)
    found = walker.plausible_start(array_of(noise + records), 0, 4, 1_700_000_000, whole)
    assert 0 <= found <= len(noise)
    assert walker.plausible_start(array_of(records), 0, 5, 1_700_000_000, whole) == (0 if whole else -1)
    blocks = b"".join(packet(at, b"abc") for at in range(4))
    ng = PcapngWalker(LONGEST)
    padded = noise + bytes(-len(noise) % 4)
    assert 0 <= ng.plausible_start(array_of(padded + blocks), 0, 4, whole) <= len(padded)
    assert ng.plausible_start(array_of(blocks[4:]), 0, 4, False) == -1


def test_windows_and_resolutions_that_are_not_there_are_refused() -> None:
    frames, data = FrameBatch(1), array_of(bytes(40))
    frames.set_data(data)
    for start, end in ((-1, 40), (0, 41)):
        with pytest.raises(ValueError, match="outside the data"):
            PcapWalker(False, 1, 16, LONGEST).walk(frames, data, start, end, end, FILE)
        with pytest.raises(ValueError, match="outside the data"):
            PcapngWalker(LONGEST).walk(frames, data, start, end, end)
    for multiplier, divisor, shift in ((10**9 + 1, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, 128)):
        with pytest.raises(ValueError, match="no such resolution"):
            PcapngWalker(LONGEST).add_interface(multiplier, divisor, shift, 0, 0, FILE)
