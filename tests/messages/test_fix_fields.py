"""FIX messages against a split of their text at SOH."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.order_sessions import fix

from uspcap.messages.fix_fields import boundary, fields_of, message_size

TEXTS = {
    "begin_string": 8, "message_type": 35, "client_order_id": 11, "execution_type": 150, "order_status": 39,
    "transaction_type": 20, "possible_duplicate": 43, "sender": 49, "target": 56, "gap_fill": 123,
    "reset_numbers": 141,
}  # fmt: skip
NUMBERS = {"sequence": 34, "rejected_sequence": 45, "new_sequence": 36}


def whole(body: bytes, begin: bytes = b"FIX.4.4") -> bytes:
    """Return a message around a body, its checksum right."""
    head = b"8=%b\x019=%d\x01" % (begin, len(body))
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


def number(text: bytes | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(rb"[0-9]{1,18}", text) else None


VALUES = st.text(st.characters(codec="ascii", exclude_characters="\x01"), max_size=9)
DIGITS = st.one_of(st.sampled_from(["", "0", "007", "9" * 18, "1" + "0" * 18, "9" * 19, "-1", "1 "]), VALUES)
FIELDS = st.lists(st.tuples(st.sampled_from([*TEXTS.values(), 1, 12, 355]), VALUES), max_size=10)


@given(fields=FIELDS)
@example(fields=[(11, "=="), (11, "second")])
@example(fields=[(11, "")])
def test_texts_are_those_of_the_first_field_of_each_tag(fields: list[tuple[int, str]]) -> None:
    message = whole(b"".join(b"%d=%b\x01" % (tag, value.encode()) for tag, value in fields))
    expected: dict[bytes, bytes] = {}
    for pair in message.split(b"\x01")[:-2]:
        tag, value = pair.split(b"=", 1)
        expected.setdefault(tag, value)
    found = fields_of(message)
    assert {name: found[name] for name in TEXTS} == {name: expected.get(b"%d" % tag) for name, tag in TEXTS.items()}


@given(tag=st.sampled_from(sorted(NUMBERS)), value=DIGITS)
def test_a_number_has_one_to_eighteen_digits_or_is_none(tag: str, value: str) -> None:
    message = whole(b"35=0\x01%d=%b\x01" % (NUMBERS[tag], value.encode()))
    assert fields_of(message)[tag] == number(value.encode())


@pytest.mark.parametrize(("length_tag", "data_tag"), [(95, 96), (90, 91), (93, 89), (348, 349), (354, 355), (621, 622)])
def test_a_data_field_may_hold_soh_and_what_looks_like_fields(length_tag: int, data_tag: int) -> None:
    raw = b"a\x0111=inside\x01"
    body = b"35=D\x01%d=%d\x01%d=%b\x0111=outside\x01" % (length_tag, len(raw), data_tag, raw)
    assert fields_of(whole(body))["client_order_id"] == b"outside"
    # A length that leads to no SOH is none.
    body = body.replace(b"=%d\x01" % len(raw), b"=999\x01")
    assert fields_of(whole(body))["client_order_id"] == b"inside"


@given(wrong=st.integers(0, 255))
def test_a_checksum_fits_only_where_it_is_the_sum_of_the_bytes_before_it(wrong: int) -> None:
    message = fix("0", 3)
    right = int(message[-4:-1])
    assert fields_of(message[:-4] + b"%03d\x01" % wrong)["checksum_fits"] is (wrong == right)


@given(at=st.integers(0, 200), extra=st.binary(max_size=3))
def test_every_start_of_a_message_says_its_size_or_that_too_little_is_there(at: int, extra: bytes) -> None:
    message = fix("D", 1, (11, "A"))
    said = len(re.match(rb"8=FIX.4.4\x019=\d+\x01", message)[0])  # type: ignore[index]
    start = message[:at]
    assert message_size(start) == (0 if len(start) < said else len(message))
    assert message_size(message + extra) == len(message)


@pytest.mark.parametrize(
    ("begin", "size"),
    [
        (b"", 0),
        (b"8=FI", 0),
        (b"8=FIX.4.4", 0),
        (b"8=XIF", -1),
        (b"8=FIX.4.4.4.4.4.4.4", -1),
        (b"8=FIX.4.4\x0110=", -1),
        (b"8=FIX.4.4\x019:", -1),
        (b"8=FIX.4.4\x019=\x01", -1),
        (b"8=FIX.4.4\x019=-1\x01", -1),
        (b"8=FIX.4.4\x019=131072\x01", len(b"8=FIX.4.4\x019=131072\x01") + 131_072 + len(b"10=000\x01")),
        (b"8=FIX.4.4\x019=131073\x01", -1),
        (b"8=FIX.4.4\x019=1234567", -1),
    ],
)
def test_bytes_are_refused_as_soon_as_they_begin_no_message(begin: bytes, size: int) -> None:
    assert message_size(begin) == size


@given(pieces=st.lists(st.sampled_from([b"8", b"8=FIX", b"x\x01", fix("0", 1), fix("D", 2)[:-1], b"10=000\x01"])))
def test_a_boundary_is_where_the_first_whole_message_begins(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    sizes = {at: message_size(data[at:]) for at in range(len(data))}
    found = [at for at, size in sizes.items() if 0 < size <= len(data) - at]
    assert boundary(data) == (found[0] if found else -1)


def test_fields_of_less_or_more_than_one_message_are_refused() -> None:
    message = fix("0", 1)
    for wrong in (b"", message[:-1], message + b"8", message + message):
        with pytest.raises(ValueError, match="one whole FIX message"):
            fields_of(wrong)
