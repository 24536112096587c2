"""TCP's own sequence numbers as runs of its segments."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_runs import new_streams
from support.feeds import frame_of
from support.order_sessions import ACK, PSH, START_NS, SYN, Segment

from uspcap.analysis.sequence.numbered_runs import KIND_DATA, KIND_END, KIND_HEARTBEAT, KIND_RESET
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.analysis.sequence.segment_runs import track_segments
from uspcap.frames import FrameBatch

FIN, RST = 0x01, 0x04
WRAP = 1 << 32


def segment(sequence: int, length: int = 0, flags: int = ACK, *, from_venue: bool = False, ack: int = 0) -> Segment:
    return Segment(START_NS, 0, from_venue, sequence, b"x" * length, flags, acknowledgment=ack)


def batch_of(segments: list[Segment]) -> FrameBatch:
    return FrameBatch.from_frames([one.wire() for one in segments], [one.timestamp_ns for one in segments])


def tracked(segments: list[Segment], frame_shift: int = 0) -> NumberedStreams:
    streams = new_streams(number_bytes=4)
    batch = batch_of(segments)
    track_segments(batch, batch.headers, frame_shift, streams)
    return streams


def runs_of(streams: NumberedStreams) -> list[tuple[int, int, int]]:
    _, _, runs, _ = streams.arrays()
    return [(int(run["kind"]), int(run["first"]), int(run["length"])) for run in runs]


@given(start=st.sampled_from([0, 1, 1 << 31, WRAP - 1, WRAP - 30]), lengths=st.lists(st.integers(1, 40), min_size=1))
def test_segments_that_follow_each_other_are_one_run_across_the_wrap(start: int, lengths: list[int]) -> None:
    segments, at = [], start
    for length in lengths:
        segments.append(segment(at % WRAP, length))
        at += length
    streams = tracked(segments)
    assert runs_of(streams) == [(KIND_DATA, start, sum(lengths))]
    _, rows, runs, _ = streams.arrays()
    assert runs["packets"].tolist() == [len(lengths)] == rows["packets"].tolist()
    assert rows["messages"][:, 0].tolist() == [sum(lengths)]
    assert streams.packets == len(lengths)


@pytest.mark.parametrize(
    ("one", "runs"),
    [
        (segment(9, flags=SYN), [(KIND_RESET, 10, 0)]),
        (segment(WRAP - 1, flags=SYN), [(KIND_RESET, 0, 0)]),
        (segment(9, 5, SYN), [(KIND_RESET, 10, 0), (KIND_DATA, 9, 5)]),
        (segment(9, flags=FIN | ACK), [(KIND_DATA, 9, 1), (KIND_END, 10, 0)]),
        (segment(9, 5, FIN | ACK), [(KIND_DATA, 9, 6), (KIND_END, 15, 0)]),
        (segment(WRAP - 1, flags=FIN), [(KIND_DATA, WRAP - 1, 1), (KIND_END, 0, 0)]),
        (segment(9), [(KIND_HEARTBEAT, 9, 0)]),
        (segment(9, 3, PSH | ACK), [(KIND_DATA, 9, 3)]),
        (segment(9, 3, RST | ACK), []),
    ],
    ids=str,
)
def test_flags_say_what_a_segment_is(one: Segment, runs: list[tuple[int, int, int]]) -> None:
    if one.flags & SYN and one.payload:
        # Data of a SYN begin behind its own number.
        runs = [(kind, 10 if kind == KIND_DATA else first, length) for kind, first, length in runs]
    streams = tracked([one])
    assert runs_of(streams) == runs
    _, rows, _, _ = streams.arrays()
    assert rows["excluded"].tolist() == [int(bool(one.flags & RST))]


def test_the_last_acknowledgment_is_kept_and_a_syn_forgets_it() -> None:
    def acknowledged(segments: list[Segment]) -> list[int]:
        return [int(number) for number in tracked(segments).arrays()[1]["acknowledged"]]

    assert acknowledged([segment(1, 1, PSH)]) == [-1]
    assert acknowledged([segment(1, 1, ack=7), segment(2, 1, ack=WRAP - 1)]) == [WRAP - 1]
    (forgotten,) = acknowledged([segment(1, 1, ack=7), segment(5, flags=SYN)])
    assert forgotten < 0
    assert acknowledged([segment(5, flags=SYN | ACK, ack=3)]) == [3]
    # Each direction is a stream.
    assert acknowledged([segment(1, 1, ack=7), segment(1, 1, from_venue=True, ack=8)]) == [7, 8]


@given(
    numbers=st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, WRAP - 1]), st.integers(0, 3)), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
)
def test_parts_merged_at_any_cuts_are_the_whole(numbers: list[tuple[int, int]], cuts: list[int]) -> None:
    segments = [segment(first, length, ack=first) for first, length in numbers]
    whole, merged = tracked(segments), new_streams(number_bytes=4)
    edges = [0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]
    for first, last in pairwise(edges):
        merged.absorb(tracked(segments[first:last]), first)
    for mine, others in zip(merged.arrays()[:3], whole.arrays()[:3], strict=True):
        assert mine.tobytes() == others.tobytes()


def test_a_segment_cut_before_its_flags_and_what_is_no_segment_are_passed_over() -> None:
    whole = segment(1, 5).wire()
    for frames, packets in (([whole[:54]], 1), ([whole[:47]], 0), ([frame_of(b"x" * 20)], 0), ([], 0)):
        batch = FrameBatch.from_frames(frames, [START_NS] * len(frames), wire_lengths=[len(whole)] * len(frames))
        streams = new_streams(number_bytes=4)
        track_segments(batch, batch.headers, 0, streams)
        assert streams.packets == packets


def test_frame_numbers_are_moved_and_headers_of_another_batch_refused() -> None:
    _, _, runs, _ = tracked([segment(1, 1), segment(2, 1)], 1 << 50).arrays()
    assert (runs["first_frame"].tolist(), runs["seen_frame"].tolist()) == ([1 + (1 << 50)], [2 + (1 << 50)])
    with pytest.raises(ValueError, match="not those of this batch"):
        track_segments(batch_of([segment(1)]), batch_of([]).headers, 0, new_streams())
