"""A kernel with one NIC and its clock, for tests: answers the ioctls that timestamping makes, in simulated time.

It decodes and fills the structures of linux/net_tstamp.h, linux/ethtool.h and linux/ptp_clock.h by their layout in
these headers, written down here a second time.
"""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from uspcap.timestamps.kernel_calls import KernelCalls

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
RECEIVE_HARDWARE, RAW_HARDWARE, RECEIVE_SOFTWARE = 1 << 2, 1 << 6, 1 << 3
NONE, ALL, SOME, PTP_V2_EVENT = 0, 1, 2, 12
PLAIN, PRECISE, EXTENDED = 0x43403D05, 0xC0403D08, 0xC4C03D09
GET_TS_INFO, ETHTOOL, SET_TIMESTAMPING, GET_TIMESTAMPING = 0x41, 0x8946, 0x89B0, 0x89B1


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class NicKernel(KernelCalls):
    """Simulated time passes only by `pass_time`, by sleeping, and a little with each reading of the clock.

    Attributes
    ----------
    rate_ppm : float
        By how much the NIC's clock is faster than UTC.
    clock_offset_ns : int
        What the clock is ahead of UTC, beside what its rate has brought.
    reading_ns : int
        How long the driver takes to read its clock; the reading is somewhere within.
    methods : set of int
        ioctls that the driver's clock answers.
    widens : dict of int to int
        Receive filter that is set where another was asked for.
    """

    rate_ppm: float = 0.0
    clock_offset_ns: int = 0
    reading_ns: int = 900
    methods: set[int] = field(default_factory=lambda: {PLAIN, PRECISE, EXTENDED})
    flags: int = RECEIVE_HARDWARE | RAW_HARDWARE | RECEIVE_SOFTWARE
    rx_filters: int = 1 << NONE | 1 << ALL
    clock_index: int = 3
    setting: tuple[int, int, int] = (0, 1, NONE)
    widens: dict[int, int] = field(default_factory=dict)
    refuses_setting: int = 0
    refuses_reading: int = 0
    refuses_clock: int = 0
    refuses_opening: int = 0
    tai_s: int = 37
    settings_asked_for: list[tuple[int, int, int]] = field(default_factory=list)
    open_clocks: int = 0
    elapsed_ns: int = 0
    utc_stepped_ns: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._fast_ns = 0.0
        self.closed = False
        self.while_reading: Callable[[], None] | None = None

    def pass_time(self, duration_ns: int) -> None:
        self.elapsed_ns += duration_ns
        self._fast_ns += duration_ns * self.rate_ppm * 1e-6

    def clock_ns(self) -> int:
        """What the NIC's clock shows."""
        return START_NS + self.elapsed_ns + round(self._fast_ns) + self.clock_offset_ns

    def utc_ns(self) -> int:
        return START_NS + self.elapsed_ns + self.utc_stepped_ns

    def tai_ns(self) -> int:
        return self.utc_ns() + self.tai_s * SECOND

    def monotonic_ns(self) -> int:
        return self.elapsed_ns

    def sleep(self, duration_s: float) -> None:
        self.pass_time(round(duration_s * SECOND))

    def close(self) -> None:
        self.closed = True

    def about_interface(self, name: str, request: int, payload: bytearray) -> None:
        if request == ETHTOOL:
            assert struct.unpack_from("=I", payload)[0] == GET_TS_INFO
            assert len(payload) == 44
            struct.pack_into("=IiI12xI", payload, 4, self.flags, self.clock_index, 0b11, self.rx_filters)
            return
        assert len(payload) == 12
        if request == GET_TIMESTAMPING:
            if self.refuses_reading:
                raise refuse(self.refuses_reading)
            struct.pack_into("=iii", payload, 0, *self.setting)
            return
        assert request == SET_TIMESTAMPING
        if self.refuses_setting:
            raise refuse(self.refuses_setting)
        flags, tx_type, rx_filter = struct.unpack("=iii", payload)
        self.settings_asked_for.append((flags, tx_type, rx_filter))
        self.setting = (flags, tx_type, self.widens.get(rx_filter, rx_filter))
        struct.pack_into("=iii", payload, 0, *self.setting)

    def open_clock(self, index: int) -> int:
        assert index == self.clock_index
        if self.refuses_opening:
            raise refuse(self.refuses_opening)
        self.open_clocks += 1
        return 1000 + index

    def close_clock(self, descriptor: int) -> None:
        self.open_clocks -= 1

    def clock_name(self, index: int) -> str:
        return "fake clock"

    def about_clock(self, descriptor: int, request: int, payload: bytearray) -> None:
        assert self.open_clocks == 1
        if self.while_reading is not None:
            self.while_reading()
        if self.refuses_clock:
            raise refuse(self.refuses_clock)
        if request not in self.methods:
            raise refuse(errno.EOPNOTSUPP)
        assert len(payload) == request >> 16 & 0x3FFF
        if request == PRECISE:
            self._put(payload, 0, self.clock_ns(), self.utc_ns(), self.elapsed_ns)
            return
        count, *reserved = struct.unpack_from("=4I", payload)
        assert 0 < count <= 25
        assert reserved == [0, 0, 0]
        at = 16
        for _ in range(count):
            before, clock, after = self._read()
            if request == EXTENDED:
                self._put(payload, at, before, clock, after)
                at += 48
            else:
                self._put(payload, at, before, clock)
                at += 32
        if request == PLAIN:
            self._put(payload, at, self.utc_ns())

    def _read(self) -> tuple[int, int, int]:
        """Read UTC, the clock at a moment that nobody knows, and UTC again; now and then something interrupts."""
        width = self._random.randrange(self.reading_ns // 2, self.reading_ns + 1)
        if self._random.random() < 0.3:
            width += self._random.randrange(50_000)
        split = self._random.randrange(width + 1)
        before = self.utc_ns()
        self.pass_time(split)
        clock = self.clock_ns()
        self.pass_time(width - split)
        return before, clock, self.utc_ns()

    def _put(self, payload: bytearray, at: int, *times_ns: int) -> None:
        for number, time_ns in enumerate(times_ns):
            seconds, nanoseconds = divmod(time_ns, SECOND)
            struct.pack_into("=qI4x", payload, at + 16 * number, seconds, nanoseconds)
