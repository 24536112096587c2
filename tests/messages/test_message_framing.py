"""SoupBinTCP framing and FIX fields against plain Python."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.order_sessions import fix, ouch, soup

from uspcap.messages import fix_fields, soupbin


@pytest.mark.parametrize(
    ("packet", "size"),
    [
        (soup(b"H"), 3),
        (soup(b"L", b" " * 46), 49),
        (soup(b"L", b" " * 45), -1),
        (soup(b"A", b" " * 30), 33),
        (soup(b"J", b"A"), 4),
        (soup(b"S", b"x" * 65_534), 65_537),
        (soup(b"U"), -1),
        (soup(b"H", b"x"), -1),
        (b"\0\1", 0),
        (b"", 0),
        (b"GET / HTTP/1.1", -1),
    ],
)
def test_a_packet_has_the_size_that_its_type_allows(packet: bytes, size: int) -> None:
    assert soupbin.packet_size(packet) == size


@given(noise=st.binary(max_size=6), kinds=st.lists(st.sampled_from("OXaec"), min_size=1, max_size=4))
def test_a_boundary_is_no_later_than_where_packets_begin(noise: bytes, kinds: list[str]) -> None:
    packets = b"".join(ouch("ouch-4.2", kind, 1) for kind in kinds)
    found = soupbin.boundary(noise + packets)
    assert 0 <= found <= len(noise)
    assert soupbin.boundary(packets) == 0
    assert soupbin.boundary(packets[:-1] if len(kinds) == 1 else b"") == -1


VALUES = st.text(st.characters(codec="ascii", exclude_characters="\x01"), max_size=12)


@given(fields=st.lists(st.tuples(st.sampled_from([11, 37, 39, 41, 58, 150, 43, 20, 123, 141]), VALUES), max_size=8))
@example(fields=[(11, "=")])
def test_fields_are_those_that_plain_python_splits(fields: list[tuple[int, str]]) -> None:
    message = fix("8", 5, *fields)
    expected: dict[bytes, bytes] = {}
    for pair in message.split(b"\x01")[:-1]:
        tag, value = pair.split(b"=", 1)
        expected.setdefault(tag, value)
    found = fix_fields.fields_of(message)
    names = {
        "begin_string": b"8", "message_type": b"35", "client_order_id": b"11", "execution_type": b"150",
        "order_status": b"39", "transaction_type": b"20", "possible_duplicate": b"43",
        "sender": b"49", "target": b"56", "gap_fill": b"123", "reset_numbers": b"141",
    }  # fmt: skip
    assert {name: found[name] for name in names} == {name: expected.get(tag) for name, tag in names.items()}
    assert found["sequence"] == 5
    assert found["checksum_fits"]


def test_a_data_field_may_hold_what_looks_like_fields() -> None:
    raw = "x\x0111=false\x01"
    message = fix("8", 5, (95, str(len(raw))), (96, raw), (11, "true"))
    assert fix_fields.fields_of(message)["client_order_id"] == b"true"


def test_the_number_that_comes_next_is_reported_where_it_is_one() -> None:
    assert fix_fields.fields_of(fix("4", 5, (123, "Y"), (36, "17"), (36, "18")))["new_sequence"] == 17
    assert fix_fields.fields_of(fix("4", 5, (36, "x")))["new_sequence"] is None
    assert fix_fields.fields_of(fix("4", 5))["new_sequence"] is None


def test_a_wrong_checksum_is_reported() -> None:
    message = fix("D", 1, (11, "A"))
    wrong = message[:-4] + b"%03d\x01" % ((int(message[-4:-1]) + 1) % 256)
    assert not fix_fields.fields_of(wrong)["checksum_fits"]


@given(data=st.binary(max_size=60), at=st.integers(0, 80))
def test_any_bytes_give_a_size_within_reason_or_none(data: bytes, at: int) -> None:
    message = fix("D", 1, (11, "A"))
    torn = message[:at] + data + message[at:]
    size = fix_fields.message_size(torn)
    assert size == -1 or size >= 0
    whole = [found.start() for found in re.finditer(rb"8=FIX", torn)]
    assert fix_fields.boundary(torn) in {-1, *whole}
    assert fix_fields.boundary(data + message) in {*range(len(data) + 1)}


def test_a_message_is_whole_only_with_its_trailer_where_its_length_says() -> None:
    message = fix("D", 1, (11, "A"))
    assert fix_fields.message_size(message) == len(message)
    assert fix_fields.message_size(message[:12]) == 0
    assert fix_fields.message_size(message[:-1]) == len(message)
    assert fix_fields.message_size(message[:-1] + b"x") == -1
    assert fix_fields.message_size(message.replace(b"\x019=", b"\x019=9999999")) == -1
    with pytest.raises(ValueError, match="one whole FIX message"):
        fix_fields.fields_of(message[:-1])
