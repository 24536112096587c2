"""Hosts and NICs that make no sense: files that are missing, masked, empty, absurd or binary, and drivers that lie."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyroute2.ethtool.ioctl import NotSupportedError
from pyroute2.netlink.exceptions import NetlinkError
from support.made_up_hosts import (
    ALL_CAPABILITIES,
    DEVICE,
    LOOPBACK,
    NAMESPACE,
    PCI,
    TUNED,
    UNTUNED,
    MadeUpAttempts,
    explained,
)
from support.nic_kernel import NicKernel

from uspcap.doctor.attempts import Refused
from uspcap.doctor.driver import Coalescing, Feature, Rings
from uspcap.doctor.host import ClockState, Host, memory_room
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.network.links import Link
from uspcap.network.xdp_features import XdpFeatures

OF_NIC = {
    f"{DEVICE}/numa_node": "1\n",
    f"{DEVICE}/msi_irqs/120": "msix\n",
    f"{DEVICE}/msi_irqs/121": "msix\n",
    "/sys/devices/system/node/node1/cpulist": "0-15\n",
    "/sys/devices/system/cpu/online": "0-15\n",
    "/proc/irq/120/smp_affinity_list": "2\n",
    "/proc/irq/121/effective_affinity_list": "2\n",
    "/proc/interrupts": "           CPU0\n 34:  0 IR-PCI eth0-rx-1\nNMI: 0 eth0\n",
    "/proc/self/cgroup": "0::/system.slice/x\n4:memory:/y\n",
    "/sys/fs/cgroup/memory.max": "max\n",
    "/sys/fs/cgroup/system.slice/memory.max": "100000000\n",
    "/sys/fs/cgroup/system.slice/memory.current": "90000000\n",
    "/sys/fs/cgroup/cpuset.cpus.isolated": "\n",
    "/sys/fs/cgroup/cpuset.cpus.effective": "0-3\n",
    "/proc/42/comm": "irqbalance\n",
    "/proc/43/comm": "ptp4l\n",
}

_NUMBERS = (0, 1, -1, 2, 10, 255, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, 10**30)
_TEXTS = (
    *("", "\n", " ", "0", "1", "-1", "00", "0x10", "1e3", "nan", "²", "１", "max", "(null)", "null", "on", "off", "?"),
    *("0-", "-", "-3", "3-1", "0-99999999999", "0-4294967295", ",", "0,,1", "0-1-2", "2-3\n4-5", "a" * 5000),
    *("\x00", "\x00\x00\x00\x00", "\x1b[2J", "\u202e", "\ufeff1", "\r\n", "a: b: c", "HugePages_Free: -1"),
    *("Hugepagesize: 0 kB\nHugePages_Free: 1", "MemAvailable: 0 kB", "flags : hypervisor", "::::", "0::/../../etc"),
    *("9" * 400, "-" * 400, "0-1," * 3000, "$(reboot)", "; rm -rf /", "%s%n", "{}", "performance performance"),
)
_PATHS_IN_THE_WAY = ("file", "directory", "loop", "dangling", "fifo", "zero", "unreadable")
_ERRORS: tuple[Callable[[], Exception], ...] = (
    lambda: OSError(errno.EPERM, os.strerror(errno.EPERM)),
    lambda: OSError(errno.ENODEV, os.strerror(errno.ENODEV)),
    lambda: OSError(5),
    OSError,
    lambda: NetlinkError(errno.ENODEV, "No such device"),
    lambda: NotSupportedError("eth0"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    lambda: KeyError("rx-gro"),
    lambda: IndexError("invalid index"),
    lambda: AssertionError(),
    lambda: MemoryError(),
    lambda: RecursionError("maximum recursion depth exceeded"),
    lambda: ValueError("\x1b[2Jnot a number\n"),
)


def hostile_files(root: Path, choose: random.Random) -> HostFiles:
    """Write a host's /proc and /sys below `root`, some of it in no state that a kernel would leave it in."""
    texts = {**choose.choice((TUNED, UNTUNED, {})), **(OF_NIC if choose.random() < 0.7 else {})}
    gone = choose.choice((0.0, 0.1, 0.5, 1.0))
    damaged = choose.choice((0.0, 0.2, 0.8))
    for path, text in texts.items():
        if choose.random() < gone:
            continue
        file = root / path.lstrip("/")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if choose.random() < damaged:
                _put_something(file, choose)
            else:
                file.write_text(text)
        except OSError:
            continue  # Something else stands in the way by now, which is as well.
    if choose.random() < 0.5:
        _link(root / "proc/self/ns/pid", choose.choice(("pid:[4026531836]", "pid:[1]", "", "\n")) or "x")
    _link(root / DEVICE.lstrip("/") / "driver", choose.choice(("../ice", "/", ".", "\x1b[2J", "driver")))
    return HostFiles(root)


def _put_something(file: Path, choose: random.Random) -> None:
    kind = choose.choice(("text", "text", "text", "number", "bytes", *_PATHS_IN_THE_WAY))
    if kind == "directory":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "dangling":
        file.symlink_to("/nowhere/at/all")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "zero" and choose.random() < 0.05:
        file.symlink_to("/dev/zero")
    elif kind == "number":
        file.write_text(f"{choose.choice(_NUMBERS)}\n")
    elif kind == "bytes":
        file.write_bytes(choose.randbytes(choose.choice((1, 10, 300))))
    else:
        file.write_text(choose.choice(_TEXTS))
        if kind == "unreadable":
            file.chmod(0)


def _link(path: Path, target: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    except OSError:
        pass


class HostileDriver:
    """A driver whose every answer may be absurd, nothing, or an error."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._failing = choose.choice((0.0, 0.1, 0.9))
        # The first answer decides whether the interface is there at all.
        self._first = PCI if choose.random() < 0.9 else None

    def _answer(self, *answers: Callable[[], Any]) -> Any:
        if self._choose.random() < self._failing:
            raise self._choose.choice(_ERRORS)()
        return self._choose.choice(answers)()

    def _number(self) -> int:
        return self._choose.choice(_NUMBERS)

    def namespace(self) -> NetworkNamespace:
        return NAMESPACE

    def links(self) -> list[Link]:
        links: list[Link] = self._answer(
            lambda: [PCI, LOOPBACK], list, lambda: [replace(LOOPBACK, name="\udcff\x1b[2J", other_names=("a b",))]
        )
        return links

    def name_of(self, index: int) -> str | None:
        return "eth0"

    def link(self, name: str) -> Link | None:
        found, self._first = self._first, PCI
        choose = self._choose
        if found is None or choose.random() < 0.5:
            return found
        return Link(
            name="eth0",
            index=choose.choice((1, 2**31 - 1, 7)),
            kind=choose.choice(("", "veth", "\x1b[2J")),
            bus=choose.choice(("", "pci", "virtio", "../..", "*")),
            device=choose.choice(("", "0000:3b:00.0", "../../..", "**", "[", "virtio(")),
            flags=choose.getrandbits(1),
            mtu=self._number(),
        )

    def features(self, name: str) -> dict[str, Feature]:
        names = ("gro", "lro", "gro-hw", "rxvlan", "strange")
        features: dict[str, Feature] = self._answer(
            dict,
            lambda: {name: Feature(self._choose.random() < 0.5, self._choose.random() < 0.5) for name in names},
        )
        return features

    def rings(self, name: str) -> Rings | None:
        rings: Rings | None = self._answer(lambda: None, lambda: Rings(self._number(), self._number()))
        return rings

    def coalescing(self, name: str) -> Coalescing | None:
        setting: Coalescing | None = self._answer(
            lambda: None, lambda: Coalescing(self._number(), self._choose.random() < 0.5)
        )
        return setting

    def queues(self, name: str) -> int | None:
        queues: int | None = self._answer(lambda: None, self._number)
        return queues

    def spread_over(self, name: str) -> frozenset[int] | None:
        table: frozenset[int] | None = self._answer(lambda: None, frozenset, lambda: frozenset({self._number()}))
        return table

    def xdp(self, name: str) -> XdpFeatures | None:
        abilities: XdpFeatures | None = self._answer(
            lambda: None, lambda: XdpFeatures(self._choose.getrandbits(8), self._choose.getrandbits(3))
        )
        return abilities

    def set_feature(self, name: str, feature: str, on: bool) -> None:
        self._answer(lambda: None)

    def set_ring(self, name: str, entries: int) -> None:
        self._answer(lambda: None)

    def set_coalescing(self, name: str, *, microseconds: int | None = None, adaptive: bool | None = None) -> None:
        self._answer(lambda: None)


def hostile_host(root: Path, choose: random.Random) -> Host:
    """Return a host that makes no sense."""
    files = hostile_files(root, choose)
    refused = Refused(
        choose.choice(("socket(AF_XDP, SOCK_RAW)", "setsockopt(XDP_UMEM_REG) of 64 KiB", "\x1b[2J")),
        choose.choice((0, 1, 12, 13, 22, 38, 95, 97, 105, 9999)),
        choose.choice(("", "said\nmore", "\x00")),
    )
    steps = ("packet_ring", "bpf_maps", "xdp_program", "xdp_socket", "umem")
    return Host(
        release=choose.choice(("6.12.0", "", "x", "6", "6.", "6.²", "99999.99999.9", "\x1b[2J", "6.1" * 500, "-1.-1")),
        files=files,
        attempts=MadeUpAttempts(
            {step: refused for step in steps if choose.random() < 0.5}, choose.choice((None, 0, 1, 8 << 20))
        ),
        capabilities=frozenset(name for name in ALL_CAPABILITIES if choose.random() < 0.5),
        in_user_namespace=choose.random() < 0.5,
        locked_memory_bytes=choose.choice((-1, *_NUMBERS)),
        memory_room_bytes=choose.choice((None, 0, 1, 2**63, memory_room(files))),
        clock=choose.choice((None, ClockState(True, choose.choice(_NUMBERS), choose.choice(_NUMBERS)))),
        processes=files.processes(),
        explain=explained,
    )


def hostile_calls(choose: random.Random) -> NicKernel:
    """Return the ioctls of a NIC that may refuse each of them, and whose clock may show anything."""
    numbers = (0, 0, errno.EPERM, errno.EOPNOTSUPP, errno.EIO, errno.ENODEV, 9999)
    return NicKernel(
        flags=choose.getrandbits(8),
        rx_filters=choose.getrandbits(20),
        clock_index=choose.choice((-1, 0, 3, 2**31 - 1)),
        setting=(0, 1, choose.choice((0, 1, 2, 12, 99, 2**31 - 1))),
        clock_offset_ns=choose.choice((0, 37 * 10**9, -(10**18), 10**18)),
        rate_ppm=choose.choice((0.0, 1e6, -5e5)),
        methods=set(choose.sample((0x43403D05, 0xC0403D08, 0xC4C03D09), choose.randrange(4))),
        refuses_reading=choose.choice(numbers),
        refuses_clock=choose.choice(numbers),
        refuses_opening=choose.choice(numbers),
    )
