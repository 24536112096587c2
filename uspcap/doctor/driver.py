"""What NIC drivers tell and take, by rtnetlink, ethtool and the netdev family of generic netlink.

References
----------
linux/ethtool.h; Documentation/networking/ethtool-netlink.rst; Documentation/netlink/specs/netdev.yaml.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice, NotSupportedError
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import ethtoolheader

from uspcap.backends.network_interface import ask_driver
from uspcap.doctor.namespace import NetworkNamespace

DRIVER_ERRORS: Final = (OSError, NetlinkError, EthtoolError)
"""What asking a driver, or telling it something, raises."""

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
    name : str
    index : int
    kind : str
        Of a virtual one, as `veth`; empty for a device.
    bus, device : str
        Of a device: `pci` and its address, as in /sys/bus; empty for a virtual one.
    up : bool
    mtu : int
    other_names : tuple of str
        Alternative ones.
    """

    name: str
    index: int
    kind: str
    bus: str
    device: str
    up: bool
    mtu: int
    other_names: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What it is whatever it is called: bus and address, or the kind of a virtual one; empty for the loopback."""
        return f"{self.bus} {self.device}" if self.device else self.kind


@dataclass(frozen=True, slots=True)
class Feature:
    """An offload: whether it is on, and whether the driver keeps it so (`[fixed]` in `ethtool -k`)."""

    on: bool
    fixed: bool = False


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

    def namespace(self) -> NetworkNamespace: ...
    def links(self) -> list[Link]: ...
    def name_of(self, index: int) -> str | None: ...
    def link(self, name: str) -> Link | None: ...
    def features(self, name: str) -> dict[str, Feature]: ...
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

    def namespace(self) -> NetworkNamespace:
        """Return the network namespace."""
        return NetworkNamespace.current()

    def links(self) -> list[Link]:
        """Return the interfaces."""
        with IPRoute() as netlink:
            return [_link(answer) for answer in netlink.get_links()]

    def name_of(self, index: int) -> str | None:
        """Return what the interface with an index is called; None where there is none."""
        with contextlib.suppress(OSError, OverflowError):
            return socket.if_indextoname(index)
        return None

    def link(self, name: str) -> Link | None:
        """Return what rtnetlink says; None where there is no such interface."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return None
        with IPRoute() as netlink:
            (answer,) = netlink.link("get", index=index)
        return _link(answer)

    def features(self, name: str) -> dict[str, Feature]:
        """Return those of `FEATURES` that the driver knows."""
        answered = ask_driver(name, "get_features")
        if answered is None:
            return {}
        return {
            own: Feature(
                on=answered.is_active(kernel),
                fixed=not answered.is_available(kernel) or answered.is_never_changed(kernel),
            )
            for own, kernel in FEATURES.items()
            if kernel in answered
        }

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
        """Return what the driver declares; None from kernels before 6.3, and where there is no such interface."""
        answered = None
        with contextlib.suppress(OSError):
            answered = _ask("netdev", _DeviceMessage, _NETDEV_CMD_DEV_GET, ["IFINDEX", socket.if_nametoindex(name)])
        if answered is None:
            return None
        return XdpAbilities(
            actions=int(answered.get_attr("XDP_FEATURES") or 0),
            metadata=int(answered.get_attr("XDP_RX_METADATA_FEATURES") or 0),
        )

    def set_feature(self, name: str, feature: str, on: bool) -> None:
        """Switch one of `FEATURES`; raises OSError where that is refused, and nothing is changed then."""
        kernel = FEATURES[feature]

        def switch(tool: IoctlEthtool) -> None:
            features = tool.get_features()
            if kernel not in features:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            wanted_before = features.is_requested(kernel)
            features[kernel] = on
            try:
                tool.set_features(features)
            except NotSupportedError:
                # The kernel may have noted the wish, and would grant it whenever another setting allows it.
                features[kernel] = wanted_before
                with contextlib.suppress(*DRIVER_ERRORS):
                    tool.set_features(features)
                raise

        _change(name, switch)

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


def _link(answer: Any) -> Link:
    about = answer.get_attr("IFLA_LINKINFO")
    return Link(
        name=answer.get_attr("IFLA_IFNAME"),
        index=answer["index"],
        kind=(about and about.get_attr("IFLA_INFO_KIND")) or "",
        bus=answer.get_attr("IFLA_PARENT_DEV_BUS_NAME") or "",
        device=answer.get_attr("IFLA_PARENT_DEV_NAME") or "",
        up=bool(answer["flags"] & 1),
        mtu=int(answer.get_attr("IFLA_MTU")),
    )


def _change(name: str, change: Callable[[IoctlEthtool], None]) -> None:
    tool = IoctlEthtool(name)
    try:
        change(tool)
    except EthtoolError as error:
        number = errno.ENODEV if isinstance(error, NoSuchDevice) else errno.EOPNOTSUPP
        raise OSError(number, os.strerror(number)) from error
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
