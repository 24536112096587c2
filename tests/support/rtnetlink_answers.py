"""Answers of rtnetlink that are made up, for interfaces that the host's kernel cannot make.

The attributes are those that the kernel's documentation and iproute2 name for each kind (linux/if_link.h, ip-link(8),
`ip -d link`); pyroute2 encodes them, so that what is tested reads bytes that another has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from uspcap.network.links import Link, Route, addresses_in, parse_link, routes_in
from uspcap.network.other_namespaces import LinkElsewhere

NETLINK_HEADER_BYTES = 16
IFF_UP = 1
AF_INET, AF_INET6 = 2, 10
RTN_UNICAST, RTPROT_STATIC, RT_TABLE_MAIN = 1, 4, 254


def _body(message: Any, attributes: Sequence[Sequence[Any]]) -> bytes:
    message["attrs"] = [list(one) for one in attributes]
    message.encode()
    return bytes(message.data[NETLINK_HEADER_BYTES:])


def link_answer(
    index: int,
    name: str,
    *,
    kind: str = "",
    master: int = 0,
    master_kind: str = "",
    lower: int = 0,
    namespace: int | None = None,
    data: Sequence[Sequence[Any]] = (),
    others: Sequence[Sequence[Any]] = (),
    hardware_type: int = 1,
) -> bytes:
    """Return an RTM_NEWLINK without its netlink header.

    Parameters
    ----------
    kind : str
        IFLA_INFO_KIND.
    master : int
        IFLA_MASTER.
    master_kind : str
        IFLA_INFO_SLAVE_KIND.
    lower : int
        IFLA_LINK.
    namespace : int, optional
        IFLA_LINK_NETNSID.
    data : sequence of (str, value)
        Of IFLA_INFO_DATA.
    others : sequence of (str, value)
        Further attributes.
    """
    message = ifinfmsg()
    message["index"], message["ifi_type"], message["flags"] = index, hardware_type, IFF_UP
    attributes: list[Sequence[Any]] = [("IFLA_IFNAME", name), ("IFLA_MTU", 1500), ("IFLA_NUM_RX_QUEUES", 1)]
    if master:
        attributes.append(("IFLA_MASTER", master))
    if lower:
        attributes.append(("IFLA_LINK", lower))
    if namespace is not None:
        attributes.append(("IFLA_LINK_NETNSID", namespace))
    about: list[list[Any]] = []
    if kind:
        about.append(["IFLA_INFO_KIND", kind])
    if data:
        about.append(["IFLA_INFO_DATA", {"attrs": [list(one) for one in data]}])
    if master_kind:
        about.append(["IFLA_INFO_SLAVE_KIND", master_kind])
    if about:
        attributes.append(("IFLA_LINKINFO", {"attrs": about}))
    return _body(message, [*attributes, *others])


def address_answer(index: int, address: str, length: int = 24, scope: int = 0) -> bytes:
    """Return an RTM_NEWADDR without its netlink header."""
    message = ifaddrmsg()
    message["family"] = AF_INET6 if ":" in address else AF_INET
    message["index"], message["prefixlen"], message["scope"] = index, length, scope
    name = "IFA_ADDRESS" if ":" in address else "IFA_LOCAL"
    return _body(message, [(name, address), ("IFA_ADDRESS", address)] if name == "IFA_LOCAL" else [(name, address)])


def route_answer(
    *devices: int, destination: str = "", length: int = 0, table: int = RT_TABLE_MAIN, protocol: int = RTPROT_STATIC
) -> bytes:
    """Return an RTM_NEWROUTE without its netlink header; several devices are a multipath route."""
    message = rtmsg()
    message["family"] = AF_INET6 if ":" in destination else AF_INET
    message["dst_len"], message["type"], message["proto"] = length, RTN_UNICAST, protocol
    message["table"] = min(table, 255)
    attributes: list[Sequence[Any]] = [("RTA_TABLE", table)]
    if destination:
        attributes.append(("RTA_DST", destination))
    if len(devices) == 1:
        attributes.append(("RTA_OIF", devices[0]))
    else:
        hops = [{"oif": device, "hops": 0, "flags": 0, "attrs": []} for device in devices]
        attributes.append(("RTA_MULTIPATH", hops))
    return _body(message, attributes)


@dataclass
class RecordedState:
    """A host's network, read from answers."""

    link_answers: Iterable[bytes]
    address_answers: Iterable[bytes] = ()
    route_answers: Iterable[bytes] = ()
    elsewhere: tuple[LinkElsewhere, ...] = ()
    unseen: str = ""
    links: tuple[Link, ...] = field(init=False)
    addresses: dict[int, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.links = tuple(map(parse_link, self.link_answers))
        self.addresses = addresses_in(self.address_answers)
        self._routes = routes_in(self.route_answers)

    def routes(self, index: int) -> tuple[Route, ...]:
        return tuple(route for route in self._routes if index in route.devices)
