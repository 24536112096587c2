"""How the host and its NIC are set up: what a capture file says of how it was made.

Nothing here names the host: no host name, no address, no path. What cannot be read is None, or missing in a mapping;
nothing is guessed.

References
----------
linux/ethtool.h; linux/net_tstamp.h; draft-ietf-opsawg-pcapng, section 4.1 (shb_hardware, shb_os, opt_comment).
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

from uspcap.backends.base import LiveSource
from uspcap.backends.network_interface import NetworkInterface, ask_driver
from uspcap.errors import CaptureError
from uspcap.frames import NANOSECONDS
from uspcap.network.channels import SIOCETHTOOL
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import TimestampingSetting, filter_name
from uspcap.timestamps.tai import tai_offset_ns
from uspcap.version import __version__

ETHTOOL_GDRVINFO: Final = 0x3
ETHTOOL_DRVINFO: Final = struct.Struct("=I32s32s32s32s32s12s5I")
"""struct ethtool_drvinfo: cmd, driver, version, fw_version, bus_info, erom_version, reserved, five counts."""

_DUPLEX: Final = {0: "half", 1: "full"}
_UNKNOWN_SPEED: Final = 0xFFFFFFFF

OFFLOADS: Final = {
    "rx-gro": "GRO",
    "rx-lro": "LRO",
    "rx-gro-hw": "GRO in hardware",
    "rx-vlan-hw-parse": "rxvlan",
    "rx-fcs": "RX-FCS",
    "rx-all": "RX-all",
}
"""Kernel's name to ours: what alters frames before a capture sees them, or adds to them."""

_COALESCING: Final = {
    "rx_coalesce_usecs": "us",
    "rx_max_coalesced_frames": "frames",
}

_CLOCKSOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


@dataclass(frozen=True, slots=True)
class NicFacts:
    """One network interface; each field is None, or empty, where the driver does not tell.

    Attributes
    ----------
    name : str
    driver, driver_version, firmware, bus : str or None
        As `ethtool -i` shows them; the bus address is that of the slot, as 0000:00:03.0.
    mtu : int or None
        Bytes.
    speed_mbps : int or None
        Megabits a second of the link as it is.
    duplex : str or None
        half or full.
    receive_ring, receive_ring_most : int or None
        Descriptors of each receive ring, and how many it could have.
    channels : mapping of str to int
        Queues in use by kind (rx, tx, combined), without those that are 0.
    coalescing : mapping of str to int
        Of reception: `us` and `frames` after which an interrupt comes, `adaptive` 1 where the driver adapts them.
    offloads : mapping of str to bool
        By the names in `OFFLOADS`.
    receive_timestamping : str or None
        Which received frames the NIC timestamps now, as `hwstamp_ctl` names the filter.
    """

    name: str
    driver: str | None = None
    driver_version: str | None = None
    firmware: str | None = None
    bus: str | None = None
    mtu: int | None = None
    speed_mbps: int | None = None
    duplex: str | None = None
    receive_ring: int | None = None
    receive_ring_most: int | None = None
    channels: Mapping[str, int] = field(default_factory=dict)
    coalescing: Mapping[str, int] = field(default_factory=dict)
    offloads: Mapping[str, bool] = field(default_factory=dict)
    receive_timestamping: str | None = None

    @classmethod
    def gather(cls, name: str, calls: KernelCalls) -> NicFacts:
        """Ask the kernel and the driver about an interface of the calling thread's network namespace."""
        driver, version, firmware, bus = _driver(name, calls)
        speed_mbps, duplex = _link(name)
        rings = ask_driver(name, "get_rings")
        return cls(
            name=name,
            driver=driver,
            driver_version=version,
            firmware=firmware,
            bus=bus,
            mtu=_mtu(name),
            speed_mbps=speed_mbps,
            duplex=duplex,
            receive_ring=None if rings is None else int(rings.rx) or None,
            receive_ring_most=None if rings is None else int(rings.rx_max) or None,
            channels=_channels(ask_driver(name, "get_channels")),
            coalescing=_coalescing(ask_driver(name, "get_coalesce")),
            offloads=_offloads(ask_driver(name, "get_features")),
            receive_timestamping=_receive_timestamping(name, calls),
        )

    def lines(self) -> list[str]:
        """Return what is known, one line a subject."""
        card = [f"interface: {self.name}"]
        if self.driver:
            card.append(f"driver {self.driver}" + (f" {self.driver_version}" if self.driver_version else ""))
        card += [f"{what} {value}" for what, value in (("firmware", self.firmware), ("bus", self.bus)) if value]
        if self.mtu is not None:
            card.append(f"MTU {self.mtu}")
        if self.speed_mbps is not None:
            card.append(f"{self.speed_mbps} Mb/s" + (f" {self.duplex} duplex" if self.duplex else ""))
        queues = []
        if self.receive_ring is not None:
            most = f" of at most {self.receive_ring_most}" if self.receive_ring_most else ""
            queues.append(f"receive rings of {self.receive_ring}{most} descriptors")
        if self.channels:
            queues.append("channels " + ", ".join(f"{kind} {count}" for kind, count in self.channels.items()))
        if self.coalescing:
            parts = [f"{self.coalescing[unit]} {unit}" for unit in _COALESCING.values() if unit in self.coalescing]
            parts.append("adaptive" if self.coalescing.get("adaptive") else "not adaptive")
            queues.append(f"interrupts after {', '.join(parts)}")
        said = ["; ".join(card)]
        if queues:
            said.append(f"queues: {'; '.join(queues)}")
        if self.offloads:
            states = (f"{offload} {'on' if active else 'off'}" for offload, active in self.offloads.items())
            said.append(f"offloads: {', '.join(states)}")
        if self.receive_timestamping is not None:
            said.append(f"hardware timestamps of received frames: {self.receive_timestamping}")
        return said


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host at one moment, and one of its interfaces.

    Attributes
    ----------
    operating_system : str
        Kernel with its release and the machine's kind, as Linux 6.1.0 x86_64.
    cpu : str or None
        Model of the first CPU.
    cpus_online : int or None
    clocksource : str or None
        What the kernel reads time from, as tsc.
    tai_offset_s : int
        CLOCK_TAI minus CLOCK_REALTIME: 37 since 2017 where a time daemon has set it, 0 where none has.
    nic : NicFacts or None
    """

    operating_system: str
    cpu: str | None
    cpus_online: int | None
    clocksource: str | None
    tai_offset_s: int
    nic: NicFacts | None = None

    @classmethod
    def gather(cls, interface: str | None = None, calls: KernelCalls | None = None) -> HostFacts:
        """Ask the host, and the driver of one interface where one is named.

        Parameters
        ----------
        interface : str, optional
        calls : KernelCalls, optional
            Closed only where none was given.
        """
        ours = KernelCalls() if calls is None else calls
        try:
            return cls(
                operating_system=f"{platform.system()} {platform.release()} {platform.machine()}",
                cpu=_cpu_model(),
                cpus_online=os.cpu_count(),
                clocksource=_first_line(_CLOCKSOURCE),
                tai_offset_s=tai_offset_ns(ours) // NANOSECONDS,
                nic=None if interface is None else NicFacts.gather(interface, ours),
            )
        finally:
            if calls is None:
                ours.close()

    @property
    def hardware(self) -> str:
        """What a capture file's shb_hardware says; empty where nothing is known."""
        return self.cpu or ""

    def lines(self) -> list[str]:
        """Return what is known, one line a subject."""
        kernel = f"kernel: {self.operating_system}"
        processor = [f"CPU: {self.cpu}"] if self.cpu else []
        if self.cpus_online is not None:
            processor.append(f"{self.cpus_online} CPUs online")
        clock = [f"clocksource: {self.clocksource}"] if self.clocksource else []
        clock.append(f"TAI offset of the kernel: {self.tai_offset_s} s")
        return ["; ".join([kernel, *processor]), "; ".join(clock), *([] if self.nic is None else self.nic.lines())]


class SectionTexts(TypedDict, total=False):
    """Arguments of `uspcap.formats.writer.open_writer`: what a file's section header says."""

    comment: str
    hardware: str
    operating_system: str
    application: str


def section_texts(source: LiveSource, expression: str) -> SectionTexts:
    """Return what a capture file says of how it was made.

    Parameters
    ----------
    source : LiveSource
        Of a replay, only what it is: this host has not made its frames.
    expression : str
        The filter; empty for none.
    """
    description = source.describe()
    application = f"uspcap {__version__}"
    comment = [str(description), f"filter: {expression or 'none'}"]
    if not source.counts_an_interface:
        return {"comment": "\n".join(comment), "application": application}
    first, *others = description.each or (description,)
    facts = HostFacts.gather(first.what)
    lines = facts.lines()
    with closing(KernelCalls()) as calls:
        lines += [line for other in others for line in NicFacts.gather(other.what, calls).lines()]
    return {
        "comment": "\n".join([*comment, *lines]),
        "hardware": facts.hardware,
        "operating_system": facts.operating_system,
        "application": application,
    }


def _driver(name: str, calls: KernelCalls) -> tuple[str | None, str | None, str | None, str | None]:
    """Return driver, version, firmware and bus address, each None where it is not reported."""
    payload = bytearray(ETHTOOL_DRVINFO.size)
    struct.pack_into("=I", payload, 0, ETHTOOL_GDRVINFO)
    try:
        calls.about_interface(name, SIOCETHTOOL, payload)
    except OSError:
        return None, None, None, None
    _, driver, version, firmware, bus, *_ = ETHTOOL_DRVINFO.unpack(payload)
    return _text(driver), _text(version), _text(firmware), _text(bus)


def _text(field_bytes: bytes) -> str | None:
    """Return a string of the kernel's; None for the ways in which drivers say that there is none."""
    text = field_bytes.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
    return None if text in ("", "N/A", "n/a") else text


def _mtu(name: str) -> int | None:
    try:
        return NetworkInterface.look_up(name).mtu
    except CaptureError:
        return None


def _link(name: str) -> tuple[int | None, str | None]:
    """Return speed in Mb/s and duplex."""
    settings = ask_driver(name, "get_link_settings")
    if settings is None:
        return None, None
    speed = int(settings.speed)
    return (None if speed in (0, _UNKNOWN_SPEED) else speed), _DUPLEX.get(int(settings.duplex))


def _channels(answer: Any) -> dict[str, int]:
    if answer is None:
        return {}
    counts = {kind: int(getattr(answer, f"{kind}_count")) for kind in ("rx", "tx", "combined")}
    return {kind: count for kind, count in counts.items() if count}


def _coalescing(answer: Any) -> dict[str, int]:
    if answer is None:
        return {}
    delays = {unit: int(getattr(answer, attribute)) for attribute, unit in _COALESCING.items()}
    return {**delays, "adaptive": int(answer.use_adaptive_rx_coalesce)}


def _offloads(features: Any) -> dict[str, bool]:
    active = {known_as: bool(on) for known_as, on, *_ in features or ()}
    return {offload: active[known_as] for known_as, offload in OFFLOADS.items() if known_as in active}


def _receive_timestamping(name: str, calls: KernelCalls) -> str | None:
    try:
        return filter_name(TimestampingSetting.read(name, calls).rx_filter)
    except OSError:
        return None


def _cpu_model() -> str | None:
    """Return what the kernel calls the first CPU; on arm64 it has no name for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        what, _, value = line.partition(":")
        if what.strip() == "model name" and value.strip():
            return value.strip()
    return None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
