"""Tables of connections: what is followed within the bounds, and what is kept in the log.

`ConnectionTables` has no constructor of its own; its nearest owner that Python can make is `NumberMachine`.
"""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.order_sessions import ACK, PSH, START_NS, SYN, Segment, fix

from uspcap.analysis.sequence.stream_runs import NumberMachine
from uspcap.frames import FrameBatch
from uspcap.messages.connection_tables import END_DTYPE, ConnectionTables


def machine(connections: int = 1 << 10, log_bytes: int = 1 << 20, *, at_once: bool = False) -> NumberMachine:
    return NumberMachine(True, connections, 1 << 10, 1 << 16, 1 << 10, log_bytes, at_once)


def update(tables: NumberMachine, segments: list[Segment], first_frame: int = 1) -> NumberMachine:
    batch = FrameBatch.from_frames(
        [one.captured() for one in segments],
        [one.timestamp_ns for one in segments],
        wire_lengths=[len(one.wire()) for one in segments],
        first_frame_number=first_frame,
    )
    tables.update(batch, batch.headers, 0)
    return tables


def spoken(connection: int, *, from_venue: bool = False, payload: bytes = b"x", flags: int = ACK | PSH) -> Segment:
    return Segment(START_NS, connection, from_venue, 1, payload, flags)


def ports(tables: ConnectionTables) -> list[int]:
    ends = tables.end_array()
    return sorted(int(max(row["low_port"], row["high_port"])) - 40_000 for row in ends)


@given(talk=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_a_connection_is_two_ends_whichever_speaks_first(talk: list[tuple[int, bool]]) -> None:
    tables = update(machine(), [spoken(number, from_venue=back) for number, back in talk])
    assert isinstance(tables, ConnectionTables)
    assert ports(tables) == sorted({number for number, _ in talk})
    assert tables.connection_count == len({number for number, _ in talk})
    ends = tables.end_array()
    assert ends.dtype == END_DTYPE
    venue, client = (ipaddress.ip_address(text).packed for text in ("192.0.2.200", "192.0.2.20"))
    for row in ends:
        assert {bytes(row["low"])[-4:], bytes(row["high"])[-4:]} == {venue, client}
        assert 24_001 in (row["low_port"], row["high_port"])


def test_segments_that_say_nothing_enter_no_connection() -> None:
    tables = update(machine(), [spoken(1, payload=b"", flags=ACK)])
    assert tables.connection_count == 0
    assert tables.end_array().shape == (0,)
    assert update(tables, [spoken(1, payload=b"", flags=SYN)]).connection_count == 1


@given(numbers=st.permutations(range(40)), bound=st.sampled_from([1, 2, 7, 39, 40]), rows=st.sampled_from([1, 5, 64]))
def test_which_connections_are_followed_depends_on_which_there_were_only(
    numbers: list[int], bound: int, rows: int
) -> None:
    in_order = update(machine(bound), [spoken(number) for number in range(40)])
    tables = machine(bound)
    for start in range(0, len(numbers), rows):
        update(tables, [spoken(number) for number in numbers[start : start + rows]], 1 + start)
    assert tables.connection_count <= bound
    assert (tables.level, ports(tables)) == (in_order.level, ports(in_order))
    assert (tables.level == 0) == (bound >= 40)
    # Of the log, only their segments are kept.
    assert tables.log_bytes == in_order.log_bytes


def test_the_log_holds_what_has_no_beginning_and_nothing_else() -> None:
    assert update(machine(), [spoken(1)]).log_bytes > 0
    assert update(machine(at_once=True), [spoken(1)]).log_bytes == 0
    begun = update(machine(), [Segment(START_NS, 1, False, 0, flags=SYN), spoken(1)])
    assert begun.log_bytes == 0
    sizes = [update(machine(), [spoken(1, payload=bytes(length))]).log_bytes for length in (1, 8, 9, 16, 1000)]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 1000


def test_a_full_log_settles_the_connection_that_has_most_in_it_and_drops_nothing() -> None:
    small, large = fix("0", 1), fix("D", 1, (58, "x" * 2_000))
    tables = update(machine(log_bytes=3_000), [spoken(1, payload=small), spoken(2, payload=large)])
    assert (tables.settled_connections, tables.dropped_log_bytes) == (0, 0)
    again = Segment(START_NS, 2, False, 1 + len(large), fix("D", 2, (58, "x" * 2_000)))
    update(tables, [again], 3)
    assert (tables.settled_connections, tables.cut_connections, tables.dropped_log_bytes) == (1, 0, 0)
    # The small one is still logged.
    assert 0 < tables.log_bytes < 1_500
    sessions, *_ = tables.arrays()
    assert sessions["packets"].tolist() == [2]


def test_a_part_with_the_beginning_of_a_settled_connection_counts_the_cut() -> None:
    size = 2_000
    early = update(machine(log_bytes=3_000), [spoken(2, payload=fix("D", 1))])
    texts = [fix("D", number, (58, "x" * size)) for number in (2, 3)]
    at = 1 + len(fix("D", 1))
    later = [Segment(START_NS, 2, False, at, texts[0]), Segment(START_NS, 2, False, at + len(texts[0]), texts[1])]
    early.absorb(update(machine(log_bytes=3_000), later), 1)
    assert (early.settled_connections, early.cut_connections) == (1, 1)


def test_no_room_for_a_connection_is_refused() -> None:
    for bound in (0, -1, -(1 << 40)):
        with pytest.raises(ValueError, match="at least one connection"):
            machine(bound)


def test_connections_of_both_ip_versions_are_of_one_layout() -> None:
    assert END_DTYPE.itemsize == 40
    assert END_DTYPE["low_port"] == np.dtype(np.uint16)
