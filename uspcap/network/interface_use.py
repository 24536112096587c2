"""Who loses frames when they are taken from an interface: what the host has on top of it.

The stack above an interface is followed to its ends: ports go up to their bridge, bond, team, VRF or switch, and from
an interface to whatever is made on it (VLAN, macvlan, ipvlan, MACsec, tunnels that are bound to it). An end is a use
where it has an address or a route, hands frames on to other ports, or cannot be looked into. IPv6 link-local addresses
count as little as a port that nothing is behind.

Not seen: programs that read packet sockets, PPPoE sessions, and what tc, nftables or another's BPF divert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from uspcap.errors import UsageError
from uspcap.network.links import Link, Route, all_addresses, all_links, routes_by
from uspcap.network.netlink import Rtnetlink
from uspcap.network.other_namespaces import LinkElsewhere, links_in_other_namespaces

_PORT_OF: Final[Mapping[str, str]] = {
    "bridge": "a port of bridge",
    "bond": "a member of bond",
    "team": "a port of team",
    "openvswitch": "a port of Open vSwitch",
    "vrf": "a member of VRF",
    "hsr": "a port of HSR ring",
}
_NAMES: Final[Mapping[str, str]] = {"vlan": "VLAN", "macsec": "MACsec", "ipvlan": "ipvlan", "ipvtap": "ipvtap"}
_HAND_ON: Final = frozenset({"bridge", "openvswitch", "batadv"})
"""Kinds that hand frames from one port on to others."""

_READ_BY_PROGRAMS: Final = frozenset({"macvtap", "ipvtap"})
"""Kinds whose frames go to whoever has their character device open, as a virtual machine has."""

_MOST_NAMED: Final = 2


class NetworkState(Protocol):
    """What is known of a host's network, in one namespace."""

    @property
    def links(self) -> tuple[Link, ...]: ...

    @property
    def addresses(self) -> Mapping[int, tuple[str, ...]]: ...

    @property
    def elsewhere(self) -> tuple[LinkElsewhere, ...]:
        """Interfaces of other namespaces that are made on interfaces of this one."""

    @property
    def unseen(self) -> str:
        """Which namespaces may have more of them, as they could not be looked into; empty for none."""

    def routes(self, index: int) -> tuple[Route, ...]: ...


@dataclass(slots=True)
class LiveState:
    """The network of the calling thread's namespace, as it was when asked."""

    links: tuple[Link, ...]
    addresses: Mapping[int, tuple[str, ...]]
    elsewhere: tuple[LinkElsewhere, ...]
    unseen: str
    _netlink: Rtnetlink = field(repr=False)

    @classmethod
    def ask(cls, netlink: Rtnetlink) -> LiveState:
        """Ask the kernel."""
        links = all_links(netlink)
        elsewhere, unseen = links_in_other_namespaces(netlink)
        return cls(links, all_addresses(netlink), elsewhere, unseen, netlink)

    def routes(self, index: int) -> tuple[Route, ...]:
        return routes_by(self._netlink, index)


@dataclass(frozen=True, slots=True)
class Use:
    """One way in which the host uses an interface.

    Attributes
    ----------
    interface : str
    steps : tuple of str
        From the interface upwards, as `is a port of bridge br0`.
    end : str
        What is at the top, as `has the address 10.0.0.1/24`.
    """

    interface: str
    steps: tuple[str, ...]
    end: str

    @property
    def direct(self) -> bool:
        """The host uses the interface itself, not something above it."""
        return not self.steps

    def __str__(self) -> str:
        return f"{self.interface} {', which '.join([*self.steps, self.end])}"


def uses(state: NetworkState, index: int) -> tuple[Use, ...]:
    """Return how the host uses an interface, most direct first; nothing where it may be taken.

    Parameters
    ----------
    state : NetworkState
    index : int
        Of the interface.
    """
    by_index = {link.index: link for link in state.links}
    if index not in by_index:
        return ()
    found: list[Use] = []
    met = {index}
    waiting: list[tuple[Link, Link | None, tuple[str, ...]]] = [(by_index[index], None, ())]
    while waiting:
        link, below, steps = waiting.pop(0)
        ends = list(_ends(state, link))
        if below is not None and link.kind in _HAND_ON:
            others = _other_ports(state.links, link, below)
            ends += [f"hands frames on to {_listed(others)}"] if others else []
        ends += [
            f"carries {_named(one.link)} of another network namespace ({one.namespace})"
            for one in state.elsewhere
            if link.index in one.link.lowers
        ]
        for step, above in _above(state.links, by_index.get(link.master), link):
            if above.index not in met:
                met.add(above.index)
                waiting.append((above, link, (*steps, step)))
        if ends:
            found.append(Use(by_index[index].name, steps, " and ".join(ends)))
    return tuple(found)


def _ends(state: NetworkState, link: Link) -> Iterator[str]:
    """Say why an interface is in use, whatever is stacked on it."""
    addresses = state.addresses.get(link.index, ())
    if addresses:
        yield f"has the address {addresses[0]}"
    routes = state.routes(link.index)
    default = [route for route in routes if route.destination == "default"]
    if default:
        yield f"carries {default[0]}"
    elif routes and not addresses:
        yield f"carries {routes[0]}"
    if link.kind in _READ_BY_PROGRAMS:
        yield f"is read by whoever has /dev/tap{link.index} open"


def _above(links: tuple[Link, ...], master: Link | None, link: Link) -> Iterator[tuple[str, Link]]:
    """Yield what is directly on top of an interface, each with how it is said."""
    if master is not None:
        yield _membership(master), master
    for upper in links:
        if upper.lower_namespace is None and link.index in upper.lowers:
            yield f"carries {_named(upper)}", upper


def _other_ports(links: tuple[Link, ...], master: Link, link: Link) -> list[Link]:
    """Return the other ports that frames of one may be handed on to."""
    ports = [port for port in links if port.master == master.index and port.index != link.index]
    if master.kind == "openvswitch":
        # Internal ports, as the one with a bridge's name, have no master; the kernel does not report their datapath.
        ports += [port for port in links if port.kind == master.kind and port.index != master.index]
    return ports


def _named(link: Link) -> str:
    return f"{_NAMES.get(link.kind, link.kind) or 'interface'} {link.name}"


def _listed(links: list[Link]) -> str:
    names = [link.name for link in links[:_MOST_NAMED]]
    more = len(links) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def master_of(state: NetworkState, index: int) -> Link | None:
    """Return what the kernel hands all frames of an interface to, as a bridge; None where it hands them to nobody.

    A VRF leaves frames where they came.
    """
    by_index = {link.index: link for link in state.links}
    link = by_index.get(index)
    master = None if link is None else by_index.get(link.master)
    return None if master is None or master.kind == "vrf" else master


def _membership(master: Link) -> str:
    kind = _PORT_OF.get(master.kind) or f"a port of {master.kind}".rstrip()
    return f"is {kind} {master.name}"


def say_uses(found: tuple[Use, ...]) -> str:
    """Return one clause that names the first uses and how many more there are."""
    said = ", and ".join(map(str, found[:_MOST_NAMED]))
    more = len(found) - _MOST_NAMED
    return f"{said}, and {more} more like that" if more > 0 else said


def refuse_if_in_use(index: int, what: str, instead: str, *, above_only: bool = False) -> str:
    """Refuse to take frames that somebody else waits for.

    Parameters
    ----------
    index : int
        Of an interface of the calling thread's network namespace.
    what : str
        What would be taken, as `every frame`.
    instead : str
        What to do, as the end of a sentence.
    above_only : bool
        Addresses and routes of the interface itself are no obstacle.

    Returns
    -------
    str
        Where further uses may be that cannot be seen, in a sentence; empty where there are no such.

    Raises
    ------
    UsageError
        The host uses the interface; the message says how.
    """
    with Rtnetlink() as netlink:
        state = LiveState.ask(netlink)
        found = tuple(use for use in uses(state, index) if not (above_only and use.direct))
    name = next((link.name for link in state.links if link.index == index), "")
    if found:
        raise UsageError(f"AF_XDP would take {what} of {name} from the kernel, and {say_uses(found)}: {instead}")
    if state.unseen:
        return f"other network namespaces that may use {name} could not be checked ({state.unseen})"
    return ""


def refuse_if_kernel_path_is_elsewhere(index: int, name: str) -> None:
    """Refuse an interface on which no socket can receive, as its frames go to a bridge, a bond or the like.

    Raises
    ------
    UsageError
        It is such a port.
    """
    with Rtnetlink() as netlink:
        master = master_of(LiveState.ask(netlink), index)
    if master is not None:
        raise UsageError(
            f"{name} {_membership(master)}, which the kernel hands every frame to, so that no socket on {name} gets "
            f"any: compare on {master.name}"
        )
