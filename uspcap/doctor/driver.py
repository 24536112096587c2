"""What NIC drivers tell and take, by rtnetlink, ethtool and the netdev family of generic netlink.

References
----------
linux/ethtool.h; Documentation/networking/ethtool-netlink.rst; Documentation/netlink/specs/netdev.yaml.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice, NotSupportedError

from uspcap.backends.network_interface import ask_driver
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.network.links import Link, all_links, find_link, link_at
from uspcap.network.netlink import NLA_F_NESTED, GenericNetlink, NetlinkRefusal, Rtnetlink, attribute
from uspcap.network.xdp_features import XdpFeatures, xdp_features

DRIVER_ERRORS: Final = (OSError, EthtoolError)
"""What asking a driver, or telling it something, raises."""

FEATURES: Final = {
    "gro": "rx-gro",
    "lro": "rx-lro",
    "gro-hw": "rx-gro-hw",
    "rxvlan": "rx-vlan-hw-parse",
}
"""Name for 'ethtool -K' to the kernel's, of those that alter what a capture sees."""

# linux/ethtool_netlink.h.
_ETHTOOL_MSG_RSS_GET: Final = 38
_ETHTOOL_A_RSS_HEADER: Final = 1
_ETHTOOL_A_RSS_INDIR: Final = 4
_ETHTOOL_A_HEADER_DEV_INDEX: Final = 1


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
    """How long a NIC may wait with its interrupt, and whether the driver changes that automatically."""

    microseconds: int
    adaptive: bool


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
    def xdp(self, name: str) -> XdpFeatures | None: ...
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
        with Rtnetlink() as netlink:
            return list(all_links(netlink))

    def name_of(self, index: int) -> str | None:
        """Return what the interface with an index is called; None where there is none."""
        with Rtnetlink() as netlink:
            link = link_at(netlink, index)
        return None if link is None else link.name

    def link(self, name: str) -> Link | None:
        """Return what rtnetlink says of an interface, by its name or an alternative one; None where there is none."""
        with Rtnetlink() as netlink:
            return find_link(netlink, name)

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
        link = self.link(name)
        if link is None:
            return None
        device = attribute(_ETHTOOL_A_HEADER_DEV_INDEX, struct.pack("=I", link.index))
        try:
            with GenericNetlink("ethtool") as netlink:
                answer = netlink.ask(_ETHTOOL_MSG_RSS_GET, attribute(_ETHTOOL_A_RSS_HEADER | NLA_F_NESTED, device))
        except NetlinkRefusal:
            return None
        table = answer.get(_ETHTOOL_A_RSS_INDIR, b"")
        return frozenset(queue for (queue,) in struct.iter_unpack("=I", table[: len(table) // 4 * 4])) or None

    def xdp(self, name: str) -> XdpFeatures | None:
        """Return what the driver declares; None from kernels before 6.3, and where there is no such interface."""
        link = self.link(name)
        return None if link is None else xdp_features(link.index)

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


def _change(name: str, change: Callable[[IoctlEthtool], None]) -> None:
    tool = IoctlEthtool(name)
    try:
        change(tool)
    except EthtoolError as error:
        number = errno.ENODEV if isinstance(error, NoSuchDevice) else errno.EOPNOTSUPP
        raise OSError(number, os.strerror(number)) from error
    finally:
        tool.close()
