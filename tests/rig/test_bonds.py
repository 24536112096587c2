"""Bonds and teams: capture on them and on their members, with failover and members that come and go."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.frames import compare, frame, read_frames, send
from rig.guests import RECEIVER_MAC
from rig.nics import HERE_ADDRESS, Nics, command
from rig.running import Capture, run

BOND = "bond0"
FRAMES = [frame(number, 60 + number * 4) for number in range(300)]


@contextmanager
def bond_over(nics: Nics, mode: str, *, address: bool = False) -> Iterator[str]:
    """Have a bond with the NIC under test as its member; the NIC is as before at the end."""
    command("modprobe", "bonding", "max_bonds=0")
    command("ip", "link", "add", BOND, "type", "bond", "mode", mode, "miimon", "50")
    command("ip", "addr", "flush", "dev", nics.here)
    command("ip", "link", "set", nics.here, "down")
    command("ip", "link", "set", nics.here, "master", BOND)
    command("ip", "link", "set", BOND, "address", RECEIVER_MAC)
    command("ip", "link", "set", BOND, "up")
    if address:
        command("ip", "addr", "add", f"{HERE_ADDRESS}/24", "dev", BOND)
    try:
        wait_for_carrier(BOND)
        yield BOND
    finally:
        command("ip", "link", "delete", BOND)
        command("ip", "link", "set", nics.here, "up")
        nics.give_address()
        nics.wait_for_carrier()


def wait_for_carrier(name: str) -> None:
    until_s = time.monotonic() + 60
    while "LOWER_UP" not in command("ip", "link", "show", name) or "NO-CARRIER" in command("ip", "link", "show", name):
        assert time.monotonic() < until_s, f"{name} has no carrier"
        time.sleep(0.05)


@pytest.mark.parametrize("backend", ["af_xdp", "packet_mmap"])
@pytest.mark.parametrize("mode", ["active-backup", "balance-rr", "broadcast"])
@pytest.mark.rig("igb", "vmxnet3")
def test_every_frame_that_comes_to_a_bond_is_written(nics: Nics, mode: str, backend: str, tmp_path: Path) -> None:
    with bond_over(nics, mode) as bond:
        words = ("--take-all",) if backend == "af_xdp" else ("-Q", "in")
        capture = Capture(tmp_path, bond, "--backend", backend, *words)
        wait_for_carrier(bond)
        assert nics.send(FRAMES, pause_s=0.005) == len(FRAMES)
        code = capture.finish()
        outcome = capture.compared_with(FRAMES)
    assert outcome.all_exact, (outcome, capture.stderr)
    assert code == 0, capture.stderr


@pytest.mark.rig("igb")
def test_every_frame_that_comes_to_a_member_of_a_bond_is_written(nics: Nics, tmp_path: Path) -> None:
    with bond_over(nics, "active-backup") as bond:
        capture = Capture(tmp_path, nics.here, "--backend", "af_xdp", "--take-all")
        wait_for_carrier(bond)
        assert nics.send(FRAMES, pause_s=0.005) == len(FRAMES)
        code = capture.finish()
        outcome = capture.compared_with(FRAMES)
    assert outcome.all_exact, (outcome, capture.stderr)
    assert code == 0, capture.stderr


@pytest.mark.rig("igb")
def test_a_member_of_a_bond_that_has_the_address_is_not_taken_whole_unasked(nics: Nics, tmp_path: Path) -> None:
    with bond_over(nics, "active-backup", address=True) as bond:
        refused = run(
            *(tmp_path, "capture", "-i", nics.here, "--backend", "af_xdp", "-w", tmp_path / "taken.pcap"),
            *("--duration", "1s"),
        )
        wait_for_carrier(bond)
    assert refused.code == 2, refused.stderr
    assert "--take-all" in refused.stderr
    assert bond in refused.stderr


@pytest.mark.rig("vmxnet3")
def test_members_that_come_and_go_and_failover_lose_nothing_that_is_not_said(nics: Nics, tmp_path: Path) -> None:
    """A veth pair is the second member, with its other end on a bridge with the sender's NIC in the far namespace."""
    with bond_over(nics, "active-backup") as bond:
        command("ip", "link", "add", "spare0", "type", "veth", "peer", "name", "spare1", "netns", nics.far.name)
        try:
            nics.far.ip("link", "set", "spare1", "up")
            command("ip", "link", "set", "spare0", "down")
            command("ip", "link", "set", "spare0", "master", bond)
            wait_for_carrier("spare0")
            capture = Capture(tmp_path, bond, "--backend", "af_xdp", "--take-all")
            first, second, third = FRAMES[:100], FRAMES[100:200], FRAMES[200:]
            nics.send(first, pause_s=0.005)
            time.sleep(0.5)
            command("ip", "link", "set", BOND, "type", "bond", "active_slave", "spare0")
            time.sleep(0.5)
            with nics.far.entered():
                send("spare1", second, pause_s=0.005)
            time.sleep(0.5)
            command("ip", "link", "set", "spare0", "nomaster")
            wait_for_carrier(bond)
            time.sleep(0.5)
            nics.send(third, pause_s=0.005)
            code = capture.finish()
            outcome = compare(FRAMES, read_frames(capture.path))
        finally:
            subprocess.run(["ip", "link", "delete", "spare0"], check=False, capture_output=True)
    assert outcome.all_exact, (outcome, capture.stderr)
    assert code == 0, capture.stderr


@pytest.mark.parametrize("backend", ["af_xdp", "packet_mmap"])
@pytest.mark.rig("igb")
def test_every_frame_that_comes_to_a_team_is_written(nics: Nics, backend: str, tmp_path: Path) -> None:
    tools = Path(os.environ["USPCAP_RIG_TOOLS"])
    environment = os.environ | {"LD_LIBRARY_PATH": f"{tools}/usr/lib/x86_64-linux-gnu"}
    command("modprobe", "team")
    command("modprobe", "team_mode_activebackup")
    command("ip", "addr", "flush", "dev", nics.here)
    command("ip", "link", "set", nics.here, "down")
    configuration = f'{{"device": "team0", "runner": {{"name": "activebackup"}}, "ports": {{"{nics.here}": {{}}}}}}'
    subprocess.run(
        [tools / "usr/bin/teamd", "-d", "-c", configuration, "-p", tmp_path / "teamd.pid"], env=environment, check=True
    )
    try:
        command("ip", "link", "set", "team0", "up")
        wait_for_carrier("team0")
        words = ("--take-all",) if backend == "af_xdp" else ("-Q", "in")
        capture = Capture(tmp_path, "team0", "--backend", backend, *words)
        wait_for_carrier("team0")
        assert nics.send(FRAMES, pause_s=0.005) == len(FRAMES)
        code = capture.finish()
        outcome = capture.compared_with(FRAMES)
    finally:
        os.kill(int((tmp_path / "teamd.pid").read_text()), 15)
        until_s = time.monotonic() + 30
        while "team0" in command("ip", "-br", "link") and time.monotonic() < until_s:
            time.sleep(0.1)
        command("ip", "link", "set", nics.here, "up")
        nics.give_address()
        nics.wait_for_carrier()
    assert outcome.all_exact, (outcome, capture.stderr)
    assert code == 0, capture.stderr
