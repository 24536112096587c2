"""Which of a NIC's counters say how many frames came in, where the kernel's own leave out what an XDP program took.

References
----------
Linux, drivers/net: igb_ethtool.c, vmxnet3_ethtool.c (vmxnet3_rq_dev_stats), virtio_net.c (virtnet_rq_stats_desc),
ena_ethtool.c, i40e_ethtool.c, mlx5/core/en_stats.c, bnxt_ethtool.c, gve_ethtool.c, veth.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

_LOSSES: Final = re.compile(
    r"drop|discard|miss|no_?buf|out_of_buf|overflow|overrun|fifo|no_dma|no_desc|alloc.*fail|crc_err|congest"
)
_OF_SENDING: Final = re.compile(r"(^|[^a-z])tx")

_RECEIVED: Final = (
    re.compile(r"rx_packets"),
    re.compile(r"rx_packets_phy"),
    re.compile(r"(ucast|mcast|bcast) pkts rx"),
    re.compile(r"rx[-_]?(queue[-_]?)?\d+[-_](rx[-_])?(packets|cnt|pkts)"),
    re.compile(r"(queue[-_]?)?\d+[-_]rx[-_](packets|cnt|pkts)"),
    re.compile(r"rx[-_]?(queue[-_]?)?\d+[-_]xdp[-_]packets"),
)
"""Names of counters which, taken together, count every frame that came in, a family each."""


def summed(counters: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return counters by name; a driver may tell one for each queue under the same name, which are added up."""
    sums: dict[str, int] = {}
    for name, value in counters:
        sums[name.strip()] = sums.get(name.strip(), 0) + int(value)
    return sums


def losses(counters: Mapping[str, int]) -> dict[str, int]:
    """Return a driver's counters of frames that were not received, by their names; a frame may be in several."""
    return {
        name: value
        for name, value in counters.items()
        if _LOSSES.search(name.lower()) and not _OF_SENDING.search(name.lower())
    }


def received(risen: Mapping[str, int], by_kernel: int, at_hook: int | None) -> int | None:
    """Return how many frames came to an interface while it was captured on.

    Parameters
    ----------
    risen : mapping of str to int
        By how much each of the driver's counters went up.
    by_kernel : int
        By how much the kernel's did.
    at_hook : int or None
        Frames that came to the XDP program; None where there is none.

    Returns
    -------
    int or None
        None where no counter has them all: the kernel's has fewer than came to the hook, and the driver's as well.
    """
    if at_hook is None or by_kernel >= at_hook:
        return by_kernel
    families = (sum(value for name, value in risen.items() if family.fullmatch(name.lower())) for family in _RECEIVED)
    return next((count for count in families if count >= at_hook), None)
