"""Numbers of FIX messages and SoupBinTCP packets as runs of their sessions."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.numbered_streams import fix_messages, fix_of
from support.order_sessions import START_NS, SYN, Segment, soup

from uspcap.analysis.sequence.numbered_runs import (
    KIND_DATA,
    KIND_END,
    KIND_FILL,
    KIND_HEARTBEAT,
    KIND_HOLE,
    KIND_RESET,
)
from uspcap.analysis.sequence.stream_runs import BREAK_DTYPE, SESSION_DTYPE, NumberMachine
from uspcap.frames import FrameBatch

FIX, SOUP = True, False


def machine(
    is_fix: bool = FIX, *, connections: int = 64, streams: int = 64, runs: int = 1 << 12, a_stream: int = 1 << 12
) -> NumberMachine:
    return NumberMachine(is_fix, connections, streams, runs, a_stream, 1 << 20, at_once=True)


def segments_of(messages: list[bytes], *, connection: int = 0, syn: bool = True) -> list[Segment]:
    """Return one direction of a connection, a message in each segment."""
    segments = [Segment(START_NS, connection, False, 99, flags=SYN)] if syn else []
    at = 100
    for message in messages:
        segments.append(Segment(START_NS, connection, False, at, message))
        at += len(message)
    return segments


def update(numbers: NumberMachine, segments: list[Segment]) -> NumberMachine:
    batch = FrameBatch.from_frames([one.wire() for one in segments], [one.timestamp_ns for one in segments])
    numbers.update(batch, batch.headers, 0)
    return numbers


def runs_of(numbers: NumberMachine) -> list[tuple[int, int, int]]:
    _, _, runs, _ = numbers.arrays()
    return [(int(run["kind"]), int(run["first"]), int(run["length"])) for run in runs]


RESET = (KIND_RESET, 1, 0)
LOGON = fix_of("A", 1)


@pytest.mark.parametrize(
    ("message", "runs", "excluded"),
    [
        (fix_of("D", 2), [RESET, (KIND_DATA, 1, 2)], 0),
        (fix_of("D", 5), [RESET, (KIND_DATA, 1, 1), (KIND_DATA, 5, 1)], 0),
        (fix_of("5", 2), [RESET, (KIND_DATA, 1, 2), (KIND_END, 3, 0)], 0),
        (fix_of("A", 7, (141, "Y")), [RESET, (KIND_DATA, 1, 1), (KIND_RESET, 7, 0), (KIND_DATA, 7, 1)], 0),
        (fix_of("A", 7), [RESET, (KIND_DATA, 1, 1), (KIND_DATA, 7, 1)], 0),
        (fix_of("4", 2, (123, "Y"), (36, "9")), [RESET, (KIND_DATA, 1, 8)], 0),
        (fix_of("4", 2, (123, "Y"), (36, "1")), [RESET, (KIND_DATA, 1, 2)], 0),
        (fix_of("4", 2, (36, "9")), [RESET, (KIND_DATA, 1, 1), (KIND_RESET, 9, 0)], 0),
        (fix_of("4", 2, (36, "x")), [RESET, (KIND_DATA, 1, 1)], 1),
        (fix_of("4", 2, (43, "Y"), (36, "9")), [RESET, (KIND_DATA, 1, 1)], 1),
        (fix_of("D", 5, (43, "Y")), [RESET, (KIND_DATA, 1, 1), (KIND_FILL, 5, 1)], 1),
        (fix_of("4", 5, (43, "Y"), (123, "Y"), (36, "8")), [RESET, (KIND_DATA, 1, 1), (KIND_FILL, 5, 3)], 1),
    ],
    ids=range(12),
)
def test_a_fix_message_after_a_logon_says_what_its_fields_say(
    message: bytes, runs: list[tuple[int, int, int]], excluded: int
) -> None:
    numbers = update(machine(), segments_of([LOGON, message]))
    assert runs_of(numbers) == runs
    assert numbers.arrays()[0]["excluded"].tolist() == [excluded]


def login(session: bytes, number: bytes) -> bytes:
    return soup(b"A", session + number)


@pytest.mark.parametrize(
    ("number", "first"),
    [
        (b"1".rjust(20), 1),
        (b"0".rjust(20), 0),
        (b"%020d" % 42, 42),
        (b"%20d" % ((1 << 64) - 3), (1 << 64) - 3),
        (b"%20d" % ((1 << 64) - 1), None),
        (b"9" * 20, None),
        (b" " * 20, None),
        (b"1 ".rjust(20), None),
        (b"-1".rjust(20), None),
    ],
)
def test_a_login_says_which_number_comes_next_or_is_malformed(number: bytes, first: int | None) -> None:
    packets = [login(b"SESSION001", number), soup(b"S", b"a"), soup(b"Z")]
    numbers = update(machine(SOUP), segments_of(packets))
    if first is None:
        assert runs_of(numbers) == []
        assert numbers.counted() == (1, 0)
        assert numbers.arrays()[0]["excluded"].tolist() == [1]
    else:
        assert runs_of(numbers)[:2] == [(KIND_HEARTBEAT, first, 0), (KIND_DATA, first, 1)]
        assert runs_of(numbers)[2:] == [(KIND_END, first + 1, 0)]
        assert numbers.counted() == (0, 0)


@pytest.mark.parametrize("padded", [b"SESS".rjust(10), b"SESS".ljust(10), b"  SESS    "])
def test_a_session_is_named_without_its_padding(padded: bytes) -> None:
    sessions, *_ = update(machine(SOUP), segments_of([login(padded, b"1".rjust(20)), soup(b"S", b"a")])).arrays()
    assert sessions.dtype == SESSION_DTYPE
    assert sessions["name"].tolist() == [b"SESS"]


def test_missing_bytes_stand_as_a_hole_before_the_next_number() -> None:
    segments = segments_of([fix_of("D", number) for number in (1, 2, 3)])
    missing = len(segments[2].payload)
    del segments[2]
    numbers = update(machine(), segments)
    numbers.finish()
    assert runs_of(numbers) == [(KIND_DATA, 1, 1), (KIND_HOLE, 0, 0), (KIND_DATA, 3, 1)]
    breaks = numbers.connection_breaks()
    assert (breaks.dtype, breaks.shape) == (BREAK_DTYPE, (1, 2))
    assert (int(breaks["holes"].sum()), int(breaks["missing_bytes"].sum())) == (1, missing)
    sessions, *_ = numbers.arrays()
    assert (sessions["holes"].tolist(), sessions["missing_bytes"].tolist()) == ([1], [missing])


@given(messages=fix_messages(), cuts=st.lists(st.integers(0, 30), max_size=3), syn=st.booleans(), lost=st.integers())
def test_parts_merged_at_any_cuts_are_the_whole(messages: list[bytes], cuts: list[int], syn: bool, lost: int) -> None:
    segments = segments_of(messages, syn=syn)
    if 0 <= lost < len(segments):
        del segments[lost]

    def part(first: int, last: int) -> NumberMachine:
        new = NumberMachine(FIX, 64, 64, 1 << 12, 1 << 12, 1 << 20)
        return pickle.loads(pickle.dumps(update(new, segments[first:last])))

    def outcome(numbers: NumberMachine) -> list[Any]:
        final = machine()
        final.absorb(numbers, 0)
        final.finish()
        return [array.tobytes() for array in (*final.arrays(), final.connection_breaks())] + [final.counted()]

    merged = part(0, 0)
    for first, last in pairwise([0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]):
        merged.absorb(part(first, last), first)
    assert outcome(merged) == outcome(part(0, len(segments)))


@pytest.mark.parametrize("bounds", [{"connections": 3}, {"streams": 3}, {"runs": 3, "a_stream": 3}], ids=str)
def test_a_bound_follows_some_connections_whatever_their_order(bounds: dict[str, int]) -> None:
    talk = [segments_of([fix_of("D", 1), fix_of("D", 9), fix_of("D", 3)], connection=at) for at in range(12)]
    found = []
    for way in (talk, talk[::-1]):
        numbers = update(machine(**bounds), [one for segments in way for one in segments])
        ends = numbers.end_array()
        found.append((numbers.level, sorted((int(row["low_port"]), int(row["high_port"])) for row in ends)))
        assert numbers.level > 0
    assert found[0] == found[1]


def test_numbered_messages_of_sessions_that_are_not_followed_are_counted() -> None:
    messages = [fix_of("D", 1, sender=f"S{at}") for at in range(40)]
    numbers = update(machine(streams=4), segments_of(messages))
    malformed, of_others = numbers.counted()
    sessions, *_ = numbers.arrays()
    if numbers.connection_count:
        assert malformed == 0
        assert int(sessions["packets"].sum()) + of_others == len(messages)
    assert len(sessions) <= 4
    with pytest.raises(ValueError, match="at least one stream"):
        machine(streams=0)
