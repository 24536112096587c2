"""Interfaces as rtnetlink reports them, against what ip(8) prints."""

import json
import socket
from collections.abc import Iterator

import pytest
from support.traffic import numbered_frame
from support.veth_pairs import HERE, THERE, Pair, wait_until

from uspcap.errors import CaptureError
from uspcap.network.links import all_addresses, all_links, find_link, link_at, named_link, real_name
from uspcap.network.netlink import Rtnetlink

LONG = "x" * 127


@pytest.fixture
def netlink(pair: Pair) -> Iterator[Rtnetlink]:
    with pair.here.entered(), Rtnetlink() as asked:
        yield asked


def test_links_are_those_that_ip_lists(pair: Pair, netlink: Rtnetlink) -> None:
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", HERE, "master", "br0")
    pair.here.ip("link", "add", "link", "br0", "name", "mv0", "mtu", "1300", "type", "macvlan")
    pair.here.ip("link", "property", "add", "dev", HERE, "altname", "blue", "altname", LONG)
    listed = {one["ifname"]: one for one in json.loads(pair.here.ip("-d", "-j", "link", "show"))}
    links = all_links(netlink)
    assert [link.name for link in links] == list(listed)
    by_index = {link.index: link.name for link in links}
    for link in links:
        other = listed[link.name]
        assert (link.index, link.mtu, link.up) == (other["ifindex"], other["mtu"], "UP" in other["flags"])
        assert link.kind == other.get("linkinfo", {}).get("info_kind", "")
        assert by_index.get(link.master) == other.get("master")
        assert list(link.other_names) == other.get("altnames", [])
        on = [] if link.kind in ("veth", "") else [by_index[lower] for lower in link.lowers]
        assert on == ([other["link"]] if "link" in other and link.kind != "veth" else [])


def test_counters_are_the_kernels(pair: Pair, netlink: Rtnetlink) -> None:
    found = find_link(netlink, HERE)
    assert found is not None
    pair.send(*[numbered_frame(number) for number in range(7)])

    def received() -> int:
        link = link_at(netlink, found.index)
        assert link is not None
        return link.counters["rx_packets"]

    assert wait_until(lambda: received() == found.counters["rx_packets"] + 7)
    (listed,) = json.loads(pair.here.ip("-s", "-s", "-j", "link", "show", HERE))
    link = link_at(netlink, found.index)
    assert link is not None
    assert link.counters["rx_bytes"] == listed["stats64"]["rx"]["bytes"]
    assert link.counters["tx_packets"] == listed["stats64"]["tx"]["packets"]


def test_names_come_before_indices(pair: Pair, netlink: Rtnetlink) -> None:
    index = socket.if_nametoindex("lo")
    assert real_name(str(index)) == "lo"
    pair.here.ip("link", "property", "add", "dev", HERE, "altname", str(index))
    assert real_name(str(index)) == HERE
    assert real_name(None) is None


def test_interface_that_is_gone_is_none(pair: Pair, netlink: Rtnetlink) -> None:
    link = find_link(netlink, HERE)
    assert link is not None
    pair.here.ip("link", "delete", HERE)
    assert link_at(netlink, link.index) is None
    assert find_link(netlink, HERE) is None
    with pytest.raises(CaptureError, match="there is no interface 'here0': name one of lo"):
        named_link(HERE)


def test_addresses_are_the_hosts_own_choice(pair: Pair, netlink: Rtnetlink) -> None:
    pair.here.ip("address", "add", "10.9.0.1/24", "dev", HERE)
    pair.here.ip("address", "add", "10.9.1.1", "peer", "10.9.1.2/32", "dev", HERE)
    index = socket.if_nametoindex(HERE)
    assert all_addresses(netlink)[index] == ("10.9.0.1/24", "10.9.1.1/32")
    with pair.there.entered(), Rtnetlink() as other:
        assert socket.if_nametoindex(THERE) not in all_addresses(other)
