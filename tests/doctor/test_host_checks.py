"""Checks of the host, on hosts that are made up; and on this one, that they end."""

import subprocess
from pathlib import Path

import pytest
from support.made_up_hosts import CPUS, TUNED, UNTUNED, host_files, made_up_host

from uspcap.doctor import host_checks
from uspcap.doctor.changes import Change
from uspcap.doctor.findings import HOST, Finding, Status
from uspcap.doctor.host import ClockState, Host, memory_room, read_clock_state
from uspcap.doctor.host_checks import HOST_CHECKS
from uspcap.doctor.host_files import HostFiles


def findings(host: Host) -> dict[str, Finding]:
    return {finding.name: finding for check in HOST_CHECKS for finding in check.findings(host, HOST)}


def test_tuned_host_has_nothing_to_change(tmp_path: Path) -> None:
    found = findings(made_up_host(tmp_path, TUNED))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert not any(finding.commands or finding.changes for finding in found.values())
    assert len(found) == len(HOST_CHECKS)


def test_untuned_host_gets_what_costs_latency_and_what_changes_it(tmp_path: Path) -> None:
    host = made_up_host(
        tmp_path, UNTUNED, clock=ClockState(False, 16_000_000, 0), processes=frozenset({"irqbalance", "bash"})
    )
    found = findings(host)
    assert {name: str(finding.status) for name, finding in found.items() if finding.status is not Status.OK} == {
        "bpf-jit": "warning",
        "clock-source": "warning",
        "utc": "warning",
        "tai-offset": "advice",
        "idle-states": "warning",
        "governor": "warning",
        "cpu-isolation": "advice",
        "irqbalance": "advice",
        "hyper-threads": "advice",
        "huge-pages": "advice",
        "hypervisor": "advice",
    }
    assert found["clock-source"].changes == (
        Change(
            "file",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            "",
            "hpet",
            "tsc",
        ),
    )
    assert found["idle-states"].evidence == "to wake up takes: C6 133 us"
    assert found["idle-states"].changes == (Change("file", f"{CPUS}/cpu0/cpuidle/state3/disable", "", "0", "1"),)
    assert found["governor"].evidence == "performance on 1 CPUs, powersave on 1 CPUs"
    assert [change.where for change in found["governor"].changes] == [f"{CPUS}/cpu0/cpufreq/scaling_governor"]
    # 64 MiB are 32 pages of 2 MiB, beside the 4 that are there.
    assert found["huge-pages"].commands == ("sysctl -w vm.nr_hugepages=36",)
    assert found["utc"].evidence == "not synchronised, maximum error 16,000.0 ms; no known daemon runs"
    for finding in found.values():
        assert bool(finding.consequence) == (finding.status is not Status.OK)


def test_host_that_reports_nothing_is_unknown_and_not_well(tmp_path: Path) -> None:
    found = findings(made_up_host(tmp_path, {}, clock=None))
    for name in ("bpf-jit", "clock-source", "utc", "tai-offset", "idle-states", "governor", "hyper-threads"):
        assert found[name].status is Status.UNKNOWN
        assert not found[name].changes


@pytest.mark.parametrize(
    ("release", "btf", "status", "said"),
    [
        ("5.15.0-91-generic", True, Status.PROBLEM, "6.1"),
        ("6.1.0-18-amd64", True, Status.ADVICE, "6.6"),
        ("6.6.1", False, Status.ADVICE, "BTF"),
        ("7.0-rc1", True, Status.OK, ""),
        ("", True, Status.UNKNOWN, ""),
        ("six", True, Status.UNKNOWN, ""),
        ("6.²", True, Status.UNKNOWN, ""),
    ],
)
def test_kernel_that_is_too_old_is_reported_with_what_it_lacks(
    tmp_path: Path, release: str, btf: bool, status: Status, said: str
) -> None:
    texts = {"/sys/kernel/btf/vmlinux": ""} if btf else {"/sys/kernel/other": ""}
    finding = host_checks.check_kernel(made_up_host(tmp_path, texts, release=release))
    assert (finding.status, said in finding.consequence) == (status, True)


def test_clock_state_is_what_adjtimex_shows() -> None:
    state = read_clock_state()
    assert state is not None
    shown = subprocess.run(
        ["python3", "-c", "import time; print(round(time.clock_gettime(11) - time.time()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert state.tai_offset_s == int(shown.stdout)
    assert 0 <= state.maximum_error_us <= 16_000_000


def test_this_host_is_looked_at_without_an_error() -> None:
    found = findings(Host.here(HostFiles()))
    assert len(found) == len(HOST_CHECKS)
    assert all(finding.evidence and finding.source for finding in found.values())


@pytest.mark.parametrize(
    ("path", "text", "name", "said"),
    [
        (f"{CPUS}/smt/active", "", "hyper-threads", "is empty"),
        (f"{CPUS}/smt/active", "9\n", "hyper-threads", "says '9'"),
        (f"{CPUS}/isolated", "0-99999999999\n", "cpu-isolation", "no list of CPUs"),
        (f"{CPUS}/isolated", "\ufffd\x00\x01", "cpu-isolation", "no list of CPUs"),
        ("/proc/meminfo", "HugePages_Free: 1\nHugepagesize: 0 kB\n", "huge-pages", "could not be checked"),
        ("/proc/meminfo", "HugePages_Free: ²\n", "huge-pages", "could not be checked"),
        ("/proc/cpuinfo", "processor : 0\nBogoMIPS : 50\n", "hypervisor", "no flags on this kind of machine"),
        ("/proc/sys/net/core/bpf_jit_enable", "-1\n", "bpf-jit", "says '-1'"),
        (f"{CPUS}/cpu0/cpuidle/state3/latency", "-1\n", "idle-states", "1 of 2 do not report"),
        (f"{CPUS}/cpu0/cpufreq/scaling_governor", "\n", "governor", "is empty"),
    ],
)
def test_absurd_content_is_unknown_and_nothing_is_offered(
    tmp_path: Path, path: str, text: str, name: str, said: str
) -> None:
    finding = findings(made_up_host(tmp_path, {**TUNED, path: text}))[name]
    assert finding.status is Status.UNKNOWN
    assert said in finding.evidence
    assert not finding.changes


def test_governor_that_could_not_be_restored_is_not_offered(tmp_path: Path) -> None:
    texts = {**TUNED, f"{CPUS}/cpu0/cpufreq/scaling_governor": "power save\x1b[2J\n"}
    finding = findings(made_up_host(tmp_path, texts))["governor"]
    assert (finding.status, finding.changes) == (Status.WARNING, ())


def test_daemons_that_a_container_cannot_see_are_not_said_to_be_absent(tmp_path: Path) -> None:
    container = {"/proc/self/ns/pid": "pid:[4026532999]"}
    found = findings(made_up_host(tmp_path, TUNED, processes=frozenset(), links=container))
    assert found["irqbalance"].status is Status.UNKNOWN
    assert "cannot be seen from here" in found["utc"].evidence


def test_cpus_of_an_isolated_partition_of_a_cpuset_count(tmp_path: Path) -> None:
    texts = {**TUNED, f"{CPUS}/isolated": "\n", "/sys/fs/cgroup/cpuset.cpus.isolated": "4-5\n"}
    finding = findings(made_up_host(tmp_path, texts))["cpu-isolation"]
    assert (finding.status, finding.evidence) == (Status.OK, "isolated: 4-5; without tick: 2-3")


def test_page_that_is_larger_than_all_that_is_wanted_is_not_offered(tmp_path: Path) -> None:
    meminfo = "HugePages_Total: 0\nHugePages_Free: 0\nHugepagesize: 1048576 kB\n"
    finding = findings(made_up_host(tmp_path, {**TUNED, "/proc/meminfo": meminfo}))["huge-pages"]
    assert (finding.status, finding.changes) == (Status.ADVICE, ())


@pytest.mark.parametrize(
    ("texts", "room"),
    [
        ({}, None),
        ({"/proc/meminfo": "MemAvailable:  2048 kB\n"}, 2 << 20),
        (
            {
                "/proc/meminfo": "MemAvailable:  999999999 kB\n",
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/memory.max": "100\n",
                "/sys/fs/cgroup/a/memory.current": "40\n",
                "/sys/fs/cgroup/a/b/memory.max": "max\n",
                "/sys/fs/cgroup/a/b/memory.current": "40\n",
            },
            60,
        ),
        (
            {
                "/proc/self/cgroup": "5:cpu,memory:/x\n0::/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
                "/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "50\n",
                "/sys/fs/cgroup/memory/x/memory.usage_in_bytes": "70\n",
            },
            0,
        ),
        ({"/proc/self/cgroup": "::::\n\x00\n0::/../../..\n"}, None),
    ],
)
def test_room_for_memory_is_that_of_the_narrowest_control_group(
    tmp_path: Path, texts: dict[str, str], room: int | None
) -> None:
    assert memory_room(host_files(tmp_path, texts)) == room
