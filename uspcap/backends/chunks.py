"""How large the chunks of a UMEM are, so that no frame of an interface is longer than what a driver fills of one.

The kernel keeps 256 bytes of a chunk. When it copies, all the rest is the frame's, and of the metadata that some
drivers have no room for before it. With zero copy the NIC writes, and a driver gives it the size of a buffer in units
of its own: igb and igc in whole KiB, rounded down, i40e and ice in 128 bytes. What is longer is cut, and igb's receive
path for zero copy takes each piece for a frame, without a word. So with zero copy only whole KiB count, whatever the
driver.

References
----------
Linux: include/net/xdp_sock_drv.h (xsk_pool_get_rx_frame_size), drivers/net/ethernet/intel/igb/igb_main.c
(igb_setup_srrctl), igb_xsk.c (igb_clean_rx_irq_zc), igc/igc_main.c, i40e/i40e_main.c, ice/ice_base.c.
"""

from __future__ import annotations

from typing import Final

from uspcap.bpf.xdp_program import METADATA_LENGTH

KERNEL_HEADROOM_BYTES: Final = 256
"""XDP_PACKET_HEADROOM: what a chunk loses to the kernel before the frame."""

CHUNK_SIZES: Final = (2048, 4096)
"""What the kernel takes: powers of two, from 2 KiB to a page."""

_DRIVERS_UNIT_BYTES: Final = 1024
_ADDRESSES_AND_TYPE_BYTES: Final = 14
_TAG_BYTES: Final = 4
_MOST_TAGS: Final = 2
_CHECK_SEQUENCE_BYTES: Final = 4
"""Some NICs write it behind the frame, though nobody is given it."""


def longest_frame_bytes(mtu: int) -> int:
    """Return the length of the longest frame that an Ethernet interface with this MTU receives, double-tagged."""
    return mtu + _ADDRESSES_AND_TYPE_BYTES + _MOST_TAGS * _TAG_BYTES


def usable_bytes(chunk_bytes: int, *, zero_copy: bool) -> int:
    """Return the length of the longest frame that surely lies whole in a chunk of this size."""
    room = chunk_bytes - KERNEL_HEADROOM_BYTES
    if zero_copy:
        return room // _DRIVERS_UNIT_BYTES * _DRIVERS_UNIT_BYTES - _CHECK_SEQUENCE_BYTES
    return room - METADATA_LENGTH


def chunk_bytes_for(mtu: int, *, zero_copy: bool) -> int | None:
    """Return the smallest size of a chunk that holds every frame of an interface; None where there is none."""
    longest = longest_frame_bytes(mtu)
    return next((size for size in CHUNK_SIZES if longest <= usable_bytes(size, zero_copy=zero_copy)), None)


def longest_mtu(*, zero_copy: bool) -> int:
    """Return the highest MTU whose frames fit into a chunk."""
    return usable_bytes(CHUNK_SIZES[-1], zero_copy=zero_copy) - longest_frame_bytes(0)
