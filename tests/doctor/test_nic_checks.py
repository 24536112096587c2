"""Checks of interfaces, on NICs that are made up: none of this was tried on a NIC."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.made_up_hosts import DEVICE, MadeUpDriver, made_up_nic
from support.nic_kernel import ALL, NONE, PTP_V2_EVENT, SECOND, NicKernel

from uspcap.doctor import nic_checks
from uspcap.doctor.changes import Change
from uspcap.doctor.driver import FEATURES, Coalescing, Feature, Rings
from uspcap.doctor.findings import Finding, Status
from uspcap.doctor.nic_checks import NIC_CHECKS, Nic
from uspcap.network.links import Link
from uspcap.network.xdp_features import XdpFeatures

NATIVE, ZERO_COPY, FRAGMENTS = 0b11, 1 << 3, 1 << 5


def findings(nic: Nic) -> dict[str, Finding]:
    return {finding.name: finding for check in NIC_CHECKS for finding in check.findings(nic, nic.name)}


def test_tuned_nic_has_nothing_to_change(tmp_path: Path) -> None:
    driver = MadeUpDriver(
        the_features={name: Feature(False) for name in FEATURES},
        the_rings=Rings(8160, 8160),
        the_coalescing=Coalescing(0, False),
        the_queues=2,
        table=frozenset({0, 1}),
        abilities=XdpFeatures(NATIVE | ZERO_COPY | FRAGMENTS, 1),
    )
    texts = {
        f"{DEVICE}/numa_node": "1\n",
        "/sys/devices/system/node/node1/cpulist": "0-15\n",
        f"{DEVICE}/msi_irqs/120": "msix\n",
        f"{DEVICE}/msi_irqs/121": "msix\n",
        "/proc/irq/120/smp_affinity_list": "4\n",
        "/proc/irq/121/smp_affinity_list": "5\n",
        "/sys/devices/system/cpu/isolated": "6-7\n",
    }
    kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=37 * SECOND)
    nic = made_up_nic(tmp_path, driver, texts=texts, calls=kernel, processes=frozenset({"ptp4l"}))
    found = findings(nic)
    assert {name: str(one.status) for name, one in found.items() if one.status is not Status.OK} == {}
    assert all(one.subject == "eth0" for one in found.values())
    assert found["link"].evidence == "driver ice, pci 0000:3b:00.0; MTU 1500; up"
    assert found["xdp"].evidence == "declared: native XDP, zero copy, fragments, hardware timestamps"
    assert found["interrupts"].evidence == "120 on CPU 4, 121 on CPU 5"
    assert "/dev/ptp3 (fake clock) is 37.00 s ahead" in found["nic-clock"].evidence
    assert "runs on TAI; ptp4l runs" in found["nic-clock"].evidence
    assert kernel.open_clocks == 0


def test_untuned_nic_gets_what_costs_latency_and_what_changes_it(tmp_path: Path) -> None:
    driver = MadeUpDriver(
        the_features={name: Feature(True) for name in FEATURES},
        the_rings=Rings(1024, 8192),
        the_coalescing=Coalescing(8, True),
        the_queues=63,
        abilities=XdpFeatures(NATIVE, 0),
    )
    texts = {
        f"{DEVICE}/numa_node": "1\n",
        "/sys/devices/system/node/node1/cpulist": "8-15\n",
        "/proc/interrupts": " 33:  1  2  IR-PCI-MSI-X  mlx5_comp0@pci:0000:3b:00.0\n 34:  0 0 IR-PCI eth0-rx-1\n"
        " 35:  0 0 IR-PCI eth0-rx-2\n 36: 0 0 IR-PCI eth01\n",
        "/proc/irq/34/effective_affinity_list": "3\n",
        "/proc/irq/35/effective_affinity_list": "3\n",
        "/sys/devices/system/cpu/isolated": "0,2-3\n",
        "/sys/devices/system/cpu/online": "0-3\n",
    }
    found = findings(made_up_nic(tmp_path, driver, texts=texts, module="mlx5_core", calls=NicKernel()))
    assert {name: str(one.status) for name, one in found.items()} == {
        "link": "ok",
        "xdp-hook": "ok",
        "xdp": "advice",
        "receive-queues": "advice",
        "interrupts": "warning",
        "receive-ring": "advice",
        "coalescing": "warning",
        "gro": "advice",
        "gro-hw": "warning",
        "lro": "warning",
        "rxvlan": "advice",
        "hardware-timestamps": "advice",
        "nic-clock": "advice",
        "numa-node": "warning",
    }
    assert found["coalescing"].changes == (
        Change("coalescing", "eth0", "adaptive-rx", "on", "off"),
        Change("coalescing", "eth0", "rx-usecs", "8", "0"),
    )
    assert found["receive-ring"].changes == (Change("ring", "eth0", "rx", "1024", "8192"),)
    assert found["gro-hw"].commands == ("ethtool -K eth0 rx-gro-hw off",)
    assert found["interrupts"].evidence == "34 on CPU 3, 35 on CPU 3"
    assert found["interrupts"].commands == tuple(f"echo 1 > /proc/irq/{one}/smp_affinity_list" for one in (34, 35))
    assert found["hardware-timestamps"].evidence == "can timestamp every frame, timestamps none"
    assert found["numa-node"].commands == ("uspcap capture -i eth0 --cpu 8",)
    for one in found.values():
        assert bool(one.consequence) == (one.status is not Status.OK)


def test_cloud_nic_that_reports_little_is_unknown_where_it_reports_nothing(tmp_path: Path) -> None:
    kernel = NicKernel(flags=0, rx_filters=1 << NONE, clock_index=-1)
    found = findings(made_up_nic(tmp_path, MadeUpDriver(), module="ena", calls=kernel))
    assert [name for name, one in found.items() if one.status is Status.UNKNOWN] == [
        "xdp",
        "receive-queues",
        "interrupts",
        "receive-ring",
        "coalescing",
        "offloads",
    ]
    assert found["hardware-timestamps"].evidence == "the driver of eth0 timestamps no received frames in hardware"
    assert found["nic-clock"].evidence == "has none that can be read"


def test_nic_that_timestamps_ptp_only_is_reported(tmp_path: Path) -> None:
    kernel = NicKernel(rx_filters=1 << NONE | 1 << PTP_V2_EVENT, refuses_opening=13)
    found = findings(made_up_nic(tmp_path, MadeUpDriver(), module="i40e", calls=kernel))
    assert found["hardware-timestamps"].evidence == (
        "eth0 cannot timestamp every frame, only those of ptpv2-event (for PTP alone: --timestamps hardware:ptp)"
    )
    assert found["nic-clock"].status is Status.UNKNOWN
    assert "cannot read the NIC's clock /dev/ptp3: Permission denied" in found["nic-clock"].evidence


def test_driver_without_fragments_is_warned_of_at_a_long_mtu(tmp_path: Path) -> None:
    link = Link(1, "eth0", kind="", bus="pci", device="0000:3b:00.0", flags=1, mtu=9000)
    driver = MadeUpDriver(the_link=link, abilities=XdpFeatures(NATIVE | ZERO_COPY, 0))
    finding = nic_checks.check_xdp(made_up_nic(tmp_path, driver))
    assert finding.status is Status.WARNING
    assert finding.commands == ("ip link set eth0 mtu 3000",)


def test_driver_without_xdp_leaves_the_generic_mode(tmp_path: Path) -> None:
    finding = nic_checks.check_xdp(made_up_nic(tmp_path, MadeUpDriver(abilities=XdpFeatures(0, 0))))
    assert finding.status is Status.ADVICE
    assert "generic mode" in finding.consequence


@pytest.mark.parametrize(
    ("places", "status"),
    [({"7": "0", "8": "0"}, Status.ADVICE), ({"7": "0", "8": "1"}, Status.OK), ({"7": "0-1"}, Status.OK)],
)
def test_queues_on_one_cpu_are_reported(tmp_path: Path, places: Mapping[str, str], status: Status) -> None:
    texts = {f"{DEVICE}/msi_irqs/{number}": "msix" for number in places}
    texts |= {f"/proc/irq/{number}/smp_affinity_list": cpus for number, cpus in places.items()}
    assert nic_checks.check_interrupts(made_up_nic(tmp_path, MadeUpDriver(), texts=texts)).status is status


def test_interface_that_is_down_is_a_problem(tmp_path: Path) -> None:
    driver = MadeUpDriver(the_link=Link(1, "eth0", kind="veth", bus="", device="", flags=0, mtu=1500))
    finding = nic_checks.check_link(made_up_nic(tmp_path, driver))
    assert (finding.status, finding.evidence) == (Status.PROBLEM, "virtual, veth; MTU 1500; down")
    assert finding.commands == ("ip link set eth0 up",)


def test_feature_that_the_driver_fixes_is_reported_and_not_offered(tmp_path: Path) -> None:
    driver = MadeUpDriver(
        the_features={"gro": Feature(True), "gro-hw": Feature(True, fixed=True), "lro": Feature(False, fixed=True)}
    )
    found = findings(made_up_nic(tmp_path, driver))
    assert (found["gro-hw"].status, found["gro-hw"].evidence) == (Status.WARNING, "on [fixed]")
    assert found["gro-hw"].changes == ()
    assert found["gro-hw"].commands == ()
    assert "does not let it be switched off" in found["gro-hw"].consequence
    assert (found["lro"].status, found["lro"].evidence) == (Status.OK, "off [fixed]")
    assert found["gro"].changes


@pytest.mark.parametrize("name", ["$(reboot)", "a;b", "it's", "-rf", "eth0|x"])
def test_name_that_a_shell_would_read_otherwise_is_quoted_in_commands(tmp_path: Path, name: str) -> None:
    driver = MadeUpDriver(
        the_features={name: Feature(True) for name in FEATURES},
        the_rings=Rings(1024, 8192),
        the_coalescing=Coalescing(8, True),
        the_queues=63,
    )
    nic = made_up_nic(tmp_path, driver, calls=NicKernel())
    commands = [command for finding in findings(replace(nic, name=name)).values() for command in finding.commands]
    assert len(commands) >= 7
    for command in commands:
        assert name in shlex.split(command)


def test_interface_that_vanishes_while_it_is_looked_at_leaves_rows_that_say_so(tmp_path: Path) -> None:
    driver = MadeUpDriver(the_link=Link(2**31 - 1, "eth0", kind="veth", bus="", device="", flags=1, mtu=1500))
    finding = findings(made_up_nic(tmp_path, driver))["xdp-hook"]
    assert finding.status is Status.UNKNOWN
    assert finding.evidence.startswith("could not be checked, because")


def test_table_of_interrupts_that_is_none_is_reported(tmp_path: Path) -> None:
    table = "ERR: 0 eth0\n\ufffd\x00\n: eth0\n9999999999999: eth0\n 12 eth0\n"
    driver = MadeUpDriver(the_link=Link(1, "eth0", kind="veth", bus="", device="", flags=1, mtu=1500))
    finding = nic_checks.check_interrupts(made_up_nic(tmp_path, driver, texts={"/proc/interrupts": table}))
    assert (finding.status, finding.evidence) == (Status.UNKNOWN, "none are reported")


def test_many_interrupts_are_summarized(tmp_path: Path) -> None:
    texts = {f"{DEVICE}/msi_irqs/{number}": "msix" for number in range(100, 200)}
    finding = nic_checks.check_interrupts(made_up_nic(tmp_path, MadeUpDriver(), texts=texts))
    assert finding.evidence.endswith("and 84 more")
