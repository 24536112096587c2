"""What the kernel means when it refuses a ring, a socket or memory: which interface, why, and what to do next.

References
----------
net/xdp/xsk.c, net/xdp/xdp_umem.c, net/xdp/xsk_buff_pool.c and net/packet/af_packet.c of Linux, for what each of their
calls returns; drivers add to it where zero copy is asked for.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from typing import Final

from uspcap.capabilities import AF_XDP_NEEDS, af_xdp_needs, effective_capabilities, explain_missing
from uspcap.errors import CaptureError, MissingFeature, PermissionDenied, UspcapError
from uspcap.granting import in_user_namespace
from uspcap.system_errors import limit_remedy

INSTEAD: Final = "use the packet_mmap backend"
_SMALLER: Final = "ask for a smaller buffer with -B"

_FINAL: Final = frozenset({errno.EBUSY, errno.ENETDOWN, errno.ENODEV, errno.ENOMEM, errno.ENOBUFS, errno.EPERM})
_OF_OLDER_KERNELS: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def is_final(number: int, *, zero_copy: bool) -> bool:
    """Whether a refused bind(2) of an AF_XDP socket leaves no other way to try.

    A driver may refuse zero copy with any error number, for reasons of its own; copying goes without it. Copying is
    refused to flags that the kernel does not know.
    """
    return number in _FINAL if zero_copy else number not in _OF_OLDER_KERNELS


def locked_memory_limit() -> int | None:
    """Return how many bytes this process may lock, None where nothing bounds it."""
    # That of a user namespace lets nobody lock more.
    if "CAP_IPC_LOCK" in effective_capabilities() and not in_user_namespace():
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _of_the_system(what: str, number: int, less_memory: str, further: Sequence[str] = ()) -> UspcapError | None:
    """Return the error for what any call may be refused for; None for what depends on the call."""
    match number:
        case errno.EPERM | errno.EACCES:
            return PermissionDenied(f"{what}: {explain_missing(['CAP_NET_RAW'], further)}", number)
        case errno.EMFILE | errno.ENFILE:
            return CaptureError(f"{what}: {os.strerror(number)}; {limit_remedy(number, '')}")
        case errno.ENOMEM | errno.ENOBUFS | errno.EAGAIN:
            return CaptureError(f"{what}: the kernel has no memory for it; {less_memory}")
        case errno.ENODEV | errno.ENXIO:
            return CaptureError(f"{what}: the interface is gone; see with 'ip link' what there is")
    return None


def cannot_open_socket(number: int, kind: str, interface: str, further: Sequence[str] = ()) -> UspcapError:
    """Return the error for a refused socket(2).

    Parameters
    ----------
    number : int
        Its errno.
    kind : str
        As `an AF_XDP socket`.
    interface : str
        What it is for.
    further : sequence of str
        Capabilities that will be needed after it.
    """
    what = f"cannot open {kind} for {interface}"
    return _of_the_system(what, number, "free some", further) or MissingFeature(
        f"{what}: this kernel has none ({os.strerror(number)}); {INSTEAD}"
    )


def cannot_register_memory(number: int, size_bytes: int, queue: int, interface: str) -> UspcapError:
    """Return the error for memory or rings that an AF_XDP socket was refused."""
    size = f"{size_bytes >> 10} KiB of memory for queue {queue} of {interface}"
    if number == errno.ENOBUFS:
        limit = locked_memory_limit()
        allowed = "" if limit is None else f" of {limit >> 10} KiB"
        return CaptureError(
            f"cannot lock {size}: the limit{allowed} on locked memory is too low for what this user's processes lock "
            f"together; {_SMALLER}, raise it with 'ulimit -l', or lock without a limit, for which "
            f"{explain_missing(['CAP_IPC_LOCK'], AF_XDP_NEEDS)}"
        )
    what = f"cannot register {size}"
    return _of_the_system(what, number, _SMALLER) or CaptureError(
        f"{what}: {os.strerror(number)}; {_SMALLER}, or {INSTEAD}"
    )


def cannot_bind_to_queue(number: int, queue: int, interface: str) -> UspcapError:
    """Return the error for a refused bind(2) of an AF_XDP socket."""
    where = f"queue {queue} of {interface}"
    what = f"cannot bind an AF_XDP socket to {where}"
    match number:
        case errno.EBUSY:
            return CaptureError(f"{where} belongs to another AF_XDP socket: end its owner, or {INSTEAD}")
        case errno.ENETDOWN:
            return CaptureError(
                f"{interface} is down, and AF_XDP binds only where it is up: 'ip link set {interface} up'"
            )
        case errno.EINVAL:
            return CaptureError(
                f"{what}: {os.strerror(number)}, as where the interface has fewer queues than it said; see 'ethtool -l "
                f"{interface}', or {INSTEAD}"
            )
    return _of_the_system(what, number, _SMALLER, af_xdp_needs()) or CaptureError(
        f"{what}: {os.strerror(number)}; {INSTEAD}"
    )


def cannot_have_packet_ring(number: int, size_bytes: int, interface: str, instead: str = _SMALLER) -> UspcapError:
    """Return the error for a refused PACKET_RX_RING or its memory.

    Parameters
    ----------
    number : int
        The call's errno.
    size_bytes : int
    interface : str
    instead : str
        What to do where it is too large.
    """
    what = f"cannot have a ring of {size_bytes >> 10} KiB on {interface}"
    if number == errno.EINVAL:
        return CaptureError(f"{what}: it is larger than a ring can be, or the kernel lacks this kind; {instead}")
    return _of_the_system(what, number, instead) or CaptureError(f"{what}: {os.strerror(number)}; {instead}")


def cannot_set_up_packet_socket(number: int, interface: str) -> UspcapError:
    """Return the error where a packet socket cannot be bound to an interface or be made promiscuous."""
    what = f"cannot capture on {interface}"
    if number == errno.ENETDOWN:
        return CaptureError(f"{what}: it is down; 'ip link set {interface} up'")
    return _of_the_system(what, number, _SMALLER) or CaptureError(
        f"{what}: {os.strerror(number)}; see 'ip link', and that this kernel is Linux 4.20 or later"
    )
