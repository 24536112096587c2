"""Which mode of AF_XDP is tried on which driver, and what is said of it; veth stands in for drivers by their names."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from support.traffic import numbered_frame, receive
from support.veth_pairs import HERE, Pair

from uspcap.backends.af_xdp.source import AfXdpSource, BestXdp
from uspcap.backends.base import FRAMES_THAT_TELL
from uspcap.backends.declaration import Request
from uspcap.backends.driver_facts import FRAMES_OF_OTHERS, LINK_LEFT_ALONE, LINK_TAKEN_DOWN
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.opening import open_source
from uspcap.errors import CaptureError

pytestmark = pytest.mark.usefixtures("kernel_bpf")


def named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("uspcap.backends.af_xdp.source.driver_of", lambda interface: name)


@pytest.mark.parametrize(("best", "mode"), [("zero-copy", "native"), ("copy", "native"), ("skb", "skb")])
def test_best_way_that_is_asked_for_is_the_first_tried(pair: Pair, best: BestXdp, mode: str) -> None:
    with pair.here.entered(), AfXdpSource(HERE, best=best) as source:
        assert source.describe().mode.startswith(f"{mode} XDP, copy")
        refused = [remark for remark in source.describe().remarks if remark.startswith("no zero copy")]
        assert bool(refused) == (best == "zero-copy")
        pair.send(numbered_frame(1))
        received, _ = receive(source, 1)
    assert received.frames == [numbered_frame(1)]


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("veth", "native", ""),
        ("igb", "skb", "igb takes the link down for it, which --no-link-reset refuses"),
        ("unheard_of", "skb", "unheard_of may take the link down for it, which --no-link-reset refuses"),
        ("", "skb", "the driver may take the link down for it, which --no-link-reset refuses"),
    ],
)
def test_native_xdp_is_left_to_drivers_that_leave_the_link_alone_where_it_must_stay(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, name: str, mode: str, said: str
) -> None:
    named(monkeypatch, name)
    with pair.here.entered(), AfXdpSource(HERE, link_reset=False) as source:
        description = source.describe()
    assert description.mode.startswith(f"{mode} XDP")
    assert any(said in remark for remark in description.remarks) or not said


@pytest.mark.parametrize("name", FRAMES_OF_OTHERS)
def test_native_xdp_that_hands_over_frames_of_others_is_not_used(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    named(monkeypatch, name)
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert source.describe().mode.startswith("skb XDP")
        assert f"native XDP is not used: {FRAMES_OF_OTHERS[name]}" in source.describe().remarks
        pair.send(numbered_frame(1))
        received, _ = receive(source, 1)
    assert received.frames == [numbered_frame(1)]


def test_who_uses_the_interface_is_named_before_its_link_is_taken_down(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.here.ip("addr", "add", "192.0.2.1/24", "dev", HERE)
    said: list[str] = []
    for name in ("veth", "igb"):
        named(monkeypatch, name)
        with pair.here.entered(), AfXdpSource(HERE, take_all=True, announce=said.append):
            pass
    (line,) = said
    assert "192.0.2.1" in line
    assert "igb takes the link of here0 down now, and again at the end" in line


def test_no_driver_both_leaves_the_link_alone_and_takes_it_down() -> None:
    assert not LINK_LEFT_ALONE & LINK_TAKEN_DOWN


def test_refusal_that_shows_that_programs_are_not_run_leads_to_skb_mode(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """virtio_net says ENOENT to zero copy where it would take a program and not run it; veth says EOPNOTSUPP."""
    look_up = NetworkInterface.look_up
    monkeypatch.setattr(NetworkInterface, "look_up", lambda name: replace(look_up(name), xdp=None))
    named(monkeypatch, "virtio_net")
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert source.describe().mode.startswith("native XDP")
    monkeypatch.setattr("uspcap.backends.driver_facts.errno.ENOENT", errno.EOPNOTSUPP)
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert source.describe().mode.startswith("skb XDP")
        assert any("virtio_net runs no program" in remark for remark in source.describe().remarks)


def test_hook_that_sees_nothing_of_what_comes_ends_the_capture(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair.here.entered(), AfXdpSource(HERE) as source:
        monkeypatch.setattr(source._maps, "frames_seen", lambda: 0)
        pair.send(*[numbered_frame(number) for number in range(FRAMES_THAT_TELL)])
        with pytest.raises(CaptureError, match="none to its XDP hook"):
            for _ in source.batches(0.02):
                pass


def test_frames_that_came_before_the_hook_was_there_do_not_end_the_capture(pair: Pair) -> None:
    pair.send(*[numbered_frame(number) for number in range(100)])
    with pair.here.entered(), AfXdpSource(HERE) as source:
        batches = source.batches(1.1)
        assert next(batches) is None
        assert next(batches) is None


@pytest.mark.parametrize("backend", ["af_xdp", "packet_mmap"])
def test_frames_longer_than_the_mtu_allows_are_counted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Merged frames are longer than any on the wire; here the longest is made to be shorter."""
    monkeypatch.setattr("uspcap.backends.rings.longest_frame_bytes", lambda mtu: 100)
    request = Request(interfaces=(HERE,), backend=backend, options={"take_all": backend == "af_xdp"})
    with pair.here.entered(), open_source(request) as source:
        pair.send(*[numbered_frame(number, 99 + number) for number in range(4)])
        receive(source, 4)
        remarks = source.statistics().remarks
    assert remarks["frames longer than the MTU of 1500 allows, so merged or not yet cut"] == 2
