"""Promiscuous mode that ends with the process: membership of a packet socket, not a flag of the interface."""

from __future__ import annotations

import socket
import struct
from typing import Final

from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.refusals import cannot_open_socket, cannot_set_up_packet_socket

# linux/if_packet.h.
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_MR_PROMISC: Final = 1


def add_membership(packet_socket: socket.socket, interface: NetworkInterface) -> None:
    """Keep an interface promiscuous for as long as a packet socket is open."""
    membership = struct.pack("=iHH8s", interface.index, _PACKET_MR_PROMISC, 0, b"")
    packet_socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)


def promiscuous_socket(interface: NetworkInterface) -> socket.socket:
    """Return a socket that receives nothing and keeps an interface promiscuous until it is closed.

    Raises
    ------
    PermissionDenied
        CAP_NET_RAW is missing.
    CaptureError
        The system refuses for another reason.
    """
    kind = "a packet socket, which makes it promiscuous (-p does without),"
    try:
        # Without a protocol, no frame comes.
        packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise cannot_open_socket(error.errno or 0, kind, interface.name) from None
    try:
        add_membership(packet_socket, interface)
    except OSError as error:
        packet_socket.close()
        raise cannot_set_up_packet_socket(error.errno or 0, interface.name) from error
    return packet_socket
