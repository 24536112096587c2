"""What happens to the program, the queues or the interface of a capture is said, and every frame is accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.bpf_links import detach_from_outside, replace_from_outside
from support.bpf_samples import returning
from support.namespaces import MakeNamespace
from support.traffic import Received, numbered_frame
from support.veth_pairs import HERE, THERE, MakePair, Pair, wait_until

from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.backends.base import LiveSource
from uspcap.backends.declaration import Request
from uspcap.backends.opening import open_source
from uspcap.backends.packet_mmap.source import PacketMmapSource
from uspcap.bpf.attach import AttachMode, find_attached
from uspcap.bpf.kernel_types import XdpAction
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.errors import CaptureError
from uspcap.network.links import named_link

pytestmark = pytest.mark.usefixtures("kernel_bpf")

PAST = "frames that the interface counted and the XDP hook did not see"


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspcap.network.watch.LOOK_EVERY_S", 0.1)


def flows(count: int, first: int = 0) -> list[bytes]:
    """Return frames of many flows, which veth spreads over its queues."""
    frames = [numbered_frame(number) for number in range(first, first + count)]
    return [frame[:34] + (1024 + number % 97).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]


def read_until(source: LiveSource, batches: Iterator[object], received: Received, count: int) -> None:
    end = time.monotonic() + 20
    while len(received.frames) < count and time.monotonic() < end:
        batch = next(batches)
        if batch is not None:
            received.take(batch)  # type: ignore[arg-type]
    found = len(received.frames)
    assert found == count


@pytest.mark.parametrize("mode", [AttachMode.NATIVE, AttachMode.SKB])
def test_program_that_is_detached_from_outside_ends_the_capture(pair: Pair, mode: AttachMode) -> None:
    received = Received()
    with pair.here.entered(), AfXdpSource(HERE, modes=[mode]) as source:
        batches = source.batches(0.02)
        pair.send(*[numbered_frame(number) for number in range(50)])
        read_until(source, batches, received, 50)
        attached = find_attached(named_link(HERE).index)
        assert attached is not None
        detach_from_outside(attached.program_id)
        pair.send(*[numbered_frame(number) for number in range(50, 80)])
        with pytest.raises(CaptureError) as caught:
            for batch in batches:
                if batch is not None:
                    received.take(batch)
        statistics = source.statistics()
    assert str(caught.value) == (
        "the XDP program was detached from here0 from outside, as 'bpftool link detach' does, and its frames have gone "
        "to the kernel since: frames before that were kept"
    )
    assert len(received.frames) == 50
    assert statistics.unaccounted == 0
    # Frames that came before the program was missed, and those that went on unseen, are the NIC's.
    assert statistics.interface_counts is not None
    assert statistics.interface_counts["rx_packets"] == 80
    assert statistics.remarks[PAST] == 30


def test_program_that_is_replaced_from_outside_ends_the_capture(pair: Pair) -> None:
    with (
        LoadedProgram.load(returning(XdpAction.XDP_PASS), name="other") as other,
        pair.here.entered(),
        AfXdpSource(HERE) as source,
    ):
        attached = find_attached(named_link(HERE).index)
        assert attached is not None
        other_id = int(other.info().id)
        batches = source.batches(0.02)
        assert next(batches) is None
        replace_from_outside(attached.program_id, other.fd)
        with pytest.raises(CaptureError, match=rf"on here0 was replaced from outside by the one with id {other_id}"):
            for _ in batches:
                pass


def test_program_that_is_attached_again_is_no_replacement_from_outside(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource(HERE) as source:
        batches = source.batches(0.02)
        assert next(batches) is None
        assert source._attachment is not None
        source._attachment.renew()
        for _ in range(20):
            assert next(batches) is None
        source.stop()
        assert list(batches) == []


@pytest.mark.parametrize("window_ns", [None, 0], ids=["merged", "unmerged"])
@pytest.mark.parametrize("before", [1, 2])
def test_queues_that_are_added_are_read(make_pair: MakePair, before: int, window_ns: int | None) -> None:
    pair = make_pair(queues=4)
    received = Received()
    with pair.here.entered():
        pair.there.set_queues(THERE, tx=before)
        pair.here.set_queues(HERE, rx=before)
        with open_source(Request((HERE,), backend="af_xdp", merge_window_ns=window_ns, buffer_bytes=1 << 20)) as source:
            assert f"{before} of {before} receive queues" in str(source.describe())
            batches = source.batches(0.02)
            frames = flows(200)
            pair.send(*frames)
            read_until(source, batches, received, 200)
            pair.here.set_queues(HERE, rx=4)
            said: list[str] = []

            def reported() -> bool:
                batch = next(batches)
                if batch is not None:
                    received.take(batch)
                said.extend(source.messages())
                return bool(said)

            assert wait_until(reported)
            pair.there.set_queues(THERE, tx=4)
            more = flows(400, 200)
            pair.send(*more)
            read_until(source, batches, received, 600)
            source.stop()
            assert [batch for batch in batches if batch is not None] == []
            statistics = source.statistics()
    assert said == ["here0 has 4 receive queues now, and uspcap reads them all"]
    assert sorted(received.frames) == sorted(frames + more)
    assert max(received.queues[200:]) > before - 1
    assert statistics.received == 600
    assert (statistics.unaccounted, statistics.dropped) == (0, {})
    if window_ns is None:
        assert received.timestamps == sorted(received.timestamps)


def test_queues_that_cannot_be_read_are_named_and_their_frames_have_a_cause(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair(queues=4)
    received = Received()

    def refused(number: int, *, zero_copy: bool) -> None:
        raise CaptureError(f"no memory for queue {number}")

    with pair.here.entered():
        pair.there.set_queues(THERE, tx=1)
        pair.here.set_queues(HERE, rx=1)
        with AfXdpSource(HERE) as source:
            monkeypatch.setattr(source, "_open_socket", refused)
            batches = source.batches(0.02)
            assert next(batches) is None
            pair.here.set_queues(HERE, rx=4)
            said: list[str] = []
            assert wait_until(lambda: next(batches) is None and bool(said.extend(source.messages()) or said))
            pair.there.set_queues(THERE, tx=4)
            pair.send(*flows(400))
            assert wait_until(lambda: source.statistics().seen == 400)
            source.stop()
            for batch in batches:
                if batch is not None:
                    received.take(batch)
            statistics = source.statistics()
    assert said == [
        "here0 has 4 receive queues now, and frames of queue 1, 2, 3 may go to the kernel, and not be captured: no "
        "memory for queue 1"
    ]
    assert statistics.received == 400
    assert statistics.dropped == {"no socket on the queue, passed to the kernel": 400 - len(received.frames)}
    assert 0 < len(received.frames) < 400
    assert statistics.unaccounted == 0


@pytest.mark.parametrize("kind", [AfXdpSource, PacketMmapSource])
@pytest.mark.parametrize("how", ["delete", "move"])
def test_interface_that_is_lost_ends_the_capture_with_its_reason(
    pair: Pair, make_namespace: MakeNamespace, kind: type[AfXdpSource] | type[PacketMmapSource], how: str
) -> None:
    received = Received()
    with pair.here.entered(), kind(HERE) as source:
        batches = source.batches(0.02)
        pair.send(numbered_frame(1))
        read_until(source, batches, received, 1)
        if how == "delete":
            pair.here.ip("link", "delete", HERE)
        else:
            pair.here.ip("link", "set", HERE, "netns", make_namespace().name)
        with pytest.raises(CaptureError) as caught:
            for _ in batches:
                pass
        assert source.statistics().unaccounted == 0
    lost = "is gone" if how == "delete" else "was moved to another network namespace"
    assert str(caught.value) == f"interface here0 {lost}: frames before that were kept"


@pytest.mark.parametrize("kind", [AfXdpSource, PacketMmapSource])
def test_interface_that_goes_down_and_up_is_reported_and_captured_on(
    pair: Pair, kind: type[AfXdpSource] | type[PacketMmapSource]
) -> None:
    said: list[str] = []
    received = Received()
    with pair.here.entered(), kind(HERE) as source:
        batches = source.batches(0.02)
        assert next(batches) is None
        pair.here.ip("link", "set", HERE, "down")
        pair.here.ip("link", "set", HERE, "up")
        assert wait_until(lambda: next(batches) is None and len(said.extend(source.messages()) or said) >= 2)
        pair.send(numbered_frame(1))
        read_until(source, batches, received, 1)
        source.stop()
        assert source.statistics().remarks == {"times that the interface went down": 1}
    assert said[0] == "here0 was set down: no frames until it is up"
    assert any(one.startswith("here0 is up again after ") for one in said)


def test_nothing_happens_where_nothing_happens(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource(HERE, "udp port 1") as source:
        batches = source.batches(0.02)
        for number in range(30):
            pair.send(numbered_frame(number))
            assert next(batches) is None
        source.stop()
        assert list(batches) == []
        assert source.messages() == []
        assert source.statistics().remarks == {}
