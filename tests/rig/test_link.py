"""Modes that cannot be had, and modes that take the link away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rig.frames import frame
from rig.nics import Nics, command
from rig.running import Capture

FRAMES = [frame(number, 60 + number * 4) for number in range(300)]


@pytest.mark.rig("virtio-no-merge")
def test_refused_zero_copy_leads_to_copy_and_is_reported(nics: Nics, tmp_path: Path) -> None:
    capture = Capture(tmp_path, nics.here, "--backend", "af_xdp", "--take-all")
    nics.wait_for_carrier()
    assert nics.send(FRAMES, pause_s=0.005) == len(FRAMES)
    assert capture.finish() == 0, capture.stderr
    assert "XDP, copy" in capture.start_line
    assert "no zero copy: zero copy" in capture.stderr
    assert capture.compared_with(FRAMES).all_exact, capture.stderr


@pytest.mark.rig("igb")
def test_start_line_comes_when_the_link_is_back_and_says_how_long_it_was_away(nics: Nics, tmp_path: Path) -> None:
    capture = Capture(tmp_path, nics.here, "--backend", "af_xdp", "--take-all")
    shown = command("ip", "link", "show", nics.here)
    code = capture.finish()
    after = command("ip", "link", "show", nics.here)
    assert "LOWER_UP" in shown
    assert "LOWER_UP" in after
    assert code == 0
    warned, *_ = capture.stderr.splitlines()
    assert f"takes the link of {nics.here} down now" in warned
    away = re.findall(r"was down for (\d+\.\d) s", capture.stderr)
    assert len(away) == 2, capture.stderr
    assert all(float(seconds) > 0 for seconds in away)


@pytest.mark.rig("igb", "vmxnet3")
def test_no_link_reset_leaves_the_link_alone(nics: Nics, tmp_path: Path) -> None:
    counter = Path(f"/sys/class/net/{nics.here}/carrier_down_count")
    before = counter.read_text()
    capture = Capture(tmp_path, nics.here, "--backend", "af_xdp", "--take-all", "--no-link-reset")
    assert nics.send(FRAMES, pause_s=0.005) == len(FRAMES)
    assert capture.finish() == 0, capture.stderr
    assert counter.read_text() == before
    assert capture.compared_with(FRAMES).all_exact, capture.stderr
    assert "away" not in capture.stderr
