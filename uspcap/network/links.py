"""Network interfaces of one network namespace, their addresses and their routes, as rtnetlink reports them.

References
----------
rtnetlink(7); linux/if_link.h; linux/if_addr.h; linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from uspcap.errors import CaptureError
from uspcap.network.netlink import (
    NLA_F_NESTED,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    NetlinkRefusal,
    Rtnetlink,
    attribute,
    attributes,
    number,
    text,
)
from uspcap.system_errors import limit_remedy

# linux/if_link.h.
IFLA_IFNAME: Final = 3
IFLA_XDP: Final = 43
_IFLA_MTU: Final = 4
_IFLA_LINK: Final = 5
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_IFLA_STATS64: Final = 23
_IFLA_NUM_RX_QUEUES: Final = 32
_IFLA_LINK_NETNSID: Final = 37
_IFLA_NEW_NETNSID: Final = 45
_IFLA_TARGET_NETNSID: Final = 46
_IFLA_PROP_LIST: Final = 52
_IFLA_ALT_IFNAME: Final = 53
_IFLA_PARENT_DEV_NAME: Final = 56
_IFLA_PARENT_DEV_BUS_NAME: Final = 57
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_IFLA_XDP_FD: Final = 1
_IFLA_XDP_FLAGS: Final = 3
_IFLA_XDP_EXPECTED_FD: Final = 8
_IFLA_XDP_PROG_IDS: Final = (4, 5, 6, 7)
"""IFLA_XDP_PROG_ID, and those of the driver's, the generic and the offloaded hook."""

_LOWERS_IN_DATA: Final[Mapping[str, tuple[int, ...]]] = {
    "vxlan": (3,),  # IFLA_VXLAN_LINK
    "gre": (1,),  # IFLA_GRE_LINK
    "gretap": (1,),
    "erspan": (1,),
    "ip6gre": (1,),
    "ip6gretap": (1,),
    "ip6erspan": (1,),
    "ipip": (1,),  # IFLA_IPTUN_LINK
    "sit": (1,),
    "ip6tnl": (1,),
    "vti": (1,),  # IFLA_VTI_LINK
    "vti6": (1,),
    "xfrm": (1,),  # IFLA_XFRM_LINK
    "hsr": (1, 2),  # IFLA_HSR_SLAVE1 and 2
    "prp": (1, 2),
}
"""By kind: attributes of IFLA_INFO_DATA that name the interface below."""

IFF_UP: Final = 1 << 0
IFF_LOWER_UP: Final = 1 << 16
_LONGEST_NAME_BYTES: Final = 15
"""IFNAMSIZ less the NUL; what is longer is an alternative name."""

_LINK_HEADER: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS_HEADER: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE_HEADER: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEXT_HOP: Final = struct.Struct("=HBBi")  # struct rtnexthop

# linux/if_addr.h.
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_SCOPE_LINK: Final = 253  # linux/rtnetlink.h: RT_SCOPE_LINK

# linux/rtnetlink.h.
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_MULTIPATH: Final = 9
_RTA_TABLE: Final = 15
_RTN_UNICAST: Final = 1
_RTPROT_KERNEL: Final = 2
_RT_TABLE_MAIN: Final = 254

_STATISTICS: Final = (
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
)
"""struct rtnl_link_stats64, whose fields are all 64 bits wide."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface.

    Attributes
    ----------
    index : int
    name : str
    other_names : tuple of str
        Alternative names, of up to 127 bytes.
    hardware_type : int
        ARPHRD_ value.
    flags : int
        IFF_*.
    mtu : int
    kind : str
        Of a virtual one, as `bridge`; empty for a device.
    master : int
        Index of the bridge, bond or the like that it belongs to; 0 for none.
    lowers : tuple of int
        Indices of what it is made on top of, as a VLAN of its device.
    other_end : int
        Of one end of a pair (veth, netkit), the index of the other; 0 for other interfaces.
    lower_namespace : int or None
        Where `lowers` or `other_end` are in another network namespace, that one's id in this namespace.
    new_namespace : int or None
        In a notice that it has gone: the id of the network namespace that it was moved to.
    receive_queues : int
        How many the kernel has set up; fewer may be in use.
    programs : tuple of int
        Ids of its XDP programs.
    bus, device : str
        Of a device: `pci` and its address, as in /sys/bus; empty for a virtual one, and before Linux 5.15.
    counters : dict of str to int
        Of struct rtnl_link_stats64.
    """

    index: int
    name: str
    hardware_type: int = 1
    flags: int = 0
    mtu: int = 0
    kind: str = ""
    master: int = 0
    lowers: tuple[int, ...] = ()
    other_end: int = 0
    lower_namespace: int | None = None
    new_namespace: int | None = None
    receive_queues: int = 1
    programs: tuple[int, ...] = ()
    other_names: tuple[str, ...] = ()
    bus: str = ""
    device: str = ""
    counters: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def identity(self) -> str:
        """What it is whatever it is called: bus and address, or the kind of a virtual one; empty for the loopback."""
        return f"{self.bus} {self.device}" if self.device else self.kind


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes
    ----------
    destination : str
        As `10.0.0.0/8`, or `default`.
    table : int
    devices : tuple of int
        Indices of the interfaces by which it leads.
    """

    destination: str
    table: int
    devices: tuple[int, ...]

    def __str__(self) -> str:
        said = "the default route" if self.destination == "default" else f"the route to {self.destination}"
        return said if self.table == _RT_TABLE_MAIN else f"{said} of table {self.table}"


def parse_link(body: bytes) -> Link:
    """Take an RTM_NEWLINK or RTM_DELLINK apart."""
    _, hardware_type, index, flags, _ = _LINK_HEADER.unpack_from(body)
    found = dict(attributes(body[_LINK_HEADER.size :]))
    about = dict(attributes(found.get(_IFLA_LINKINFO, b"")))
    kind = text(about.get(_IFLA_INFO_KIND, b""))
    data = dict(attributes(about.get(_IFLA_INFO_DATA, b"")))
    linked = number(found.get(_IFLA_LINK, b""))
    paired = kind in ("veth", "netkit")
    lowers = [] if paired else [linked, *(number(data.get(name, b"")) for name in _LOWERS_IN_DATA.get(kind, ()))]
    namespace = found.get(_IFLA_LINK_NETNSID)
    # An interface that is on top of none names itself; the same index of another namespace is another interface.
    nothing = (0, index) if namespace is None else (0,)
    statistics = found.get(_IFLA_STATS64, b"")
    values = struct.unpack_from(f"={min(len(_STATISTICS), len(statistics) // 8)}Q", statistics)
    properties = attributes(found.get(_IFLA_PROP_LIST, b""))
    programs = (number(value) for name, value in attributes(found.get(IFLA_XDP, b"")) if name in _IFLA_XDP_PROG_IDS)
    return Link(
        index=index,
        name=text(found.get(IFLA_IFNAME, b"")),
        other_names=tuple(text(value) for name, value in properties if name == _IFLA_ALT_IFNAME),
        hardware_type=hardware_type,
        flags=flags,
        mtu=number(found.get(_IFLA_MTU, b"")),
        kind=kind,
        master=number(found.get(_IFLA_MASTER, b"")),
        lowers=tuple(dict.fromkeys(lower for lower in lowers if lower not in nothing)),
        other_end=linked if paired else 0,
        lower_namespace=_namespace_id(namespace),
        new_namespace=_namespace_id(found.get(_IFLA_NEW_NETNSID)),
        receive_queues=number(found.get(_IFLA_NUM_RX_QUEUES, b"")) or 1,
        programs=tuple(dict.fromkeys(program for program in programs if program)),
        bus=text(found.get(_IFLA_PARENT_DEV_BUS_NAME, b"")),
        device=text(found.get(_IFLA_PARENT_DEV_NAME, b"")),
        counters=dict(zip(_STATISTICS, values, strict=False)),
    )


def find_link(netlink: Rtnetlink, name: str) -> Link | None:
    """Return the interface of a name, an alternative name or, where no name is so, an index; None where there is none.

    Parameters
    ----------
    netlink : Rtnetlink
    name : str
    """
    encoded = os.fsencode(name)
    asked = []
    if encoded and b"\0" not in encoded:
        which = IFLA_IFNAME if len(encoded) <= _LONGEST_NAME_BYTES else _IFLA_ALT_IFNAME
        asked.append(_LINK_HEADER.pack(0, 0, 0, 0, 0) + attribute(which, encoded + b"\0"))
    if name.isascii() and name.isdigit() and 0 < int(name) < 1 << 31:
        asked.append(_LINK_HEADER.pack(0, 0, int(name), 0, 0))
    for question in asked:
        try:
            return parse_link(netlink.request(RTM_GETLINK, question)[0].body)
        except NetlinkRefusal as error:
            # A name that is too long is no name, to kernels that know no alternative ones neither.
            if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
                raise
    return None


def named_link(name: str) -> Link:
    """Return the interface of a name, an alternative name or an index.

    Raises
    ------
    CaptureError
        There is none.
    """
    try:
        with Rtnetlink() as netlink:
            link = find_link(netlink, name)
    except OSError as error:
        advice = limit_remedy(error.errno, "see 'ip link'")
        raise CaptureError(f"cannot look up {name}: {error.strerror}; {advice}") from None
    if link is None:
        raise CaptureError(f"there is no interface {name!r}: name one of {', '.join(interface_names())}")
    return link


def real_name(name: str | None) -> str | None:
    """Return the name that system calls know an interface by, as `named_link` finds it; None for None."""
    return None if name is None else named_link(name).name


def interface_names() -> list[str]:
    """Return the names of all interfaces of this network namespace."""
    return sorted(name for _, name in socket.if_nameindex())


def link_at(netlink: Rtnetlink, index: int) -> Link | None:
    """Return the interface of an index, None where there is none."""
    try:
        return parse_link(netlink.request(RTM_GETLINK, _LINK_HEADER.pack(0, 0, index, 0, 0))[0].body)
    except NetlinkRefusal as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _namespace_id(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, sys.byteorder, signed=True)


def xdp_request(index: int, program_fd: int, flags: int, expected_fd: int | None = None) -> bytes:
    """Return the body of an RTM_SETLINK that attaches an XDP program, or with -1 takes one off.

    Parameters
    ----------
    index : int
    program_fd : int
    flags : int
        XDP_FLAGS_*.
    expected_fd : int, optional
        With XDP_FLAGS_REPLACE: the program that is attached, or nothing is done.
    """
    wanted = attribute(_IFLA_XDP_FD, struct.pack("=i", program_fd))
    wanted += attribute(_IFLA_XDP_FLAGS, struct.pack("=I", flags))
    if expected_fd is not None:
        wanted += attribute(_IFLA_XDP_EXPECTED_FD, struct.pack("=i", expected_fd))
    return _LINK_HEADER.pack(0, 0, index, 0, 0) + attribute(NLA_F_NESTED | IFLA_XDP, wanted)


def all_links(netlink: Rtnetlink, namespace: int | None = None) -> tuple[Link, ...]:
    """Return all interfaces of the socket's network namespace, or of one that it has an id for."""
    there = b"" if namespace is None else attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", namespace))
    answers = netlink.dump(RTM_GETLINK, _LINK_HEADER.pack(0, 0, 0, 0, 0) + there)
    return tuple(parse_link(answer.body) for answer in answers)


def all_addresses(netlink: Rtnetlink) -> dict[int, tuple[str, ...]]:
    """Return the IP addresses of each interface, by its index, without those that IPv6 assigns automatically."""
    return addresses_in(answer.body for answer in netlink.dump(RTM_GETADDR, _ADDRESS_HEADER.pack(0, 0, 0, 0, 0)))


def addresses_in(bodies: Iterable[bytes]) -> dict[int, tuple[str, ...]]:
    """Return what RTM_NEWADDR messages say, as `all_addresses` does."""
    found: dict[int, tuple[str, ...]] = {}
    for body in bodies:
        family, length, _, scope, index = _ADDRESS_HEADER.unpack_from(body)
        if family == socket.AF_INET6 and scope == _SCOPE_LINK:
            continue
        values = dict(attributes(body[_ADDRESS_HEADER.size :]))
        # Of a point-to-point link, IFA_ADDRESS is the other end's.
        address = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if address:
            found[index] = (*found.get(index, ()), f"{ipaddress.ip_address(address)}/{length}")
    return found


def routes_by(netlink: Rtnetlink, index: int) -> tuple[Route, ...]:
    """Return the routes that lead out by one interface, in whatever table, but for the kernel's own."""
    found: list[Route] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        question = _ROUTE_HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_OIF, struct.pack("=I", index))
        try:
            found += routes_in(answer.body for answer in netlink.dump(RTM_GETROUTE, question))
        except NetlinkRefusal as error:
            # A kernel without IPv6.
            if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                raise
    # Of a route over a next hop object, the kernel may not report the interface, although it has chosen by it.
    return tuple(route for route in found if index in route.devices or not route.devices)


def routes_in(bodies: Iterable[bytes]) -> list[Route]:
    """Return the routes to other hosts that RTM_NEWROUTE messages tell, but for the kernel's own."""
    found = []
    for body in bodies:
        _, length, _, _, table, protocol, _, kind, _ = _ROUTE_HEADER.unpack_from(body)
        if kind != _RTN_UNICAST or protocol == _RTPROT_KERNEL:
            continue
        values = dict(attributes(body[_ROUTE_HEADER.size :]))
        devices = [number(values[_RTA_OIF])] if _RTA_OIF in values else []
        devices += _next_hops(values.get(_RTA_MULTIPATH, b""))
        destination = f"{ipaddress.ip_address(values[_RTA_DST])}/{length}" if _RTA_DST in values else "default"
        table = number(values[_RTA_TABLE]) if _RTA_TABLE in values else table
        found.append(Route(destination, table, tuple(devices)))
    return found


def _next_hops(data: bytes) -> list[int]:
    devices = []
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size:
            break
        devices.append(index)
        at += length + -length % 4
    return devices
