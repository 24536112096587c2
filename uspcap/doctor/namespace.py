"""Which network namespace this is: interfaces, their settings and /proc/sys/net belong to one."""

from __future__ import annotations

import os
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Final

_SO_NETNS_COOKIE: Final = 71
"""asm-generic/socket.h, Linux 5.14: all architectures but parisc and sparc."""


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace.

    Attributes
    ----------
    inode : int
        As `lsns -t net` and `readlink /proc/self/ns/net` show it; 0 where /proc does not tell. Another namespace may
        get it once this one is gone.
    cookie : int
        Of no other namespace until the next boot; 0 before Linux 5.14.
    """

    inode: int
    cookie: int

    @classmethod
    def current(cls) -> NetworkNamespace:
        """Return the one that the calling thread is in."""
        try:
            inode = os.stat(f"/proc/self/task/{threading.get_native_id()}/ns/net").st_ino  # noqa: PTH116
        except OSError:
            inode = 0
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
                (cookie,) = struct.unpack("=Q", asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
        except OSError:
            cookie = 0
        return cls(inode, cookie)

    def is_same_as(self, other: NetworkNamespace) -> bool:
        """Whether both are one namespace; False where that cannot be determined."""
        if self.cookie and other.cookie:
            return self.cookie == other.cookie
        return bool(self.inode) and self.inode == other.inode

    def __str__(self) -> str:
        return f"net:[{self.inode}]" if self.inode else f"cookie {self.cookie}"
