"""Messages of TCP connections: cut out of streams that are put together again, wherever the capture is cut.

`MessageStreams` has no constructor of its own; its nearest owner that Python can make is `NumberMachine`.
"""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.order_sessions import ACK, START_NS, SYN, Segment, fix, soup

from uspcap.analysis.orders.order_machine import RULE_DTYPE, OrderMachine
from uspcap.analysis.sequence.stream_runs import NumberMachine
from uspcap.frames import FrameBatch
from uspcap.messages.message_streams import MessageStreams
from uspcap.protocols.order_entry import ouch_rules

ISN = 2**32 - 40


def machine(*, is_fix: bool = True, at_once: bool = False) -> NumberMachine:
    return NumberMachine(is_fix, 64, 64, 1 << 12, 1 << 12, 1 << 20, at_once)


def update(streams: NumberMachine, segments: list[Segment]) -> NumberMachine:
    batch = FrameBatch.from_frames(
        [one.captured() for one in segments],
        [one.timestamp_ns for one in segments],
        wire_lengths=[len(one.wire()) for one in segments],
    )
    streams.update(batch, batch.headers, 0)
    return streams


def finished(streams: NumberMachine) -> NumberMachine:
    """Return what there is if nothing comes before or after."""
    final = machine(at_once=True)
    final.absorb(streams, 0)
    final.finish()
    return final


def outcome(streams: NumberMachine) -> Any:
    final = finished(streams)
    return (
        [array.tobytes() for array in final.arrays()],
        final.connection_breaks().tolist(),
        final.end_array().tobytes(),
    )


def messages_of(streams: NumberMachine) -> int:
    return int(finished(streams).arrays()[0]["packets"].sum())


def segments_of(data: bytes, edges: list[int], *, syn: bool = True, connection: int = 0) -> list[Segment]:
    """Cut one direction's bytes into segments."""
    cuts = [0, *sorted({min(edge, len(data)) for edge in edges} - {0, len(data)}), len(data)]
    begin = [Segment(START_NS, connection, False, ISN, flags=SYN)] if syn else []
    return begin + [
        Segment(START_NS + at, connection, False, ISN + 1 + first, data[first:last])
        for at, (first, last) in enumerate(pairwise(cuts), 1)
    ]


MESSAGES = [fix("A", 1)] + [fix("D", number, (11, f"T{number}")) for number in range(2, 9)]
EDGES = st.lists(st.integers(1, sum(map(len, MESSAGES))), max_size=12)


@given(edges=EDGES, order=st.randoms(use_true_random=False), copies=st.integers(0, 3))
def test_messages_are_whole_whatever_the_segments_and_their_order(edges: list[int], order: Any, copies: int) -> None:
    begin, *segments = segments_of(b"".join(MESSAGES), edges)
    segments += segments[:copies]
    order.shuffle(segments)
    streams = update(machine(), [begin, *segments])
    assert isinstance(streams, MessageStreams)
    assert messages_of(streams) == len(MESSAGES)
    assert finished(streams).connection_breaks()["missing_bytes"].sum() == 0


@given(
    edges=EDGES,
    cuts=st.lists(st.integers(0, 14), max_size=3),
    lost=st.integers(-1, 8),
    syn=st.booleans(),
    pickled=st.booleans(),
)
def test_parts_merged_at_any_cuts_are_the_whole(
    edges: list[int], cuts: list[int], lost: int, syn: bool, pickled: bool
) -> None:
    segments = segments_of(b"".join(MESSAGES), edges, syn=syn)
    segments += segments_of(MESSAGES[0], [], connection=1)
    if 0 <= lost < len(segments):
        del segments[lost]
    whole = update(machine(), segments)
    edges = [0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]
    parts = [(first, update(machine(), segments[first:last])) for first, last in pairwise(edges)]
    if pickled:
        parts = pickle.loads(pickle.dumps(parts))
    merged = parts[0][1]
    for first, part in parts[1:]:
        before = outcome(part)
        merged.absorb(part, first)
        assert outcome(part) == before
    assert outcome(merged) == outcome(whole)


def test_a_lost_segment_costs_the_messages_in_it_and_no_more() -> None:
    data = b"".join(MESSAGES)
    starts = [sum(map(len, MESSAGES[:at])) for at in range(len(MESSAGES))]
    # In the middle of the third message, to the middle of the fourth.
    segments = segments_of(data, [starts[2] + 9, starts[3] + 9])
    del segments[2]
    streams = update(machine(), segments)
    assert messages_of(streams) == len(MESSAGES) - 2
    breaks = finished(streams).connection_breaks()
    assert breaks["holes"].sum() == 1
    assert breaks["missing_bytes"].sum() == starts[3] - starts[2]


def test_a_hole_is_abandoned_as_soon_as_the_other_end_has_acknowledged_it() -> None:
    data = b"".join(MESSAGES)
    segments = segments_of(data, [len(MESSAGES[0]), len(MESSAGES[0]) + len(MESSAGES[1])])
    del segments[2]
    for acknowledged, messages in ((len(MESSAGES[0]), 1), (len(data), len(MESSAGES) - 1)):
        streams = update(machine(), segments)
        reply = Segment(START_NS, 0, True, 7, b"x", ACK, acknowledgment=ISN + 1 + acknowledged)
        update(streams, [reply])
        assert streams.arrays()[0]["packets"].tolist() == [messages]


def test_a_syn_begins_a_connection_again_with_numbers_of_its_own() -> None:
    streams = update(machine(), segments_of(MESSAGES[0], []))
    again = [
        Segment(START_NS, 0, False, 5, flags=SYN),
        Segment(START_NS, 0, False, 6, fix("A", 1)),
    ]
    assert messages_of(update(streams, again)) == 2
    assert streams.connection_count == 1


def test_soupbintcp_is_found_in_the_middle_of_a_stream_by_whole_packets() -> None:
    login = soup(b"A", b"S".rjust(10) + b"1".rjust(20))
    packets = login + 3 * soup(b"S", b"abc")
    streams = machine(is_fix=False, at_once=True)
    update(streams, segments_of(b"\xff\xfe" + packets, [], syn=False))
    streams.finish()
    assert streams.arrays()[0]["packets"].tolist() == [3]


def test_machines_of_two_kinds_and_headers_of_another_batch_are_refused() -> None:
    orders = OrderMachine(0, ouch_rules(RULE_DTYPE), 64, 64, 1 << 20)
    batch = FrameBatch.from_frames([segments_of(b"x", [])[0].wire()], [0])
    other = FrameBatch.from_frames([], [])
    with pytest.raises(ValueError, match="not those of this batch"):
        machine().update(batch, other.headers, 0)
    with pytest.raises(TypeError, match="machines of one kind"):
        machine().absorb(orders, 0)  # type: ignore[arg-type]
