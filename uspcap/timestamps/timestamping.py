"""Who timestamps the frames of a capture: from what was asked for to what this interface can give."""

from __future__ import annotations

from typing import Final

import numpy as np

from uspcap.capabilities import PACKET_SOCKET_NEEDS, af_xdp_needs
from uspcap.errors import CaptureError, UsageError
from uspcap.frames import NANOSECONDS, FrameBatch, TimestampSource
from uspcap.timestamps import Timestamps
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import (
    HWTSTAMP_FILTER_ALL,
    SwitchedOnTimestamping,
    TimestampingAbilities,
    TimestampingSetting,
)
from uspcap.timestamps.nic_clock import ClockAccount, NicClock
from uspcap.timestamps.tai import TaiOffset

TRUSTED_BOUND_NS: Final = 10_000
"""`auto` takes hardware timestamps only where the NIC's clock can be compared with UTC this well; the kernel's own
timestamp is late by an interrupt and a poll, which is about as much."""

_IS_READ: Final = "when uspcap read the ring (CLOCK_REALTIME)"
_PACKET_RING: Final = {
    TimestampSource.KERNEL: "kernel on receipt (CLOCK_REALTIME)",
    TimestampSource.USER: f"kernel when copied to the ring, or {_IS_READ}",
}
_XDP_RING: Final = {
    TimestampSource.XDP: "XDP hook (CLOCK_TAI, converted to UTC)",
    TimestampSource.USER: _IS_READ,
}


class Timestamping:
    """Who timestamps on one interface; holds the NIC's clock and setting until `close`.

    Parameters
    ----------
    interface : str
    wanted : Timestamps
    software : {TimestampSource.KERNEL, TimestampSource.XDP}
        Who timestamps before uspcap does where the NIC does not: the kernel in PACKET_MMAP's rings, the hook in
        AF_XDP's.
    calls : KernelCalls, optional

    Attributes
    ----------
    expected : TimestampSource
        Who timestamps, where nothing comes in between.
    texts : dict of TimestampSource to str
        How each place's timestamps are described.
    remarks : list of str
        What a user must know: what was changed, what is odd about the clock, what would be better.
    tai : TaiOffset

    Raises
    ------
    UsageError
        There is no such timestamp in this backend.
    CaptureError, PermissionDenied
        `hardware` was asked for and cannot be had; nothing is changed then.
    """

    def __init__(
        self, interface: str, wanted: Timestamps, software: TimestampSource, calls: KernelCalls | None = None
    ) -> None:
        self._interface = interface
        self._wanted = wanted
        self._software = software
        _refuse_other_backends_timestamps(interface, wanted, software)
        self.texts = dict(_PACKET_RING if software is TimestampSource.KERNEL else _XDP_RING)
        if wanted == "user":
            self.texts[TimestampSource.USER] = _IS_READ
        self.expected = TimestampSource.USER if wanted == "user" else software
        self.remarks: list[str] = []
        self._clock: NicClock | None = None
        self._switched_on: SwitchedOnTimestamping | None = None
        self._calls = calls or KernelCalls()
        self.tai = TaiOffset(self._calls)
        self._ptp_only = wanted == "hardware:ptp"
        if wanted in ("auto", "hardware", "hardware:ptp"):
            try:
                self._use_hardware()
            except BaseException:
                self.close()
                raise

    @property
    def hardware(self) -> bool:
        """Frames are to bring the NIC's timestamp, where it made one."""
        return self.expected is TimestampSource.HARDWARE

    @property
    def user(self) -> bool:
        """Every frame is timestamped when it is read, whatever it brings."""
        return self.expected is TimestampSource.USER

    def __str__(self) -> str:
        if self.hardware:
            which = "PTP's events only, the others" if self._ptp_only else "where it has none"
            return f"{self.texts[TimestampSource.HARDWARE]}; {which}: {self.texts[self._software]}"
        return self.texts[self.expected]

    @property
    def must_restore(self) -> bool:
        """The NIC's setting was changed, which `close` puts back; that takes CAP_NET_ADMIN."""
        return self._switched_on is not None and bool(self._switched_on.announcement)

    def give_up_hardware(self, why: str) -> None:
        """Do without the NIC's timestamps, as the backend cannot get at them.

        Raises
        ------
        CaptureError
            They were asked for.
        """
        if self._wanted in ("hardware", "hardware:ptp"):
            raise CaptureError(
                f"{self._interface} cannot hand over hardware timestamps: {why}; use --timestamps auto, or the "
                "packet_mmap backend"
            )
        self.expected = self._software
        self._end_hardware()

    def follow(self) -> None:
        """Look after the NIC's clock; to be called a few times a second when no frames come."""
        if self._clock is not None:
            self._clock.follow()

    def convert(self, batch: FrameBatch) -> None:
        """Put the NIC's timestamps in a batch, which were just read from the ring, on UTC."""
        if self._clock is None:
            return
        timestamps = batch.storage("timestamp_ns")[: batch.count]
        by_nic = batch.timestamp_source == TimestampSource.HARDWARE
        if not self._ptp_only:
            self._clock.frames_unstamped += int(np.count_nonzero(~by_nic))
        if by_nic.all():
            timestamps[:] = self._clock.convert(timestamps)
        elif by_nic.any():
            timestamps[by_nic] = self._clock.convert(timestamps[by_nic])

    def accounts(self) -> tuple[ClockAccount, ...]:
        """Return how timestamps were converted, where any were."""
        return () if self._clock is None else (self._clock.account(),)

    def close(self) -> None:
        """Give the NIC its setting back; may be called again.

        Raises
        ------
        CaptureError
            The setting could not be put back.
        """
        try:
            self._end_hardware()
        finally:
            self._calls.close()

    def _use_hardware(self) -> None:
        """Take the NIC's timestamps; where `auto` cannot trust them, leave it."""
        abilities = TimestampingAbilities.ask(self._interface, self._calls)
        refusal = abilities.refusal(self._interface, ptp_only=self._ptp_only)
        if self._wanted == "auto":
            if refusal:
                return
            if not self._timestamps_already():
                self.remarks.append(
                    f"{self._interface} could timestamp in hardware; --timestamps hardware switches that on"
                )
                return
            try:
                self._clock = NicClock(self._interface, abilities.clock_index, self._calls)
            except CaptureError as error:
                self.remarks.append(f"hardware timestamps are not used: {error}")
                return
            if not self._clock.usable or self._clock.bound_ns > TRUSTED_BOUND_NS:
                self.remarks.append(
                    f"hardware timestamps are not used: {self._clock.name} can be compared with UTC within "
                    f"{self._clock.bound_ns} ns only; --timestamps hardware uses them"
                )
                self._end_hardware()
                return
        else:
            if refusal:
                raise CaptureError(f"{refusal}; use --timestamps auto")
            self._clock = NicClock(self._interface, abilities.clock_index, self._calls)
            if not self._clock.usable:
                raise CaptureError(f"{self._clock.name} no longer answers; use --timestamps auto")
            needs = PACKET_SOCKET_NEEDS if self._software is TimestampSource.KERNEL else af_xdp_needs()
            self._switched_on = SwitchedOnTimestamping(self._interface, self._calls, needs)
            self._switched_on.switch_on(abilities.ptp_filter if self._ptp_only else HWTSTAMP_FILTER_ALL)
            if self._switched_on.announcement:
                self.remarks.append(self._switched_on.announcement)
        self.expected = TimestampSource.HARDWARE
        self.texts[TimestampSource.HARDWARE] = self._describe(self._clock)

    def _timestamps_already(self) -> bool:
        try:
            return TimestampingSetting.read(self._interface, self._calls).rx_filter == HWTSTAMP_FILTER_ALL
        except OSError:
            return False

    def _describe(self, clock: NicClock) -> str:
        account = clock.account()
        if account.time_scale == "TAI" and not self.tai.ns:
            ahead_s = account.ahead_of_utc_ns / NANOSECONDS
            self.remarks.append(
                f"{clock.name} is {ahead_s:.6f} s ahead of CLOCK_REALTIME, as TAI is, but the kernel's TAI offset is "
                "0: timestamps are converted by comparing both clocks, so they are right where CLOCK_REALTIME shows "
                "UTC; "
                "let the time daemon set the offset (chrony: leapseclist or leapsectz)"
            )
        elif account.time_scale not in ("UTC", "TAI"):
            self.remarks.append(
                f"{clock.name} is {account.ahead_of_utc_ns / NANOSECONDS:.6f} s ahead of UTC, so nothing sets it; "
                "timestamps are converted anyway"
            )
        return (
            f"NIC clock {clock.name} on {account.time_scale}, put on UTC by {clock.method} within {clock.bound_ns} ns "
            "of CLOCK_REALTIME at the start"
        )

    def _end_hardware(self) -> None:
        if self._clock is not None:
            self._clock.close()
            if not self.hardware:
                self._clock = None
        if self._switched_on is not None:
            self._switched_on.restore()


def _refuse_other_backends_timestamps(interface: str, wanted: Timestamps, software: TimestampSource) -> None:
    if wanted == "xdp" and software is TimestampSource.KERNEL:
        raise UsageError(
            f"packet_mmap gets frames of {interface} long after the XDP hook, and without its timestamps: use "
            f"--backend "
            "af_xdp, or --timestamps kernel"
        )
    if wanted == "kernel" and software is TimestampSource.XDP:
        raise UsageError(
            f"AF_XDP takes frames of {interface} before the kernel timestamps them: use --timestamps xdp, or --backend "
            "packet_mmap"
        )
