"""Merging rings: against heapq.merge, and what must hold whatever the sizes."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.backends.ring_merger import RingMerger
from uspcap.frames import FrameBatch, Interface, TimestampSource

EVERYTHING = (1 << 63) - 1


class Frame(NamedTuple):
    timestamp_ns: int
    ring: int
    data: bytes
    source: int = TimestampSource.XDP


def batch_of(frames: Sequence[Frame]) -> FrameBatch:
    batch = FrameBatch.from_frames([one.data for one in frames], [one.timestamp_ns for one in frames])
    batch.storage("queue")[: len(frames)] = [one.ring for one in frames]
    batch.storage("timestamp_source")[: len(frames)] = [one.source for one in frames]
    batch.storage("wire_length")[: len(frames)] = [len(one.data) + 4 for one in frames]
    batch.storage("flags")[: len(frames)] = [one.ring + 1 for one in frames]
    batch.storage("drop_count")[: len(frames)] = [(one.ring + 1) << 33 for one in frames]
    batch.storage("read_ns")[: len(frames)] = [-one.timestamp_ns for one in frames]
    return batch


def popped(merger: RingMerger, until_ns: int = EVERYTHING, rows: int = 3, room: int = 1 << 10) -> list[Frame]:
    """Take out what is there, in batches of `rows`."""
    out = FrameBatch(rows)
    out.set_data(np.zeros(room, np.uint8))
    out.set_interfaces([Interface(1)])
    out.frames_before = 0
    frames = []
    while True:
        merger.pop(out, until_ns)
        if not out.count:
            return frames
        out.check_bounds()
        assert out.frame_number.tolist() == list(range(out.frames_before + 1, out.frames_before + out.count + 1))
        assert (out.column("wire_length") == out.captured_length + 4).all()
        assert (out.column("flags") == out.column("queue") + 1).all()
        assert (out.column("drop_count") == (out.column("queue").astype(np.uint64) + 1) << 33).all()
        assert (out.column("read_ns") == -out.timestamp_ns).all()
        columns = (out.timestamp_ns, out.column("queue"), out.timestamp_source)
        frames += [
            Frame(timestamp, ring, out.frame_bytes(row), source)
            for row, (timestamp, ring, source) in enumerate(zip(*(one.tolist() for one in columns), strict=True))
        ]
        out.frames_before += out.count


@st.composite
def rings(draw: st.DrawFn, *, in_order: bool) -> list[list[Frame]]:
    """Frames of up to four rings; their data says which they are, as far as it has room."""
    streams = []
    for ring in range(draw(st.integers(1, 4))):
        timestamps = draw(st.lists(st.integers(-5, 40), max_size=25))
        lengths = draw(st.lists(st.integers(0, 40), min_size=len(timestamps), max_size=len(timestamps)))
        frames = [
            Frame(timestamp, ring, bytes([ring, number, *range(38)])[:length])
            for number, (timestamp, length) in enumerate(
                zip(sorted(timestamps) if in_order else timestamps, lengths, strict=True)
            )
        ]
        streams.append(frames)
    return streams


def interleaved(draw: st.DrawFn, streams: list[list[Frame]]) -> list[Frame]:
    """Return frames as a reader may meet them: each ring in its order, rings by turns of chance."""
    left = [list(one) for one in streams]
    frames = []
    while any(left):
        ring = draw(st.sampled_from([number for number, one in enumerate(left) if one]))
        frames.append(left[ring].pop(0))
    return frames


@given(data=st.data(), streams=rings(in_order=True), rows=st.integers(1, 7))
def test_everything_held_comes_out_as_a_merge_of_sorted_streams(
    data: st.DataObject, streams: list[list[Frame]], rows: int
) -> None:
    merger = RingMerger(len(streams), 100, 4000)
    frames = interleaved(data.draw, streams)
    if frames:
        assert merger.push(batch_of(frames), 0) == len(frames)
        assert merger.newest_ns == max(one.timestamp_ns for one in frames)
    assert merger.held == len(frames)
    assert popped(merger, rows=rows) == list(heapq.merge(*streams, key=lambda one: one.timestamp_ns))
    assert (merger.held, merger.late) == (0, 0)


@given(data=st.data(), streams=rings(in_order=False), held=st.integers(1, 6), room=st.integers(40, 100))
def test_no_frame_is_lost_or_altered_and_late_ones_are_counted_whatever_the_room(
    data: st.DataObject, streams: list[list[Frame]], held: int, room: int
) -> None:
    merger = RingMerger(len(streams), held, room)
    frames = interleaved(data.draw, streams)
    batch = batch_of(frames)
    out: list[Frame] = []
    row = 0
    while row < len(frames):
        row = merger.push(batch, row)
        until = data.draw(st.sampled_from([-6, 10, 25, EVERYTHING])) if row == len(frames) else EVERYTHING
        out += popped(merger, until)
    out += popped(merger)
    for ring, stream in enumerate(streams):
        assert [one for one in out if one.ring == ring] == stream
    late, last = 0, -1000
    for one in out:
        late += one.timestamp_ns < last
        last = max(last, one.timestamp_ns)
    assert merger.late == late


def test_only_what_is_not_younger_comes_out() -> None:
    merger = RingMerger(2, 10, 100)
    merger.push(batch_of([Frame(10, 0, b"a"), Frame(30, 0, b"c"), Frame(20, 1, b"b"), Frame(40, 1, b"d")]), 0)
    assert [one.data for one in popped(merger, 9)] == []
    assert [one.data for one in popped(merger, 20)] == [b"a", b"b"]
    assert merger.held == 2
    assert [one.data for one in popped(merger, 39)] == [b"c"]


def test_timestamps_of_two_clocks_are_not_compared() -> None:
    merger = RingMerger(2, 10, 100)
    tai_ns = 37_000_000_000
    merger.push(batch_of([Frame(tai_ns, 0, b"a", TimestampSource.HARDWARE)]), 0)
    assert len(popped(merger)) == 1
    merger.push(batch_of([Frame(5, 0, b"b"), Frame(tai_ns + 1, 1, b"c", TimestampSource.HARDWARE)]), 0)
    assert [one.data for one in popped(merger)] == [b"b", b"c"]
    assert merger.late == 0


def test_full_ring_stops_in_front_of_the_frame_and_goes_on_from_there() -> None:
    merger = RingMerger(2, 2, 100)
    frames = [Frame(number, 0, bytes([number])) for number in range(4)] + [Frame(0, 1, b"x")]
    batch = batch_of(frames)
    assert merger.push(batch, 0) == 2
    assert merger.push(batch, 2) == 2
    assert len(popped(merger, 0)) == 1
    assert merger.push(batch, 2) == 3
    popped(merger)
    assert merger.push(batch, 3) == 5


@pytest.mark.parametrize("frame", [Frame(0, 2, b"a"), Frame(0, 0, bytes(101))])
def test_frame_of_no_ring_or_too_long_for_any_is_refused(frame: Frame) -> None:
    with pytest.raises(ValueError, match="row 0 of the batch"):
        RingMerger(2, 10, 100).push(batch_of([frame]), 0)


def test_frame_outside_of_the_batch_is_refused() -> None:
    batch = batch_of([Frame(0, 0, b"abc")])
    batch.storage("offset")[0] = 1
    with pytest.raises(ValueError, match="row 0 of the batch"):
        RingMerger(1, 10, 100).push(batch, 0)
    with pytest.raises(ValueError, match="no row 2"):
        RingMerger(1, 10, 100).push(batch, 2)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_merger_of_nothing_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RingMerger(*sizes)


@given(rings(in_order=True), rings(in_order=True), st.integers(1, 50))
def test_rings_of_two_sources_are_held_apart_and_keep_their_numbers(
    one: list[list[Frame]], other: list[list[Frame]], frames: int
) -> None:
    merger = RingMerger(1, frames, 1 << 12)
    merger.grow(len(one))
    merger.grow(len(one) + len(other))
    taken: list[Frame] = []
    for first_ring, streams in ((0, one), (len(one), other)):
        for stream in streams:
            batch = batch_of(stream)
            row = merger.push(batch, 0, first_ring)
            while row < batch.count:
                taken += popped(merger)
                row = merger.push(batch, row, first_ring)
    held = [merger.held_of(ring, 1) for ring in range(len(one) + len(other))]
    assert sum(held) == merger.held == merger.held_of(0, len(held))
    last = popped(merger)
    assert [frame.timestamp_ns for frame in last] == sorted(frame.timestamp_ns for frame in last)
    assert sorted(taken + last) == sorted(frame for streams in (one, other) for stream in streams for frame in stream)


def test_rings_that_are_none_are_refused() -> None:
    merger = RingMerger(2, 4, 64)
    batch = batch_of([Frame(1, 1, b"ab")])
    with pytest.raises(ValueError, match="no ring 2 of 2"):
        merger.push(batch, 0, 2)
    with pytest.raises(ValueError, match="has no such ring"):
        merger.push(batch, 0, 1)
    with pytest.raises(ValueError, match="2 rings do not become 1"):
        merger.grow(1)
    with pytest.raises(ValueError, match="there are 2 rings"):
        merger.held_of(1, 2)
    merger.grow(3)
    assert merger.push(batch, 0, 1) == 1
    assert popped(merger) == [Frame(1, 1, b"ab")]
