"""What a file says of how it was made: against ethtool, and as capinfos reads it."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from support.capturing import USPCAP, Run
from support.nic_kernel import ALL, NONE, NicKernel
from support.traffic import numbered_frame
from support.veth_pairs import HERE, MakePair, Pair
from support.writer_cases import tool

from uspcap.sinks.host_facts import ETHTOOL_DRVINFO, OFFLOADS, HostFacts, NicFacts
from uspcap.timestamps.kernel_calls import KernelCalls

ETHTOOL_FEATURES = {
    "generic-receive-offload": "GRO",
    "large-receive-offload": "LRO",
    "rx-gro-hw": "GRO in hardware",
    "rx-vlan-offload": "rxvlan",
    "rx-fcs": "RX-FCS",
    "rx-all": "RX-all",
}
"""Names that ethtool(8) shows to ours."""


def ethtool(*words: str) -> dict[str, str]:
    """Return what `ethtool` prints as name: value, the last value of each name; nothing where it is refused."""
    done = subprocess.run(["ethtool", *words], capture_output=True, text=True, check=False)
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs} if done.returncode == 0 else {}


def number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def interfaces_of_this_host() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@tool("ethtool")
@pytest.mark.parametrize("name", interfaces_of_this_host())
def test_facts_are_those_that_ethtool_reads(name: str) -> None:
    calls = KernelCalls()
    facts = NicFacts.gather(name, calls)
    calls.close()
    driver = ethtool("-i", name)
    for field, value in (
        ("driver", facts.driver),
        ("version", facts.driver_version),
        ("firmware-version", facts.firmware),
        ("bus-info", facts.bus),
    ):
        assert (value or "") == driver.get(field, "").replace("N/A", "")
    assert facts.mtu == int(Path(f"/sys/class/net/{name}/mtu").read_text())
    speed = re.match(r"(\d+)Mb/s", ethtool(name).get("Speed", ""))
    assert facts.speed_mbps == (int(speed[1]) if speed else None)
    rings = ethtool("-g", name)  # the maximum comes first, so the last value is the present one
    assert facts.receive_ring == (number(rings.get("RX")) or None)
    channels = {kind.lower(): number(count) for kind, count in ethtool("-l", name).items() if number(count)}
    assert facts.channels == {kind: channels[kind] for kind in ("rx", "tx", "combined") if kind in channels}
    coalescing = ethtool("-c", name)
    if number(coalescing.get("rx-usecs")) is not None:
        assert facts.coalescing["us"] == number(coalescing["rx-usecs"])
    features = ethtool("-k", name)
    assert facts.offloads == {
        ours: features[theirs].startswith("on") for theirs, ours in ETHTOOL_FEATURES.items() if theirs in features
    }


def test_queues_and_mtu_of_an_interface_of_another_namespace(make_pair: MakePair) -> None:
    pair = make_pair(queues=3, mtu=4000)
    with pair.here.entered():
        facts = HostFacts.gather(HERE).nic
    assert facts is not None
    assert (facts.driver, facts.mtu, facts.channels["rx"]) == ("veth", 4000, 3)
    assert facts.receive_timestamping is None
    assert set(facts.offloads) <= set(OFFLOADS.values())


class DriverKernel(NicKernel):
    """A simulated NIC whose driver also says what it is."""

    def about_interface(self, name: str, request: int, payload: bytearray) -> None:
        if struct.unpack_from("=I", payload)[0] == 3 and len(payload) == 196:
            ETHTOOL_DRVINFO.pack_into(
                payload, 0, 3, b"igb", b"6.1.0\0junk", b"N/A", b"0000:01:00.0", b"", b"", *[0] * 5
            )
            return
        super().about_interface(name, request, payload)


@pytest.mark.parametrize(("rx_filter", "said"), [(ALL, "all"), (NONE, "none"), (12, "ptpv2-event")])
def test_driver_and_timestamping_are_what_the_driver_says_and_no_more(rx_filter: int, said: str) -> None:
    facts = NicFacts.gather("no-such0", DriverKernel(setting=(0, 1, rx_filter)))
    assert (facts.driver, facts.driver_version, facts.firmware, facts.bus) == ("igb", "6.1.0", None, "0000:01:00.0")
    assert facts.receive_timestamping == said
    # Of an interface that is not there, nothing else can be known, and nothing is said.
    assert (facts.mtu, facts.speed_mbps, facts.receive_ring, facts.channels, facts.offloads) == (
        None,
        None,
        None,
        {},
        {},
    )
    assert facts.lines() == [
        "interface: no-such0; driver igb 6.1.0; bus 0000:01:00.0",
        f"hardware timestamps of received frames: {said}",
    ]


def test_driver_that_answers_nothing_is_left_out() -> None:
    class Refusing(KernelCalls):
        def about_interface(self, name: str, request: int, payload: bytearray) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    calls = Refusing()
    assert NicFacts.gather("no-such0", calls).lines() == ["interface: no-such0"]
    calls.close()


def test_host_is_what_the_system_says() -> None:
    facts = HostFacts.gather()
    uname = os.uname()
    assert facts.operating_system == f"{uname.sysname} {uname.release} {uname.machine}"
    assert facts.nic is None
    assert facts.cpus_online == os.sysconf("SC_NPROCESSORS_ONLN")
    assert facts.hardware == (facts.cpu or "")
    if facts.cpu is not None:
        assert f": {facts.cpu}\n" in Path("/proc/cpuinfo").read_text()
    assert not any(uname.nodename in line for line in facts.lines() if uname.nodename not in facts.operating_system)


def test_offset_of_tai_is_the_kernels() -> None:
    for tai_s in (0, 37):
        assert HostFacts.gather(None, NicKernel(tai_s=tai_s)).tai_offset_s == tai_s


def section_of(path: Path) -> dict[str, str]:
    """Return what capinfos reads of the file itself."""
    done = subprocess.run(["capinfos", "-M", str(path)], capture_output=True, text=True, check=True)
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


@tool("capinfos")
def test_independent_reader_finds_how_a_file_was_made(pair: Pair, run: Run, tmp_path: Path) -> None:
    pair.here.ip("address", "add", "10.9.0.7/24", "dev", HERE)
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "-w", str(path), "udp", "port", "5000").ready()
    pair.send(numbered_frame(1))
    assert running.end() == 0
    section = section_of(path)
    comment = section["Capture comment"]
    release = os.uname().release
    assert section["Capture oper-sys"] == f"Linux {release} {os.uname().machine}"
    assert section["Capture application"].startswith("uspcap 0.")
    for said in (
        "here0: packet_mmap, TPACKET_V3",
        "filter: udp port 5000",
        f"kernel: Linux {release}",
        "driver veth",
        "MTU 1500",
        "GRO ",
        "TAI offset of the kernel: ",
    ):
        assert said in comment
    # Nothing that names the host or a path on it.
    link = pair.here.ip("-o", "link", "show", HERE)
    hardware_address = re.search(r"link/ether (\S+)", link)
    assert hardware_address is not None
    outside_of_frames = path.read_bytes().replace(numbered_frame(1), b"")
    assert bytes.fromhex(hardware_address[1].replace(":", "")) not in outside_of_frames
    for secret in ("10.9.0.7", hardware_address[1], str(tmp_path), os.uname().nodename):
        assert not re.search(rb"(?<![\w.-])" + re.escape(secret).encode() + rb"(?![\w.-])", outside_of_frames)


@tool("capinfos")
def test_comment_is_left_out_where_that_is_asked_for(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "--no-comment", "-w", str(path)).ready()
    pair.send(numbered_frame(1))
    assert running.end() == 0
    section = section_of(path)
    assert "Capture comment" not in section
    assert "Capture hardware" not in section
    assert section["Capture application"] == "uspcap"


@tool("capinfos")
def test_replay_says_nothing_of_this_host(tmp_path: Path) -> None:
    sample = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"
    path = tmp_path / "out.pcapng"
    words = [*USPCAP, "capture", "-r", str(sample), "--speed", "0", "-w", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    section = section_of(path)
    assert "replay, as fast as possible" in section["Capture comment"]
    assert "kernel:" not in section["Capture comment"]
    assert "Capture hardware" not in section
    assert "Capture oper-sys" not in section
