"""What a driver declares that its XDP can do, by the netdev family of generic netlink (Linux 6.3).

References
----------
linux/netdev.h; Documentation/netlink/specs/netdev.yaml; net/xdp/xsk_buff_pool.c for what zero copy needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from uspcap.network.netlink import GenericNetlink, NetlinkRefusal, attribute, number

# linux/netdev.h.
NETDEV_XDP_ACT_BASIC: Final = 1 << 0
NETDEV_XDP_ACT_REDIRECT: Final = 1 << 1
NETDEV_XDP_ACT_XSK_ZEROCOPY: Final = 1 << 3
NETDEV_XDP_ACT_RX_SG: Final = 1 << 5
NETDEV_XDP_RX_METADATA_TIMESTAMP: Final = 1 << 0
_NETDEV_CMD_DEV_GET: Final = 1
_NETDEV_A_DEV_IFINDEX: Final = 1
_NETDEV_A_DEV_XDP_FEATURES: Final = 3
_NETDEV_A_DEV_XDP_ZC_MAX_SEGS: Final = 4
_NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: Final = 5

_FOR_ZERO_COPY: Final = NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT | NETDEV_XDP_ACT_XSK_ZEROCOPY


@dataclass(frozen=True, slots=True)
class XdpFeatures:
    """What one interface's driver declares, as it is set up now.

    Attributes
    ----------
    actions : int
        NETDEV_XDP_ACT_*.
    metadata : int
        NETDEV_XDP_RX_METADATA_*.
    zero_copy_segments : int
        Most pieces of a frame that zero copy hands over; 0 where that is not reported.
    """

    actions: int
    metadata: int = 0
    zero_copy_segments: int = 0

    @property
    def native(self) -> bool:
        """The driver has a hook of its own and can redirect from there."""
        needed = NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT
        return self.actions & needed == needed

    @property
    def zero_copy(self) -> bool:
        """AF_XDP sockets may get frames where the NIC has put them."""
        return self.actions & _FOR_ZERO_COPY == _FOR_ZERO_COPY

    @property
    def fragments(self) -> bool:
        """Frames longer than a buffer come in several."""
        return bool(self.actions & NETDEV_XDP_ACT_RX_SG)

    @property
    def timestamps(self) -> bool:
        """XDP programs may ask for the NIC's timestamp of a frame."""
        return bool(self.metadata & NETDEV_XDP_RX_METADATA_TIMESTAMP)


def xdp_features(index: int) -> XdpFeatures | None:
    """Return what the driver of an interface of this network namespace declares; None from kernels before 6.3."""
    try:
        with GenericNetlink("netdev") as netlink:
            answer = netlink.ask(_NETDEV_CMD_DEV_GET, attribute(_NETDEV_A_DEV_IFINDEX, struct.pack("=I", index)))
    except NetlinkRefusal:
        return None
    return XdpFeatures(
        actions=number(answer.get(_NETDEV_A_DEV_XDP_FEATURES, b"")),
        metadata=number(answer.get(_NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, b"")),
        zero_copy_segments=number(answer.get(_NETDEV_A_DEV_XDP_ZC_MAX_SEGS, b"")),
    )
