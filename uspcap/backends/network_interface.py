"""What the kernel says about a network interface, and what of it alters what a capture sees."""

from __future__ import annotations

import errno
import platform
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

from uspcap.backends.nic_counters import summed
from uspcap.errors import CaptureError
from uspcap.network.channels import ChannelReader, receive_queues
from uspcap.network.links import link_at, named_link
from uspcap.network.netlink import Rtnetlink
from uspcap.network.xdp_features import XdpFeatures, xdp_features

# linux/if_arp.h.
ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772

LINK_TYPES: Final = {
    ARPHRD_ETHER: 1,
    ARPHRD_LOOPBACK: 1,
    519: 101,  # ARPHRD_RAWIP
    768: 101,  # ARPHRD_TUNNEL
    769: 101,  # ARPHRD_TUNNEL6
    776: 101,  # ARPHRD_SIT
    801: 105,  # ARPHRD_IEEE80211
    803: 127,  # ARPHRD_IEEE80211_RADIOTAP
    65534: 101,  # ARPHRD_NONE, as of tun and WireGuard
}
"""ARPHRD_ value to LINKTYPE_ value, where a packet socket hands over the frame as that link type has it."""

LOSS_COUNTERS: Final = ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
"""Of struct rtnl_link_stats64: no buffer in the NIC, FIFO overrun, ring overrun; such frames reach no capture."""

AMBIGUOUS_COUNTER: Final = "rx_dropped"
"""Some drivers count here what the NIC lost, some what an XDP program's redirect lost, and the kernel counts captured
frames that no protocol took."""

FURTHER_COUNTERS: Final = (
    "rx_packets",
    "rx_errors",
    "rx_length_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_nohandler",
)
"""Of the same struct: what was received, and what came damaged or for nobody."""

_MERGING: Final = {"gro": "rx-gro", "gro-hw": "rx-gro-hw", "lro": "rx-lro"}
"""What merges frames on receipt, to the kernel's name of it."""

_ETHTOOL_NAMES: Final = {"gro-hw": "rx-gro-hw"}
"""Where 'ethtool -K' has no shorter one."""

_IFF_LOWER_UP: Final = 1 << 16  # linux/if.h


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """A network interface of the current network namespace, as it was when asked.

    Attributes
    ----------
    name : str
        Its own, under whatever name it was asked for.
    index : int
    hardware_type : int
        ARPHRD_ value.
    link_type : int
        LINKTYPE_ value of its frames.
    mtu : int
    up : bool
    queues : int
        Receive queues in use.
    most_queues : int
        How many there can be.
    ring_frames : int
        How many frames the receive ring of each queue is set to hold; 0 where the driver does not say.
    xdp : XdpFeatures or None
        What the driver declares of XDP; None from kernels before 6.3.
    """

    name: str
    index: int
    hardware_type: int
    link_type: int
    mtu: int
    up: bool
    queues: int
    most_queues: int
    ring_frames: int
    xdp: XdpFeatures | None

    @classmethod
    def look_up(cls, name: str) -> NetworkInterface:
        """Ask the kernel about an interface.

        Parameters
        ----------
        name : str
            Its name or an alternative one; where there is none such, its index.

        Raises
        ------
        CaptureError
            There is none of that name, or frames of its kind have no link type that uspcap knows.
        """
        link = named_link(name)
        if link.hardware_type not in LINK_TYPES:
            raise CaptureError(
                f"cannot capture on {link.name}: its hardware type {link.hardware_type} (linux/if_arp.h) has no link "
                "type that uspcap knows; capture on the Ethernet or IP interface above or below it"
            )
        with ChannelReader() as reader:
            channels = reader.read(link.name)
        return cls(
            name=link.name,
            index=link.index,
            hardware_type=link.hardware_type,
            link_type=LINK_TYPES[link.hardware_type],
            mtu=link.mtu,
            up=link.up,
            queues=receive_queues(channels, link.receive_queues),
            most_queues=link.receive_queues,
            ring_frames=_ring_frames(link.name),
            xdp=xdp_features(link.index),
        )

    @property
    def ethernet(self) -> bool:
        return self.link_type == 1

    @property
    def exists(self) -> bool:
        """Whether it is still there, under whatever name."""
        try:
            socket.if_indextoname(self.index)
        except OSError as error:
            return error.errno not in (errno.ENXIO, errno.ENODEV)
        return True

    def has_carrier(self) -> bool:
        """Return whether it is up and its link is there; False where the interface is gone."""
        with Rtnetlink() as netlink:
            link = link_at(netlink, self.index)
        return link is not None and bool(link.flags & _IFF_LOWER_UP)

    def receive_counters(self) -> dict[str, int]:
        """Return the kernel's counters of reception as they are now, by name; none where the interface is gone.

        They count what the whole interface receives, whatever a capture's filter. Names are `LOSS_COUNTERS`,
        `AMBIGUOUS_COUNTER` and `FURTHER_COUNTERS`.
        """
        with Rtnetlink() as netlink:
            link = link_at(netlink, self.index)
        names = (*LOSS_COUNTERS, AMBIGUOUS_COUNTER, *FURTHER_COUNTERS)
        return {} if link is None else {name: link.counters[name] for name in names if name in link.counters}

    def driver_counters(self) -> dict[str, int]:
        """Return the driver's own counters (`ethtool -S`) by name; those of one name, as of several queues, add up.

        Every driver has names of its own. Some drivers ask the NIC's firmware, which takes milliseconds.
        """
        return summed(ask_driver(self.name, "get_statistics") or ()) if self.exists else {}

    def alterations(self, place: Literal["driver", "skb", "stack"]) -> tuple[str, ...]:
        """Return what makes captured frames differ from those on the wire, a sentence each.

        Parameters
        ----------
        place : {'driver', 'skb', 'stack'}
            Where frames are captured: at the driver's XDP hook, before the kernel merges them; at the hook behind it,
            where GRO has merged them; or by the stack. Tags that the NIC has stripped are seen by the stack only.
        """
        features = ask_driver(self.name, "get_features") or ()
        on = {name for name, active, *_ in features if active}
        said = []
        if place != "stack" and "rx-vlan-hw-parse" in on:
            said.append(f"the driver may strip VLAN tags before XDP sees them ('ethtool -K {self.name} rxvlan off')")
        merging = [name for name, kernels in _MERGING.items() if kernels in on and (name != "gro" or place != "driver")]
        if merging:
            off = " ".join(f"{_ETHTOOL_NAMES.get(name, name)} off" for name in merging)
            verb = "is" if len(merging) == 1 else "are"
            said.append(
                f"{' and '.join(name.upper() for name in merging)} {verb} on, so frames may be merged ones "
                f"('ethtool -K {self.name} {off}')"
            )
        return tuple(said)


def risen(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Return by how much counters went up, those that did."""
    return {name: value - before.get(name, 0) for name, value in now.items() if value > before.get(name, 0)}


def losses_since(before: dict[str, int], now: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return how far the counters went up, those that did.

    Returns
    -------
    lost : dict of str to int
        By name in `LOSS_COUNTERS`.
    remarks : dict of str to int
        What the interface calls dropped, and what may be among the frames that the capture counts itself.
    """
    since = risen(before, now)
    ambiguous = since.get(AMBIGUOUS_COUNTER, 0)
    said = "rx_dropped of the interface, where drivers also count frames that are accounted for here"
    return {name: since[name] for name in LOSS_COUNTERS if name in since}, {said: ambiguous} if ambiguous else {}


def operating_system() -> str:
    """Return what a capture file says of the host (if_os)."""
    return f"{platform.system()} {platform.release()}"


def _ring_frames(name: str) -> int:
    rings = ask_driver(name, "get_rings")
    return 0 if rings is None else int(rings.rx)


def ask_driver(name: str, question: str) -> Any:
    """Ask the driver of an interface by ioctl; None where it does not answer.

    Parameters
    ----------
    name : str
        Interface of the calling thread's network namespace.
    question : str
        Method of pyroute2's `IoctlEthtool`, as get_rings.
    """
    tool = IoctlEthtool(name)
    try:
        return getattr(tool, question)()
    except (OSError, EthtoolError):
        return None
    finally:
        tool.close()
