"""Checks of the host, on hosts that are made up; and on this one, that they end."""

import platform
import subprocess
from pathlib import Path

import pytest
from support.made_up_hosts import CPUS, TUNED, UNTUNED, made_up_host

from uspcap.doctor import host_checks
from uspcap.doctor.changes import Change
from uspcap.doctor.findings import Finding, Status
from uspcap.doctor.host_checks import HOST_CHECKS, ClockState, Host, read_clock_state
from uspcap.doctor.host_files import HostFiles


def findings(host: Host) -> dict[str, Finding]:
    return {finding.name: finding for finding in (check(host) for check in HOST_CHECKS)}


def test_tuned_host_has_nothing_to_change(tmp_path: Path) -> None:
    found = findings(made_up_host(tmp_path, TUNED))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert not any(finding.commands or finding.changes for finding in found.values())
    assert len(found) == len(HOST_CHECKS)


def test_untuned_host_is_told_what_costs_and_what_changes_it(tmp_path: Path) -> None:
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
    assert found["utc"].evidence == "not synchronised, maximum error 16,000.0 ms; no daemon known runs"
    for finding in found.values():
        assert bool(finding.consequence) == (finding.status is not Status.OK)


def test_host_that_tells_nothing_is_unknown_and_not_well(tmp_path: Path) -> None:
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
    ],
)
def test_kernel_that_is_too_old_is_told_for_what(
    tmp_path: Path, release: str, btf: bool, status: Status, said: str
) -> None:
    texts = {"/sys/kernel/btf/vmlinux": ""} if btf else {"/sys/kernel/other": ""}
    finding = host_checks.check_kernel(made_up_host(tmp_path, texts, release=release))
    assert (finding.status, said in finding.consequence) == (status, True)


@pytest.mark.parametrize(
    ("held", "refused"),
    [
        (frozenset[str](), "packet_mmap and af_xdp"),
        (frozenset({"CAP_NET_RAW"}), "af_xdp"),
        (frozenset({"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"}), None),
    ],
)
def test_missing_capabilities_come_with_the_command(tmp_path: Path, held: frozenset[str], refused: str | None) -> None:
    finding = host_checks.check_capabilities(made_up_host(tmp_path, {}, capabilities=held))
    if refused is None:
        assert finding.status is Status.OK
    else:
        assert finding.consequence == f"Not to be had: {refused}."
        assert finding.commands[0].startswith("setcap cap_net_admin,cap_net_raw,cap_bpf+ep /")


def test_limit_on_locked_memory_counts_without_the_capability_only(tmp_path: Path) -> None:
    for limit, held, status in (
        (8 << 20, frozenset({"CAP_NET_RAW"}), Status.WARNING),
        (64 << 20, frozenset({"CAP_NET_RAW"}), Status.OK),
        (8 << 20, frozenset({"CAP_IPC_LOCK"}), Status.OK),
        (-1, frozenset[str](), Status.OK),
    ):
        host = made_up_host(tmp_path, {}, capabilities=held, locked_memory_bytes=limit)
        assert host_checks.check_locked_memory(host).status is status


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
    files = HostFiles()
    found = findings(Host(platform.release(), files, processes=files.processes()))
    assert len(found) == len(HOST_CHECKS)
    assert all(finding.evidence and finding.source for finding in found.values())
