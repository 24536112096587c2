"""How many queues an interface receives and sends on, by ioctl: cheap enough to be asked once a second.

References
----------
linux/ethtool.h; linux/sockios.h; netdevice(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GCHANNELS: Final = 0x3C
_CHANNELS: Final = struct.Struct("=9I")
"""struct ethtool_channels: cmd, then most of rx, tx, other and combined, then how many of each there are."""

_IFREQ: Final = struct.Struct("@16sP")
_IFREQ_BYTES: Final = 40
"""sizeof(struct ifreq) on 64-bit systems; it is no longer on others."""


def interface_ioctl(asked: socket.socket, name: str, request: int, payload: bytearray) -> None:
    """Call ioctl(2) with a struct ifreq whose ifr_data points to `payload`, which the kernel may change.

    Parameters
    ----------
    asked : socket
        Any of the interface's network namespace.
    name : str
    request : int
    payload : bytearray

    Raises
    ------
    OSError
        As the kernel refuses it.
    """
    pointed_to = (ctypes.c_char * len(payload)).from_buffer(payload)
    packed = _IFREQ.pack(os.fsencode(name)[:15], ctypes.addressof(pointed_to))
    fcntl.ioctl(asked, request, packed.ljust(_IFREQ_BYTES, b"\0"))


@dataclass(frozen=True, slots=True)
class Channels:
    """Queues of an interface; combined ones both send and receive.

    Attributes
    ----------
    receive, send : int
        In use, combined ones among them.
    most_receive, most_send : int
        How many there can be.
    """

    receive: int
    send: int
    most_receive: int
    most_send: int


class ChannelReader:
    """Asks drivers for their channels, through a socket that stays in its network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def read(self, name: str) -> Channels | None:
        """Return the channels of an interface; None where its driver has no notion of them."""
        payload = bytearray(_CHANNELS.size)
        struct.pack_into("=I", payload, 0, _ETHTOOL_GCHANNELS)
        try:
            interface_ioctl(self._socket, name, SIOCETHTOOL, payload)
        except OSError:
            return None
        _, most_rx, most_tx, _, most_combined, rx, tx, _, combined = _CHANNELS.unpack(payload)
        return Channels(rx + combined, tx + combined, most_rx + most_combined, most_tx + most_combined)

    def close(self) -> None:
        """May be called again."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def receive_queues(channels: Channels | None, most: int) -> int:
    """Return how many receive queues are in use.

    Parameters
    ----------
    channels : Channels or None
        What the driver says.
    most : int
        How many the kernel has set up, which are used where the driver says nothing.
    """
    return most if channels is None else min(most, channels.receive) or most
