"""Timestamps of the XDP hook, whether or not a driver has room for metadata before frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.frames import frame
from rig.nics import Nics
from rig.running import Capture
from uspcap.formats import open_capture
from uspcap.frames import TimestampSource

BURST = 5000


def sources_of(path: Path) -> set[TimestampSource]:
    found: set[TimestampSource] = set()
    with open_capture(path) as reader:
        for batch in reader.batches():
            found |= {TimestampSource(int(source)) for source in set(batch.timestamp_source.tolist())}
    return found


@pytest.mark.rig("vmxnet3", "virtio", "phc", ci=("vmxnet3",))
def test_a_burst_is_written_whole_with_the_timestamps_that_the_start_line_promises(nics: Nics, tmp_path: Path) -> None:
    capture = Capture(
        tmp_path, nics.here, "--backend", "af_xdp", "--take-all", "--timestamps", "xdp", name="burst.pcapng"
    )
    nics.wait_for_carrier()
    frames = [frame(number, 60 + number % 64) for number in range(BURST)]
    # As fast as the sender can, but for pauses that let an emulated NIC empty its ring of 256.
    assert nics.send(frames, burst=128, pause_s=0.01) == BURST
    code = capture.finish()
    assert code == 0, capture.stderr
    assert capture.received == BURST, capture.stderr
    assert f"{BURST} written" in capture.accounts
    assert "XDP hook" in capture.start_line
    assert sources_of(capture.path) == {TimestampSource.XDP}, capture.stderr


@pytest.mark.rig("vmxnet3")
def test_no_frame_is_lost_to_learn_what_the_driver_can_do(nics: Nics, tmp_path: Path) -> None:
    """At a few hundred a second, too, from the first frame on."""
    capture = Capture(tmp_path, nics.here, "--backend", "af_xdp", "--take-all")
    nics.wait_for_carrier()
    frames = [frame(number, 200) for number in range(500)]
    assert nics.send(frames, burst=1, pause_s=0.004) == len(frames)
    assert capture.finish() == 0, capture.stderr
    assert capture.compared_with(frames).all_exact, capture.stderr


@pytest.mark.rig("vmxnet3", "igb", "virtio")
def test_the_nics_count_has_the_frames_that_xdp_took(nics: Nics, tmp_path: Path) -> None:
    """Or it is said that no counter has them; never 0."""
    capture = Capture(
        tmp_path, nics.here, "--backend", "af_xdp", "--take-all", "--format", "json", "--analyze", "summary"
    )
    nics.wait_for_carrier()
    frames = [frame(number, 1400) for number in range(200)]
    assert nics.send(frames, pause_s=0.01) == len(frames)
    assert capture.finish() == 0, capture.stderr
    stages = {stage["name"]: stage for stage in json.loads(capture.stdout)["source"]["accounts"]["stages"]}
    assert stages["xdp"]["received"] == len(frames)
    assert stages["nic"]["received"] in (None, len(frames)), capture.stderr
    if stages["nic"]["received"] is None:
        assert "no counter of it has the frames" in capture.stderr
