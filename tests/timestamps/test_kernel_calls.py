"""The real calls, as far as a host without a NIC's clock goes."""

import fcntl
import os
import pty
import struct
import termios

import pytest

from uspcap.errors import CaptureError
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.ptp_clock import PtpClock


def test_kernel_writes_into_the_payload_of_an_ioctl() -> None:
    """Any device does; a terminal has a size that the kernel hands over."""
    calls = KernelCalls()
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("=4H", 33, 44, 0, 0))
        for length in (8, 1216):
            payload = bytearray(length)
            calls.about_clock(theirs, termios.TIOCGWINSZ, payload)
            assert struct.unpack_from("=2H", payload) == (33, 44)
        calls.close_clock(ours)
        ours = -1
    finally:
        os.close(theirs)
        if ours >= 0:
            os.close(ours)
        calls.close()


def test_clock_that_is_not_there_is_reported() -> None:
    calls = KernelCalls()
    assert calls.clock_name(9999) == ""
    with pytest.raises(CaptureError, match=r"clock /dev/ptp9999: No such file or directory$"):
        PtpClock(9999, calls)
    calls.close()
    calls.close()


def test_clocks_of_the_host_go_on() -> None:
    calls = KernelCalls()
    utc_ns, monotonic_ns = calls.utc_ns(), calls.monotonic_ns()
    calls.sleep(0.001)
    assert calls.monotonic_ns() >= monotonic_ns + 1_000_000
    assert calls.utc_ns() > utc_ns
    calls.close()
