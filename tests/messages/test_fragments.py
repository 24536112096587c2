"""UDP datagrams out of IP fragments against a slow account, and parts of a capture against the whole."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.feeds import START_NS, frame_of
from support.fragments import Fragment, SlowDatagrams, disturbed, fragments_of

from uspcap.frames import FrameBatch
from uspcap.messages.fragments import WITHIN_FRAMES, WITHIN_NS, Datagrams, has_fragments

Numbered = tuple[int, int, Fragment]


def batch_of(fragments: list[Numbered], before: int = 0) -> FrameBatch:
    """Return one batch of fragments that have frame numbers, renumbered as in a part of a capture."""
    batch = FrameBatch.from_frames([one.frame() for _, _, one in fragments], [at_ns for _, at_ns, _ in fragments])
    batch.storage("frame_number")[: len(fragments)] = [number - before for number, _, _ in fragments]
    return batch


def payloads(datagrams: Datagrams) -> list[tuple[int, bytes]]:
    """Return frame and UDP datagram of what the last call put together."""
    found = []
    for row in range(datagrams.frames.count):
        start = int(datagrams.frames.column("offset")[row])
        end = start + int(datagrams.frames.column("captured_length")[row])
        packet = datagrams.frames.data[start:end].tobytes()
        number = int(datagrams.frames.column("frame_number")[row])
        found.append((number, packet[20 if packet[0] >> 4 == 4 else 40 :]))
    return found


def counts(datagrams: Datagrams) -> tuple[int, int, int, int, int]:
    return (
        datagrams.complete, datagrams.incomplete, datagrams.discarded, datagrams.copies, datagrams.left_out
    )  # fmt: skip


@st.composite
def captures(draw: st.DrawFn) -> list[Numbered]:
    """Draw fragments with what may happen to them, some far apart in frames or in time."""
    drawn = random.Random(draw(st.integers(0, 1 << 32)))
    ways: list[Iterator[Fragment]] = []
    for _ in range(draw(st.integers(0, 8))):
        payload = drawn.randbytes(drawn.randrange(1, 90))
        pieces = fragments_of(payload, drawn.randrange(3), drawn.choice([8, 24, 40]), drawn.choice([4, 6]))
        if len(pieces) > 1:
            ways.append(disturbed(drawn, pieces))
    found: list[Numbered] = []
    number, at_ns = 0, START_NS
    while ways:
        way = drawn.choice(ways)
        number += drawn.choice([1] * 12 + [WITHIN_FRAMES, WITHIN_FRAMES + 1])
        at_ns += drawn.choice([1_000] * 12 + [WITHIN_NS, WITHIN_NS + 1, -WITHIN_NS - 1])
        one = next(way, None)
        if one is None:
            ways.remove(way)
        elif one.more or one.offset:
            found.append((number, at_ns, one))
    return found


def slowly(capture: list[Numbered]) -> tuple[list[tuple[int, bytes]], tuple[int, ...]]:
    slow, found = SlowDatagrams(), []
    for number, at_ns, fragment in capture:
        data = slow.take(fragment, number, at_ns)
        if data is not None:
            found.append((number, data))
    of = slow.counts()
    return found, tuple(of[name] for name in ("put_together", "incomplete", "discarded", "copies", "frames_left_out"))


@given(capture=captures(), rows=st.sampled_from([1, 3, 4096]))
def test_datagrams_and_counts_are_those_of_the_slow_account_in_any_batches(capture: list[Numbered], rows: int) -> None:
    datagrams = Datagrams(is_known=True)
    found = []
    for start in range(0, len(capture), rows):
        batch = batch_of(capture[start : start + rows])
        assert datagrams.take(batch, batch.headers, 0, 0) == batch.count
        found += payloads(datagrams)
    assert (found, counts(datagrams)) == slowly(capture)


@given(capture=captures(), cut=st.integers(0, 40), pickled=st.booleans())
def test_two_parts_are_the_whole_once_the_first_was_given_the_heads_of_the_second(
    capture: list[Numbered], cut: int, pickled: bool
) -> None:
    cut = min(cut, len(capture))
    before = capture[cut - 1][0] if cut else 0
    first, second = Datagrams(is_known=True), Datagrams()
    batch = batch_of(capture[:cut])
    first.take(batch, batch.headers, 0, 0)
    found = payloads(first)
    batch = batch_of(capture[cut:], before)
    kept, row, later = [], 0, []
    while (row := second.take(batch, batch.headers, 0, row)) < batch.count:
        later += payloads(second)
        kept.append(second.event(batch, batch.headers, 0, row))
        row += 1
    later += payloads(second)
    if pickled:
        first, second = pickle.loads(pickle.dumps((first, second)))
    for event in kept:
        assert first.take_event(event, before) is None
        found += payloads(first)
    first.absorb(second, before)
    found += [(number + before, data) for number, data in later]
    assert (sorted(found), counts(first)) == slowly(capture)


def test_bytes_that_were_not_captured_end_what_is_captured_of_a_datagram() -> None:
    pieces = fragments_of(bytes(range(40)), 1, 16)
    frames = [piece.frame() for piece in pieces]
    lengths = [len(frame) for frame in frames]
    frames[1] = frames[1][:-6]
    batch = FrameBatch.from_frames(frames, [START_NS] * len(frames), wire_lengths=lengths)
    datagrams = Datagrams(is_known=True)
    datagrams.take(batch, batch.headers, 0, 0)
    ((_, data),) = payloads(datagrams)
    assert data == b"".join(piece.data for piece in pieces)[:26]
    assert datagrams.frames.column("wire_length").tolist() == [20 + 48]
    assert datagrams.rows[0] == len(frames) - 1


def test_a_part_has_no_heads_once_it_is_longer_than_fragments_may_be_apart() -> None:
    datagrams = Datagrams()
    assert datagrams.has_heads(WITHIN_FRAMES)
    assert not datagrams.has_heads(WITHIN_FRAMES + 1)
    batch = batch_of([(WITHIN_FRAMES, START_NS, fragments_of(bytes(20), 5, 8)[0])])
    assert datagrams.take(batch, batch.headers, 0, 0) == 0
    datagrams.event(batch, batch.headers, 0, 0)
    assert datagrams.has_heads(2 * WITHIN_FRAMES)
    assert not datagrams.has_heads(2 * WITHIN_FRAMES + 1)
    assert not Datagrams(is_known=True).has_heads(1)


def test_only_a_batch_with_a_fragment_has_fragments() -> None:
    for frames, expected in (([], False), ([frame_of(b"x")], False)):
        batch = FrameBatch.from_frames(frames, [0] * len(frames))
        assert has_fragments(batch, batch.headers) is expected
    for piece in fragments_of(bytes(20), 1, 8):
        batch = FrameBatch.from_frames([frame_of(b"x"), piece.frame()], [0, 0])
        assert has_fragments(batch, batch.headers)


def test_what_is_no_fragment_is_refused() -> None:
    batch = FrameBatch.from_frames([frame_of(b"x")], [0])
    with pytest.raises(ValueError, match="no fragment of a UDP datagram"):
        Datagrams().event(batch, batch.headers, 0, 0)
    batch = batch_of([(1, START_NS, fragments_of(bytes(20), 1, 8)[0])])
    event = Datagrams().event(batch, batch.headers, 0, 0)
    for wrong in (b"", event[:-1], event + b"x", event[:40]):
        with pytest.raises(ValueError, match="this is no fragment"):
            Datagrams(is_known=True).take_event(wrong, 0)
