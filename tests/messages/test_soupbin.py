"""SoupBinTCP framing against a table of the types, read with struct."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from support.order_sessions import soup

from uspcap.messages.soupbin import boundary, packet_size

FIXED_LENGTHS = {b"H": 1, b"R": 1, b"Z": 1, b"O": 1, b"L": 47, b"A": 31, b"J": 2}
ANY_LENGTH = (b"U", b"S", b"+")


def size_by_table(data: bytes) -> int:
    if len(data) < 3:
        return 0
    length, kind = struct.unpack_from("!Hc", data)
    allowed = length >= 2 if kind in ANY_LENGTH else length == FIXED_LENGTHS.get(kind)
    return length + 2 if allowed else -1


def boundary_by_search(data: bytes) -> int:
    for offset in range(len(data) - 2):
        at, packets = offset, 0
        while packets < 3 and 0 < size_by_table(data[at:]) <= len(data) - at:
            at += size_by_table(data[at:])
            packets += 1
        if packets == 3 or (packets and at == len(data)):
            return offset
    return -1


KINDS = st.sampled_from([*FIXED_LENGTHS, *ANY_LENGTH, b"\0", b"h", b"T", b"\xff"])
LENGTHS = st.one_of(st.sampled_from([0, 1, 2, 3, 30, 31, 32, 46, 47, 48, 0xFFFF]), st.integers(0, 0xFFFF))


@given(length=LENGTHS, kind=KINDS, rest=st.binary(max_size=4))
def test_a_header_has_the_size_that_the_table_of_types_says(length: int, kind: bytes, rest: bytes) -> None:
    data = struct.pack("!Hc", length, kind) + rest
    assert packet_size(data) == size_by_table(data)


def test_fewer_bytes_than_a_header_say_no_size_yet() -> None:
    assert [packet_size(soup(b"S", b"xy")[:length]) for length in range(4)] == [0, 0, 0, 5]


PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [soup(b"H"), soup(b"R"), soup(b"U", b"a"), soup(b"S", b"\0\1H"), soup(b"J", b"A"), soup(b"+", b"t")]
    ),
)


@given(pieces=st.lists(PIECES, max_size=8), cut=st.integers(0, 8))
def test_a_boundary_is_the_first_offset_that_a_plain_search_accepts(pieces: list[bytes], cut: int) -> None:
    data = b"".join(pieces)
    data = data[: max(0, len(data) - cut)]
    assert boundary(data) == boundary_by_search(data)


def test_one_packet_is_a_boundary_only_where_the_data_ends_with_it() -> None:
    packet = soup(b"S", b"abc")
    assert boundary(packet) == 0
    assert boundary(packet + b"\xff") == -1
    assert boundary(3 * packet + b"\xff") == 0
    assert boundary(b"") == -1
