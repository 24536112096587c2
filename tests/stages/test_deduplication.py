"""Copies of packets in a stream, against a dictionary of when each was seen last."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import EARLIEST_NS, LATEST_NS, UNTRUSTED, FrameBatch, TimestampSource
from uspcap.stages.deduplication import REMEMBERED, Deduplicator


def udp(payload: bytes, identification: int = 5, *, ttl: int = 64, vlan: int | None = None, checksum: int = 0) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), identification, 0, ttl, 17, checksum)
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    ports = struct.pack(">HHHH", 1000, 2000, 8 + len(payload), checksum)
    return bytes(12) + tag + b"\x08\0" + header + b"\n\0\0\1\n\0\0\2" + ports + payload


def marks_of(
    copies: Deduplicator, frames: list[tuple[int, bytes]], *, source: int = TimestampSource.FILE
) -> list[bool]:
    """Return of each frame whether it is a copy."""
    batch = FrameBatch.from_frames([data for _, data in frames], [at_ns for at_ns, _ in frames])
    batch.storage("timestamp_source")[: len(frames)] = source
    keep = np.full(len(frames), 7, np.uint8)
    found = copies.mark(batch, batch.headers, keep)
    assert set(keep.tolist()) <= {0, 1}
    assert found == int((keep == 0).sum())
    return (keep == 0).tolist()


STREAM = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 50)), max_size=50)


@given(stream=STREAM, window_ns=st.integers(1, 60), rows=st.sampled_from([1, 3, 50]))
def test_a_packet_is_a_copy_where_its_like_came_within_the_window(
    stream: list[tuple[int, int]], window_ns: int, rows: int
) -> None:
    at_ns, frames, expected = 0, [], []
    last: dict[int, int] = {}
    for number, pause_ns in stream:
        at_ns += pause_ns
        frames.append((at_ns, udp(bytes([number]), ttl=64 - len(frames) % 3)))
        expected.append(number in last and abs(at_ns - last[number]) <= window_ns)
        last[number] = at_ns
    copies, found = Deduplicator(window_ns), []
    for start in range(0, len(frames), rows):
        found += marks_of(copies, frames[start : start + rows])
    assert found == expected
    assert copies.copies == sum(expected)


@pytest.mark.parametrize(
    ("one", "other", "copies"),
    [
        (udp(b"a"), udp(b"a"), 1),
        (udp(b"a"), udp(b"a", ttl=63, vlan=9, checksum=3), 1),
        (udp(b"a"), udp(b"b"), 0),
        (udp(b"a"), udp(b"a", 6), 0),
        (udp(b"a", 0), udp(b"a", 0), 0),
        (bytes(60), bytes(60), 0),
    ],
)
def test_only_packets_of_one_identification_and_content_are_copies(one: bytes, other: bytes, copies: int) -> None:
    assert marks_of(Deduplicator(10), [(0, one), (1, other)]) == [False, bool(copies)]


@pytest.mark.parametrize(
    ("first_ns", "second_ns", "window_ns", "is_copy"),
    [
        (EARLIEST_NS, LATEST_NS, (1 << 63) - 1, True),
        (EARLIEST_NS, LATEST_NS, (1 << 63) - 3, False),
        (LATEST_NS, EARLIEST_NS, (1 << 63) - 1, True),
        (LATEST_NS, EARLIEST_NS, (1 << 63) - 3, False),
        (LATEST_NS, LATEST_NS, 1, True),
    ],
)
def test_the_window_reaches_over_all_of_time(first_ns: int, second_ns: int, window_ns: int, is_copy: bool) -> None:
    frames = [(first_ns, udp(b"a")), (second_ns, udp(b"a"))]
    assert marks_of(Deduplicator(window_ns), frames) == [False, is_copy]


def test_what_has_no_timestamp_is_kept_and_not_remembered() -> None:
    copies, frames = Deduplicator(10), [(0, udp(b"a"))] * 2
    for source in (TimestampSource.NONE, TimestampSource.NONE | UNTRUSTED):
        assert marks_of(copies, frames, source=source) == [False, False]
    assert marks_of(copies, frames) == [False, True]


def test_at_least_so_many_packets_are_remembered_and_never_two_times_as_many_and_more() -> None:
    def stream(others: int) -> list[tuple[int, bytes]]:
        numbers = [0, *range(1, 1 + others), 0]
        return [(at, udp(struct.pack(">I", number))) for at, number in enumerate(numbers)]

    found = marks_of(Deduplicator(1 << 40), stream(REMEMBERED - 1))
    assert (found[-1], sum(found)) == (True, 1)
    found = marks_of(Deduplicator(1 << 40), stream(2 * REMEMBERED))
    assert sum(found) == 0


def test_windows_and_rows_that_are_not_there_are_refused() -> None:
    for window_ns in (0, -1):
        with pytest.raises(ValueError, match="a window of 0"):
            Deduplicator(window_ns)
    batch = FrameBatch.from_frames([udp(b"a")] * 2, [0, 0])
    other = FrameBatch.from_frames([udp(b"a")], [0])
    for headers, room in ((other.headers, 2), (batch.headers, 1)):
        copies = Deduplicator(1)
        with pytest.raises(ValueError, match="not those of this batch, or there is no room"):
            copies.mark(batch, headers, np.zeros(room, np.uint8))
        assert copies.copies == 0
