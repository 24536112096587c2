"""Addresses as users write them, and the UDP sockets made of them."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import sys
from dataclasses import dataclass
from typing import Final

from uspcap.capabilities import explain_missing
from uspcap.errors import CaptureError, UsageError
from uspcap.network.links import find_link
from uspcap.network.netlink import Rtnetlink
from uspcap.system_errors import limit_remedy

_SO_TIMESTAMPING: Final = 37
"""asm-generic/socket.h: all architectures but parisc and sparc."""

_RX_SOFTWARE: Final = 1 << 3
_SOFTWARE: Final = 1 << 4
"""linux/net_tstamp.h, SOF_TIMESTAMPING_…: make software receive timestamps, and hand them over."""

RECEIVE_TIMEOUT_S: Final = 0.05
"""A blocking read looks this often whether it is to stop."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port.

    Attributes
    ----------
    host : str
        An IPv4 or IPv6 address, the latter with a scope (`fe80::1%eth0`) where it needs one.
    port : int
    """

    host: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def as_tuple(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what socket calls take.

        Raises
        ------
        UsageError
            The scope names no interface.
        """
        if self.family == socket.AF_INET:
            return self.host, self.port
        address, _, scope = self.host.partition("%")
        if not scope:
            return address, self.port, 0, 0
        with Rtnetlink() as netlink:
            link = find_link(netlink, scope)
        if link is None:
            raise UsageError(f"there is no interface {scope!r} for {self}: see 'ip link'")
        return address, self.port, 0, link.index


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """Return the address and port in `192.0.2.1:7000`, `[2001:db8::1]:7000` or, with a default port, `192.0.2.1`.

    Raises
    ------
    ValueError
        It is none of these; names are not looked up.
    """
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", text)
    if match is None and default_port is not None:
        # An IPv6 address without brackets is clear only where no port may follow.
        return Endpoint(str(ipaddress.IPv6Address(text)), default_port)
    if match is None or (match[3] is None and default_port is None):
        raise ValueError(f"{text!r} is not an address with a port, as 192.0.2.1:7000 or [2001:db8::1]:7000")
    address = ipaddress.IPv6Address(match[1]) if match[1] is not None else ipaddress.IPv4Address(match[2])
    port = default_port if match[3] is None else int(match[3])
    if port is None or port > 65535:
        raise ValueError(f"{text!r} has no port of 0 to 65535")
    return Endpoint(str(address), port)


def open_socket(
    local: Endpoint | None,
    remote: Endpoint | None,
    *,
    interface: str | None = None,
    receive_buffer_bytes: int = 4 << 20,
    shared: bool = False,
) -> socket.socket:
    """Return a UDP socket with the kernel's software receive timestamps on.

    Parameters
    ----------
    local : Endpoint or None
        What to bind to; the kernel chooses without it.
    remote : Endpoint or None
        What to connect to, so that only its datagrams are received, and its ICMP errors are reported.
    interface : str or None
        Send and receive there only (SO_BINDTODEVICE).
    receive_buffer_bytes : int
        Asked for; the kernel gives up to net.core.rmem_max.
    shared : bool
        Let others that allow it, too, have the same port (SO_REUSEADDR), as receivers of a multicast group do.

    Raises
    ------
    CaptureError
        The system refuses, with the reason.
    UsageError
        The addresses are of different families, or the interface does not exist.
    """
    if local is not None and remote is not None and local.family != remote.family:
        raise UsageError(f"cannot send from {local} to {remote}: one is IPv4, the other IPv6")
    address = local or remote
    if address is None:
        raise UsageError("a socket needs an address")
    opened = socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    doing = "open a UDP socket"
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(RECEIVE_TIMEOUT_S))
        if interface is not None:
            doing = f"use interface {interface} only"
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(interface)[:15] + b"\0")
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if local is not None:
            doing = f"bind to {local}"
            opened.bind(local.as_tuple())
        if remote is not None:
            doing = f"reach {remote}"
            opened.connect(remote.as_tuple())
    except OSError as error:
        opened.close()
        raise CaptureError(
            f"cannot {doing}: {error.strerror}; {_advice(error, interface, binding=doing.startswith('bind'))}"
        ) from None
    except BaseException:
        opened.close()
        raise
    return opened


def _advice(error: OSError, interface: str | None, *, binding: bool) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "something listens there already: choose another port"
        case errno.EADDRNOTAVAIL:
            return "this host has no such address: see 'ip address'"
        case errno.ENODEV:
            return "there is no such interface: see 'ip link'"
        case errno.EPERM:
            return explain_missing(["CAP_NET_RAW"])
        case errno.EACCES if binding:
            return f"ports this low need a capability: choose another, or {explain_missing(['CAP_NET_BIND_SERVICE'])}"
        case errno.EACCES:
            return "it is a broadcast address, which probes are not sent to: choose another"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "no route leads there" + (f" by {interface}" if interface else "") + ": see 'ip route'"
        case _:
            return limit_remedy(error.errno, "see 'ip address' and 'ip route'")


def _timeval(seconds: float) -> bytes:
    """Return a struct timeval of two C longs."""
    long_bytes = 8 if sys.maxsize > 1 << 32 else 4
    whole = int(seconds)
    return b"".join(part.to_bytes(long_bytes, sys.byteorder) for part in (whole, round((seconds - whole) * 1_000_000)))
