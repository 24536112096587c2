"""What of a network interface matters to a capture: one function a thing, in the order in which they are shown.

References
----------
Documentation/networking/{af_xdp,scaling,timestamping,xdp-rx-metadata}.rst; ethtool(8).
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Final

from uspcap.bpf.attach import find_attached
from uspcap.doctor.changes import Change
from uspcap.doctor.driver import Driver
from uspcap.doctor.findings import Check, Finding, Status
from uspcap.doctor.host_files import HostFiles
from uspcap.errors import CaptureError
from uspcap.network.links import Link
from uspcap.pipeline.pinning import as_ranges, parse_ranges
from uspcap.report.format import duration
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import HWTSTAMP_FILTER_ALL, TimestampingAbilities, TimestampingSetting, filter_name
from uspcap.timestamps.ptp_clock import PtpClock
from uspcap.timestamps.tai import time_scale

_MOST_SHOWN: Final = 16
"""Interrupts that are listed one by one."""

XDP_FRAME_ROOM: Final = 3498
"""MTU that fits into a page with what XDP and the kernel add, on x86-64; drivers without fragments stop there."""


@dataclass(frozen=True)
class Nic:
    """What interface checks look at.

    Attributes
    ----------
    name : str
    link : Link
    driver : Driver
    files : HostFiles
    calls : KernelCalls
    processes : frozenset of str
        Names of those that run.
    cpus : frozenset of int
        That the process may run on.
    """

    name: str
    link: Link
    driver: Driver
    files: HostFiles
    calls: KernelCalls
    processes: frozenset[str]
    cpus: frozenset[int]

    @property
    def word(self) -> str:
        """Its name as a shell takes it: the kernel allows names that shells would read otherwise."""
        return shlex.quote(self.name)

    @property
    def device_path(self) -> str:
        """Of the device below /sys; empty for virtual interfaces."""
        return f"/sys/bus/{self.link.bus}/devices/{self.link.device}" if self.link.device else ""

    def finding(
        self,
        name: str,
        status: Status,
        evidence: str,
        source: str,
        consequence: str = "",
        commands: tuple[str, ...] = (),
        changes: tuple[Change, ...] = (),
    ) -> Finding:
        """Return a finding about this interface."""
        return Finding(name, status, evidence, source, consequence, commands, changes, self.name)


def check_link(nic: Nic) -> Finding:
    """Tell what kind of interface it is, and whether it is up."""
    link = nic.link
    driver = nic.files.target(f"{nic.device_path}/driver") if link.device else None
    kind = f"driver {driver or 'unknown'}, {link.bus} {link.device}" if link.device else f"virtual, {link.kind or 'lo'}"
    evidence = f"{kind}; MTU {link.mtu}; {'up' if link.up else 'down'}"
    if link.up:
        return nic.finding("link", Status.OK, evidence, "rtnetlink, /sys/bus")
    command = f"ip link set {nic.word} up"
    return nic.finding("link", Status.PROBLEM, evidence, "rtnetlink, /sys/bus", "No frame comes.", (command,))


def check_hook(nic: Nic) -> Finding:
    """Tell whether the XDP hook is free."""
    attached = find_attached(nic.link.index)
    if attached is None:
        return nic.finding("xdp-hook", Status.OK, "free", "rtnetlink, IFLA_XDP")
    name = f" ({attached.name})" if attached.name else ""
    return nic.finding(
        "xdp-hook",
        Status.PROBLEM,
        f"program {attached.program_id}{name} is attached",
        "rtnetlink, IFLA_XDP",
        "af_xdp never replaces another's program: end its owner, or use packet_mmap. What it is:",
        (f"bpftool prog show id {attached.program_id}",),
    )


def check_xdp(nic: Nic) -> Finding:
    """Tell what AF_XDP can have of the driver."""
    abilities = nic.driver.xdp(nic.name)
    source = "netdev netlink, xdp-features"
    if abilities is None:
        return nic.finding("xdp", Status.UNKNOWN, "the kernel does not report it; a capture's first line does", source)
    if not abilities.native:
        return nic.finding(
            "xdp",
            Status.ADVICE,
            "the driver has no XDP of its own",
            source,
            "af_xdp works in generic mode, behind the socket buffer: it spares the stack above, not the driver's part.",
        )
    has = [
        "declared: native XDP",
        "zero copy" if abilities.zero_copy else "no zero copy",
        "fragments" if abilities.fragments else "no fragments",
        "hardware timestamps" if abilities.timestamps else "no hardware timestamps",
    ]
    if not abilities.fragments and nic.link.mtu > XDP_FRAME_ROOM:
        return nic.finding(
            "xdp",
            Status.WARNING,
            ", ".join(has),
            source,
            f"An MTU of {nic.link.mtu} needs fragments for native XDP; af_xdp falls back to generic mode.",
            (f"ip link set {nic.word} mtu 3000",),
        )
    if not abilities.zero_copy:
        return nic.finding("xdp", Status.ADVICE, ", ".join(has), source, "The kernel copies every frame once.")
    return nic.finding("xdp", Status.OK, ", ".join(has), source)


def check_queues(nic: Nic) -> Finding:
    """Tell over how many queues traffic is spread."""
    queues = nic.driver.queues(nic.name)
    if queues is None:
        return nic.finding("receive-queues", Status.UNKNOWN, "the driver does not report it", "ethtool -l")
    spread = nic.driver.spread_over(nic.name)
    evidence = f"{queues} in use" + (f", RSS spreads over {len(spread)}" if spread else "")
    if queues <= max(1, len(nic.cpus)):
        return nic.finding("receive-queues", Status.OK, evidence, "ethtool -l, -x")
    return nic.finding(
        "receive-queues",
        Status.ADVICE,
        f"{evidence}; {len(nic.cpus)} CPUs may be used",
        "ethtool -l, -x",
        "af_xdp keeps memory for each queue and one thread reads them all. Fewer queues, or flow rules, keep the "
        "traffic of interest together.",
        (f"ethtool -L {nic.word} combined {max(1, len(nic.cpus))}",),
    )


def check_interrupts(nic: Nic) -> Finding:
    """Tell which CPUs take the interface's interrupts."""
    numbers = _interrupts(nic)
    source = "/proc/interrupts, /proc/irq/N/smp_affinity_list"
    if not numbers:
        return nic.finding("interrupts", Status.UNKNOWN, "none are reported", source)
    places = {
        number: nic.files.text(f"/proc/irq/{number}/effective_affinity_list")
        or nic.files.text(f"/proc/irq/{number}/smp_affinity_list")
        or ""
        for number in numbers
    }
    evidence = ", ".join(f"{number} on CPU {cpus or '?'}" for number, cpus in list(places.items())[:_MOST_SHOWN])
    if len(places) > _MOST_SHOWN:
        evidence += f", and {len(places) - _MOST_SHOWN} more"
    isolated = _cpu_list(nic.files.text("/sys/devices/system/cpu/isolated") or "")
    taken = {cpu for cpus in places.values() for cpu in _cpu_list(cpus)}
    disturbed = sorted(isolated & taken)
    if disturbed:
        free = sorted(_cpu_list(nic.files.text("/sys/devices/system/cpu/online") or "") - isolated)
        return nic.finding(
            "interrupts",
            Status.WARNING,
            evidence,
            source,
            f"They interrupt CPU {as_ranges(disturbed)}, which is kept free for something else.",
            tuple(f"echo {free[0]} > /proc/irq/{number}/smp_affinity_list" for number in numbers if free),
        )
    if len(numbers) > 1 and len(taken) == 1:
        return nic.finding(
            "interrupts",
            Status.ADVICE,
            evidence,
            source,
            "All queues are served by one CPU: under load it loses frames first. Spread them, one CPU a queue, as in",
            (f"echo {(min(taken) + 1) % max(1, os.cpu_count() or 1)} > /proc/irq/{numbers[-1]}/smp_affinity_list",),
        )
    return nic.finding("interrupts", Status.OK, evidence, source)


def check_rings(nic: Nic) -> Finding:
    """Tell how many frames the NIC can keep until the kernel looks."""
    rings = nic.driver.rings(nic.name)
    if rings is None or not rings.most:
        return nic.finding("receive-ring", Status.UNKNOWN, "the driver does not report it", "ethtool -g")
    evidence = f"{rings.current} of at most {rings.most}"
    if rings.current >= rings.most:
        return nic.finding("receive-ring", Status.OK, evidence, "ethtool -g")
    return nic.finding(
        "receive-ring",
        Status.ADVICE,
        evidence,
        "ethtool -g",
        "A longer ring outlasts longer pauses of its CPU; a shorter one stays in the cache. Frames that it loses are "
        "rx_missed_errors. Some drivers take the link down for the change.",
        (f"ethtool -G {nic.word} rx {rings.most}",),
        (Change("ring", nic.name, "rx", str(rings.current), str(rings.most)),),
    )


def check_coalescing(nic: Nic) -> Finding:
    """Tell how long frames wait for their interrupt."""
    setting = nic.driver.coalescing(nic.name)
    if setting is None:
        return nic.finding("coalescing", Status.UNKNOWN, "the driver does not report it", "ethtool -c")
    evidence = f"rx-usecs {setting.microseconds}, adaptive-rx {'on' if setting.adaptive else 'off'}"
    if not setting.microseconds and not setting.adaptive:
        return nic.finding("coalescing", Status.OK, evidence, "ethtool -c")
    waits = "as long as the driver chooses" if setting.adaptive else f"up to {setting.microseconds} us"
    changes = []
    if setting.adaptive:
        changes.append(Change("coalescing", nic.name, "adaptive-rx", "on", "off"))
    if setting.microseconds:
        changes.append(Change("coalescing", nic.name, "rx-usecs", str(setting.microseconds), "0"))
    return nic.finding(
        "coalescing",
        Status.WARNING,
        evidence,
        "ethtool -c",
        f"Frames wait {waits} before the NIC interrupts; software timestamps include that. Without the wait there are "
        "more interrupts.",
        (f"ethtool -C {nic.word} adaptive-rx off rx-usecs 0",),
        tuple(changes),
    )


_OFFLOADS: Final = {
    "gro": (Status.ADVICE, "packet_mmap sees merged frames, whose sizes and times are not the wire's."),
    "gro-hw": (Status.WARNING, "The NIC merges frames: no capture sees what was on the wire."),
    "lro": (Status.WARNING, "The NIC merges frames: no capture sees what was on the wire."),
    "rxvlan": (Status.ADVICE, "VLAN tags are taken out before XDP: af_xdp does not see them. packet_mmap does."),
}


def check_offloads(nic: Nic) -> list[Finding]:
    """Tell which offloads alter what is captured, and offer to switch off those that the driver lets be switched."""
    features = nic.driver.features(nic.name)
    if not features:
        return [nic.finding("offloads", Status.UNKNOWN, "the driver does not report it", "ethtool -k")]
    findings = []
    for name, (status, consequence) in _OFFLOADS.items():
        feature = features.get(name)
        if feature is None:
            continue
        evidence = f"{'on' if feature.on else 'off'}{' [fixed]' if feature.fixed else ''}"
        if not feature.on:
            findings.append(nic.finding(name, Status.OK, evidence, "ethtool -k"))
        elif feature.fixed:
            consequence += " The driver does not let it be switched off."
            findings.append(nic.finding(name, status, evidence, "ethtool -k", consequence))
        else:
            change = Change("feature", nic.name, name, "on", "off")
            command = f"ethtool -K {nic.word} {'rx-gro-hw' if name == 'gro-hw' else name} off"
            findings.append(nic.finding(name, status, evidence, "ethtool -k", consequence, (command,), (change,)))
    return findings


def check_timestamping(nic: Nic) -> Finding:
    """Tell whether the NIC timestamps frames."""
    source = "ETHTOOL_GET_TS_INFO, SIOCGHWTSTAMP"
    abilities = TimestampingAbilities.ask(nic.name, nic.calls)
    refusal = abilities.refusal(nic.name)
    if refusal:
        return nic.finding(
            "hardware-timestamps",
            Status.ADVICE,
            refusal,
            source,
            "Timestamps are the kernel's, taken after the driver.",
        )
    try:
        now = TimestampingSetting.read(nic.name, nic.calls).rx_filter
    except OSError as error:
        evidence = (
            f"can timestamp every frame; the driver does not report whether it does ({os.strerror(error.errno or 0)})"
        )
        return nic.finding("hardware-timestamps", Status.UNKNOWN, evidence, source)
    if now == HWTSTAMP_FILTER_ALL:
        return nic.finding("hardware-timestamps", Status.OK, "every received frame is timestamped", source)
    return nic.finding(
        "hardware-timestamps",
        Status.ADVICE,
        f"can timestamp every frame, timestamps {filter_name(now)}",
        source,
        "Switched on for the length of a capture, it removes the wait for the kernel from the timestamps.",
        (f"uspcap capture -i {nic.word} --timestamps hardware",),
    )


def check_clock(nic: Nic) -> Finding:
    """Tell what the NIC's clock shows, and who keeps it."""
    index = TimestampingAbilities.ask(nic.name, nic.calls).clock_index
    if index < 0:
        return nic.finding("nic-clock", Status.OK, "has none that can be read", "ETHTOOL_GET_TS_INFO")
    try:
        clock = PtpClock(index, nic.calls)
        try:
            sample = clock.sample()
        finally:
            clock.close()
    except (CaptureError, OSError) as error:
        return nic.finding("nic-clock", Status.UNKNOWN, str(error), f"/dev/ptp{index}")
    ahead_ns = sample.clock_ns - sample.utc_ns
    daemons = [name for name in ("ptp4l", "phc2sys", "chronyd") if name in nic.processes]
    evidence = (
        f"{clock.name} is {duration(ahead_ns)} ahead of this host's UTC (within {duration(sample.half_width_ns)}), "
        f"runs on {time_scale(ahead_ns)}; {' and '.join(daemons) or 'none of ptp4l, phc2sys, chronyd'} runs"
    )
    if daemons:
        return nic.finding("nic-clock", Status.OK, evidence, f"/dev/ptp{index}, {clock.method}")
    return nic.finding(
        "nic-clock",
        Status.ADVICE,
        evidence,
        f"/dev/ptp{index}, {clock.method}",
        "Nothing disciplines it. uspcap follows its drift; timestamps are as right as this host's UTC is.",
        (f"phc2sys -s {nic.word} -O 0",),
    )


def check_numa(nic: Nic) -> Finding:
    """Tell whether the NIC is close to the CPUs."""
    path = f"{nic.device_path}/numa_node"
    node = nic.files.number(path) if nic.link.device else None
    if node is None or node < 0:
        return nic.finding("numa-node", Status.OK, "of no node", path if nic.link.device else "rtnetlink")
    near = _cpu_list(nic.files.text(f"/sys/devices/system/node/node{node}/cpulist") or "")
    evidence = f"{node}; CPUs {nic.files.text(f'/sys/devices/system/node/node{node}/cpulist')}"
    if not near or nic.cpus <= near:
        return nic.finding("numa-node", Status.OK, evidence, path)
    return nic.finding(
        "numa-node",
        Status.ADVICE if near & nic.cpus else Status.WARNING,
        evidence,
        path,
        "A reader on another node fetches every frame from that node's memory.",
        (f"uspcap capture -i {nic.word} --cpu {min(near)}",),
    )


NIC_CHECKS: Final[tuple[Check[Nic], ...]] = (
    Check("link", "rtnetlink, /sys/bus", check_link),
    Check("xdp-hook", "rtnetlink, IFLA_XDP", check_hook),
    Check("xdp", "netdev netlink, xdp-features", check_xdp),
    Check("receive-queues", "ethtool -l, -x", check_queues),
    Check("interrupts", "/proc/interrupts, /proc/irq/N/smp_affinity_list", check_interrupts),
    Check("receive-ring", "ethtool -g", check_rings),
    Check("coalescing", "ethtool -c", check_coalescing),
    Check("offloads", "ethtool -k", check_offloads),
    Check("hardware-timestamps", "ETHTOOL_GET_TS_INFO, SIOCGHWTSTAMP", check_timestamping),
    Check("nic-clock", "ETHTOOL_GET_TS_INFO", check_clock),
    Check("numa-node", "/sys/bus", check_numa),
)
"""A new one goes here."""


def _interrupts(nic: Nic) -> list[int]:
    """Return the numbers of the interface's interrupts."""
    if nic.link.bus == "pci":
        names = [path.rpartition("/")[2] for path in nic.files.matching(f"{nic.device_path}/msi_irqs/*")]
        found = [int(name) for name in names if re.fullmatch(r"[0-9]{1,9}", name)]
        if found:
            return sorted(found)
    name = re.escape(nic.link.device if nic.link.bus == "virtio" else nic.name)
    table = nic.files.text("/proc/interrupts") or ""
    return [int(number) for number in re.findall(rf"^\s*([0-9]{{1,9}}):.*\s{name}(?:[-.@]\S+)?$", table, re.MULTILINE)]


def _cpu_list(text: str) -> set[int]:
    """Return the CPUs of a list as the kernel writes it; none where it is none."""
    try:
        return set(parse_ranges(text)) if text else set()
    except ValueError:
        return set()
