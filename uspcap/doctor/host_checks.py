"""What of the host matters to a capture: one function a thing, in the order in which they are shown.

References
----------
Documentation/admin-guide/{kernel-parameters.txt,pm/cpuidle.rst,pm/cpufreq.rst} and Documentation/core-api/irq of Linux;
Documentation/networking/af_xdp.rst; capabilities(7); adjtimex(2).
"""

from __future__ import annotations

import re
from typing import Final

from uspcap.capabilities import UMEM_BYTES
from uspcap.doctor import access_checks
from uspcap.doctor.changes import Change
from uspcap.doctor.findings import Check, Finding, Status
from uspcap.doctor.host import Host
from uspcap.pipeline.pinning import parse_ranges

CPUS: Final = "/sys/devices/system/cpu"
SLOW_WAKE_US: Final = 10
"""An idle state that takes longer to leave costs more than the kernel path does."""

INITIAL_PROCESS_NAMESPACE: Final = "pid:[4026531836]"
"""What /proc/self/ns/pid of the host points to (PROC_PID_INIT_INO of linux/proc_ns.h)."""

_FAST_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
"""Read in user space, without a call into the kernel or the hypervisor."""

_TIME_DAEMONS: Final = ("chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys")
"""As /proc/PID/comm cuts them off."""


def check_kernel(host: Host) -> Finding:
    """Tell which parts of uspcap the kernel is new enough for."""
    source = "uname, /sys/kernel/btf"
    btf = host.files.exists("/sys/kernel/btf/vmlinux")
    evidence = f"Linux {host.release}, {'with' if btf else 'without'} BTF"
    numbers = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", host.release)
    if numbers is None:
        return Finding("kernel", Status.UNKNOWN, f"{evidence}: no release that begins with two numbers", source)
    version = (int(numbers[1]), int(numbers[2]))
    status, consequence = Status.OK, ""
    if version < (6, 1):
        status, consequence = Status.PROBLEM, "The XDP program needs 6.1 for its clock: use the packet_mmap backend."
    elif version < (6, 6):
        status, consequence = Status.ADVICE, "Before 6.6, AF_XDP takes no frame that is longer than a chunk."
    elif not btf:
        status, consequence = Status.ADVICE, "Hardware timestamps through XDP are found by BTF."
    return Finding("kernel", status, evidence, source, consequence)


def check_jit(host: Host) -> Finding:
    """Tell whether BPF programs are compiled."""
    path = "/proc/sys/net/core/bpf_jit_enable"
    value = host.files.number(path)
    if value is None or value < 0:
        return _unknown(host, "bpf-jit", path)
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
    if not current:
        return _unknown(host, "clock-source", path)
    if current in _FAST_CLOCKS:
        return Finding("clock-source", Status.OK, current, path)
    available = (host.files.text(f"{directory}/available_clocksource") or "").split()
    better = next((name for name in _FAST_CLOCKS if name in available), None)
    return Finding(
        "clock-source",
        Status.WARNING,
        f"{current}; there are {', '.join(available) or 'no others'}",
        path,
        "Each clock reading is a system call or leaves the virtual machine: about a microsecond, in every software "
        "timestamp.",
        (f"echo {better} > {path}",) if better else (),
        (Change("file", path, "", current, better),) if better else (),
    )


def check_time(host: Host) -> Finding:
    """Tell whether UTC can be trusted."""
    daemons = [name for name in _TIME_DAEMONS if name in host.processes]
    running = f"{' and '.join(daemons)} {'run' if len(daemons) > 1 else 'runs'}" if daemons else "no known daemon runs"
    if not daemons and not _sees_all_processes(host):
        running = "daemons of the host cannot be seen from here"
    if host.clock is None:
        return Finding("utc", Status.UNKNOWN, f"the kernel does not report it; {running}", "adjtimex")
    error = f"maximum error {host.clock.maximum_error_us / 1000:,.1f} ms"
    if host.clock.synchronised:
        return Finding("utc", Status.OK, f"synchronised, {error}; {running}", "adjtimex, /proc")
    return Finding(
        "utc",
        Status.WARNING,
        f"not synchronised, {error}; {running}",
        "adjtimex, /proc",
        "Timestamps of this host cannot be compared with another's.",
        ("apt-get install chrony",) if not daemons else ("chronyc tracking",),
    )


def check_tai(host: Host) -> Finding:
    """Tell whether the kernel knows how far TAI is ahead of UTC."""
    if host.clock is None:
        return Finding("tai-offset", Status.UNKNOWN, "the kernel does not report it", "adjtimex")
    evidence = f"CLOCK_TAI is {host.clock.tai_offset_s} s ahead of UTC"
    if host.clock.tai_offset_s:
        return Finding("tai-offset", Status.OK, evidence, "adjtimex")
    return Finding(
        "tai-offset",
        Status.ADVICE,
        evidence,
        "adjtimex",
        "CLOCK_TAI shows UTC. uspcap subtracts what the kernel has, so its timestamps are right; other tools are off "
        "by "
        "37 s here, and a daemon that starts in a capture makes CLOCK_TAI step.",
        ("echo 'leapsectz right/UTC' >> /etc/chrony/chrony.conf; systemctl restart chrony",),
    )


def check_idle_states(host: Host) -> Finding:
    """Tell how long a sleeping CPU takes to wake up."""
    pattern = f"{CPUS}/cpu[0-9]*/cpuidle/state[0-9]*"
    states = host.files.matching(pattern)
    if not states:
        driver = host.files.text(f"{CPUS}/cpuidle/current_driver") or "no driver"
        return Finding("idle-states", Status.UNKNOWN, f"none are reported ({driver}); a hypervisor hides them", pattern)
    slow: dict[str, int] = {}
    changes = []
    unclear = 0
    for state in states:
        wake_us = host.files.number(f"{state}/latency")
        disabled = host.files.text(f"{state}/disable")
        if wake_us is None or wake_us < 0 or disabled not in ("0", "1"):
            unclear += 1
        elif wake_us > SLOW_WAKE_US and disabled == "0":
            slow[host.files.text(f"{state}/name") or state] = wake_us
            changes.append(Change("file", f"{state}/disable", "", "0", "1"))
    partly = f"; {unclear} of {len(states)} do not report it" if unclear else ""
    if not slow:
        if unclear:
            evidence = (
                f"{unclear} of {len(states)} do not report how long they take to leave, or whether they are in use"
            )
            return Finding("idle-states", Status.UNKNOWN, evidence, pattern)
        return Finding("idle-states", Status.OK, f"every state is left within {SLOW_WAKE_US} us", pattern)
    waits = ", ".join(f"{name} {wake_us} us" for name, wake_us in sorted(slow.items(), key=lambda item: item[1]))
    return Finding(
        "idle-states",
        Status.WARNING,
        f"to wake up takes: {waits}{partly}",
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
    known = [value for value in governors.values() if value]
    if not known:
        return _unknown(host, "governor", next(iter(governors)))
    slow = {path: value for path, value in governors.items() if value and value != "performance"}
    evidence = ", ".join(f"{value} on {known.count(value)} CPUs" for value in sorted(set(known)))
    if len(known) < len(governors):
        evidence += f", not reported on {len(governors) - len(known)}"
    if not slow:
        status = Status.OK if len(known) == len(governors) else Status.UNKNOWN
        return Finding("governor", status, evidence, pattern)
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
    """Tell whether CPUs are kept free of other work, since boot or by a partition of control group cpuset."""
    paths = (f"{CPUS}/isolated", "/sys/fs/cgroup/cpuset.cpus.isolated")
    source = f"{', '.join(paths)}, nohz_full"
    lists = [host.files.text(path) for path in paths]
    tickless = (host.files.text(f"{CPUS}/nohz_full") or "").strip("()")
    tickless = "" if tickless == "null" else tickless
    if lists[0] is None:
        return _unknown(host, "cpu-isolation", paths[0])
    try:
        isolated = [text for text in lists if text and parse_ranges(text)]
    except ValueError as error:
        return Finding("cpu-isolation", Status.UNKNOWN, f"no list of CPUs: {error}"[:200], source)
    evidence = f"isolated: {', '.join(dict.fromkeys(isolated)) or 'none'}; without tick: {tickless or 'none'}"
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
        if not _sees_all_processes(host):
            evidence = "could not be checked, because the host's processes cannot be seen from here"
            return Finding("irqbalance", Status.UNKNOWN, evidence, "/proc")
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
    path = f"{CPUS}/smt/active"
    active = host.files.text(path)
    if active == "0":
        return Finding("hyper-threads", Status.OK, "none in use", path)
    if active != "1":
        return _unknown(host, "hyper-threads", path)
    return Finding(
        "hyper-threads",
        Status.ADVICE,
        "in use",
        path,
        "What runs on the other thread of a reader's core slows it down: leave that one idle. Which it is:",
        (f"cat {CPUS}/cpu0/topology/thread_siblings_list",),
    )


def check_huge_pages(host: Host) -> Finding:
    """Tell whether AF_XDP's memory can lie in huge pages."""
    path = "/proc/meminfo"
    text = host.files.text(path) or ""
    values = {name: int(value) for name, value in re.findall(r"^(Huge\w+):\s+([0-9]{1,15})\b", text, re.MULTILINE)}
    free, size_kib = values.get("HugePages_Free"), values.get("Hugepagesize", 0)
    if free is None or not size_kib:
        reason = host.files.why_not(path) or "it lists no huge pages"
        return Finding("huge-pages", Status.UNKNOWN, f"could not be checked, because {reason}", path)
    evidence = f"{free} of {size_kib} KiB are free"
    needed = -(-UMEM_BYTES // (size_kib << 10))
    if free >= needed:
        return Finding("huge-pages", Status.OK, evidence, path)
    total = values.get("HugePages_Total", 0)
    # Of pages that are larger than all of the memory that is wanted, not one is taken unasked.
    small = size_kib << 10 <= UMEM_BYTES
    return Finding(
        "huge-pages",
        Status.ADVICE,
        evidence,
        path,
        "AF_XDP's memory is taken from reserved huge pages where there are enough, which spares address look-ups.",
        (f"sysctl -w vm.nr_hugepages={total + needed}",),
        (Change("file", "/proc/sys/vm/nr_hugepages", "", str(total), str(total + needed)),) if small else (),
    )


def check_hypervisor(host: Host) -> Finding:
    """Tell whether the host is a virtual machine."""
    path = "/proc/cpuinfo"
    flags = re.search(r"^flags\s*:(.*)$", host.files.text(path) or "", re.MULTILINE)
    if flags is None:
        reason = host.files.why_not(path) or f"{path} has no flags on this kind of machine"
        return Finding("hypervisor", Status.UNKNOWN, f"could not be checked, because {reason}", path)
    if "hypervisor" not in flags[1].split():
        return Finding("hypervisor", Status.OK, "none", path)
    return Finding(
        "hypervisor",
        Status.ADVICE,
        "this is a virtual machine",
        "/proc/cpuinfo, flag hypervisor",
        "The hypervisor takes CPUs away unseen: the tail of every histogram has its share in it (%st in top).",
    )


HOST_CHECKS: Final[tuple[Check[Host], ...]] = (
    Check("kernel", "uname, /sys/kernel/btf", check_kernel),
    Check("capabilities", "capget", access_checks.check_capabilities),
    Check("packet-ring", "tried", access_checks.check_packet_ring),
    Check("bpf-map", "tried", access_checks.check_bpf_map),
    Check("xdp-program", "tried", access_checks.check_xdp_program),
    Check("xdp-socket", "tried", access_checks.check_xdp_socket),
    Check("locked-memory", "tried", access_checks.check_locked_memory),
    Check("bpf-jit", "/proc/sys/net/core", check_jit),
    Check("clock-source", "/sys/devices/system/clocksource", check_clock_source),
    Check("utc", "adjtimex, /proc", check_time),
    Check("tai-offset", "adjtimex", check_tai),
    Check("idle-states", CPUS, check_idle_states),
    Check("governor", CPUS, check_governor),
    Check("cpu-isolation", CPUS, check_isolation),
    Check("irqbalance", "/proc", check_irqbalance),
    Check("hyper-threads", CPUS, check_threads),
    Check("huge-pages", "/proc/meminfo", check_huge_pages),
    Check("hypervisor", "/proc/cpuinfo", check_hypervisor),
)
"""A new one goes here."""


def _unknown(host: Host, name: str, path: str) -> Finding:
    """Return the finding about a file that is missing, cannot be read, or says what it should not."""
    reason = host.files.why_not(path) or f"{path} says {host.files.text(path)!r:.60}"
    return Finding(name, Status.UNKNOWN, f"could not be checked, because {reason}", path)


def _sees_all_processes(host: Host) -> bool:
    """Whether /proc shows the processes of the whole host, and not those of a container, or of a user, only."""
    return host.files.target("/proc/self/ns/pid") == INITIAL_PROCESS_NAMESPACE and host.files.exists("/proc/1/comm")
