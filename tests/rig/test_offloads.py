"""Features that merge frames, and drivers on which they cannot be changed."""

from __future__ import annotations

import contextlib
import socket
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
def test_changes_of_doctor_are_made_told_and_undone(nics: Nics, tmp_path: Path) -> None:
    """What is `[fixed]` is refused in one sentence, what is not is changed, as ethtool says."""
    before = command("ethtool", "-k", nics.here)
    applied = run(tmp_path, "doctor", "-i", nics.here, "--apply", "gro,gro-hw")
    after = command("ethtool", "-k", nics.here)
    undone = run(tmp_path, "doctor", "-i", nics.here, "--undo")
    assert "Traceback" not in applied.stderr + undone.stderr
    assert "generic-receive-offload: off" in after, (applied.stdout, applied.stderr)
    if "rx-gro-hw: on [fixed]" in before:
        assert "rx-gro-hw: on [fixed]" in after
        assert applied.code != 0
    assert command("ethtool", "-k", nics.here) == before, (undone.stdout, undone.stderr)
