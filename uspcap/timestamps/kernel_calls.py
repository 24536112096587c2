"""Every call into the kernel that timestamping makes, in one place, so that tests can put a stand-in in its place.

References
----------
linux/sockios.h (SIOCETHTOOL, SIOCGHWTSTAMP, SIOCSHWTSTAMP); linux/ptp_clock.h; asm-generic/ioctl.h; netdevice(7).
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from uspcap.network.channels import interface_ioctl


class KernelCalls:
    """The kernel of this host, seen from the network namespace that the object was made in.

    Each call raises OSError as the kernel refuses it.
    """

    def __init__(self) -> None:
        # A socket keeps to its namespace, wherever its thread goes later.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def about_interface(self, name: str, request: int, payload: bytearray) -> None:
        """Call ioctl(2) with a struct ifreq whose ifr_data points to `payload`, which the kernel may change.

        Parameters
        ----------
        name : str
            Interface.
        request : int
            SIOCETHTOOL, SIOCGHWTSTAMP or SIOCSHWTSTAMP.
        payload : bytearray
        """
        interface_ioctl(self._socket, name, request, payload)

    def open_clock(self, index: int) -> int:
        """Open /dev/ptp<index> for reading and return the descriptor."""
        return os.open(f"/dev/ptp{index}", os.O_RDONLY | os.O_CLOEXEC)

    def clock_name(self, index: int) -> str:
        """Return the name that a clock's driver gave it; empty where it cannot be read."""
        try:
            return Path(f"/sys/class/ptp/ptp{index}/clock_name").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def about_clock(self, descriptor: int, request: int, payload: bytearray) -> None:
        """Call ioctl(2) on an open clock; the kernel may change `payload`."""
        fcntl.ioctl(descriptor, request, payload)

    def close_clock(self, descriptor: int) -> None:
        os.close(descriptor)

    def utc_ns(self) -> int:
        """Return CLOCK_REALTIME, nanoseconds since the epoch."""
        return time.time_ns()

    def tai_ns(self) -> int:
        """Return CLOCK_TAI, nanoseconds since the epoch."""
        return time.clock_gettime_ns(time.CLOCK_TAI)

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC, nanoseconds."""
        return time.monotonic_ns()

    def sleep(self, duration_s: float) -> None:
        """Wait."""
        time.sleep(duration_s)

    def close(self) -> None:
        """Close what the object holds; may be called again."""
        self._socket.close()
