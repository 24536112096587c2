"""What of the host matters to a capture: one function a thing, in the order in which they are shown.

References
----------
Documentation/admin-guide/{kernel-parameters.txt,pm/cpuidle.rst,pm/cpufreq.rst} and Documentation/core-api/irq of Linux;
Documentation/networking/af_xdp.rst; capabilities(7); adjtimex(2).
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from uspcap.capabilities import effective_capabilities, granting_command
from uspcap.doctor.changes import Change
from uspcap.doctor.findings import Finding, Status
from uspcap.doctor.host_files import HostFiles

CPUS: Final = "/sys/devices/system/cpu"
SLOW_WAKE_US: Final = 10
"""An idle state that takes longer to leave costs more than the kernel path does."""

UMEM_BYTES: Final = 64 << 20
"""What an AF_XDP capture locks by default."""

_FAST_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
"""Read in user space, without a call into the kernel or the hypervisor."""

_TIME_DAEMONS: Final = ("chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys")
"""As /proc/PID/comm cuts them off."""


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel says of CLOCK_REALTIME (adjtimex).

    Attributes
    ----------
    synchronised : bool
    maximum_error_us : int
    tai_offset_s : int
        CLOCK_TAI minus UTC.
    """

    synchronised: bool
    maximum_error_us: int
    tai_offset_s: int


class _Timex(ctypes.Structure):
    """struct timex of linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


_STA_UNSYNC: Final = 0x40


def read_clock_state() -> ClockState | None:
    """Ask the kernel; None where it does not answer."""
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return ClockState(not timex.status & _STA_UNSYNC, timex.maxerror, timex.tai)


@dataclass(frozen=True)
class Host:
    """What host checks look at.

    Attributes
    ----------
    release : str
        Of the kernel.
    files : HostFiles
    capabilities : frozenset of str
        Effective ones.
    locked_memory_bytes : int
        Limit on locked memory; -1 for none.
    clock : ClockState, optional
    processes : frozenset of str
        Names of those that run.
    """

    release: str
    files: HostFiles
    capabilities: frozenset[str] = field(default_factory=effective_capabilities)
    locked_memory_bytes: int = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    clock: ClockState | None = field(default_factory=read_clock_state)
    processes: frozenset[str] = frozenset()


def check_kernel(host: Host) -> Finding:
    """Tell which parts of uspcap the kernel is new enough for."""
    numbers = host.release.split("-")[0].split(".")
    version = tuple(int(one) for one in numbers[:2] if one.isdigit())
    btf = host.files.text("/sys/kernel/btf/vmlinux") is not None
    evidence = f"Linux {host.release}, {'with' if btf else 'without'} BTF"
    status, consequence = Status.OK, ""
    if version < (6, 1):
        status, consequence = Status.PROBLEM, "The XDP program needs 6.1 for its clock: use the packet_mmap backend."
    elif version < (6, 6):
        status, consequence = Status.ADVICE, "Before 6.6, AF_XDP takes no frame that is longer than a chunk."
    elif not btf:
        status, consequence = Status.ADVICE, "Hardware stamps through XDP are found by BTF."
    return Finding("kernel", status, evidence, "uname, /sys/kernel/btf", consequence)


def check_capabilities(host: Host) -> Finding:
    """Tell which backends the process may use."""
    evidence = ", ".join(sorted(host.capabilities)) or "none of those that captures need"
    needed = {"packet_mmap": {"CAP_NET_RAW"}, "af_xdp": {"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"}}
    held = host.capabilities | ({"CAP_BPF"} if "CAP_SYS_ADMIN" in host.capabilities else set())
    refused = [backend for backend, names in needed.items() if not names <= held]
    source = "/proc/self/status, CapEff"
    if not refused:
        return Finding("capabilities", Status.OK, evidence, source)
    return Finding(
        "capabilities",
        Status.PROBLEM,
        evidence,
        source,
        f"Not to be had: {' and '.join(refused)}.",
        (granting_command(),),
    )


def check_locked_memory(host: Host) -> Finding:
    """Tell whether the memory of an AF_XDP socket can be locked."""
    limit = host.locked_memory_bytes
    source = "RLIMIT_MEMLOCK"
    if limit < 0 or "CAP_IPC_LOCK" in host.capabilities:
        return Finding("locked-memory", Status.OK, "no limit" if limit < 0 else "no limit with CAP_IPC_LOCK", source)
    evidence = f"{limit >> 10} KiB"
    if limit >= UMEM_BYTES:
        return Finding("locked-memory", Status.OK, evidence, source)
    return Finding(
        "locked-memory",
        Status.WARNING,
        evidence,
        source,
        f"An AF_XDP capture locks {UMEM_BYTES >> 10} KiB where -B does not ask for less.",
        ("ulimit -l unlimited",),
    )


def check_jit(host: Host) -> Finding:
    """Tell whether BPF programs are compiled."""
    path = "/proc/sys/net/core/bpf_jit_enable"
    value = host.files.number(path)
    if value is None:
        return Finding("bpf-jit", Status.UNKNOWN, "cannot be read", path)
    if value:
        return Finding("bpf-jit", Status.OK, "on", path)
    return Finding(
        "bpf-jit",
        Status.WARNING,
        "off",
        path,
        "Filters and the XDP program are interpreted, several times slower.",
        ("sysctl -w net.core.bpf_jit_enable=1",),
        (Change("file", path, "", "0", "1"),),
    )


def check_clock_source(host: Host) -> Finding:
    """Tell how long it takes to read the clock."""
    directory = "/sys/devices/system/clocksource/clocksource0"
    path = f"{directory}/current_clocksource"
    current = host.files.text(path)
    if current is None:
        return Finding("clock-source", Status.UNKNOWN, "cannot be read", path)
    if current in _FAST_CLOCKS:
        return Finding("clock-source", Status.OK, current, path)
    available = (host.files.text(f"{directory}/available_clocksource") or "").split()
    better = next((one for one in _FAST_CLOCKS if one in available), None)
    return Finding(
        "clock-source",
        Status.WARNING,
        f"{current}; there are {', '.join(available)}",
        path,
        "Each reading of the clock leaves the process or the machine: about a microsecond, in every software stamp.",
        (f"echo {better} > {path}",) if better else (),
        (Change("file", path, "", current, better),) if better else (),
    )


def check_time(host: Host) -> Finding:
    """Tell whether UTC can be trusted."""
    daemons = [name for name in _TIME_DAEMONS if name in host.processes]
    running = f"{' and '.join(daemons)} {'run' if len(daemons) > 1 else 'runs'}" if daemons else "no daemon known runs"
    if host.clock is None:
        return Finding("utc", Status.UNKNOWN, f"the kernel does not tell; {running}", "adjtimex")
    error = f"maximum error {host.clock.maximum_error_us / 1000:,.1f} ms"
    if host.clock.synchronised:
        return Finding("utc", Status.OK, f"synchronised, {error}; {running}", "adjtimex, /proc")
    return Finding(
        "utc",
        Status.WARNING,
        f"not synchronised, {error}; {running}",
        "adjtimex, /proc",
        "Stamps of this host cannot be compared with another's.",
        ("apt-get install chrony",) if not daemons else ("chronyc tracking",),
    )


def check_tai(host: Host) -> Finding:
    """Tell whether the kernel knows how far TAI is ahead of UTC."""
    if host.clock is None:
        return Finding("tai-offset", Status.UNKNOWN, "the kernel does not tell", "adjtimex")
    evidence = f"CLOCK_TAI is {host.clock.tai_offset_s} s ahead of UTC"
    if host.clock.tai_offset_s:
        return Finding("tai-offset", Status.OK, evidence, "adjtimex")
    return Finding(
        "tai-offset",
        Status.ADVICE,
        evidence,
        "adjtimex",
        "CLOCK_TAI shows UTC. uspcap subtracts what the kernel has, so its stamps are right; other tools are off by "
        "37 s here, and a daemon that starts in a capture makes CLOCK_TAI step.",
        ("echo 'leapsectz right/UTC' >> /etc/chrony/chrony.conf; systemctl restart chrony",),
    )


def check_idle_states(host: Host) -> Finding:
    """Tell how long a sleeping CPU takes to wake up."""
    pattern = f"{CPUS}/cpu[0-9]*/cpuidle/state[0-9]*"
    states = host.files.matching(pattern)
    if not states:
        driver = host.files.text(f"{CPUS}/cpuidle/current_driver") or "no driver"
        return Finding(
            "idle-states", Status.UNKNOWN, f"none are told ({driver}); a hypervisor keeps them to itself", pattern
        )
    slow: dict[str, int] = {}
    changes = []
    for state in states:
        wake_us = host.files.number(f"{state}/latency") or 0
        disabled = host.files.text(f"{state}/disable")
        if wake_us > SLOW_WAKE_US and disabled == "0":
            slow[host.files.text(f"{state}/name") or state] = wake_us
            changes.append(Change("file", f"{state}/disable", "", "0", "1"))
    if not slow:
        return Finding("idle-states", Status.OK, f"every state is left within {SLOW_WAKE_US} us", pattern)
    told = ", ".join(f"{name} {wake_us} us" for name, wake_us in sorted(slow.items(), key=lambda item: item[1]))
    return Finding(
        "idle-states",
        Status.WARNING,
        f"to wake up takes: {told}",
        pattern,
        "A CPU that waits for a frame adds this to its latency. (A program can also hold /dev/cpu_dma_latency open; "
        "who does cannot be seen.)",
        (f"cpupower idle-set -D {SLOW_WAKE_US}",),
        tuple(changes),
    )


def check_governor(host: Host) -> Finding:
    """Tell whether CPUs run at their full clock."""
    pattern = f"{CPUS}/cpu[0-9]*/cpufreq/scaling_governor"
    governors = {path: host.files.text(path) or "" for path in host.files.matching(pattern)}
    if not governors:
        return Finding("governor", Status.UNKNOWN, "CPU clocks are not the kernel's to choose here", pattern)
    slow = {path: value for path, value in governors.items() if value != "performance"}
    evidence = ", ".join(
        f"{one} on {list(governors.values()).count(one)} CPUs" for one in sorted({*governors.values()})
    )
    if not slow:
        return Finding("governor", Status.OK, evidence, pattern)
    return Finding(
        "governor",
        Status.WARNING,
        evidence,
        pattern,
        "A CPU that is idle between frames clocks down, and the next frame is handled slower.",
        ("cpupower frequency-set -g performance",),
        tuple(Change("file", path, "", value, "performance") for path, value in slow.items()),
    )


def check_isolation(host: Host) -> Finding:
    """Tell whether CPUs are kept free of other work."""
    isolated = host.files.text(f"{CPUS}/isolated") or ""
    tickless = (host.files.text(f"{CPUS}/nohz_full") or "").strip("()")
    tickless = "" if tickless == "null" else tickless
    evidence = f"isolated: {isolated or 'none'}; without tick: {tickless or 'none'}"
    source = f"{CPUS}/isolated, nohz_full"
    if isolated:
        return Finding("cpu-isolation", Status.OK, evidence, source)
    return Finding(
        "cpu-isolation",
        Status.ADVICE,
        evidence,
        source,
        "Other processes and the timer tick interrupt whoever reads frames. To keep CPUs 2 and 3 free, add "
        "'isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3' to the kernel's command line and boot; capture with --cpu 2.",
    )


def check_irqbalance(host: Host) -> Finding:
    """Tell whether interrupts stay where they are put."""
    if "irqbalance" not in host.processes:
        return Finding("irqbalance", Status.OK, "does not run", "/proc")
    return Finding(
        "irqbalance",
        Status.ADVICE,
        "runs",
        "/proc",
        "It moves the NIC's interrupts to other CPUs from time to time, a pinned reader's among them.",
        ("systemctl disable --now irqbalance",),
    )


def check_threads(host: Host) -> Finding:
    """Tell whether CPUs share their core."""
    active = host.files.text(f"{CPUS}/smt/active")
    if active is None:
        return Finding("hyper-threads", Status.UNKNOWN, "cannot be read", f"{CPUS}/smt/active")
    if active == "0":
        return Finding("hyper-threads", Status.OK, "none in use", f"{CPUS}/smt/active")
    return Finding(
        "hyper-threads",
        Status.ADVICE,
        "in use",
        f"{CPUS}/smt/active",
        "What runs on the other thread of a reader's core slows it down: leave that one idle. Which it is:",
        (f"cat {CPUS}/cpu0/topology/thread_siblings_list",),
    )


def check_huge_pages(host: Host) -> Finding:
    """Tell whether AF_XDP's memory can lie in huge pages."""
    path = "/proc/meminfo"
    lines = [line.split() for line in (host.files.text(path) or "").splitlines()]
    values = {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
    free, size_kib = values.get("HugePages_Free:"), values.get("Hugepagesize:", 2048)
    if free is None:
        return Finding("huge-pages", Status.UNKNOWN, "the kernel tells of none", path)
    evidence = f"{free} of {size_kib} KiB are free"
    needed = -(-UMEM_BYTES // (size_kib << 10))
    if free >= needed:
        return Finding("huge-pages", Status.OK, evidence, path)
    total = values.get("HugePages_Total:", 0)
    return Finding(
        "huge-pages",
        Status.ADVICE,
        evidence,
        path,
        "AF_XDP's memory is taken from reserved huge pages where there are enough, which spares address look-ups.",
        (f"sysctl -w vm.nr_hugepages={total + needed}",),
        (Change("file", "/proc/sys/vm/nr_hugepages", "", str(total), str(total + needed)),),
    )


def check_hypervisor(host: Host) -> Finding:
    """Tell whether the host is a virtual machine."""
    flags = (host.files.text("/proc/cpuinfo") or "").split()
    if "hypervisor" not in flags:
        return Finding("hypervisor", Status.OK, "none", "/proc/cpuinfo")
    return Finding(
        "hypervisor",
        Status.ADVICE,
        "this is a virtual machine",
        "/proc/cpuinfo, flag hypervisor",
        "The hypervisor takes CPUs away unseen: the tail of every histogram has its share in it (%st in top).",
    )


HOST_CHECKS: Final[tuple[Callable[[Host], Finding], ...]] = (
    check_kernel,
    check_capabilities,
    check_locked_memory,
    check_jit,
    check_clock_source,
    check_time,
    check_tai,
    check_idle_states,
    check_governor,
    check_isolation,
    check_irqbalance,
    check_threads,
    check_huge_pages,
    check_hypervisor,
)
"""Each takes the host and returns one finding; a new one goes here."""
