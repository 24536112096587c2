"""What a NIC can timestamp, and switching its timestamping on for the length of a capture.

The setting is the interface's, not the process's: `ptp4l` and others use it too. It is therefore changed only where
that was asked for, saved before, read back after (a driver may choose a wider filter than asked for, or refuse), and
put back at the end.

References
----------
linux/net_tstamp.h (struct hwtstamp_config); linux/ethtool.h (struct ethtool_ts_info);
Documentation/networking/timestamping.rst, section 3.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from uspcap.capabilities import explain_missing
from uspcap.errors import CaptureError, PermissionDenied
from uspcap.network.channels import SIOCETHTOOL
from uspcap.signals import before_the_end
from uspcap.timestamps.kernel_calls import KernelCalls

# linux/sockios.h and linux/ethtool.h.
SIOCSHWTSTAMP: Final = 0x89B0
SIOCGHWTSTAMP: Final = 0x89B1
ETHTOOL_GET_TS_INFO: Final = 0x41

# linux/net_tstamp.h.
SOF_TIMESTAMPING_RX_HARDWARE: Final = 1 << 2
HWTSTAMP_FILTER_ALL: Final = 1
_PTP_FILTERS: Final = (12, 6, 9, HWTSTAMP_FILTER_ALL)
"""Events of PTP version 2: over whatever; over UDP; over Ethernet; and every frame, where there is no other."""
_FILTERS: Final = (
    *("none", "all", "some", "ptpv1-l4-event", "ptpv1-l4-sync", "ptpv1-l4-delay-req", "ptpv2-l4-event"),
    *("ptpv2-l4-sync", "ptpv2-l4-delay-req", "ptpv2-l2-event", "ptpv2-l2-sync", "ptpv2-l2-delay-req"),
    *("ptpv2-event", "ptpv2-sync", "ptpv2-delay-req", "ntp-all"),
)
"""Names of enum hwtstamp_rx_filters, as ethtool(8) shows them."""

ETHTOOL_TS_INFO: Final = struct.Struct("=IIiI3II3I")
HWTSTAMP_CONFIG: Final = struct.Struct("=iii")


def filter_name(rx_filter: int) -> str:
    """Return what ethtool calls a receive filter."""
    return _FILTERS[rx_filter] if 0 <= rx_filter < len(_FILTERS) else f"filter {rx_filter}"


@dataclass(frozen=True, slots=True)
class TimestampingAbilities:
    """What the driver says that it can do.

    Attributes
    ----------
    receives_in_hardware : bool
        It timestamps received frames. That it does not claim to hand over raw timestamps
        (SOF_TIMESTAMPING_RAW_HARDWARE) means nothing: packet sockets and XDP programs still get them.
    clock_index : int
        Of /dev/ptp<index>; -1 where the NIC has no clock that can be read.
    rx_filters : int
        Bit n: it has receive filter n.
    """

    receives_in_hardware: bool
    clock_index: int
    rx_filters: int

    @classmethod
    def ask(cls, interface: str, calls: KernelCalls) -> TimestampingAbilities:
        """Ask the driver; one that does not answer has none."""
        payload = bytearray(ETHTOOL_TS_INFO.size)
        ETHTOOL_TS_INFO.pack_into(payload, 0, ETHTOOL_GET_TS_INFO, *[0] * 10)
        try:
            calls.about_interface(interface, SIOCETHTOOL, payload)
        except OSError:
            return cls(False, -1, 0)
        _, flags, clock_index, _, _, _, _, rx_filters, *_ = ETHTOOL_TS_INFO.unpack(payload)
        return cls(bool(flags & SOF_TIMESTAMPING_RX_HARDWARE), clock_index, rx_filters)

    @property
    def timestamps_all(self) -> bool:
        """It can timestamp every received frame, not only PTP's."""
        return self.receives_in_hardware and bool(self.rx_filters >> HWTSTAMP_FILTER_ALL & 1)

    @property
    def ptp_filter(self) -> int:
        """The receive filter that has all of PTP's events and as little else as the NIC can; 0 where it has none."""
        return next((one for one in _PTP_FILTERS if self.rx_filters >> one & 1), 0)

    def refusal(self, interface: str, *, ptp_only: bool = False) -> str:
        """Return why frames of `interface` cannot be timestamped in hardware and put on UTC; empty where they can.

        Parameters
        ----------
        interface : str
        ptp_only : bool
            PTP's events are enough.
        """
        if not self.receives_in_hardware:
            return f"the driver of {interface} timestamps no received frames in hardware"
        known = ", ".join(filter_name(one) for one in range(1, 32) if self.rx_filters >> one & 1)
        if ptp_only and not self.ptp_filter:
            return f"{interface} cannot timestamp the events of PTP, only frames of {known or 'no filter'}"
        if not ptp_only and not self.timestamps_all:
            ptp = " (for PTP alone: --timestamps hardware:ptp)" if self.ptp_filter else ""
            return f"{interface} cannot timestamp every frame, only those of {known or 'no filter'}{ptp}"
        if self.clock_index < 0:
            return (
                f"{interface} timestamps, but has no clock that can be read (/dev/ptp), so its timestamps have no date"
            )
        return ""


@dataclass(frozen=True, slots=True)
class TimestampingSetting:
    """struct hwtstamp_config of an interface."""

    flags: int
    tx_type: int
    rx_filter: int

    @classmethod
    def read(cls, interface: str, calls: KernelCalls) -> TimestampingSetting:
        """Read the present setting; raises OSError where the driver cannot tell."""
        payload = bytearray(HWTSTAMP_CONFIG.size)
        calls.about_interface(interface, SIOCGHWTSTAMP, payload)
        return cls(*HWTSTAMP_CONFIG.unpack(payload))

    def write(self, interface: str, calls: KernelCalls) -> None:
        """Ask the driver for this setting; raises OSError where it refuses."""
        calls.about_interface(
            interface, SIOCSHWTSTAMP, bytearray(HWTSTAMP_CONFIG.pack(self.flags, self.tx_type, self.rx_filter))
        )


class SwitchedOnTimestamping:
    """Receive timestamping of all frames of an interface, from `switch_on` until `restore`.

    Signals that would end the process (SIGINT, SIGTERM, SIGHUP) put the setting back first, unless another than
    `uspcap.signals` handles them. A process that is killed (SIGKILL) cannot.

    Parameters
    ----------
    interface : str
    calls : KernelCalls
    further_needs : sequence of str
        Capabilities that the capture needs next, for the message where this is refused.

    Attributes
    ----------
    announcement : str
        What was changed; empty where nothing had to be.
    """

    def __init__(self, interface: str, calls: KernelCalls, further_needs: Sequence[str] = ()) -> None:
        self._interface = interface
        self._further_needs = further_needs
        self._calls = calls
        self._before: TimestampingSetting | None = None
        self._now: TimestampingSetting | None = None
        self._forget: Callable[[], None] = lambda: None
        self.announcement = ""

    def switch_on(self, rx_filter: int = HWTSTAMP_FILTER_ALL) -> None:
        """Have every received frame timestamped, or those of another filter.

        Raises
        ------
        PermissionDenied
            CAP_NET_ADMIN is missing.
        CaptureError
            The driver refuses, or does less; the setting is then as before.
        """
        interface, calls = self._interface, self._calls
        try:
            before = TimestampingSetting.read(interface, calls)
        except OSError as error:
            raise CaptureError(
                f"the driver of {interface} does not report how it timestamps now ({os.strerror(error.errno or 0)}), "
                "so that could not be restored after a change; use --timestamps auto"
            ) from error
        if before.rx_filter in (HWTSTAMP_FILTER_ALL, rx_filter):
            return
        wanted = "every frame" if rx_filter == HWTSTAMP_FILTER_ALL else filter_name(rx_filter)
        # From here on there is something to put back, whenever this is interrupted.
        self._before = before
        self._forget = before_the_end(self.restore, handle=True)
        try:
            replace(before, rx_filter=rx_filter).write(interface, calls)
            self._now = TimestampingSetting.read(interface, calls)
        except OSError as error:
            self.restore()
            if error.errno == errno.EPERM:
                explained = explain_missing(["CAP_NET_ADMIN"], self._further_needs)
                raise PermissionDenied(
                    f"cannot switch on hardware timestamping of {interface}: {explained}",
                    errno.EPERM,
                ) from None
            raise CaptureError(
                f"the driver of {interface} refuses to timestamp {wanted} ({os.strerror(error.errno or 0)}); use "
                "--timestamps auto"
            ) from error
        obtained = filter_name(self._now.rx_filter)
        if self._now.rx_filter not in (HWTSTAMP_FILTER_ALL, rx_filter):
            self.restore()
            raise CaptureError(
                f"{interface} was asked to timestamp {wanted} and timestamps {obtained} instead; use --timestamps auto"
            )
        self.announcement = (
            f"hardware timestamping of frames that {interface} receives was switched from "
            f"{filter_name(before.rx_filter)} to {obtained}, and will be switched back"
        )

    def restore(self) -> None:
        """Put the setting back, unless another process has changed it meanwhile; may be called again.

        Raises
        ------
        CaptureError
            The driver refuses.
        """
        before, self._before = self._before, None
        if before is None:
            return
        try:
            now = TimestampingSetting.read(self._interface, self._calls)
            if now != before and self._now in (None, now):
                before.write(self._interface, self._calls)
        except OSError as error:
            if error.errno == errno.ENODEV:  # The interface is gone, and its setting with it.
                return
            raise CaptureError(
                f"cannot switch hardware timestamping of {self._interface} back to {filter_name(before.rx_filter)} "
                f"({os.strerror(error.errno or 0)}): do it with 'hwstamp_ctl -i {self._interface} "
                f"-r {before.rx_filter} -t {before.tx_type}'"
            ) from error
        finally:
            self._forget()
