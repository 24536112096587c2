"""Packets of feeds as they go into their streams, with datagrams in place of the fragments that complete them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_runs import Numbered, batch_of, new_streams, plain_rule, streams_as_slow
from support.feeds import START_NS, frame_of
from support.fragments import fragments_of
from support.order_sessions import Segment

from uspcap.analysis.sequence.feed_runs import track_runs, track_with_datagrams
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams
from uspcap.protocols.feed_rule import FeedRule

NO_ROWS = np.zeros(0, np.int64)


def tracked(frames: list[bytes], rule: FeedRule | None = None, frame_shift: int = 0) -> NumberedStreams:
    streams = new_streams()
    batch = FrameBatch.from_frames(frames, [START_NS + at for at in range(len(frames))])
    track_runs(batch, batch.headers, frame_shift, rule or plain_rule(), streams)
    return streams


def test_each_payload_is_a_packet_is_foreign_or_is_passed_over() -> None:
    frames = [
        frame_of(Numbered(1, 2).payload()),
        frame_of(Numbered(3, 0).payload()),
        frame_of(b"short"),
        frame_of(b""),
        Segment(START_NS, 0, False, 1, Numbered(9).payload()).wire(),
        frame_of(Numbered((1 << 64) - 1, 2).payload()),
    ]
    streams = tracked(frames)
    # Too short, and numbers that no field holds.
    assert (streams.packets, streams.foreign) == (1, 2)
    (stream,) = streams_as_slow(streams).values()
    assert (stream["packets"], stream["messages"], stream["heartbeats"]) == (1, 2, 1)


def test_excluded_packets_are_counted_in_their_stream_and_begin_no_run() -> None:
    streams = tracked([frame_of(Numbered(7).payload())], plain_rule(unnumbered=7))
    _, rows, runs, _ = streams.arrays()
    assert rows["excluded"].tolist() == [1]
    assert (len(runs), streams.packets, streams.foreign) == (0, 0, 0)


@given(counts=st.lists(st.integers(1, 3), min_size=1, max_size=6), cut=st.integers(0, 3))
def test_a_datagram_of_several_packets_is_taken_part_by_part_up_to_what_is_foreign(counts: list[int], cut: int) -> None:
    # The length of each part lies in the session's first two bytes.
    rule = plain_rule(part=(0, 2, True), keys=[(2, 2)])
    first, payload = 1, b""
    for count in counts:
        payload += Numbered(first, count, b"\x00\x14AB").payload() + b"body"
        first += count
    payload += b"\0" * cut
    streams = tracked([frame_of(payload)], rule)
    assert streams.packets == len(counts)
    assert streams.foreign == (cut > 0)
    _, rows, runs, _ = streams.arrays()
    assert runs["packets"].tolist() == [len(counts)]
    assert rows["messages"][:, 0].tolist() == [sum(counts)]


@given(shift=st.sampled_from([0, 1, 1 << 40, (1 << 62)]))
def test_frame_numbers_are_moved(shift: int) -> None:
    _, _, runs, _ = tracked([frame_of(Numbered(at).payload()) for at in (1, 2, 9)], frame_shift=shift).arrays()
    assert runs["first_frame"].tolist() == [1 + shift, 3 + shift]
    assert runs["seen_frame"].tolist() == [2 + shift, 3 + shift]


def test_what_was_put_together_is_taken_where_its_last_fragment_lies() -> None:
    whole = Numbered(2)
    pieces = [piece.frame() for piece in fragments_of(whole.payload(), 5, 16)]
    frames = [frame_of(Numbered(1).payload()), *pieces, frame_of(Numbered(3).payload())]
    batch = FrameBatch.from_frames(frames, [START_NS + at for at in range(len(frames))])
    datagrams = Datagrams(is_known=True)
    datagrams.take(batch, batch.headers, 0, 0)
    streams = new_streams()
    track_with_datagrams(
        batch, batch.headers, 0, plain_rule(), streams, 0, batch.count, datagrams.frames, datagrams.headers,
        datagrams.rows,
    )  # fmt: skip
    _, _, runs, _ = streams.arrays()
    # They go on with each other: nothing was taken of a fragment, and the datagram between its neighbours.
    assert (runs["first"].tolist(), runs["packets"].tolist(), runs["seen_frame"].tolist()) == ([1], [3], [len(frames)])
    assert streams.foreign == 0


@given(edges=st.lists(st.integers(0, 6), max_size=3))
def test_rows_taken_in_stretches_are_all_rows(edges: list[int]) -> None:
    packets = [Numbered(number) for number in (1, 2, 5, 6, 7, 1)]
    batch = batch_of(packets)
    whole, streams, nothing = new_streams(), new_streams(), FrameBatch.from_frames([], [])
    track_runs(batch, batch.headers, 0, plain_rule(), whole)
    first = 0
    for last in [*sorted(edges), len(packets)]:
        track_with_datagrams(
            batch, batch.headers, 0, plain_rule(), streams, first, last, nothing, nothing.headers, NO_ROWS
        )
        first = last
    assert streams_as_slow(streams) == streams_as_slow(whole)


def test_rows_and_headers_that_are_not_of_the_batch_are_refused() -> None:
    batch, other = batch_of([Numbered(1), Numbered(2)]), batch_of([Numbered(1)])
    nothing = FrameBatch.from_frames([], [])
    rule, streams = plain_rule(), new_streams()
    with pytest.raises(ValueError, match="not those of this batch"):
        track_runs(batch, other.headers, 0, rule, streams)
    for first, last in ((-1, 1), (2, 1), (0, 3)):
        with pytest.raises(ValueError, match="not those of this batch"):
            track_with_datagrams(batch, batch.headers, 0, rule, streams, first, last, nothing, nothing.headers, NO_ROWS)
    for headers, rows in ((other.headers, np.zeros(2, np.int64)), (batch.headers, np.zeros(1, np.int64))):
        with pytest.raises(ValueError, match="not those of the datagrams"):
            track_with_datagrams(batch, batch.headers, 0, rule, streams, 0, 2, batch, headers, rows)
    assert streams.packets == 0
