"""Hosts that are made up: what their /proc and /sys hold, and what their NICs' drivers answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from support.nic_kernel import NicKernel

from uspcap.capabilities import Explanation
from uspcap.doctor.attempts import Refused
from uspcap.doctor.driver import Coalescing, Feature, Rings
from uspcap.doctor.host import ClockState, Host
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.doctor.nic_checks import Nic
from uspcap.network.links import Link
from uspcap.network.xdp_features import XdpFeatures

CPUS = "/sys/devices/system/cpu"
DISCIPLINED = ClockState(synchronised=True, maximum_error_us=120, tai_offset_s=37)
ALL_CAPABILITIES = frozenset({"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_IPC_LOCK"})

HOSTS_PROCESSES: Mapping[str, str] = {"/proc/self/ns/pid": "pid:[4026531836]"}
"""Symbolic links of a /proc that shows every process of the host."""

TUNED: Mapping[str, str] = {
    "/proc/1/comm": "systemd\n",
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
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return HostFiles(root)


@dataclass
class MadeUpAttempts:
    """A kernel that grants everything but what is refused here.

    Attributes
    ----------
    refusals : dict of str to Refused
        By method of `Attempts`.
    umem_limit_bytes : int or None
        More than this is refused as the limit on locked memory does it.
    umem_asked_for : list of (int, bool)
        Sizes, and whether the caller was patient.
    """

    refusals: dict[str, Refused] = field(default_factory=dict)
    umem_limit_bytes: int | None = None
    umem_asked_for: list[tuple[int, bool]] = field(default_factory=list)

    def packet_ring(self) -> Refused | None:
        return self.refusals.get("packet_ring")

    def bpf_maps(self) -> Refused | None:
        return self.refusals.get("bpf_maps")

    def xdp_program(self) -> Refused | None:
        return self.refusals.get("xdp_program")

    def xdp_socket(self) -> Refused | None:
        return self.refusals.get("xdp_socket")

    def umem(self, size_bytes: int, *, patient: bool) -> Refused | None:
        self.umem_asked_for.append((size_bytes, patient))
        if self.umem_limit_bytes is not None and size_bytes > self.umem_limit_bytes:
            return Refused(f"setsockopt(XDP_UMEM_REG) of {size_bytes >> 10} KiB", errno.ENOBUFS)
        return self.refusals.get("umem")


def explained(needed: object, further: object) -> Explanation:
    """Stand in for `explain_refusal`."""
    return Explanation(f"{needed} missing", "ask root", ("grant it",))


def made_up_host(
    root: Path,
    texts: Mapping[str, str],
    *,
    release: str = "6.12.0-1-amd64",
    capabilities: frozenset[str] = ALL_CAPABILITIES,
    attempts: MadeUpAttempts | None = None,
    in_user_namespace: bool = False,
    locked_memory_bytes: int = -1,
    memory_room_bytes: int | None = None,
    clock: ClockState | None = DISCIPLINED,
    processes: frozenset[str] = frozenset({"chronyd"}),
    links: Mapping[str, str] | None = None,
) -> Host:
    return Host(
        release=release,
        files=host_files(root, texts, HOSTS_PROCESSES if links is None else links),
        attempts=attempts or MadeUpAttempts(),
        capabilities=capabilities,
        in_user_namespace=in_user_namespace,
        locked_memory_bytes=locked_memory_bytes,
        memory_room_bytes=memory_room_bytes,
        clock=clock,
        processes=processes,
        explain=explained,
    )


NAMESPACE = NetworkNamespace(4026531840, 1)


@dataclass
class MadeUpDriver:
    """One NIC's driver, that keeps what it is given.

    Attributes
    ----------
    name : str
        Of its interface.
    stubborn : bool
        It takes settings and does not change.
    refuses : set of str
        Settings (`gro`, `rx`, `rx-usecs`, `adaptive-rx`) that it refuses with EOPNOTSUPP.
    rounds_to : int
        It makes its ring a multiple of this.
    killed_at : str
        Telling it this setting ends the process, as SIGKILL does, after it was made.
    """

    the_link: Link | None = None
    the_features: dict[str, Feature] = field(default_factory=dict)
    the_rings: Rings | None = None
    the_coalescing: Coalescing | None = None
    the_queues: int | None = None
    table: frozenset[int] | None = None
    abilities: XdpFeatures | None = None
    the_namespace: NetworkNamespace = NAMESPACE
    name: str = "eth0"
    stubborn: bool = False
    refuses: set[str] = field(default_factory=set)
    rounds_to: int = 1
    killed_at: str = ""

    def namespace(self) -> NetworkNamespace:
        return self.the_namespace

    def links(self) -> list[Link]:
        return [link for link in (self.link(self.name), LOOPBACK) if link is not None]

    def name_of(self, index: int) -> str | None:
        return self.name if self.the_link is not None and self.the_link.index == index else None

    def link(self, name: str) -> Link | None:
        if self.the_link is None or name not in (self.name, *self.the_link.other_names):
            return None
        return replace(self.the_link, name=self.name)

    def features(self, name: str) -> dict[str, Feature]:
        return dict(self.the_features)

    def rings(self, name: str) -> Rings | None:
        return self.the_rings

    def coalescing(self, name: str) -> Coalescing | None:
        return self.the_coalescing

    def queues(self, name: str) -> int | None:
        return self.the_queues

    def spread_over(self, name: str) -> frozenset[int] | None:
        return self.table

    def xdp(self, name: str) -> XdpFeatures | None:
        return self.abilities

    def set_feature(self, name: str, feature: str, on: bool) -> None:
        self._refuse(feature)
        if not self.stubborn:
            self.the_features[feature] = Feature(on)
        self._be_killed(feature)

    def set_ring(self, name: str, entries: int) -> None:
        self._refuse("rx")
        if self.the_rings is None or entries > self.the_rings.most:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if not self.stubborn:
            self.the_rings = Rings(-(-entries // self.rounds_to) * self.rounds_to, self.the_rings.most)
        self._be_killed("rx")

    def set_coalescing(self, name: str, *, microseconds: int | None = None, adaptive: bool | None = None) -> None:
        assert self.the_coalescing is not None
        setting = "rx-usecs" if adaptive is None else "adaptive-rx"
        self._refuse(setting)
        if not self.stubborn:
            now = self.the_coalescing
            self.the_coalescing = Coalescing(
                now.microseconds if microseconds is None else microseconds,
                now.adaptive if adaptive is None else adaptive,
            )
        self._be_killed(setting)

    def _refuse(self, setting: str) -> None:
        if setting in self.refuses:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _be_killed(self, setting: str) -> None:
        if setting == self.killed_at:
            raise Killed


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the code does about errors runs."""


DEVICE = "/sys/bus/pci/devices/0000:3b:00.0"
PCI = Link(name="eth0", index=1, kind="", bus="pci", device="0000:3b:00.0", flags=1, mtu=1500)
LOOPBACK = Link(name="lo", index=3, kind="", bus="", device="", flags=1, mtu=65536)


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
