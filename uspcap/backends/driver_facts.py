"""What Linux's drivers do with an interface when XDP is attached, as their sources say; no ioctl asks for it.

References
----------
Linux, drivers/net: igb_xdp_setup, igc_xdp_set_prog, ixgbe_xdp_setup, i40e_xdp_setup, ice_xdp_setup_prog,
mlx5e_xdp_set, bnxt_xdp_set, ena_xdp_set, gve_xdp, stmmac_xdp_set_prog (close and open the device, or reset it),
vmxnet3_xdp_set (resets it, which the rig found to take the carrier away for a moment), virtnet_xdp_set, veth_xdp_set,
tun_xdp_set (leave the carrier alone); bond_xdp_set; netvsc_vf_setxdp; virtnet_xsk_pool_enable.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection
from contextlib import closing
from typing import Final

from uspcap.timestamps.kernel_calls import KernelCalls

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GDRVINFO: Final = 0x3
_DRVINFO_BYTES: Final = 196
_DRIVER_NAME: Final = slice(4, 36)

LINK_LEFT_ALONE: Final = frozenset({"veth", "virtio_net", "tun", "netkit", "dummy", "loopback"})
"""Drivers that attach native XDP without touching the carrier."""

LINK_TAKEN_DOWN: Final = frozenset(
    (
        *("igb", "igc", "ixgbe", "ixgbevf", "i40e", "ice", "iavf", "st_gmac", "mvneta", "mvpp2", "fec", "fsl_enetc"),
        *("atlantic", "vmxnet3"),
    )
)
"""Drivers that close and open the device, or reset it: mostly the link is trained again, seconds at each end."""

FRAMES_OF_OTHERS: Final = {
    "bonding": "a bond hands native XDP frames of its members, which no AF_XDP socket of the bond may take",
    "hv_netvsc": "frames may come by a virtual function, and no AF_XDP socket of its upper interface may take these",
}
"""Drivers under whose native XDP the kernel refuses frames to a socket of the interface, and does not count them."""


def why_native_is_vain(driver: str, refusals: Collection[int]) -> str:
    """Return why a driver would take a native program and never run it, as its refusal of zero copy shows; or nothing.

    Parameters
    ----------
    driver : str
    refusals : collection of int
        Error numbers with which it refused zero copy.
    """
    if driver == "virtio_net" and errno.ENOENT in refusals:
        # virtnet_xsk_pool_enable: large frames in buffers that are not merged are received by receive_big.
        return "virtio_net runs no program where its device may send long frames and does not merge buffers"
    return ""


def driver_of(interface: str) -> str:
    """Return the name of the driver of an interface of this network namespace; empty where it does not say."""
    payload = bytearray(_DRVINFO_BYTES)
    struct.pack_into("=I", payload, 0, _ETHTOOL_GDRVINFO)
    with closing(KernelCalls()) as calls:
        try:
            calls.about_interface(interface, _SIOCETHTOOL, payload)
        except OSError:
            return ""
    return bytes(payload[_DRIVER_NAME]).partition(b"\0")[0].decode("ascii", "replace")
