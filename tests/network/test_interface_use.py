"""Who loses frames that are taken from an interface.

Bridges, macvlans, macvtaps and VXLANs are made for these tests. Bonds, teams, VLANs, ipvlans, Open vSwitch, VRFs and
tunnels, which not every kernel has, are answers of rtnetlink that are made up (`support.rtnetlink_answers`): these
tests are marked `recorded` and prove how answers are read, not that a kernel gives them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.namespaces import MakeNamespace, Namespace
from support.rtnetlink_answers import RecordedState, address_answer, link_answer, route_answer
from support.veth_pairs import HERE, Pair

from uspcap.errors import UsageError
from uspcap.network.interface_use import LiveState, master_of, refuse_if_in_use, say_uses, uses
from uspcap.network.links import find_link, parse_link
from uspcap.network.netlink import Rtnetlink
from uspcap.network.other_namespaces import LinkElsewhere

PORT, MASTER, UPPER, OTHER = 2, 3, 4, 5

recorded = pytest.mark.recorded


def used(state: RecordedState, index: int = PORT) -> list[str]:
    return [str(use) for use in uses(state, index)]


@recorded
@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("bridge", "br0", "eth1 is a port of bridge br0, which has the address 10.0.0.1/24"),
        ("bond", "bond0", "eth1 is a member of bond bond0, which has the address 10.0.0.1/24"),
        ("team", "team0", "eth1 is a port of team team0, which has the address 10.0.0.1/24"),
        ("vrf", "red", "eth1 is a member of VRF red, which has the address 10.0.0.1/24"),
        ("batadv", "bat0", "eth1 is a port of batadv bat0, which has the address 10.0.0.1/24"),
        ("", "odd0", "eth1 is a port of odd0, which has the address 10.0.0.1/24"),
    ],
)
def test_interface_is_used_by_what_it_belongs_to(kind: str, name: str, said: str) -> None:
    links = [link_answer(PORT, "eth1", master=MASTER, master_kind=kind), link_answer(MASTER, name, kind=kind)]
    assert used(RecordedState(links, [address_answer(MASTER, "10.0.0.1")])) == [said]
    # Nothing is behind it: nobody misses a frame.
    assert used(RecordedState(links)) == []


@recorded
@pytest.mark.parametrize(
    ("kind", "name", "called"),
    [
        ("vlan", "eth1.5", "VLAN eth1.5"),
        ("macvlan", "mv0", "macvlan mv0"),
        ("ipvlan", "iv0", "ipvlan iv0"),
        ("macsec", "macsec0", "MACsec macsec0"),
        ("gre", "gre1", "gre gre1"),
        ("dsa", "lan1", "dsa lan1"),
        ("", "eth1v", "interface eth1v"),
    ],
)
def test_interface_is_used_by_what_is_made_on_it(kind: str, name: str, called: str) -> None:
    links = [link_answer(PORT, "eth1"), link_answer(UPPER, name, kind=kind, lower=PORT)]
    state = RecordedState(links, [address_answer(UPPER, "2001:db8::1", 64)])
    assert used(state) == [f"eth1 carries {called}, which has the address 2001:db8::1/64"]
    assert used(RecordedState(links)) == []


@recorded
def test_tunnel_bound_to_an_interface_is_on_it_though_only_its_own_data_say_so() -> None:
    links = [
        link_answer(PORT, "eth1"),
        link_answer(UPPER, "vx0", kind="vxlan", data=[("IFLA_VXLAN_ID", 5), ("IFLA_VXLAN_LINK", PORT)], master=MASTER),
        link_answer(MASTER, "br0", kind="bridge"),
        link_answer(OTHER, "tap0", kind="tun", master=MASTER),
    ]
    assert used(RecordedState(links)) == [
        "eth1 carries vxlan vx0, which is a port of bridge br0, which hands frames on to tap0"
    ]


@recorded
def test_whole_stack_is_followed_to_its_top() -> None:
    links = [
        link_answer(PORT, "eth1", master=MASTER, master_kind="bond"),
        link_answer(OTHER, "eth2", master=MASTER, master_kind="bond"),
        link_answer(MASTER, "bond0", kind="bond"),
        link_answer(UPPER, "bond0.7", kind="vlan", lower=MASTER, master=6),
        link_answer(6, "br7", kind="bridge"),
        link_answer(7, "mv7", kind="macvlan", lower=6),
    ]
    state = RecordedState(links, [address_answer(7, "10.0.0.1")], [route_answer(6)])
    chain = "is a member of bond bond0, which carries VLAN bond0.7, which is a port of bridge br7, which"
    assert used(state) == [
        f"eth1 {chain} carries the default route",
        f"eth1 {chain} carries macvlan mv7, which has the address 10.0.0.1/24",
    ]
    assert used(state, OTHER)[0] == f"eth2 {chain} carries the default route"
    # What is below an interface does not use it.
    assert used(state, 7) == ["mv7 has the address 10.0.0.1/24"]


@recorded
def test_switches_hand_frames_on_to_their_other_ports_and_bonds_do_not() -> None:
    def stack(kind: str) -> RecordedState:
        ports = [
            link_answer(10 + number, f"tap{number}", kind="tun", master=MASTER, master_kind=kind) for number in range(3)
        ]
        return RecordedState([link_answer(PORT, "eth1", master=MASTER), link_answer(MASTER, "sw0", kind=kind), *ports])

    assert used(stack("bridge")) == ["eth1 is a port of bridge sw0, which hands frames on to tap0, tap1 and 1 more"]
    assert used(stack("bond")) == []
    # What comes to the bridge's own interface has been switched already.
    assert used(stack("bridge"), MASTER) == []


@recorded
def test_open_vswitch_has_its_addresses_on_internal_ports() -> None:
    links = [
        link_answer(PORT, "eth1", master=MASTER, master_kind="openvswitch"),
        link_answer(MASTER, "ovs-system", kind="openvswitch"),
        link_answer(UPPER, "br0", kind="openvswitch"),
    ]
    state = RecordedState(links, [address_answer(UPPER, "10.0.0.1")])
    assert used(state) == ["eth1 is a port of Open vSwitch ovs-system, which hands frames on to br0"]
    assert used(state, UPPER) == ["br0 has the address 10.0.0.1/24"]


@recorded
def test_ends_of_a_pair_are_not_on_each_other() -> None:
    for kind in ("veth", "netkit"):
        links = [link_answer(PORT, "v0", kind=kind, lower=UPPER), link_answer(UPPER, "v1", kind=kind, lower=PORT)]
        assert used(RecordedState(links, [address_answer(UPPER, "10.0.0.1")])) == []


@recorded
def test_index_of_another_namespace_is_not_mistaken_for_one_here() -> None:
    links = [link_answer(PORT, "eth1"), link_answer(UPPER, "mv0", kind="macvlan", lower=PORT, namespace=0)]
    assert used(RecordedState(links, [address_answer(UPPER, "10.0.0.1")])) == []


@recorded
def test_interface_of_another_namespace_is_a_use_whatever_it_has() -> None:
    elsewhere = parse_link(link_answer(9, "net1", kind="macvlan", lower=PORT, namespace=4))
    state = RecordedState([link_answer(PORT, "eth1")], elsewhere=(LinkElsewhere(elsewhere, "blue"),))
    assert used(state) == ["eth1 carries macvlan net1 of another network namespace (blue)"]


@recorded
def test_stack_that_goes_in_circles_ends() -> None:
    links = [
        link_answer(PORT, "a", master=MASTER),
        link_answer(MASTER, "b", kind="bond", lower=PORT, master=UPPER),
        link_answer(UPPER, "c", kind="team", master=PORT),
    ]
    assert used(RecordedState(links, [address_answer(UPPER, "10.0.0.1")])) == [
        "a is a member of bond b, which is a port of team c, which has the address 10.0.0.1/24"
    ]


@recorded
@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([route_answer(PORT)], "carries the default route"),
        ([route_answer(OTHER, PORT)], "carries the default route"),
        ([route_answer(PORT, table=1000)], "carries the default route of table 1000"),
        ([route_answer(PORT, destination="10.1.0.0", length=16)], "carries the route to 10.1.0.0/16"),
        ([route_answer(PORT, destination="fe80::", length=64, protocol=2)], ""),
        ([route_answer(OTHER)], ""),
    ],
)
def test_route_without_an_address_is_a_use(routes: list[bytes], said: str) -> None:
    found = used(RecordedState([link_answer(PORT, "eth1")], [], routes))
    assert found == ([f"eth1 {said}"] if said else [])


@recorded
def test_link_local_addresses_are_no_use_and_the_own_end_of_a_pair_is_named() -> None:
    state = RecordedState([link_answer(PORT, "eth1")], [address_answer(PORT, "fe80::1", 64, scope=253)])
    assert used(state) == []


@recorded
def test_many_uses_are_counted_not_listed() -> None:
    links = [link_answer(PORT, "eth1")]
    links += [link_answer(10 + vlan, f"eth1.{vlan}", kind="vlan", lower=PORT) for vlan in range(5)]
    state = RecordedState(links, [address_answer(10 + vlan, f"10.0.{vlan}.1") for vlan in range(5)])
    assert say_uses(uses(state, PORT)) == (
        "eth1 carries VLAN eth1.0, which has the address 10.0.0.1/24, and eth1 carries VLAN eth1.1, which has the "
        "address 10.0.1.1/24, and 3 more like that"
    )


@recorded
def test_kernel_hands_frames_to_whatever_a_port_belongs_to_but_a_vrf() -> None:
    def state(kind: str) -> RecordedState:
        return RecordedState([link_answer(PORT, "eth1", master=MASTER), link_answer(MASTER, "m0", kind=kind)])

    master = master_of(state("team"), PORT)
    assert master is not None
    assert master.name == "m0"
    assert master_of(state("vrf"), PORT) is None
    assert master_of(state("team"), MASTER) is None


def refusal(namespace: Namespace, name: str = HERE) -> str:
    """Return why an interface is refused; empty where it is not."""
    with namespace.entered():
        with Rtnetlink() as netlink:
            link = find_link(netlink, name)
        assert link is not None
        try:
            refuse_if_in_use(link.index, "every frame", "take another")
        except UsageError as error:
            return str(error)
    return ""


def test_bridge_with_an_address_is_found_above_its_port(pair: Pair) -> None:
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", HERE, "master", "br0")
    assert refusal(pair.here) == ""
    pair.here.ip("address", "add", "10.0.0.1/24", "dev", "br0")
    pair.here.ip("link", "set", "br0", "up")
    pair.here.ip("route", "add", "default", "via", "10.0.0.2")
    assert refusal(pair.here) == (
        "AF_XDP would take every frame of here0 from the kernel, and here0 is a port of bridge br0, which has the "
        "address 10.0.0.1/24 and carries the default route: take another"
    )


def test_bridge_without_an_address_hands_frames_on(pair: Pair) -> None:
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("tuntap", "add", "mode", "tap", "name", "tap0")
    for port in (HERE, "tap0"):
        pair.here.ip("link", "set", port, "master", "br0")
    assert "here0 is a port of bridge br0, which hands frames on to tap0: take" in refusal(pair.here)


def test_macvlan_on_a_bridge_is_found_above_the_bridges_port(pair: Pair) -> None:
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", HERE, "master", "br0")
    pair.here.ip("link", "add", "link", "br0", "name", "mv0", "type", "macvlan")
    assert refusal(pair.here) == ""
    pair.here.ip("address", "add", "10.0.0.1/24", "dev", "mv0")
    assert "port of bridge br0, which carries macvlan mv0, which has the address 10.0.0.1/24" in refusal(pair.here)
    assert "mv0 has the address 10.0.0.1/24" in refusal(pair.here, "mv0")


def test_macvtap_is_a_use_without_an_address(pair: Pair) -> None:
    pair.here.ip("link", "add", "link", HERE, "name", "mt0", "type", "macvtap")
    assert "here0 carries macvtap mt0, which is read by whoever has /dev/tap" in refusal(pair.here)


def test_vxlan_bound_to_an_interface_is_on_it(pair: Pair) -> None:
    pair.here.ip("link", "add", "vx0", "type", "vxlan", "id", "5", "dev", HERE, "dstport", "4789")
    assert refusal(pair.here) == ""
    pair.here.ip("address", "add", "10.0.0.1/24", "dev", "vx0")
    assert "here0 carries vxlan vx0, which has the address 10.0.0.1/24" in refusal(pair.here)


@pytest.mark.parametrize("moved", [False, True], ids=["made there", "moved there"])
def test_macvlan_in_another_namespace_is_a_use(pair: Pair, make_namespace: MakeNamespace, moved: bool) -> None:
    container = make_namespace()
    if moved:
        pair.here.ip("link", "add", "link", HERE, "name", "mv0", "type", "macvlan")
        pair.here.ip("link", "set", "mv0", "netns", container.name)
    else:
        pair.here.ip("link", "add", "link", HERE, "name", "mv0", "netns", container.name, "type", "macvlan")
    assert f"here0 carries macvlan mv0 of another network namespace ({container.name}): take" in refusal(pair.here)
    # Indices of namespaces are their own: the other's interfaces are nobody's here.
    assert refusal(container, "mv0") == ""
    assert refusal(pair.there, "there0") == ""


def test_unnumbered_interface_with_a_route_is_in_use(pair: Pair) -> None:
    pair.here.ip("route", "add", "192.0.2.0/24", "dev", HERE)
    assert "here0 carries the route to 192.0.2.0/24" in refusal(pair.here)
    pair.here.ip("route", "add", "default", "dev", HERE, "table", "100")
    assert "here0 carries the default route of table 100" in refusal(pair.here)


def test_multipath_default_route_is_found(pair: Pair) -> None:
    pair.here.ip("link", "add", "link", HERE, "name", "mv0", "type", "macvlan")
    pair.here.ip("link", "set", "mv0", "up")
    pair.here.ip("route", "add", "default", "nexthop", "dev", HERE, "nexthop", "dev", "mv0")
    for name in (HERE, "mv0"):
        assert f"{name} carries the default route" in refusal(pair.here, name)


def test_route_over_a_next_hop_object_is_found(pair: Pair) -> None:
    pair.here.ip("nexthop", "add", "id", "7", "dev", HERE)
    pair.here.ip("route", "add", "default", "nhid", "7")
    assert "here0 carries the default route" in refusal(pair.here)
    with pair.here.entered():
        Path("/proc/sys/net/ipv4/nexthop_compat_mode").write_text("0")
    assert "here0 carries the default route" in refusal(pair.here)
    assert refusal(pair.there, "there0") == ""
    assert "route" not in refusal(pair.here, "lo")


def test_pair_without_anything_on_it_may_be_taken(pair: Pair) -> None:
    assert refusal(pair.here) == ""


def test_own_addresses_may_be_left_out(pair: Pair) -> None:
    pair.here.ip("address", "add", "10.0.0.1/24", "dev", HERE)
    with pair.here.entered(), Rtnetlink() as netlink:
        link = find_link(netlink, HERE)
        assert link is not None
        with pytest.raises(UsageError, match=r"10\.0\.0\.1"):
            refuse_if_in_use(link.index, "every frame", "take another")
        refuse_if_in_use(link.index, "every frame", "take another", above_only=True)


def test_namespaces_that_may_not_be_looked_into_are_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Callable[[Rtnetlink], LiveState] = LiveState.ask

    def hidden(netlink: Rtnetlink) -> LiveState:
        state = ask(netlink)
        state.unseen = "that of process 7"
        return state

    monkeypatch.setattr(LiveState, "ask", hidden)
    with pair.here.entered(), Rtnetlink() as netlink:
        link = find_link(netlink, HERE)
        assert link is not None
        said = refuse_if_in_use(link.index, "every frame", "take another")
    assert said == "other network namespaces that may use here0 could not be checked (that of process 7)"
