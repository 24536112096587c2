"""Why an interface refuses an XDP program: what the error number means there, and the kernel's own words.

References
----------
net/core/dev.c, drivers/net/veth.c and others' ndo_bpf of Linux.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from uspcap.bpf.kernel_types import XDP_FLAGS_REPLACE, XDP_FLAGS_UPDATE_IF_NOEXIST
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.errors import BpfError
from uspcap.network.channels import ChannelReader, receive_queues
from uspcap.network.links import Link, link_at, xdp_request
from uspcap.network.netlink import RTM_SETLINK, NetlinkRefusal, Rtnetlink

XDP_MTU: Final = 3000
"""To be tried where a driver refuses a longer one: frame and what drivers add fit into a page of 4 KiB."""

_ENOTSUPP: Final = 524
"""Of the kernel's own, which some drivers let out."""

_MEANINGS: Final = {
    errno.EOPNOTSUPP: "the driver has no native XDP, or not in its present configuration",
    _ENOTSUPP: "the driver has no native XDP, or not in its present configuration",
    errno.ENODEV: "the interface is gone",
    errno.ENETDOWN: "the interface is down",
    errno.EBUSY: "its hook is taken, or another mode of XDP is in use there",
    errno.EEXIST: "its hook is taken, or another mode of XDP is in use there",
    errno.ENOMEM: "the driver got no memory for XDP, of which fewer or shorter rings need less",
    errno.ENOSPC: "the driver has no queues to spare for XDP, so that fewer channels may help ('ethtool -L')",
}

_OF_LONG_FRAMES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EFBIG})
"""What many drivers say to a long MTU."""


def attach_reason(error: BpfError, interface: str, ifindex: int, program: LoadedProgram, flags: int) -> str:
    """Return why BPF_LINK_CREATE was refused, with the command that mends it where there is one.

    Parameters
    ----------
    error : BpfError
    interface : str
    ifindex : int
    program : LoadedProgram
    flags : int
        XDP_FLAGS_* it was to be attached with.
    """
    with Rtnetlink() as netlink:
        link = link_at(netlink, ifindex)
        kernels_words = "" if link is None else _kernels_words(netlink, ifindex, program, flags)
        number = errno.ENODEV if link is None else error.errno
        mtu = 0 if link is None else link.mtu
        lower = f"lower it as in 'ip link set {interface} mtu {XDP_MTU}'"
        if number == errno.ERANGE:
            reason = f"the MTU of {mtu} is too large for the driver's XDP, {lower}"
        elif number == errno.ENOSPC and link is not None and link.kind == "veth":
            reason = _too_few_queues(netlink, link)
        else:
            reason = _MEANINGS.get(number, "")
    said = f"{reason} ({os.strerror(number)})" if reason else str(error)
    if kernels_words:
        said += f"; the kernel says: {kernels_words}"
    if mtu > XDP_MTU and number in _OF_LONG_FRAMES:
        said += f"; its MTU of {mtu} may be the cause, {lower}"
    return said


def _too_few_queues(netlink: Rtnetlink, link: Link) -> str:
    """Return what a veth means by ENOSPC: XDP takes a receive queue for each that the other end sends on."""
    other = link_at(netlink, link.other_end) if link.lower_namespace is None else None
    with ChannelReader() as reader:
        here = reader.read(link.name)
        there = None if other is None else reader.read(other.name)
    receiving = receive_queues(here, link.receive_queues)
    sending = "more" if there is None else f"{there.send}"
    needed = receiving + 1 if there is None else there.send
    said = (
        f"{link.name} receives on {receiving} and its other end{f' {other.name}' if other else ''} sends on {sending}"
    )
    said += " queues, of which XDP on a veth needs as many"
    if link.receive_queues >= needed:
        number = link.receive_queues if there is None else needed
        return f"{said}: 'ethtool -L {link.name} rx {number}'"
    name = other.name if other else "NAME"
    where = "" if other else " in the namespace of the other end"
    return f"{said}: 'ethtool -L {name} tx {receiving}'{where}"


def _kernels_words(netlink: Rtnetlink, ifindex: int, program: LoadedProgram, flags: int) -> str:
    """Return what the kernel says beside the error number: bpf(2) does not hand that over, rtnetlink does.

    So the program is offered once more that way, and taken off should it be taken this time.
    """
    offered = xdp_request(ifindex, program.fd, flags | XDP_FLAGS_UPDATE_IF_NOEXIST)
    try:
        netlink.request(RTM_SETLINK, offered, acknowledge=True)
    except NetlinkRefusal as refusal:
        return refusal.explanation
    with contextlib.suppress(NetlinkRefusal):
        netlink.request(RTM_SETLINK, xdp_request(ifindex, -1, flags | XDP_FLAGS_REPLACE, program.fd), acknowledge=True)
    return ""
