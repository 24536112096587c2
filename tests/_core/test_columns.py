"""Columns of frames: what they hold, what selects and clamps rows, and which arrays are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap._core.columns import EARLIEST_NS, FRAME_FIELDS, HEADER_FIELDS, LATEST_NS, FrameColumns, HeaderColumns
from uspcap.frames import TimestampSource

INT64 = st.one_of(
    st.sampled_from([-(1 << 63), (1 << 63) - 1, EARLIEST_NS, EARLIEST_NS - 1, EARLIEST_NS + 1]),
    st.sampled_from([LATEST_NS, LATEST_NS + 1, 0]),
    st.integers(-(1 << 63), (1 << 63) - 1),
)


def filled(count: int, capacity: int | None = None) -> FrameColumns:
    """Return columns whose rows hold their number, in each field."""
    frames = FrameColumns(capacity or max(count, 1))
    for name, kind in FRAME_FIELDS:
        frames.storage(name)[:] = np.arange(frames.capacity).astype(kind)
    frames.count = count
    return frames


@given(mask=st.lists(st.booleans(), max_size=50), as_bool=st.booleans())
def test_selected_rows_keep_their_order_in_every_field(mask: list[bool], as_bool: bool) -> None:
    frames = filled(len(mask))
    frames.frames_read = 99
    frames.select(np.array(mask, bool if as_bool else np.uint8))
    expected = [at for at, keep in enumerate(mask) if keep]
    for name, kind in FRAME_FIELDS:
        assert frames.column(name).tolist() == expected, name
        assert frames.column(name).dtype == kind
    assert (frames.count, frames.frames_read) == (len(expected), 99)


def test_any_value_but_zero_selects_a_row_and_a_mask_may_have_gaps() -> None:
    frames = filled(3)
    frames.select(np.array([0, 9, 255, 9, 0, 9], np.uint8)[::2])
    assert frames.column("frame_number").tolist() == [1]
    for rows in (0, 2):
        with pytest.raises(ValueError, match=f"mask has {rows} rows, the batch 1"):
            frames.select(np.ones(rows, np.uint8))


@given(rows=st.lists(st.tuples(INT64, st.sampled_from([TimestampSource.FILE, TimestampSource.NONE])), max_size=20))
def test_times_are_clamped_and_those_that_count_are_of_rows_with_a_timestamp(rows: list[tuple[int, int]]) -> None:
    frames = filled(len(rows))
    frames.storage("timestamp_ns")[: len(rows)] = [at_ns for at_ns, _ in rows]
    frames.storage("timestamp_source")[: len(rows)] = [source for _, source in rows]
    clamped = [(max(EARLIEST_NS, min(LATEST_NS, at_ns)), source) for at_ns, source in rows]
    at_an_end = [source for at_ns, source in clamped if abs(at_ns) == LATEST_NS]
    assert frames.clamp_timestamps() == at_an_end.count(TimestampSource.FILE)
    assert frames.column("timestamp_ns").tolist() == [at_ns for at_ns, _ in clamped]


@pytest.mark.parametrize(
    ("offset", "captured", "interface", "message"),
    [
        (0, 10, 0, None),
        (10, 0, 1, None),
        (9, 1, 1, None),
        (0, 11, 0, "points at bytes 0..11 of 10"),
        (-1, 1, 0, "points at bytes -1..0 of 10"),
        (11, 0, 0, "points at bytes 11..11 of 10"),
        (0, (1 << 32) - 1, 0, "points at bytes 0..4294967295 of 10"),
        (0, 0, 2, "names interface 2 of 2"),
        ((1 << 63) - 1, 2, 0, f"points at bytes {(1 << 63) - 1}..{(1 << 63) + 1} of 10"),
    ],
)  # fmt: skip
def test_a_row_that_points_outside_is_refused(offset: int, captured: int, interface: int, message: str | None) -> None:
    frames = FrameColumns(2)
    frames.set_data(np.zeros(10, np.uint8))
    frames.set_link_types(np.ones(2, np.int32))
    frames.count = 2
    for name, value in (("offset", offset), ("captured_length", captured), ("interface", interface)):
        frames.storage(name)[1] = value
    if message is None:
        frames.check_bounds()
    else:
        with pytest.raises(ValueError, match=f"row 1.*{message}" if "row" not in message else message):
            frames.check_bounds()
        # A row that is none is not looked at.
        frames.count = 1
        frames.check_bounds()


@pytest.mark.parametrize(
    ("setter", "kind"), [("set_data", np.uint8), ("set_link_types", np.int32), ("set_taps", np.uint16)]
)
def test_arrays_of_another_kind_shape_or_layout_are_refused(setter: str, kind: Any) -> None:
    put = getattr(FrameColumns(1), setter)
    for wrong in (np.zeros(4, np.int64), np.zeros((2, 2), kind), np.zeros(8, kind)[::2]):
        with pytest.raises(ValueError, match="contiguous one-dimensional array"):
            put(wrong)
    for right in (np.zeros(0, kind), np.zeros(4, kind)):
        put(right)


def test_columns_are_views_of_as_many_rows_as_there_are() -> None:
    frames = filled(2, 5)
    column = frames.column("wire_length")
    frames.storage("wire_length")[1] = 77
    assert column.tolist() == [0, 77]
    frames.count = 5
    assert len(frames.column("wire_length")) == len(frames.storage("wire_length")) == frames.capacity == 5
    taps = np.array([3, 4], np.uint16)
    frames.set_taps(taps)
    assert frames.taps is taps
    data = np.zeros(3, np.uint8)
    frames.set_data(data)
    assert frames.data is data


def test_new_columns_are_empty_and_have_every_field() -> None:
    frames, headers = FrameColumns(3), HeaderColumns(4)
    assert (frames.count, headers.count, headers.capacity, headers.tunnels) == (0, 0, 4, False)
    for name, _ in FRAME_FIELDS:
        assert frames.storage(name).tolist() == [0, 0, 0]
    for name, kind in HEADER_FIELDS:
        of_field = kind if isinstance(kind, tuple) else (kind, None)
        assert headers.column(name).dtype == of_field[0]
        assert headers.column(name).shape == ((0,) if of_field[1] is None else (0, of_field[1]))
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            FrameColumns(capacity)
    with pytest.raises(KeyError):
        frames.column("colour")
