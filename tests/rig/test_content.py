"""What is captured is what was sent, byte by byte: every length, tagged and not, in every mode that a driver has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rig.frames import ETHERNET_BYTES, compare, frame, of_every_length
from rig.guests import Guest
from rig.nics import Nics
from rig.running import Capture

ALL = ("igb", "virtio", "virtio-queues", "virtio-no-merge", "virtio-fixed-offloads", "vmxnet3", "e1000e", "phc")
XDP = ("zero-copy", "copy", "skb")
GRANTED = {
    "zero copy": {"zero-copy": "native XDP, zero copy", "copy": "native XDP, copy", "skb": "skb XDP, copy"},
    "copy": {"zero-copy": "native XDP, copy", "copy": "native XDP, copy", "skb": "skb XDP, copy"},
    "skb": {"zero-copy": "skb XDP, copy", "copy": "skb XDP, copy", "skb": "skb XDP, copy"},
}

MAY_REFUSE = ("virtio-no-merge", "virtio-fixed-offloads")
"""Where the device merges frames and the guest cannot stop it, virtio_net refuses native XDP."""

Note = Callable[[str, object], None]


def frames_of_all_lengths(mtu: int, step: int = 1) -> list[bytes]:
    """Untagged, tagged and double-tagged, up to the longest that a packet socket sends at that MTU."""
    frames: list[bytes] = []
    for tags, more in (((), 0), ((5,), 4), ((7, 9), 0)):
        frames += of_every_length(mtu + ETHERNET_BYTES + more, tags, first=len(frames), step=step)
    return frames


def mode_of(capture: Capture) -> str:
    """Return what was obtained, as the start line has it."""
    said = re.search(r"af_xdp, (.*?), \d+ KiB", capture.start_line)
    assert said is not None, capture.start_line
    return said[1]


@pytest.fixture
def plain(nics: Nics) -> Nics:
    """NICs that hand over tags and lengths as they are on the wire."""
    for name in ("rxvlan", "gro", "lro"):
        try:
            nics.features(**{name: "off"})
        except OSError:
            continue
    return nics


@pytest.mark.parametrize("xdp", XDP)
@pytest.mark.rig(*ALL, ci=("igb", "virtio"))
def test_af_xdp_writes_frames_of_every_length_as_they_were_sent(
    plain: Nics, guest: Guest, xdp: str, tmp_path: Path, record_property: Note
) -> None:
    capture = Capture(tmp_path, plain.here, "--backend", "af_xdp", "--take-all", "--xdp", xdp)
    plain.wait_for_carrier()
    # Elsewhere than on the NIC whose buffers are counted in KiB, lengths may be further apart.
    frames = frames_of_all_lengths(1500, 1 if guest.name == "igb" else 7)
    assert plain.send(frames, pause_s=0.004) == len(frames)
    code = capture.finish()
    outcome = capture.compared_with(frames) if capture.path.exists() else compare(frames, [])
    record_property("mode", mode_of(capture))
    record_property("frames", str(outcome))
    if guest.name == "virtio-no-merge" and xdp == "copy":
        # Its driver takes the program and never runs it, and no refusal of zero copy has shown it.
        assert code == 1
        assert "none to its XDP hook" in capture.stderr
        record_property("frames", "none: the driver never runs the program, which the capture says, with exit code 1")
        return
    if guest.name in MAY_REFUSE:
        assert " XDP, " in capture.start_line
    else:
        assert GRANTED[guest.xdp][xdp] in capture.start_line
    assert outcome.all_exact, (outcome, capture.stderr)
    assert capture.received == len(frames), capture.stderr
    assert code == 0, capture.stderr


@pytest.mark.rig(*ALL)
def test_packet_mmap_writes_frames_of_every_length_as_they_were_sent(
    plain: Nics, guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    capture = Capture(tmp_path, plain.here, "--backend", "packet_mmap", "-Q", "in")
    frames = frames_of_all_lengths(1500, 1 if guest.name == "igb" else 7)
    assert plain.send(frames, pause_s=0.004) == len(frames)
    code = capture.finish()
    outcome = capture.compared_with(frames)
    record_property("mode", "packet_mmap")
    record_property("frames", str(outcome))
    assert outcome.all_exact, (outcome, capture.stderr)
    assert code == 0, capture.stderr


@pytest.mark.parametrize("mtu", [900, 3000])
@pytest.mark.rig("igb")
def test_zero_copy_holds_the_longest_frame_of_another_mtu(
    plain: Nics, mtu: int, tmp_path: Path, record_property: Note
) -> None:
    plain.set_mtu(mtu)
    try:
        capture = Capture(tmp_path, plain.here, "--backend", "af_xdp", "--take-all")
        plain.wait_for_carrier()
        frames = frames_of_all_lengths(mtu)
        assert plain.send(frames, pause_s=0.004) == len(frames)
        code = capture.finish()
        outcome = capture.compared_with(frames)
        record_property("mode", f"native XDP, zero copy, MTU {mtu}")
        record_property("frames", str(outcome))
        assert "zero copy" in capture.start_line
        assert outcome.all_exact, (outcome, capture.stderr)
        assert code == 0, capture.stderr
    finally:
        plain.set_mtu(1500)


@pytest.mark.rig("igb")
def test_a_frame_longer_than_the_mtu_is_never_cut_without_a_word(
    plain: Nics, tmp_path: Path, record_property: Note
) -> None:
    """The sender may have a longer MTU than the interface that captures; the NIC drops what is far too long."""
    plain.set_mtu(900)
    plain.far.ip("link", "set", plain.there, "mtu", "2500")
    try:
        capture = Capture(tmp_path, plain.here, "--backend", "af_xdp", "--take-all")
        plain.wait_for_carrier()
        frames = [frame(number, length) for number, length in enumerate(range(800, 2400, 16))]
        assert plain.send(frames, pause_s=0.004) == len(frames)
        code = capture.finish()
        outcome = capture.compared_with(frames)
        said = re.search(rf"the driver of {plain.here} cut (\d+) frames", capture.stderr)
        assert said is not None, (outcome, capture.stderr)
        record_property("mode", f"{mode_of(capture)}, MTU 900, the sender's 2500")
        record_property("frames", f"{outcome.exact} exact, {said[1]} cut in two: the capture says so, with exit code 1")
        assert outcome.other == 2 * int(said[1]) > 0, (outcome, capture.stderr)
        assert code == 1
    finally:
        plain.set_mtu(1500)
