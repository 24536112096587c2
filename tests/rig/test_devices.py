"""Devices that the kernel puts on top of a NIC: frames come as the device has them, or its bypass is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.frames import compare, frame, read_frames, send
from rig.nics import Nics, command
from rig.running import Capture

VLAN = 5
FRAMES = [frame(number, 60 + number * 4) for number in range(300)]
BACKENDS = {"packet_mmap": ("--backend", "packet_mmap", "-Q", "in"), "af_xdp": ("--backend", "af_xdp", "--take-all")}


@contextmanager
def device(name: str, *words: str) -> Iterator[str]:
    command("ip", "link", "add", *words)
    try:
        command("ip", "link", "set", name, "up")
        yield name
    finally:
        command("ip", "link", "delete", name)


def captured(nics: Nics, tmp_path: Path, name: str, backend: str, sent: list[bytes]) -> list[bytes]:
    capture = Capture(tmp_path, name, *BACKENDS[backend])
    nics.wait_for_carrier()
    assert nics.send(sent, pause_s=0.005) == len(sent)
    assert capture.finish() == 0, capture.stderr
    return read_frames(capture.path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc", "virtio")
def test_vlan_device_gives_the_frames_of_its_vlan_without_the_tag(nics: Nics, backend: str, tmp_path: Path) -> None:
    tagged = [frame(number, len(data) + 4, tags=(VLAN,)) for number, data in enumerate(FRAMES)]
    others = [frame(1000 + number, 100, tags=(VLAN + 1,)) for number in range(50)]
    with device("vlan5", "link", nics.here, "name", "vlan5", "type", "vlan", "id", str(VLAN)) as name:
        found = captured(nics, tmp_path, name, backend, [*tagged, *others])
    outcome = compare(FRAMES, found)
    assert outcome.all_exact, outcome


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc")
def test_bridge_gives_what_its_member_received(nics: Nics, backend: str, tmp_path: Path) -> None:
    command("ip", "addr", "flush", "dev", nics.here)
    try:
        with device("bridge0", "name", "bridge0", "type", "bridge", "mcast_snooping", "0") as name:
            command("ip", "link", "set", nics.here, "master", name)
            command("ip", "link", "set", name, "address", "52:54:00:00:00:02")
            found = captured(nics, tmp_path, name, backend, FRAMES)
    finally:
        command("ip", "link", "set", nics.here, "nomaster")
        nics.give_address()
    outcome = compare(FRAMES, found)
    assert outcome.all_exact, outcome


@pytest.mark.rig("phc")
def test_ipvlan_gives_the_datagrams_to_its_address(nics: Nics, tmp_path: Path) -> None:
    command("modprobe", "ipvlan")
    with device("ipv0", "link", nics.here, "name", "ipv0", "type", "ipvlan", "mode", "l2") as name:
        capture = Capture(tmp_path, name, "--backend", "packet_mmap", "-Q", "in", "broadcast")
        broadcast = [frame(number, 100, destination="ff:ff:ff:ff:ff:ff") for number in range(50)]
        assert nics.send(broadcast, pause_s=0.01) == len(broadcast)
        assert capture.finish() == 0, capture.stderr
    outcome = compare(broadcast, read_frames(capture.path))
    assert outcome.all_exact, outcome


@pytest.mark.rig("phc")
def test_dummy_gives_what_is_sent_through_it(nics: Nics, tmp_path: Path) -> None:
    command("modprobe", "dummy", "numdummies=0")
    with device("dummy0", "name", "dummy0", "type", "dummy") as name:
        capture = Capture(tmp_path, name, "--backend", "packet_mmap", "-Q", "out")
        assert send(name, FRAMES, pause_s=0.005) == len(FRAMES)
        assert capture.finish() == 0, capture.stderr
    outcome = compare(FRAMES, read_frames(capture.path))
    assert outcome.all_exact, outcome
