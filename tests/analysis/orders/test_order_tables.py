"""The table of requests under a bound.

`OrderTables` has no constructor of its own that reads messages; its nearest owner is `OrderMachine`.
"""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.order_sessions import START_NS, SYN, Segment, fix, ouch

from uspcap.analysis.orders.order_machine import RULE_DTYPE, OrderMachine
from uspcap.analysis.orders.order_tables import CONNECTION_DTYPE, COUNTS, REQUEST_DTYPE, OrderTables
from uspcap.frames import FrameBatch
from uspcap.protocols.order_entry import ouch_rules

OUCH, FIX = 2, 3


def machine(version: int = OUCH, *, requests: int = 1 << 10, at_once: bool = True) -> OrderMachine:
    return OrderMachine(version, ouch_rules(RULE_DTYPE), 64, requests, 1 << 20, at_once)


def update(orders: OrderMachine, segments: list[Segment], first: int = 1) -> OrderMachine:
    batch = FrameBatch.from_frames(
        [one.wire() for one in segments], [one.timestamp_ns for one in segments], first_frame_number=first
    )
    orders.update(batch, batch.headers, 0)
    return orders


def talk(messages: list[tuple[bool, bytes]], connection: int = 0, begin: int = 0) -> list[Segment]:
    """Return a SYN and a segment for each message, from the client or the venue."""
    at = {False: begin + 1, True: begin + 1}
    segments = [Segment(START_NS, connection, False, begin, flags=SYN)]
    for number, (from_venue, payload) in enumerate(messages, 1):
        segments.append(Segment(START_NS + number, connection, from_venue, at[from_venue], payload))
        at[from_venue] += len(payload)
    return segments


def enter(order: int) -> tuple[bool, bytes]:
    return False, ouch("ouch-5.0", "O", order)


def said(orders: OrderMachine) -> list[tuple[int, bytes, int, int]]:
    """Return frame, id, repeats and answers of each request, in the order of their frames."""
    rows = orders.request_array()
    assert rows.dtype == REQUEST_DTYPE
    found = [
        (
            int(row["asked"]["first_frame"]),
            row["id"][: int(row["id_length"])].tobytes(),
            int(row["repeats"]),
            int(row["answered"]),
        )
        for row in rows
    ]
    return sorted(found)


@given(orders=st.lists(st.integers(1, 300), max_size=30))
def test_each_new_id_is_a_request_and_one_that_comes_again_is_counted(orders: list[int]) -> None:
    tables = update(machine(), talk([enter(order) for order in orders]))
    assert isinstance(tables, OrderTables)
    first = {order: orders.index(order) for order in orders}
    expected = sorted((2 + at, b"%d" % order) for order, at in first.items())
    assert [(frame, name) for frame, name, _, _ in said(tables)] == expected
    assert tables.request_count == len(first)
    assert sum(repeats for _, _, repeats, _ in said(tables)) == len(orders) - len(first)
    rows = tables.connection_array()
    assert rows.dtype == CONNECTION_DTYPE
    if orders:
        assert int(rows["counts"][0][COUNTS.index("enter")]) == len(orders)


def test_more_requests_than_there_was_room_for_are_found_again_by_their_answers() -> None:
    orders = list(range(1, 401))
    tables = update(machine(), talk([*map(enter, orders), *((True, ouch("ouch-5.0", "a", order)) for order in orders)]))
    assert tables.request_count == 400
    assert all(answered for _, _, _, answered in said(tables))
    (row,) = tables.connection_array()
    assert int(row["counts"][COUNTS.index("answers_without_request")]) == 0


@given(order=st.permutations(range(1, 31)), bound=st.sampled_from([1, 2, 7, 29, 30]))
def test_which_requests_are_followed_depends_on_which_there_were_only(order: list[int], bound: int) -> None:
    def names(tables: OrderMachine) -> set[bytes]:
        return {name for _, name, _, _ in said(tables)}

    in_order = update(machine(requests=bound), talk([enter(number) for number in range(1, 31)]))
    tables = update(machine(requests=bound), talk([enter(number) for number in order]))
    assert (tables.level, names(tables)) == (in_order.level, names(in_order))
    assert tables.request_count <= bound
    assert (tables.level == 0) == (bound == 30)


def test_an_id_is_of_its_connection_and_of_what_came_since_its_syn() -> None:
    segments = talk([enter(1)]) + talk([enter(1)], connection=1) + talk([enter(1)], begin=1 << 20)
    tables = update(machine(), segments)
    assert [(frame, repeats) for frame, _, repeats, _ in said(tables)] == [(2, 0), (4, 0), (6, 0)]
    # Its answer goes to the last one.
    answer = Segment(START_NS + 9, 0, True, (1 << 20) + 1, ouch("ouch-5.0", "a", 1))
    assert [bool(answered) for _, _, _, answered in said(update(tables, [answer], 7))] == [False, False, True]


def test_a_rejection_finds_a_fix_message_by_its_sequence_number() -> None:
    messages = [(False, fix("D", 7, (11, "A"))), (False, fix("D", 8, (11, "B"))), (True, fix("3", 1, (45, "8")))]
    tables = update(machine(FIX), talk(messages))
    assert [(name, bool(answered)) for _, name, _, answered in said(tables)] == [(b"A", False), (b"B", True)]


@settings(max_examples=60)
@given(
    story=st.lists(st.tuples(st.sampled_from(["O", "O", "a", "e"]), st.integers(1, 5)), max_size=20),
    cuts=st.lists(st.integers(0, 21), max_size=3),
    syn=st.booleans(),
)
def test_parts_merged_at_any_cuts_are_the_whole(story: list[tuple[str, int]], cuts: list[int], syn: bool) -> None:
    segments = talk([(kind.islower(), ouch("ouch-5.0", kind, order)) for kind, order in story])[not syn :]

    def outcome(orders: OrderMachine) -> Any:
        final = machine()
        final.absorb(orders, 0)
        final.finish()
        return said(final), final.connection_array().tobytes()

    merged = machine(at_once=False)
    for first, last in pairwise([0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]):
        part = pickle.loads(pickle.dumps(update(machine(at_once=False), segments[first:last])))
        merged.absorb(part, first)
    assert outcome(merged) == outcome(update(machine(at_once=False), segments))


def test_no_room_for_a_request_and_rules_of_another_layout_are_refused() -> None:
    for bound in (0, -1):
        with pytest.raises(ValueError, match="at least one request"):
            machine(requests=bound)
    rules = ouch_rules(RULE_DTYPE)
    for wrong in (rules[:1], rules[0], rules["id_offset"]):
        with pytest.raises(ValueError, match="rules have another layout"):
            OrderMachine(OUCH, wrong, 1, 1, 1)
