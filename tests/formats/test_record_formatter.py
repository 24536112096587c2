"""`uspcap.formats.record_formatter` against a slow, obvious twin, byte for byte."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uspcap.formats.record_formatter import RecordFormatter
from uspcap.frames import FrameBatch, Interface

NUMBERS = {2: "flags", 4: "drop_count", 6: "queue"}


def option(code, value):
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def kept_options(raw, columns, big_endian):
    """Return the raw options that are passed on, little-endian."""
    out = b""
    order = ">" if big_endian else "<"
    while len(raw) >= 4:
        code, length = struct.unpack_from(order + "HH", raw)
        raw = raw[4:]
        if code == 0 or length > len(raw):
            break
        value, raw = raw[:length], raw[length + -length % 4 :]
        if code in NUMBERS and columns[NUMBERS[code]]:
            continue
        if big_endian and code != 1:
            continue
        out += option(code, value)
    return out


def expected_block(frame, number, snaplen, big_endian):
    """Return one enhanced packet block, or nothing for a frame that pcapng cannot hold."""
    if frame["timestamp_ns"] < 0:
        return b""
    data = frame["data"][: snaplen or None]
    options = b""
    if frame["flags"]:
        options += option(2, struct.pack("<I", frame["flags"]))
    if frame["drop_count"]:
        options += option(4, struct.pack("<Q", frame["drop_count"]))
    if frame["queue"]:
        options += option(6, struct.pack("<I", frame["queue"]))
    options += kept_options(frame["options"], frame, big_endian)
    if options:
        options += bytes(4)
    body = struct.pack(
        "<IIIII",
        number,
        frame["timestamp_ns"] >> 32,
        frame["timestamp_ns"] & 0xFFFFFFFF,
        len(data),
        frame["wire_length"],
    )
    body += data + bytes(-len(data) % 4) + options
    return struct.pack("<II", 6, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def expected_record(frame, snaplen):
    """Return one pcap record with nanoseconds, or nothing for a frame that pcap cannot hold."""
    seconds, nanoseconds = divmod(frame["timestamp_ns"], 10**9)
    if not 0 <= seconds < 1 << 32:
        return b""
    data = frame["data"][: snaplen or None]
    return struct.pack("<IIII", seconds, nanoseconds, len(data), frame["wire_length"]) + data


def make_batch(frames, interfaces=3):
    data = b"".join(frame["data"] + frame["options"] for frame in frames)
    batch = FrameBatch(max(len(frames), 1))
    batch.set_data(np.frombuffer(data, np.uint8).copy())
    at = 0
    for row, frame in enumerate(frames):
        for name in ("timestamp_ns", "wire_length", "interface", "flags", "queue", "drop_count"):
            batch.storage(name)[row] = frame[name]
        batch.storage("captured_length")[row] = len(frame["data"])
        batch.storage("offset")[row] = at
        at += len(frame["data"])
        batch.storage("options_offset")[row] = at
        batch.storage("options_length")[row] = len(frame["options"])
        at += len(frame["options"])
    batch.count = len(frames)
    batch.set_interfaces([Interface(1, name=f"eth{i}") for i in range(interfaces)])
    return batch


def format_all(formatter, call):
    """Return all bytes, and the frames counted with them."""
    out, frames, row = b"", 0, 0
    while True:
        following = call(row)
        assert formatter.used or following >= row
        out += formatter.buffer[: formatter.used].tobytes()
        frames += formatter.frames
        if following == row:
            return out, frames
        row = following


some_options = st.builds(
    lambda order, items, tail: (
        b"".join(struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in items)
        + tail
    ),
    st.sampled_from("<>"),
    st.lists(st.tuples(st.integers(1, 9) | st.integers(0, 0xFFFF), st.binary(max_size=20)), max_size=4),
    st.sampled_from([b"", bytes(4)]) | st.binary(max_size=9),
)
some_frames = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp_ns": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**63 - 1),
            "data": st.binary(max_size=90),
            "wire_length": st.integers(0, 2**32 - 1),
            "interface": st.integers(0, 2),
            "flags": st.just(0) | st.integers(0, 2**32 - 1),
            "queue": st.just(0) | st.integers(0, 2**32 - 1),
            "drop_count": st.just(0) | st.integers(0, 2**64 - 1),
            "options": st.just(b"") | some_options,
        }
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(
    frames=some_frames,
    snaplens=st.lists(st.sampled_from([0, 0, 1, 40, 89, 65535]), min_size=3, max_size=3),
    numbers=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    big_endian=st.booleans(),
    buffer_bytes=st.integers(64, 2000),
)
def test_pcapng_blocks_are_those_of_the_twin(frames, snaplens, numbers, big_endian, buffer_bytes):
    batch = make_batch(frames)
    formatter = RecordFormatter(buffer_bytes)
    out, count = format_all(
        formatter,
        lambda row: formatter.pcapng(
            batch, row, np.array(numbers, np.uint32), np.array(snaplens, np.uint32), big_endian
        ),
    )
    blocks = [
        expected_block(frame, numbers[frame["interface"]], snaplens[frame["interface"]], big_endian) for frame in frames
    ]
    assert out == b"".join(blocks)
    assert count == sum(map(bool, blocks))
    assert formatter.timestamps_refused == len(frames) - count
    assert formatter.lengths_refused == 0
    assert formatter.frames_cut == sum(
        0 < snaplens[frame["interface"]] < len(frame["data"]) for frame in frames if frame["timestamp_ns"] >= 0
    )


@settings(deadline=None, max_examples=80)
@given(frames=some_frames, snaplen=st.sampled_from([0, 1, 40, 65535]), buffer_bytes=st.integers(64, 2000))
def test_pcap_records_are_those_of_the_twin(frames, snaplen, buffer_bytes):
    batch = make_batch(frames)
    formatter = RecordFormatter(buffer_bytes)
    out, count = format_all(formatter, lambda row: formatter.pcap(batch, row, snaplen))
    records = [expected_record(frame, snaplen) for frame in frames]
    assert out == b"".join(records)
    assert count == sum(map(bool, records))
    assert formatter.timestamps_refused == len(frames) - count
    assert formatter.options_refused == sum(
        bool(frame["options"]) and bool(record) for frame, record in zip(frames, records, strict=True)
    )


def frame(**values):
    plain = {
        "timestamp_ns": 1,
        "data": b"abcd",
        "wire_length": 4,
        "interface": 0,
        "flags": 0,
        "queue": 0,
        "drop_count": 0,
        "options": b"",
    }
    return plain | values


def one_interface(formatter, batch, big_endian=False):
    return formatter.pcapng(batch, 0, np.zeros(1, np.uint32), np.zeros(1, np.uint32), big_endian)


def test_the_ends_of_what_pcap_can_hold():
    timestamps = [-1, 0, 2**32 * 10**9 - 1, 2**32 * 10**9]
    formatter = RecordFormatter(1000)
    formatter.pcap(make_batch([frame(timestamp_ns=timestamp) for timestamp in timestamps]), 0, 0)
    assert formatter.frames == 2
    assert formatter.timestamps_refused == 2
    assert struct.unpack_from("<II", formatter.buffer, 20) == (2**32 - 1, 999_999_999)


def test_a_frame_longer_than_the_buffer_makes_it_grow():
    formatter = RecordFormatter(64)
    batch = make_batch([frame(data=bytes(100_000))])
    assert one_interface(formatter, batch) == 1
    assert formatter.used == 100_032
    assert formatter.buffer.size >= 100_032


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", -1),
        ("offset", 1),
        ("offset", 2**63 - 1),
        ("captured_length", 5),
        ("captured_length", 2**32 - 1),
        ("interface", 1),
    ],
)
def test_a_row_that_points_outside_is_an_error(column, value):
    batch = make_batch([frame()])
    batch.storage(column)[0] = value
    formatter = RecordFormatter(64)
    with pytest.raises(ValueError, match="row 0 of the batch points outside"):
        one_interface(formatter, batch)
    assert formatter.used == formatter.frames == 0
    if column != "interface":
        with pytest.raises(ValueError, match="row 0 of the batch points outside"):
            formatter.pcap(batch, 0, 0)


@pytest.mark.parametrize(("column", "value"), [("options_offset", -1), ("options_offset", 5), ("options_length", 9)])
def test_options_that_point_outside_are_an_error(column, value):
    batch = make_batch([frame(options=option(1, b"abcd"))])
    batch.storage(column)[0] = value
    with pytest.raises(ValueError, match="points outside"):
        one_interface(RecordFormatter(64), batch)


@pytest.mark.parametrize(
    ("options", "big_endian", "refused"),
    [
        (option(1, b"good"), False, 0),
        (option(1, b"good") + b"\1\0\x09\0rest", False, 1),  # longer than what is there
        (option(1, b"good") + b"xy", False, 1),  # too short for an option
        (option(1, b"good") + bytes(4) + b"xy", False, 0),  # nothing counts after the end of options
        (struct.pack(">HH", 5, 8) + bytes(8), True, 1),  # big-endian, and not a comment
        (struct.pack(">HH", 2, 4) + bytes(4), True, 0),  # big-endian flags of 0 say nothing
    ],
)
def test_options_that_cannot_be_passed_on_are_counted(options, big_endian, refused):
    formatter = RecordFormatter(1000)
    one_interface(formatter, make_batch([frame(options=options)]), big_endian)
    assert formatter.options_refused == refused


def test_a_frame_too_long_for_a_block_is_refused():
    try:
        data = np.zeros(2**32 - 1, np.uint8)  # never touched, so never in memory
    except MemoryError:
        pytest.skip("this host does not lend 4 GiB of address space")
    batch = make_batch([frame()])
    batch.set_data(data)
    batch.storage("captured_length")[0] = 2**32 - 60
    formatter = RecordFormatter(64)
    assert one_interface(formatter, batch) == 1
    assert (formatter.lengths_refused, formatter.frames, formatter.used) == (1, 0, 0)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 64"):
        RecordFormatter(63)
    formatter = RecordFormatter(64)
    batch = make_batch([frame()])
    for row in (-1, 2):
        with pytest.raises(ValueError, match=f"no row {row}"):
            formatter.pcap(batch, row, 0)
    with pytest.raises(ValueError, match="differ in length"):
        formatter.pcapng(batch, 0, np.zeros(2, np.uint32), np.zeros(1, np.uint32), False)
