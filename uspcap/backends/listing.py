"""The interfaces of this network namespace, and what each backend can do there."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from uspcap.backends.network_interface import LINK_TYPES
from uspcap.bpf.attach import find_attached
from uspcap.network.channels import ChannelReader, receive_queues
from uspcap.network.interface_use import LiveState, uses
from uspcap.network.links import IFF_LOWER_UP, Link
from uspcap.network.netlink import Rtnetlink
from uspcap.network.xdp_features import XdpFeatures, xdp_features
from uspcap.protocols.link_types import link_type_name
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import TimestampingAbilities

SCHEMA: Final = "uspcap.interfaces/1"

XDP_MODES: Final = {
    "zero_copy": "native, zero copy",
    "native": "native, copy",
    "skb": "skb, copy",
    "unknown": "native or skb: the kernel does not report it before it is tried",
}
"""What AF_XDP can be had with, as the driver declares it."""


@dataclass(frozen=True, slots=True)
class ListedInterface:
    """One interface.

    Attributes
    ----------
    index : int
        Which `-i` takes as well.
    name : str
    other_names : tuple of str
    state : str
        `up`, `no carrier` or `down`.
    kind : str
        Of a virtual one, as `bridge`; empty for a device.
    link_type : str or None
        As the tcpdump.org registry has it; None where frames of its kind cannot be captured.
    queues, most_queues : int
        Receive queues in use, and how many there can be.
    xdp : str or None
        Of `XDP_MODES`; None where nothing can be captured.
    hardware_timestamps : str
        `every frame`, `some frames` (as PTP's), `no clock` (timestamps that cannot be put on UTC), or `none`.
    xdp_timestamps : bool
        The driver hands its timestamps to XDP programs.
    program : str
        The XDP program that is there already; empty for none.
    uses : tuple of str
        How the host uses it, a sentence each.
    """

    index: int
    name: str
    other_names: tuple[str, ...]
    state: str
    kind: str
    link_type: str | None
    queues: int
    most_queues: int
    xdp: str | None
    hardware_timestamps: str
    xdp_timestamps: bool
    program: str
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All interfaces of a namespace.

    Attributes
    ----------
    interfaces : tuple of ListedInterface
        By index.
    unseen : str
        Namespaces that could not be looked into for users of these interfaces; empty for none.
    """

    interfaces: tuple[ListedInterface, ...]
    unseen: str

    def as_document(self) -> dict[str, Any]:
        """Return the form that `uspcap.interfaces.1.schema.json` describes."""
        return {
            "schema": SCHEMA,
            "interfaces": [
                {
                    "index": interface.index,
                    "name": interface.name,
                    "other_names": list(interface.other_names),
                    "state": interface.state,
                    "kind": interface.kind,
                    "link_type": interface.link_type,
                    "queues": interface.queues,
                    "most_queues": interface.most_queues,
                    "backends": {
                        "packet_mmap": interface.link_type is not None,
                        "af_xdp": interface.xdp,
                    },
                    "hardware_timestamps": interface.hardware_timestamps,
                    "xdp_timestamps": interface.xdp_timestamps,
                    "program": interface.program or None,
                    "uses": list(interface.uses),
                }
                for interface in self.interfaces
            ],
            "namespaces_not_looked_into": self.unseen,
        }


def list_interfaces() -> Listing:
    """Ask the kernel about all interfaces of the calling thread's network namespace."""
    with Rtnetlink() as netlink, ChannelReader() as channels, closing(KernelCalls()) as calls:
        state = LiveState.ask(netlink)
        listed = tuple(
            _describe(link, tuple(map(str, uses(state, link.index))), channels, calls)
            for link in sorted(state.links, key=lambda link: link.index)
        )
    return Listing(listed, state.unseen)


def _describe(link: Link, used: tuple[str, ...], channels: ChannelReader, calls: KernelCalls) -> ListedInterface:
    abilities = TimestampingAbilities.ask(link.name, calls)
    features = xdp_features(link.index)
    link_type = LINK_TYPES.get(link.hardware_type)
    try:
        attached = find_attached(link.index) if link.programs else None
    except OSError:
        attached = None  # gone since
    return ListedInterface(
        index=link.index,
        name=link.name,
        other_names=link.other_names,
        state="down" if not link.up else "up" if link.flags & IFF_LOWER_UP else "no carrier",
        kind=link.kind,
        link_type=None if link_type is None else link_type_name(link_type),
        queues=receive_queues(channels.read(link.name), link.receive_queues),
        most_queues=link.receive_queues,
        xdp=None if link_type is None else _mode(features),
        hardware_timestamps=_timestamps(abilities),
        xdp_timestamps=features is not None and features.timestamps,
        program="" if attached is None else f"id {attached.program_id} {attached.name}".rstrip(),
        uses=used,
    )


def _mode(features: XdpFeatures | None) -> str:
    if features is None:
        return "unknown"
    if features.zero_copy:
        return "zero_copy"
    return "native" if features.native else "skb"


def _timestamps(abilities: TimestampingAbilities) -> str:
    if not abilities.receives_in_hardware:
        return "none"
    if not abilities.timestamps_all:
        return "some frames"
    return "every frame" if abilities.clock_index >= 0 else "no clock"
