"""Connections of a capture and of its parts: which are followed, what is kept, and what merging adds."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feeds import frame_of
from support.tcp_segments import ACK, PSH, SYN, Segment, captures, cut_captures

from uspcap.analysis.tcp.tcp_tracks import BLOCK_DTYPE, CONNECTION_DTYPE, MEASURE_COUNT, TcpTracks
from uspcap.frames import FrameBatch

Cut = tuple[list[Segment], list[list[Segment]], int]


def new(
    *,
    connections: int = 1 << 10,
    lines: int = 1 << 16,
    logged: int = 1 << 12,
    each: int = 1 << 10,
    at_once: bool = False,
) -> TcpTracks:
    return TcpTracks(connections, lines, logged, each, at_once)


def update(tracks: TcpTracks, segments: list[Segment], first: int = 1) -> TcpTracks:
    batch = FrameBatch.from_frames(
        [one.wire() for one in segments], [one.timestamp_ns for one in segments], first_frame_number=first
    )
    batch.storage("timestamp_source")[: len(segments)] = [one.source for one in segments]
    tracks.update(batch, batch.headers, 0)
    return tracks


def outcome(tracks: TcpTracks) -> Any:
    """Return all that there is if nothing came before."""
    final = new(at_once=True)
    final.absorb(tracks, 0)
    return everything(final)


def everything(final: TcpTracks) -> Any:
    """Return all that tracks say that count at once, connections by their ends."""
    connections, blocks = final.connection_array(), final.block_array()
    assert (connections.dtype, blocks.dtype) == (CONNECTION_DTYPE, BLOCK_DTYPE)
    histograms = final.cells.by_flow()
    times = {}
    for number, block in enumerate(blocks):
        of_block = [
            [part.tolist() for part in histograms.histogram_of(number * MEASURE_COUNT + measure)]
            for measure in range(MEASURE_COUNT)
        ]
        name = connections[int(block["connection"])].tobytes(), int(block["source"])
        times[name] = block["tracks"].tobytes(), of_block
    counted = final.segments, final.undecoded, final.fragments, final.level
    return sorted(row.tobytes() for row in connections), times, counted


def spoken(number: int, at: int = 0) -> Segment:
    return Segment(1_000 + at, False, 1 + at, 1, 1, ACK | PSH, connection=number)


@settings(max_examples=50)
@given(cut=cut_captures(most=15), pickled=st.booleans())
def test_parts_merged_at_any_cuts_are_the_whole_and_each_stays_as_it_is(cut: Cut, pickled: bool) -> None:
    segments, parts, _ = cut
    merged, taken = new(), 0
    for segments_of_part in parts:
        part = update(new(), segments_of_part)
        before = outcome(part)
        if pickled:
            merged, part = pickle.loads(pickle.dumps((merged, part)))
        merged.absorb(part, taken)
        assert outcome(part) == before
        taken += len(segments_of_part)
    assert merged.unsettled == 0
    assert outcome(merged) == outcome(update(new(), segments))


@settings(max_examples=50)
@given(segments=captures(most=15), each=st.sampled_from([0, 1, 9]), rows=st.sampled_from([1, 3]))
def test_a_log_of_any_length_changes_no_whole_capture(segments: list[Segment], each: int, rows: int) -> None:
    tracks = new(each=each)
    for start in range(0, len(segments), rows):
        update(tracks, segments[start : start + rows], 1 + start)
    assert outcome(tracks) == everything(update(new(at_once=True), segments))
    assert tracks.log_count <= each * tracks.connection_count


@given(numbers=st.permutations(range(30)), bound=st.sampled_from([1, 2, 7, 29, 30]), rows=st.sampled_from([1, 7, 30]))
def test_which_connections_are_followed_depends_on_which_there_were_only(
    numbers: list[int], bound: int, rows: int
) -> None:
    def ports(tracks: TcpTracks) -> list[int]:
        return sorted(int(row["high_port"]) for row in tracks.connection_array())

    in_order = update(new(connections=bound), [spoken(number) for number in range(30)])
    tracks = new(connections=bound)
    for start in range(0, 30, rows):
        update(tracks, [spoken(number) for number in numbers[start : start + rows]])
    assert (tracks.level, ports(tracks)) == (in_order.level, ports(in_order))
    assert tracks.connection_count <= bound
    assert (tracks.level == 0) == (bound == 30)
    # Of the others nothing is logged, and all segments count.
    assert (tracks.log_count, tracks.segments) == (tracks.connection_count, 30)


def test_histograms_of_too_many_lines_halve_the_sample() -> None:
    segments = [
        one
        for number in range(16)
        for one in (spoken(number), Segment(1_000 + (7 << number), True, 1, 2, connection=number))
    ]
    wide, narrow = update(new(at_once=True), segments), update(new(at_once=True, lines=4), segments)
    assert (wide.level, wide.connection_count, wide.block_count) == (0, 16, 16)
    assert narrow.level > 0
    assert narrow.cells.lines <= 4
    assert narrow.block_count == narrow.connection_count < 16


def test_the_log_is_bounded_but_for_the_first_segments_of_each_connection() -> None:
    segments = [spoken(number, at) for at in range(40) for number in range(3)]
    assert update(new(), segments).log_count == 120
    assert update(new(each=11), segments).log_count == 33
    assert update(new(logged=50), segments).log_count == 50
    assert update(new(logged=0), segments).log_count == 3 * 8


@pytest.mark.parametrize(
    ("flags", "from_responder", "initiator"),
    [(SYN, False, 1), (SYN, True, 0), (SYN | ACK, True, 1), (SYN | ACK, False, 0), (ACK, False, 2)],
)
def test_the_first_syn_says_who_opened_a_connection(flags: int, from_responder: bool, initiator: int) -> None:
    first = replace(spoken(4), flags=flags, from_responder=from_responder)
    tracks = update(new(), [first, replace(first, flags=SYN, from_responder=not from_responder)][: 1 + (flags != ACK)])
    (row,) = tracks.connection_array()
    assert row["initiator"] == initiator
    assert (int(row["low_port"]), int(row["high_port"]), int(row["ip_version"])) == (443, 40_004, 4)
    assert (int(row["first_frame"]), int(row["last_frame"])) == (1, 1 + (flags != ACK))


def test_a_header_that_was_not_captured_whole_is_undecoded_and_other_frames_are_none() -> None:
    whole = spoken(1).wire()
    short = whole[:53]
    wrong = whole[:46] + b"\x10" + whole[47:]
    for frame, segments, undecoded, followed in (
        (whole, 1, 0, 1), (whole[:54], 1, 0, 1), (frame_of(b"x" * 30), 0, 0, 0), (bytes(60), 0, 0, 0)
    ):  # fmt: skip
        batch = FrameBatch.from_frames([frame], [0], wire_lengths=[len(frame)])
        tracks = new()
        tracks.update(batch, batch.headers, 0)
        assert (tracks.segments, tracks.undecoded, tracks.connection_count) == (segments, undecoded, followed)
    for frame in (short, wrong):
        batch = FrameBatch.from_frames([frame], [0], wire_lengths=[len(whole)])
        tracks = new()
        tracks.update(batch, batch.headers, 0)
        assert tracks.connection_count == 0
        assert tracks.segments == tracks.undecoded


def test_no_room_for_a_connection_and_headers_of_another_batch_are_refused() -> None:
    for bound in (0, -1):
        with pytest.raises(ValueError, match="at least one connection"):
            new(connections=bound)
    batch, other = FrameBatch.from_frames([spoken(1).wire()], [0]), FrameBatch.from_frames([], [])
    with pytest.raises(ValueError, match="not those of this batch"):
        new().update(batch, other.headers, 0)


def test_tracks_that_count_at_once_cannot_come_behind_others() -> None:
    with pytest.raises(ValueError, match="cannot come behind others"):
        new(at_once=True).absorb(update(new(at_once=True), [spoken(1)]), 0)
