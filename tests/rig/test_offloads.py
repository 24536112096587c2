"""Features that merge frames, and drivers on which they cannot be changed."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.frames import read_frames
from rig.nics import HERE_ADDRESS, Nics, command
from rig.running import Capture, run

LONGEST = 1500 + 14 + 8


def stream(nics: Nics, total: int = 1 << 20) -> None:
    """Send a TCP stream from the far namespace to here."""
    with socket.create_server((HERE_ADDRESS, 7010)) as server:
        with nics.far.entered():
            sender = socket.create_connection((HERE_ADDRESS, 7010))
        receiver, _ = server.accept()
        with sender, receiver:
            receiver.settimeout(60)
            left = total
            sender.setblocking(False)
            unsent = bytes(total)
            while left:
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[sender.send(unsent) :]
                left -= len(receiver.recv(1 << 20))


@pytest.mark.rig("virtio-fixed-offloads")
def test_merged_frames_are_named_before_and_counted_after(nics: Nics, tmp_path: Path) -> None:
    """Here the NIC merges, and nothing that the guest does can stop it."""
    command("ethtool", "-K", nics.here, "gro", "off")
    capture = Capture(tmp_path, nics.here, "--backend", "packet_mmap", "-Q", "in", "tcp", "port", "7010")
    stream(nics)
    assert capture.finish() == 0, capture.stderr
    merged = [data for data in read_frames(capture.path) if len(data) > LONGEST]
    assert merged, "nothing was merged: this test shows nothing"
    assert "may be merged ones" in capture.stderr, capture.stderr
    assert f"frames longer than the MTU of 1500 allows, so merged or not yet cut: {len(merged)}" in capture.stderr


@pytest.mark.rig("virtio-fixed-offloads")
def test_merged_frames_are_named_in_skb_mode_too(nics: Nics, tmp_path: Path) -> None:
    capture = Capture(
        *(tmp_path, nics.here, "--backend", "af_xdp", "--xdp", "skb", "udp port 9 or (tcp port 7010 and tcp[13] = 255)")
    )
    code = capture.finish()
    assert "may be merged ones" in capture.stderr, capture.stderr
    assert code == 0


@pytest.mark.rig("virtio-fixed-offloads", "virtio", "igb")
def test_changes_of_doctor_are_what_ethtool_reads_back_and_are_undone(nics: Nics, tmp_path: Path) -> None:
    command("ethtool", "-K", nics.here, "gro", "on")
    with short_ring(nics):
        before = settings(nics.here)
        asked = json.loads(run(tmp_path, "doctor", "-i", nics.here, "--format", "json").stdout)
        of_nic = [finding for finding in asked["findings"] if finding["subject"] == nics.here]
        changeable = [finding for finding in of_nic if finding["changes"]]
        assert {"gro", "receive-ring"} <= {finding["name"] for finding in changeable}
        applied = run(tmp_path, "doctor", "-i", nics.here, "--apply", ",".join(one["name"] for one in changeable))
        after = settings(nics.here)
        undone = run(tmp_path, "doctor", "--undo")
        for change in (change for finding in changeable for change in finding["changes"]):
            assert value_of(change["what"], before) == change["before"], (change, before)
            assert value_of(change["what"], after) == change["after"], (change, applied.stderr)
        assert applied.code == 0, applied.stderr
        assert undone.code == 0, undone.stdout
        assert settings(nics.here) == before, undone.stdout
    nics.wait_for_carrier()


@pytest.mark.rig("virtio-fixed-offloads")
def test_what_the_driver_keeps_is_not_offered_and_its_refusal_leaves_the_others(nics: Nics, tmp_path: Path) -> None:
    command("ethtool", "-K", nics.here, "gro", "on")
    before = settings(nics.here)
    assert "rx-gro-hw: on [fixed]" in before
    applied = run(tmp_path, "doctor", "-i", nics.here, "--apply", "gro-hw,gro")
    after = settings(nics.here)
    run(tmp_path, "doctor", "--undo")
    assert applied.code == 1
    assert "not changed: gro-hw (on [fixed])" in applied.stderr
    assert (value_of("gro-hw", after), value_of("gro", after)) == ("on", "off")
    assert settings(nics.here) == before


@contextlib.contextmanager
def short_ring(nics: Nics) -> Iterator[None]:
    """Let the ring be shorter than it can be, so that there is something to change."""
    usual = value_of("rx", settings(nics.here))
    command("ethtool", "-G", nics.here, "rx", "256")
    nics.wait_for_carrier()
    try:
        yield
    finally:
        command("ethtool", "-G", nics.here, "rx", usual)
        nics.wait_for_carrier()


def settings(interface: str) -> str:
    """Return what ethtool says of features, rings and coalescing."""
    said = ""
    for question in ("-k", "-g", "-c"):
        with contextlib.suppress(OSError):
            said += command("ethtool", question, interface)
    return said


_AS_ETHTOOL_SAYS = {
    "gro": r"generic-receive-offload: (\w+)",
    "gro-hw": r"rx-gro-hw: (\w+)",
    "lro": r"large-receive-offload: (\w+)",
    "rxvlan": r"rx-vlan-offload: (\w+)",
    "rx": r"RX:\s+(\d+)",
    "rx-usecs": r"rx-usecs:\s+(\d+)",
    "adaptive-rx": r"Adaptive RX: (\w+)",
}


def value_of(what: str, said: str) -> str:
    """Return a setting; of the ring's two lengths, the one that it has and not the one that it can have."""
    *_, value = re.findall(_AS_ETHTOOL_SAYS[what], said)
    return str(value)
