"""Inputs in order of time merged into one, against sorting them all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.stages.chain_merging import ENDED, FULL, NEEDS_ROOM
from uspcap.stages.run_merging import MOST_INPUTS, RunMerger

Row = tuple[int, int, bytes]
"""Input, timestamp and content of a frame."""


def batch_of(rows: list[tuple[int | None, bytes]]) -> FrameBatch:
    batch = FrameBatch.from_frames([data for _, data in rows], [at_ns or 0 for at_ns, _ in rows])
    # As they are, where others would be clamped.
    batch.storage("timestamp_ns")[: len(rows)] = [at_ns or 0 for at_ns, _ in rows]
    batch.storage("timestamp_source")[: len(rows)] = [
        TimestampSource.NONE if at_ns is None else TimestampSource.FILE for at_ns, _ in rows
    ]
    return batch


def merged(
    inputs: list[list[tuple[int | None, bytes]]], *, rows: int = 4, room: int = 64, capacity: int = 8
) -> tuple[list[tuple[int, bytes]], list[int]]:
    """Return input and content of each frame as it came out, and the timestamps."""
    merger = RunMerger(len(inputs), has_options=False)
    out = FrameBatch(capacity)
    out.set_data(np.empty(room, np.uint8))
    origins = np.zeros(capacity, np.uint16)
    left = [list(one) for one in inputs]
    found: list[tuple[int, bytes]] = []
    times: list[int] = []
    while True:
        merger.begin(out)
        while (asked := merger.fill(out, origins)) >= 0:
            part, left[asked] = left[asked][:rows], left[asked][rows:]
            if part:
                merger.load(asked, batch_of(part), np.array([asked], np.uint16))
            else:
                merger.finish(asked)
        for row in range(out.count):
            start, length = int(out.offset[row]), int(out.captured_length[row])
            found.append((int(origins[row]), out.data[start : start + length].tobytes()))
            times.append(int(out.timestamp_ns[row]))
            assert out.interface[row] == origins[row]
            assert out.wire_length[row] == length
        if asked == NEEDS_ROOM:
            assert out.count == 0
            room = merger.needed
            out.set_data(np.empty(room, np.uint8))
        elif asked == ENDED:
            return found, times
        else:
            assert asked == FULL


ENDS_NS = st.sampled_from([-(1 << 63), -(1 << 62), -1, 0, 1, (1 << 62), (1 << 63) - 2])
TIMES = st.lists(st.one_of(st.integers(0, 30), st.integers(0, 30), ENDS_NS), max_size=14)


@given(
    inputs=st.lists(TIMES, min_size=1, max_size=5),
    rows=st.sampled_from([1, 2, 50]),
    room=st.sampled_from([1, 3, 64]),
    capacity=st.sampled_from([1, 3, 100]),
)
def test_frames_come_in_order_of_time_and_each_input_in_its_own(
    inputs: list[list[int]], rows: int, room: int, capacity: int
) -> None:
    made = [
        [(at_ns, bytes([number, at]) * (1 + at % 3)) for at, at_ns in enumerate(sorted(times))]
        for number, times in enumerate(inputs)
    ]
    found, times = merged(made, rows=rows, room=room, capacity=capacity)  # type: ignore[arg-type]
    assert times == sorted(at_ns for one in inputs for at_ns in one)
    for number, one in enumerate(made):
        assert [data for origin, data in found if origin == number] == [data for _, data in one]


@given(
    inputs=st.lists(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=2)), max_size=6), max_size=4)
)
def test_frames_of_one_time_that_are_alike_come_from_the_first_input_first(
    inputs: list[list[tuple[int, bytes]]],
) -> None:
    doubled = [sorted(one) for one in inputs for _ in (0, 1)] or [[]]
    found, _ = merged(doubled, capacity=100)  # type: ignore[arg-type]
    again, _ = merged(doubled, rows=1, capacity=3)  # type: ignore[arg-type]
    assert found == again
    for first in range(0, len(doubled), 2):
        of_both = [origin for origin, _ in found if origin in (first, first + 1)]
        behind = [of_both[:at].count(first) - of_both[:at].count(first + 1) for at in range(len(of_both) + 1)]
        assert min(behind) >= 0


def test_a_frame_without_a_timestamp_goes_with_the_one_before_it() -> None:
    found, _ = merged([[(None, b"a"), (5, b"b"), (None, b"c"), (None, b"d"), (20, b"e")], [(6, b"x"), (19, b"y")]])
    assert b"".join(data for _, data in found) == b"abcdxye"
    # In a batch of its own it does so still.
    found, _ = merged([[(5, b"b"), (None, b"c")], [(4, b"x"), (6, b"y")]], rows=1)
    assert b"".join(data for _, data in found) == b"xbcy"


def with_options(options: bytes, at_ns: int) -> FrameBatch:
    batch = batch_of([(at_ns, b"ab" + options)])
    batch.storage("captured_length")[0] = 2
    batch.storage("options_offset")[0], batch.storage("options_length")[0] = 2, len(options)
    batch.storage("flags")[0], batch.storage("queue")[0], batch.storage("drop_count")[0] = 3, 4, (1 << 64) - 1
    return batch


def test_options_go_with_their_frames_and_batches_have_one_byte_order() -> None:
    merger = RunMerger(2, has_options=True)
    out, origins = FrameBatch(8), np.zeros(8, np.uint16)
    out.set_data(np.empty(64, np.uint8))
    for number, big_endian in ((0, False), (1, True)):
        merger.load(number, with_options(b"op%d!" % number, number), np.zeros(1, np.uint16), big_endian)
    seen = []
    for _ in range(3):
        merger.begin(out)
        while (asked := merger.fill(out, origins)) >= 0:
            merger.finish(asked)
        for row in range(out.count):
            start, length = int(out.column("options_offset")[row]), int(out.column("options_length")[row])
            counted = [int(out.column(name)[row]) for name in ("flags", "queue", "drop_count")]
            seen.append((out.data[start : start + length].tobytes(), merger.big_endian, counted))
        assert out.count <= 1
        if asked == ENDED:
            break
    beside = [3, 4, (1 << 64) - 1]
    assert seen == [(b"op0!", False, beside), (b"op1!", True, beside)]


def outside(name: str, value: int) -> FrameBatch:
    batch = batch_of([(1, b"abc")])
    batch.storage(name)[0] = value
    return batch


@pytest.mark.parametrize(
    ("name", "value"),
    [("interface", 1), ("offset", -1), ("offset", 1), ("offset", (1 << 63) - 1), ("captured_length", 4),
     ("captured_length", (1 << 32) - 1)],
)  # fmt: skip
def test_rows_that_point_outside_their_batch_are_refused(name: str, value: int) -> None:
    merger = RunMerger(1, has_options=False)
    with pytest.raises(ValueError, match="row 0 of the batch points outside"):
        merger.load(0, outside(name, value), np.zeros(1, np.uint16))


def test_inputs_that_are_not_there_or_have_frames_left_are_refused() -> None:
    for inputs in (0, -1, MOST_INPUTS + 1):
        with pytest.raises(ValueError, match="can be merged"):
            RunMerger(inputs, has_options=False)
    merger = RunMerger(2, has_options=False)
    interfaces: Any = np.zeros(1, np.uint16)
    for number in (-1, 2):
        with pytest.raises(ValueError, match="there is no input"):
            merger.load(number, batch_of([]), interfaces)
        with pytest.raises(ValueError, match="there is no input"):
            merger.finish(number)
    merger.load(0, batch_of([(1, b"a")]), interfaces)
    with pytest.raises(ValueError, match="has frames left, or has ended"):
        merger.load(0, batch_of([(1, b"a")]), interfaces)
    merger.finish(1)
    with pytest.raises(ValueError, match="has frames left, or has ended"):
        merger.load(1, batch_of([(1, b"a")]), interfaces)
    with pytest.raises(ValueError, match="3 origins for 4 rows"):
        merger.fill(FrameBatch(4), np.zeros(3, np.uint16))
