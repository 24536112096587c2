"""Reading a NIC's clock (PTP hardware clock, PHC) against UTC.

Three ways, best first. PRECISE: hardware latches both clocks at once. EXTENDED: the driver reads UTC directly before
and after the register of the PHC. Plain: the kernel does so around the whole driver call. The last two are repeated
and the narrowest reading is kept: the PHC was read somewhere between its two neighbours, so half their distance
bounds the error.

References
----------
linux/ptp_clock.h; drivers/ptp/ptp_chardev.c (ptp_ioctl); Documentation/driver-api/ptp.rst.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from uspcap.errors import CaptureError
from uspcap.frames import LATEST_NS, NANOSECONDS
from uspcap.system_errors import limit_remedy
from uspcap.timestamps.kernel_calls import KernelCalls

READINGS: Final = 7
"""Of a sample, of which the narrowest is kept. The kernel takes 25 at most, ENA 125 a second."""

_MAGIC: Final = ord("=")
_TIME: Final = struct.Struct("=qII")  # struct ptp_clock_time: seconds, nanoseconds, reserved
_HEAD: Final = struct.Struct("=I3I")  # n_samples, rsv[3]
_MOST_READINGS: Final = 25  # PTP_MAX_SAMPLES


def _request(direction: int, number: int, size: int) -> int:
    """Return an ioctl number; `direction` is 1 (_IOW) or 3 (_IOWR)."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_PRECISE_BYTES: Final = 3 * _TIME.size + 16
_EXTENDED_BYTES: Final = _HEAD.size + 3 * _MOST_READINGS * _TIME.size
_PLAIN_BYTES: Final = _HEAD.size + (2 * _MOST_READINGS + 1) * _TIME.size

PTP_SYS_OFFSET: Final = _request(1, 5, _PLAIN_BYTES)
PTP_SYS_OFFSET_PRECISE: Final = _request(3, 8, _PRECISE_BYTES)
PTP_SYS_OFFSET_EXTENDED: Final = _request(3, 9, _EXTENDED_BYTES)


@dataclass(frozen=True, slots=True)
class ClockSample:
    """Two clocks at one moment.

    Attributes
    ----------
    clock_ns : int
        The PHC.
    utc_ns : int
        CLOCK_REALTIME.
    half_width_ns : int
        `utc_ns` is off by so much at most; 0 from PRECISE, which states no width.
    """

    clock_ns: int
    utc_ns: int
    half_width_ns: int


class PtpClock:
    """An open PHC that can be compared with UTC.

    Parameters
    ----------
    index : int
        Of /dev/ptp<index>.
    calls : KernelCalls

    Attributes
    ----------
    index : int
    name : str
        Device, and what the driver calls it.
    method : str
        The ioctl that answers.

    Raises
    ------
    CaptureError
        The clock cannot be opened or read.
    """

    def __init__(self, index: int, calls: KernelCalls) -> None:
        self._calls = calls
        self.index = index
        device = f"/dev/ptp{index}"
        driver = calls.clock_name(index)
        self.name = f"{device} ({driver})" if driver else device
        try:
            self._descriptor: int | None = calls.open_clock(index)
        except OSError as error:
            hint = ""
            if error.errno in (errno.EACCES, errno.EPERM):
                group = os.getegid()
                hint = f"run as root, or let root open it to your group: 'chgrp {group} {device}; chmod g+r {device}'"
            hint = limit_remedy(error.errno, hint)
            raise CaptureError(
                f"cannot read the NIC's clock {device}: {os.strerror(error.errno or 0)}{hint and f'; {hint}'}"
            ) from error
        refusals = []
        for method, reading in _METHODS.items():
            self.method, self._reading = method, reading
            try:
                self.sample()
            except OSError as error:
                refusals.append(f"{method}: {error.strerror}")
            else:
                return
        self.close()
        raise CaptureError(f"cannot compare the NIC's clock {device} with UTC ({'; '.join(refusals)})")

    def sample(self) -> ClockSample:
        """Compare the clock with UTC now.

        Raises
        ------
        OSError
            The driver refuses, or the clock is gone.
        """
        if self._descriptor is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sample = self._reading(self._calls, self._descriptor)
        if not max(abs(sample.clock_ns), abs(sample.utc_ns)) < LATEST_NS:
            raise OSError(errno.ERANGE, "a clock shows a time before 1823 or after 2116, outside uspcap's range")
        return sample

    def close(self) -> None:
        """Close the device; may be called again."""
        if self._descriptor is not None:
            self._calls.close_clock(self._descriptor)
            self._descriptor = None


def _precise(calls: KernelCalls, descriptor: int) -> ClockSample:
    payload = bytearray(_PRECISE_BYTES)
    calls.about_clock(descriptor, PTP_SYS_OFFSET_PRECISE, payload)
    clock_ns, utc_ns, _ = _times(payload, 0, 3)
    return ClockSample(clock_ns, utc_ns, 0)


def _extended(calls: KernelCalls, descriptor: int) -> ClockSample:
    payload = bytearray(_EXTENDED_BYTES)
    _HEAD.pack_into(payload, 0, READINGS, 0, 0, 0)
    calls.about_clock(descriptor, PTP_SYS_OFFSET_EXTENDED, payload)
    times = _times(payload, _HEAD.size, 3 * READINGS)
    return _narrowest([(times[at], times[at + 1], times[at + 2]) for at in range(0, len(times), 3)])


def _plain(calls: KernelCalls, descriptor: int) -> ClockSample:
    payload = bytearray(_PLAIN_BYTES)
    _HEAD.pack_into(payload, 0, READINGS, 0, 0, 0)
    calls.about_clock(descriptor, PTP_SYS_OFFSET, payload)
    times = _times(payload, _HEAD.size, 2 * READINGS + 1)
    return _narrowest([(times[at], times[at + 1], times[at + 2]) for at in range(0, len(times) - 2, 2)])


_METHODS: Final[dict[str, Callable[[KernelCalls, int], ClockSample]]] = {
    "PTP_SYS_OFFSET_PRECISE": _precise,
    "PTP_SYS_OFFSET_EXTENDED": _extended,
    "PTP_SYS_OFFSET": _plain,
}


def _times(payload: bytearray, offset: int, count: int) -> list[int]:
    """Return `count` times of a payload in nanoseconds."""
    return [
        seconds * NANOSECONDS + nanoseconds
        for seconds, nanoseconds, _ in _TIME.iter_unpack(payload[offset : offset + count * _TIME.size])
    ]


def _narrowest(readings: list[tuple[int, int, int]]) -> ClockSample:
    """Return the best of readings of UTC, PHC and UTC again.

    A reading in which UTC was stepped backward has no width and is left out.
    """
    usable = [(after - before, before, clock) for before, clock, after in readings if after >= before]
    if not usable:
        raise OSError(errno.EAGAIN, "UTC stepped backward while the clock was read")
    width, before, clock = min(usable)
    return ClockSample(clock, before + width // 2, (width + 1) // 2)
