"""One direction of a TCP connection against a dictionary of its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.messages.reassembly import ELSEWHERE, FULL, STORED, WINDOW, Reassembler

STARTS = st.sampled_from([0, 1, 2**31 - 20, 2**31, 2**32 - 20, 2**32 - 1])


class SlowStream:
    """Bytes by their position, the first one that came; positions count from the start and never wrap."""

    def __init__(self) -> None:
        self.bytes: dict[int, tuple[int, int]] = {}
        self.next = self.repeated = self.lost = self.holes = 0

    def add(self, position: int, data: bytes, frame: int) -> None:
        for at, value in enumerate(data, position):
            if at < self.next or at in self.bytes:
                self.repeated += 1
            else:
                self.bytes[at] = value, frame

    def contiguous(self) -> list[tuple[int, int]]:
        found, at = [], self.next
        while at in self.bytes:
            found.append(self.bytes[at])
            at += 1
        return found

    def consume(self, length: int) -> None:
        for at in range(self.next, self.next + length):
            del self.bytes[at]
        self.next += length

    def skip_hole(self) -> bool:
        self.consume(len(self.contiguous()))
        if not self.bytes:
            return False
        self.lost += min(self.bytes) - self.next
        self.holes += 1
        self.next = min(self.bytes)
        return True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-12, 40), st.integers(0, 12)),
        st.tuples(st.just("consume"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("skip"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(start=STARTS, steps=STEPS)
def test_bytes_are_those_that_came_first_wherever_numbers_wrap(start: int, steps: list[tuple[str, int, int]]) -> None:
    stream, slow = Reassembler(), SlowStream()
    stream.start(start)
    for frame, (what, number, length) in enumerate(steps, 1):
        if what == "add":
            position = slow.next + number
            data = bytes((frame * 31 + at) % 256 for at in range(length))
            assert stream.add((start + position) % 2**32, data, 1_000 * frame, frame, frame % 7) == STORED
            slow.add(position, data, frame)
        elif what == "consume":
            length = min(number, len(slow.contiguous()))
            stream.consume(length)
            slow.consume(length)
        else:
            assert stream.skip_hole() == slow.skip_hole()
        there = slow.contiguous()
        assert stream.peek() == bytes(value for value, _ in there)
        assert (stream.repeated_bytes, stream.lost_bytes, stream.holes) == (slow.repeated, slow.lost, slow.holes)
        for length in {1, len(there)} if there else ():
            frames = [by for _, by in there[:length]]
            expected = tuple((1_000 * by, by, by % 7) for by in (frames[0], max(frames)))
            assert stream.places(length) == expected


def test_the_window_holds_as_many_bytes_as_it_says_and_not_one_more() -> None:
    stream = Reassembler()
    stream.start(7)
    assert stream.add(7 + WINDOW - 1, b"z", 0, 1, 0) == STORED
    assert stream.add(7 + WINDOW, b"z", 0, 2, 0) == FULL
    assert stream.peek() == b""
    assert stream.add(7, bytes(WINDOW - 1), 0, 3, 0) == STORED
    assert stream.peek() == bytes(WINDOW - 1) + b"z"
    stream.consume(1)
    assert stream.add(7 + WINDOW, b"y", 0, 4, 0) == STORED


def test_runs_behind_holes_are_bounded_and_there_is_room_again_once_one_is_skipped() -> None:
    stream = Reassembler()
    stream.start(0)
    outcomes = [stream.add(2 * at + 1, b"x", 0, at, 0) for at in range(5_000)]
    runs = outcomes.index(FULL)
    assert runs == 4_096
    assert set(outcomes[:runs]) == {STORED}
    assert set(outcomes[runs:]) == {FULL}
    assert stream.skip_hole()
    stream.consume(1)
    assert stream.add(2 * runs + 1, b"x", 0, 9, 0) == STORED


@pytest.mark.parametrize("far", [2**30, 2**31 - 1, 2**31, 2**31 + 1])
def test_a_number_from_far_away_is_elsewhere_and_changes_nothing(far: int) -> None:
    stream = Reassembler()
    stream.start(100)
    assert stream.add(100, b"ab", 0, 1, 0) == STORED
    assert stream.add((100 + far) % 2**32, b"cd", 0, 2, 0) == ELSEWHERE
    assert stream.peek() == b"ab"
    assert (stream.repeated_bytes, stream.lost_bytes, stream.holes) == (0, 0, 0)


def test_a_stream_that_was_not_started_begins_with_its_first_segment() -> None:
    stream = Reassembler()
    assert stream.peek() == b""
    assert not stream.skip_hole()
    assert stream.add(2**32 - 1, b"ab", 0, 1, 0) == STORED
    assert stream.add(1, b"c", 0, 2, 0) == STORED
    assert stream.peek() == b"abc"


def test_more_bytes_than_there_are_without_a_hole_are_refused() -> None:
    stream = Reassembler()
    stream.start(0)
    stream.add(0, b"abc", 0, 1, 0)
    stream.add(5, b"f", 0, 2, 0)
    for refused in (-1, 4, 6):
        with pytest.raises(ValueError, match=f"not {refused} bytes without a hole"):
            stream.consume(refused)
    for refused in (-1, 0, 4):
        with pytest.raises(ValueError, match=f"not {refused} bytes without a hole"):
            stream.places(refused)
    assert stream.peek() == b"abc"
