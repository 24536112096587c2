"""TCP streams against a dict of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import TimestampSource
from uspcap.protocols.streams import WINDOW_BYTES, Place, TcpStream


def place(frame: int) -> Place:
    return Place(1_000 * frame, frame, TimestampSource.FILE)


@given(
    start=st.sampled_from([0, 5, 2**31 - 3, 2**32 - 1, 2**32 - 40]),
    pieces=st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 30)), max_size=12),
    read=st.integers(1, 9),
)
def test_bytes_and_their_first_frames_are_those_of_a_dict(start: int, pieces: list[tuple[int, int]], read: int) -> None:
    stream = TcpStream()
    stream.start(start)
    seen: dict[int, tuple[int, int]] = {}
    consumed = sent = 0
    for frame, (offset, length) in enumerate(pieces, 1):
        data = bytes((offset + at) * 7 % 251 ^ frame for at in range(length))
        assert stream.add((start + offset) % 2**32, data, place(frame))
        sent += length
        for at, byte in enumerate(data, offset):
            if at >= consumed:
                seen.setdefault(at, (byte, frame))
        expected = []
        while consumed + len(expected) in seen:
            expected.append(seen[consumed + len(expected)])
        assert stream.peek() == bytes(byte for byte, _ in expected)
        if len(expected) >= read:
            first, complete = stream.places(read)
            assert (first, complete) == (place(expected[0][1]), place(max(frame for _, frame in expected[:read])))
            stream.consume(read)
            consumed += read
    assert stream.repeated_bytes == sent - len(seen)


def test_a_hole_is_abandoned_with_what_stands_before_it() -> None:
    stream = TcpStream()
    stream.start(100)
    stream.add(100, b"ab", place(1))
    stream.add(105, b"fgh", place(2))
    assert stream.peek() == b"ab"
    assert stream.skip_hole()
    assert (stream.peek(), stream.holes, stream.lost_bytes) == (b"fgh", 1, 3)
    stream.add(102, b"cde", place(3))
    assert (stream.peek(), stream.repeated_bytes) == (b"fgh", 3)
    assert not stream.skip_hole()


def test_a_full_window_takes_nothing_until_a_hole_is_abandoned() -> None:
    stream = TcpStream()
    stream.start(0)
    assert stream.add(1, b"x" * (WINDOW_BYTES - 1), place(1))
    assert not stream.add(WINDOW_BYTES, b"y", place(2))
    assert stream.skip_hole()
    assert stream.add(WINDOW_BYTES, b"y", place(2))
    assert stream.peek() == b"x" * (WINDOW_BYTES - 1) + b"y"


def test_what_is_far_away_restarts_the_stream() -> None:
    stream = TcpStream()
    stream.add(1_000, b"old", place(1))
    stream.add(1_000_000_000, b"new", place(2))
    assert (stream.peek(), stream.restarts) == (b"new", 1)
