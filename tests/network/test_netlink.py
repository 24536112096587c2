"""Messages of rtnetlink: whatever comes is taken apart without harm, and the kernel's refusals say why."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.veth_pairs import HERE, Pair

from uspcap.network.links import parse_link
from uspcap.network.netlink import (
    RTM_GETLINK,
    RTM_SETLINK,
    RTNLGRP_LINK,
    NetlinkRefusal,
    Rtnetlink,
    attribute,
    attributes,
    number,
    text,
)

KINDS = st.integers(0, 0x3FFF)


def link_header(index: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, 0, 0)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40))))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(attributes(data)) == pairs


@given(st.binary(max_size=300))
def test_what_is_no_attribute_ends_the_reading(data: bytes) -> None:
    found = list(attributes(data))
    assert sum(4 + len(value) for _, value in found) <= len(data)


@given(st.binary(max_size=300))
def test_link_of_any_bytes_is_a_link(data: bytes) -> None:
    assert parse_link(link_header(3) + data).index == 3


def test_nested_flags_are_no_part_of_an_attributes_number() -> None:
    assert list(attributes(attribute(0x8000 | 18, b"abcd"))) == [(18, b"abcd")]
    assert text(b"name\0rest") == "name"
    assert number(struct.pack("=Q", 1 << 40)) == 1 << 40


def test_refusal_carries_the_kernels_own_words(pair: Pair) -> None:
    with pair.here.entered(), Rtnetlink() as netlink:
        with pytest.raises(NetlinkRefusal) as caught:
            netlink.request(RTM_GETLINK, link_header(4711))
        assert caught.value.errno == errno.ENODEV
        too_long = attribute(4, struct.pack("=I", 1 << 30))  # IFLA_MTU
        with pytest.raises(NetlinkRefusal) as caught:
            netlink.request(RTM_SETLINK, link_header(2) + too_long, acknowledge=True)
        assert caught.value.errno == errno.EINVAL
        assert "mtu" in caught.value.explanation
        # The next question gets its own answer.
        assert parse_link(netlink.request(RTM_GETLINK, link_header(2))[0].body).name == HERE


def test_socket_stays_in_its_namespace(pair: Pair) -> None:
    with pair.here.entered():
        netlink = Rtnetlink()
    with netlink:
        assert parse_link(netlink.request(RTM_GETLINK, link_header(2))[0].body).name == HERE


def test_notices_come_from_groups_and_what_had_no_room_does_no_harm(pair: Pair) -> None:
    with pair.here.entered(), Rtnetlink(groups=1 << RTNLGRP_LINK - 1) as heard:
        assert heard.notices() == []
        pair.here.ip("link", "set", HERE, "alias", "blue")
        assert any(parse_link(notice.body).name == HERE for notice in heard.notices())
        heard._socket.setsockopt(1, 8, 1)  # SO_RCVBUF
        for lap in range(30):
            pair.here.ip("link", "set", HERE, "alias", f"name {lap}")
        assert not heard.overrun
        assert isinstance(heard.notices(), list)
        assert heard.overrun
        pair.here.ip("link", "set", HERE, "alias", "end")
        assert any(parse_link(notice.body).name == HERE for notice in heard.notices())
