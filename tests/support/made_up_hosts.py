"""Hosts that are made up: what their /proc and /sys hold, and what their NICs' drivers answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.nic_kernel import NicKernel

from uspcap.doctor.driver import Coalescing, Link, Rings, XdpAbilities
from uspcap.doctor.host_checks import ClockState, Host
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.nic_checks import Nic

CPUS = "/sys/devices/system/cpu"
DISCIPLINED = ClockState(synchronised=True, maximum_error_us=120, tai_offset_s=37)
ALL_CAPABILITIES = frozenset({"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_IPC_LOCK"})

TUNED: Mapping[str, str] = {
    "/sys/kernel/btf/vmlinux": "",
    "/proc/sys/net/core/bpf_jit_enable": "1\n",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "/sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm\n",
    f"{CPUS}/cpu0/cpuidle/state0/name": "POLL\n",
    f"{CPUS}/cpu0/cpuidle/state0/latency": "0\n",
    f"{CPUS}/cpu0/cpuidle/state0/disable": "0\n",
    f"{CPUS}/cpu0/cpuidle/state3/name": "C6\n",
    f"{CPUS}/cpu0/cpuidle/state3/latency": "133\n",
    f"{CPUS}/cpu0/cpuidle/state3/disable": "1\n",
    f"{CPUS}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{CPUS}/isolated": "2-3\n",
    f"{CPUS}/nohz_full": "2-3\n",
    f"{CPUS}/smt/active": "0\n",
    "/proc/meminfo": "MemTotal: 1 kB\nHugePages_Total:    64\nHugePages_Free:    64\nHugepagesize:   2048 kB\n",
    "/proc/cpuinfo": "processor : 0\nflags : fpu tsc constant_tsc nonstop_tsc\n",
}
"""A host that costs no latency that can be spared."""

UNTUNED: Mapping[str, str] = {
    **TUNED,
    "/proc/sys/net/core/bpf_jit_enable": "0\n",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
    f"{CPUS}/cpu0/cpuidle/state3/disable": "0\n",
    f"{CPUS}/cpu0/cpufreq/scaling_governor": "powersave\n",
    f"{CPUS}/cpu1/cpufreq/scaling_governor": "performance\n",
    f"{CPUS}/isolated": "\n",
    f"{CPUS}/nohz_full": "(null)\n",
    f"{CPUS}/smt/active": "1\n",
    "/proc/meminfo": "HugePages_Total:    4\nHugePages_Free:    1\nHugepagesize:   2048 kB\n",
    "/proc/cpuinfo": "flags : fpu tsc hypervisor\n",
}


def host_files(root: Path, texts: Mapping[str, str], links: Mapping[str, str] | None = None) -> HostFiles:
    """Write files and symbolic links below `root`."""
    for path, text in texts.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for path, target in (links or {}).items():
        link = root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return HostFiles(root)


def made_up_host(
    root: Path,
    texts: Mapping[str, str],
    *,
    release: str = "6.12.0-1-amd64",
    capabilities: frozenset[str] = ALL_CAPABILITIES,
    locked_memory_bytes: int = -1,
    clock: ClockState | None = DISCIPLINED,
    processes: frozenset[str] = frozenset({"chronyd"}),
) -> Host:
    return Host(release, host_files(root, texts), capabilities, locked_memory_bytes, clock, processes)


@dataclass
class MadeUpDriver:
    """One NIC's driver, that keeps what it is told.

    Attributes
    ----------
    stubborn : bool
        It takes settings and does not change.
    """

    the_link: Link | None = None
    the_features: dict[str, bool] = field(default_factory=dict)
    the_rings: Rings | None = None
    the_coalescing: Coalescing | None = None
    the_queues: int | None = None
    table: frozenset[int] | None = None
    abilities: XdpAbilities | None = None
    stubborn: bool = False

    def names(self) -> list[str]:
        return ["eth0", "lo"]

    def link(self, name: str) -> Link | None:
        return self.the_link if name == "eth0" else None

    def features(self, name: str) -> dict[str, bool]:
        return dict(self.the_features)

    def rings(self, name: str) -> Rings | None:
        return self.the_rings

    def coalescing(self, name: str) -> Coalescing | None:
        return self.the_coalescing

    def queues(self, name: str) -> int | None:
        return self.the_queues

    def spread_over(self, name: str) -> frozenset[int] | None:
        return self.table

    def xdp(self, name: str) -> XdpAbilities | None:
        return self.abilities

    def set_feature(self, name: str, feature: str, on: bool) -> None:
        if not self.stubborn:
            self.the_features[feature] = on

    def set_ring(self, name: str, entries: int) -> None:
        if self.the_rings is None or entries > self.the_rings.most:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if not self.stubborn:
            self.the_rings = Rings(entries, self.the_rings.most)

    def set_coalescing(self, name: str, *, microseconds: int | None = None, adaptive: bool | None = None) -> None:
        assert self.the_coalescing is not None
        if not self.stubborn:
            now = self.the_coalescing
            self.the_coalescing = Coalescing(
                now.microseconds if microseconds is None else microseconds,
                now.adaptive if adaptive is None else adaptive,
            )


DEVICE = "/sys/bus/pci/devices/0000:3b:00.0"
PCI = Link(index=1, kind="", bus="pci", device="0000:3b:00.0", up=True, mtu=1500)


def made_up_nic(
    root: Path,
    driver: MadeUpDriver,
    *,
    texts: Mapping[str, str] | None = None,
    module: str = "ice",
    calls: NicKernel | None = None,
    processes: frozenset[str] = frozenset(),
    cpus: frozenset[int] = frozenset(range(8)),
) -> Nic:
    """Return `eth0`; where its driver has no link, it is a device on the PCI bus."""
    driver.the_link = driver.the_link or PCI
    files = host_files(root, texts or {}, {f"{DEVICE}/driver": f"../../../bus/pci/drivers/{module}"})
    return Nic("eth0", driver.the_link, driver, files, calls or NicKernel(), processes, cpus)
