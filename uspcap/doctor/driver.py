"""What NIC drivers tell and take, by rtnetlink, ethtool and the netdev family of generic netlink.

References
----------
linux/ethtool.h; Documentation/networking/ethtool-netlink.rst; Documentation/netlink/specs/netdev.yaml.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pyroute2 import IPRoute
from pyroute2.ethtool.ethtool import Ethtool
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import ethtoolheader

from uspcap.backends.network_interface import ask_driver

FEATURES: Final = {
    "gro": "rx-gro",
    "lro": "rx-lro",
    "gro-hw": "rx-gro-hw",
    "rxvlan": "rx-vlan-hw-parse",
}
"""Name for 'ethtool -K' to the kernel's, of those that alter what a capture sees."""

# linux/netdev.h.
_NETDEV_CMD_DEV_GET: Final = 1
NETDEV_XDP_ACT_BASIC: Final = 1 << 0
NETDEV_XDP_ACT_REDIRECT: Final = 1 << 1
NETDEV_XDP_ACT_XSK_ZEROCOPY: Final = 1 << 3
NETDEV_XDP_ACT_RX_SG: Final = 1 << 5
NETDEV_XDP_RX_METADATA_TIMESTAMP: Final = 1 << 0

_ETHTOOL_MSG_RSS_GET: Final = 38


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface.

    Attributes
    ----------
    index : int
    kind : str
        Of a virtual one, as `veth`; empty for a device.
    bus, device : str
        Of a device: `pci` and its address, as in /sys/bus; empty for a virtual one.
    up : bool
    mtu : int
    """

    index: int
    kind: str
    bus: str
    device: str
    up: bool
    mtu: int


@dataclass(frozen=True, slots=True)
class Rings:
    """Entries of each receive ring, and how many there can be."""

    current: int
    most: int


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How long a NIC may wait with its interrupt, and whether the driver changes that by itself."""

    microseconds: int
    adaptive: bool


@dataclass(frozen=True, slots=True)
class XdpAbilities:
    """What a driver declares of XDP: bits NETDEV_XDP_ACT_* and NETDEV_XDP_RX_METADATA_*."""

    actions: int
    metadata: int


class Driver(Protocol):
    """What is asked of drivers; None or nothing where they do not answer."""

    def names(self) -> list[str]: ...
    def link(self, name: str) -> Link | None: ...
    def features(self, name: str) -> dict[str, bool]: ...
    def rings(self, name: str) -> Rings | None: ...
    def coalescing(self, name: str) -> Coalescing | None: ...
    def queues(self, name: str) -> int | None: ...
    def spread_over(self, name: str) -> frozenset[int] | None: ...
    def xdp(self, name: str) -> XdpAbilities | None: ...
    def set_feature(self, name: str, feature: str, on: bool) -> None: ...
    def set_ring(self, name: str, entries: int) -> None: ...
    def set_coalescing(self, name: str, *, microseconds: int | None = None, adaptive: bool | None = None) -> None: ...


class KernelDriver:
    """The drivers of this host, in the network namespace of the calling thread."""

    def names(self) -> list[str]:
        """Return the interfaces."""
        return [name for _, name in socket.if_nameindex()]

    def link(self, name: str) -> Link | None:
        """Return what rtnetlink says; None where there is no such interface."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return None
        with IPRoute() as netlink:
            (link,) = netlink.link("get", index=index)
        about = link.get_attr("IFLA_LINKINFO")
        return Link(
            index=index,
            kind=(about and about.get_attr("IFLA_INFO_KIND")) or "",
            bus=link.get_attr("IFLA_PARENT_DEV_BUS_NAME") or "",
            device=link.get_attr("IFLA_PARENT_DEV_NAME") or "",
            up=bool(link["flags"] & 1),
            mtu=int(link.get_attr("IFLA_MTU")),
        )

    def features(self, name: str) -> dict[str, bool]:
        """Return which of `FEATURES` are on, of those that the driver knows."""
        known_as = {kernel: own for own, kernel in FEATURES.items()}
        answered = ask_driver(name, "get_features") or ()
        return {known_as[feature]: bool(active) for feature, active, *_ in answered if feature in known_as}

    def rings(self, name: str) -> Rings | None:
        """Return the receive rings' size."""
        answered = ask_driver(name, "get_rings")
        return None if answered is None else Rings(int(answered.rx), int(answered.rx_max))

    def coalescing(self, name: str) -> Coalescing | None:
        """Return how receive interrupts are held back."""
        answered = ask_driver(name, "get_coalesce")
        if answered is None:
            return None
        return Coalescing(int(answered.rx_coalesce_usecs), bool(answered.use_adaptive_rx_coalesce))

    def queues(self, name: str) -> int | None:
        """Return how many receive queues are in use."""
        answered = ask_driver(name, "get_channels")
        return None if answered is None else int(answered.rx_count) + int(answered.combined_count)

    def spread_over(self, name: str) -> frozenset[int] | None:
        """Return the queues that the RSS table names."""
        answered = _ask(
            "ethtool", _RssMessage, _ETHTOOL_MSG_RSS_GET, ["HEADER", {"attrs": [["ETHTOOL_A_HEADER_DEV_NAME", name]]}]
        )
        table = None if answered is None else answered.get_attr("INDIRECTION")
        if not table:
            return None
        raw = bytes(table)
        return frozenset(int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))

    def xdp(self, name: str) -> XdpAbilities | None:
        """Return what the driver declares; None from kernels before 6.3."""
        answered = _ask("netdev", _DeviceMessage, _NETDEV_CMD_DEV_GET, ["IFINDEX", socket.if_nametoindex(name)])
        if answered is None:
            return None
        return XdpAbilities(
            actions=int(answered.get_attr("XDP_FEATURES") or 0),
            metadata=int(answered.get_attr("XDP_RX_METADATA_FEATURES") or 0),
        )

    def set_feature(self, name: str, feature: str, on: bool) -> None:
        """Switch one of `FEATURES`; raises OSError where that is refused."""
        with Ethtool() as tool:
            features = tool.get_features(name)
            features.features[FEATURES[feature]].enable = on
            tool.set_features(name, features)

    def set_ring(self, name: str, entries: int) -> None:
        """Give each receive ring so many entries; raises OSError where that is refused."""

        def resize(tool: IoctlEthtool) -> None:
            rings = tool.get_rings()
            rings.rx = entries
            tool.set_rings(rings)

        _change(name, resize)

    def set_coalescing(self, name: str, *, microseconds: int | None = None, adaptive: bool | None = None) -> None:
        """Change how receive interrupts are held back; raises OSError where that is refused."""

        def change(tool: IoctlEthtool) -> None:
            setting = tool.get_coalesce()
            if microseconds is not None:
                setting.rx_coalesce_usecs = microseconds
            if adaptive is not None:
                setting.use_adaptive_rx_coalesce = int(adaptive)
            tool.set_coalesce(setting)

        _change(name, change)


def _change(name: str, change: Callable[[IoctlEthtool], None]) -> None:
    tool = IoctlEthtool(name)
    try:
        change(tool)
    except EthtoolError as error:
        raise OSError(errno.EOPNOTSUPP, "the driver does not know this") from error
    finally:
        tool.close()


class _RssMessage(genlmsg):  # type: ignore[misc]
    """ETHTOOL_MSG_RSS_GET_REPLY."""

    nla_map = (
        ("UNSPEC", "none"),
        ("HEADER", "ethtoolheader"),
        ("CONTEXT", "uint32"),
        ("HASH_FUNCTION", "uint32"),
        ("INDIRECTION", "cdata"),
        ("HASH_KEY", "cdata"),
    )
    ethtoolheader = ethtoolheader


class _DeviceMessage(genlmsg):  # type: ignore[misc]
    """The netdev family's `dev`."""

    nla_map = (
        ("UNSPEC", "none"),
        ("IFINDEX", "uint32"),
        ("PAD", "none"),
        ("XDP_FEATURES", "uint64"),
        ("XDP_ZC_MAX_SEGS", "uint32"),
        ("XDP_RX_METADATA_FEATURES", "uint64"),
        ("XSK_FEATURES", "uint64"),
    )


def _ask(family: str, message: type[Any], command: int, attribute: list[Any]) -> Any:
    """Ask a family of generic netlink one question; None where the kernel does not answer it."""
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind(family, message)
            question = message()
            question["cmd"], question["version"] = command, 1
            question["attrs"] = [attribute]
            answers = list(netlink.nlm_request(question, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST))
    except NetlinkError:
        return None
    return answers[0] if answers else None
