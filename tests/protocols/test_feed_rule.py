"""What a rule takes of each payload, against struct and a slow reading of the rule.

A rule has no functions of its own that Python can call; the nearest caller is `track_runs`.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_runs import Numbered, new_streams, plain_rule
from support.feeds import START_NS, frame_of

from uspcap.analysis.sequence.feed_runs import track_runs
from uspcap.analysis.sequence.numbered_runs import KIND_DATA, KIND_END, KIND_HEARTBEAT, KIND_RESET
from uspcap.frames import FrameBatch
from uspcap.protocols.feed_rule import FeedRule

FOREIGN, EXCLUDED = "foreign", "excluded"


def read(rule: FeedRule, payload: bytes, captured: int | None = None) -> Any:
    """Return kind, first number, how many, and the key of a payload of one packet."""
    frame = frame_of(payload)
    kept = frame if captured is None else frame[: 42 + captured]
    batch = FrameBatch.from_frames([kept], [START_NS], wire_lengths=[len(frame)])
    streams = new_streams()
    track_runs(batch, batch.headers, 0, rule, streams)
    names, rows, runs, _ = streams.arrays()
    if streams.foreign:
        return FOREIGN
    key = names["key"][0].tobytes()
    if rows["excluded"][0]:
        return EXCLUDED, key
    return int(runs["kind"][0]), int(runs["first"][0]), int(runs["length"][0]), key


def plain_kind(kind: int, first: int, count: int, key: bytes = b"SESS") -> Any:
    return kind, first, count, key.ljust(16, b"\0")


@given(
    size=st.integers(1, 8), offset=st.integers(0, 8), big=st.booleans(),
    payload=st.binary(min_size=16, max_size=16), session=st.integers(0, 16),
)  # fmt: skip
def test_a_number_is_the_bytes_of_its_field_in_their_order(
    size: int, offset: int, big: bool, payload: bytes, session: int
) -> None:
    rule = plain_rule(
        sequence=(offset, size, big), count=(0, 0, True), keys=[(0, session)] if session else [], wraps=False
    )
    number = int.from_bytes(payload[offset : offset + size], "big" if big else "little")
    assert read(rule, payload) == (KIND_DATA, number, 1, payload[:session].ljust(16, b"\0"))


@given(payload=st.binary(min_size=24, max_size=24), keys=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_the_key_is_its_places_one_after_the_other(payload: bytes, keys: list[int]) -> None:
    places = [(24 - 4 * (at + 1), size) for at, size in enumerate(keys)]
    rule = plain_rule(header_bytes=24, sequence=(0, 4, True), count=(0, 0, True), keys=places)
    expected = b"".join(payload[offset : offset + size] for offset, size in places)
    assert read(rule, payload)[-1] == expected.ljust(16, b"\0")


@pytest.mark.parametrize("number_bytes", [1, 2, 4, 8])
def test_numbers_that_the_field_cannot_hold_are_foreign(number_bytes: int) -> None:
    highest = (1 << 8 * number_bytes) - 1
    rule = plain_rule(number_bytes=number_bytes, wraps=False)
    for first, count, foreign in ((highest, 1, False), (highest, 2, True), (highest - 2, 3, False), (0, 5, False)):
        found = read(rule, Numbered(first, count).payload())
        assert found == (FOREIGN if foreign else plain_kind(KIND_DATA, first, count))


def test_numbers_that_wrap_may_be_half_of_all() -> None:
    rule = plain_rule(number_bytes=1)
    for first in (0, 200, 255):
        assert read(rule, Numbered(first, 128).payload()) == plain_kind(KIND_DATA, first, 128)
        assert read(rule, Numbered(first, 129).payload()) == FOREIGN


@pytest.mark.parametrize(
    ("changes", "count", "kind"),
    [
        ({}, 0, KIND_HEARTBEAT),
        ({}, 0xFFFF, KIND_END),
        ({"heartbeat_count": None}, 0, KIND_DATA),
        ({"heartbeat_count": None, "excluded_count": 0}, 0, EXCLUDED),
        ({"unnumbered": 7}, 1, EXCLUDED),
        ({"unnumbered": 7}, 0, EXCLUDED),
        ({"header_only_is_request": True}, 3, EXCLUDED),
        ({"header_only_is_request": True, "heartbeat_count": None}, 0, KIND_DATA),
    ],
)
def test_counts_and_numbers_say_what_a_packet_is(changes: dict[str, Any], count: int, kind: Any) -> None:
    found = read(plain_rule(**changes), Numbered(7, count).payload())
    assert found[0] == kind
    if kind in (KIND_HEARTBEAT, KIND_END):
        assert found[1:3] == (7, 0)
        # It may say the last number, not the next one.
        assert read(plain_rule(**changes, heartbeat_is_last=True), Numbered(7, count).payload())[1:3] == (7, 1)


@given(values=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=4, max_size=4), value=st.integers(0, 9))
def test_a_kind_is_the_first_that_has_the_value_of_its_field(values: list[list[int]], value: int) -> None:
    place = (3, 1, True)
    rule = plain_rule(kinds=[(place, of_kind) for of_kind in values], keys=[], count=(0, 0, True))
    kinds = (KIND_DATA, KIND_HEARTBEAT, KIND_END, KIND_RESET)
    expected = next((kind for kind, of_kind in zip(kinds, values, strict=True) if value in of_kind), EXCLUDED)
    assert read(rule, Numbered(1, session=bytes([0, 0, 0, value])).payload())[0] == expected


@given(value=st.integers(0, 5), wanted=st.lists(st.integers(0, 5), max_size=4), are_not=st.booleans())
def test_a_field_that_is_checked_has_one_of_the_values_or_none(value: int, wanted: list[int], are_not: bool) -> None:
    rule = plain_rule(checks=[((0, 4, False), wanted, are_not)])
    found = read(rule, Numbered(1, session=struct.pack("<I", value)).payload())
    assert (found == FOREIGN) == ((value in wanted) == are_not)


@pytest.mark.parametrize(("said", "adds", "fits"), [(16, 0, True), (15, 0, False), (20, -4, True), (6, 10, True)])
def test_a_length_is_that_of_the_payload_less_what_is_added(said: int, adds: int, fits: bool) -> None:
    rule = plain_rule(length=(0, 2, True), length_adds=adds, keys=[])
    found = read(rule, Numbered(1, session=struct.pack("!HH", said, 0)).payload())
    assert (found != FOREIGN) == fits


@given(length=st.integers(1, 20), captured=st.integers(1, 20))
def test_a_payload_is_foreign_unless_its_header_is_there_and_captured(length: int, captured: int) -> None:
    payload = Numbered(1).payload().ljust(20, b"\0")[:length]
    found = read(plain_rule(), payload, min(captured, length))
    assert (found == FOREIGN) == (min(length, captured) < 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header_bytes": 0}, "a header has 1 to"),
        ({"header_bytes": (1 << 16) + 1}, "a header has 1 to"),
        ({"length_adds": -(1 << 16) - 1}, "a header has 1 to"),
        ({"sequence": (0, 0, True)}, "has a sequence number"),
        ({"sequence": (0, 9, True)}, "a field has 1 to 8 bytes"),
        ({"sequence": (-1, 4, True)}, "a field has 1 to 8 bytes"),
        ({"sequence": (9, 8, True)}, "beyond the header of 16"),
        ({"count": (15, 2, True)}, "beyond the header of 16"),
        ({"part": (16, 1, True)}, "beyond the header of 16"),
        ({"checks": [((13, 4, True), [1], False)]}, "beyond the header of 16"),
        ({"kinds": [((16, 1, True), [1])] * 4}, "beyond the header of 16"),
        ({"keys": [(1, 16)]}, "a key lies beyond"),
        ({"keys": [(0, 0)]}, "a key has a place"),
        ({"keys": [(0, 8), (8, 8), (0, 1)]}, "4 keys of 16 bytes"),
        ({"keys": [(0, 1)] * 5}, "4 keys of 16 bytes"),
        ({"checks": [((0, 1, True), [1], False)] * 5}, "4 checks"),
        ({"checks": [((0, 1, True), [1] * 9, False)]}, "8 values at most"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain_rule(**changes)


def test_a_pickled_rule_reads_the_same() -> None:
    rule = plain_rule(number_bytes=2, unnumbered=9, checks=[((0, 1, True), [83], False)])
    again = pickle.loads(pickle.dumps(rule))
    for packet in (Numbered(5, 2), Numbered(9), Numbered(1, session=b"XXXX")):
        assert read(again, packet.payload()) == read(rule, packet.payload())
