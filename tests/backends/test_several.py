"""Several interfaces as one source: order, numbers, counts, and what happens when one is lost."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.traffic import Received, numbered_frame
from support.veth_pairs import HERE, THERE, Pair, wait_until

from uspcap.backends import several as module
from uspcap.backends.base import LiveSource
from uspcap.backends.declaration import Request
from uspcap.backends.opening import open_source
from uspcap.backends.several import SeveralSources
from uspcap.errors import CaptureError, UsageError

BLUE, BLUE_END = "blue0", "blue1"
BACKENDS = ["packet_mmap", "af_xdp"]

pytestmark = pytest.mark.usefixtures("kernel_bpf")


@pytest.fixture
def two(pair: Pair) -> Pair:
    """A second pair between the same namespaces, of two queues."""
    pair.here.add_veth(BLUE, pair.there, BLUE_END, queues=2)
    return pair


@contextmanager
def senders(pair: Pair) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a sender to each of the near ends."""
    with (
        pair.there.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as other,
    ):
        one.bind((THERE, 0))
        other.bind((BLUE_END, 0))
        yield one, other


def read(source: LiveSource, count: int, timeout_s: float = 20) -> Received:
    """Read until so many frames came, stop, and read what is left."""
    received = Received()
    end = time.monotonic() + timeout_s
    for batch in source.batches(0.05):
        if batch is not None:
            received.take(batch)
        if len(received.frames) >= count or time.monotonic() > end:
            source.stop()
    return received


def names_of(source: LiveSource, received: Received) -> list[str]:
    return [source.interfaces[number].name for number in received.interfaces]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_come_in_order_and_know_their_interface(two: Pair, backend: str) -> None:
    frames = [numbered_frame(number) for number in range(600)]
    with two.here.entered(), open_source(Request((HERE, BLUE), backend=backend)) as source:
        assert isinstance(source, SeveralSources)
        with senders(two) as ends:
            for number, frame in enumerate(frames):
                ends[number % 2].send(frame)
        received = read(source, len(frames))
        statistics = source.statistics()
        names = names_of(source, received)
    assert received.frames == frames
    assert received.timestamps == sorted(received.timestamps)
    assert names == [HERE, BLUE] * 300
    assert received.numbers == list(range(1, 601))
    assert (statistics.received, statistics.delivered, statistics.unaccounted) == (600, 600, 0)
    assert list(statistics.by_interface) == [HERE, BLUE]
    for one in statistics.by_interface.values():
        assert (one.received, one.delivered, one.unaccounted, one.dropped) == (300, 300, 0, {})
        assert one.interface_counts is not None
        assert one.interface_counts["rx_packets"] == 300
    assert "frames that came too late to be put in order" not in statistics.remarks


def test_queues_are_those_of_each_interface(two: Pair) -> None:
    frames = [numbered_frame(number) for number in range(200)]
    frames = [frame[:34] + (1024 + number % 50).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]
    with two.here.entered(), open_source(Request((HERE, BLUE), backend="af_xdp")) as source:
        with senders(two) as (_, other):
            for frame in frames:
                other.send(frame)
        received = read(source, 200)
    assert set(received.queues) == {0, 1}
    assert sorted(received.frames) == sorted(frames)


@pytest.mark.parametrize("backend", BACKENDS)
def test_filter_and_snaplen_are_each_interfaces(two: Pair, backend: str) -> None:
    request = Request((HERE, BLUE), expression="udp port 5000", backend=backend, snaplen=50)
    with two.here.entered(), open_source(request) as source:
        with senders(two) as ends:
            for number in range(20):
                other = numbered_frame(number)
                ends[number % 2].send(other)
                ends[number % 2].send(other[:36] + b"\0\1" + other[38:])
        received = read(source, 20)
        assert {one.filter for one in source.interfaces} == {"udp port 5000"}
    assert received.frames == [numbered_frame(number)[:50] for number in range(20)]


def test_frames_of_one_interface_come_though_the_other_is_quiet(two: Pair) -> None:
    with two.here.entered(), open_source(Request((HERE, BLUE))) as source:
        batches = source.batches(0.05)
        received = Received()
        for lap in range(3):
            two.send(numbered_frame(lap))
            end = time.monotonic() + 20
            while len(received.frames) == lap and time.monotonic() < end:
                batch = next(batches)
                if batch is not None:
                    received.take(batch)
        source.stop()
        assert [batch for batch in batches if batch is not None] == []
    assert received.frames == [numbered_frame(lap) for lap in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_interface_that_is_lost_leaves_the_others(two: Pair, backend: str) -> None:
    received = Received()
    said: list[str] = []
    with two.here.entered(), open_source(Request((HERE, BLUE), backend=backend)) as source:
        batches = source.batches(0.05)

        def turn() -> None:
            batch = next(batches)
            if batch is not None:
                received.take(batch)
            said.extend(source.messages())

        two.send(numbered_frame(1))
        assert wait_until(lambda: turn() or len(received.frames) == 1)
        two.here.ip("link", "delete", HERE)
        assert wait_until(lambda: turn() or bool(said))
        with senders_of_blue(two) as sender:
            sender.send(numbered_frame(2))
        assert wait_until(lambda: turn() or len(received.frames) == 2)
        source.stop()
        with pytest.raises(CaptureError) as caught:
            for batch in batches:
                assert batch is None
        statistics = source.statistics()
        names = names_of(source, received)
    assert said == ["interface here0 is gone: frames before that were kept; the capture goes on with blue0"]
    assert str(caught.value) == "interface here0 is gone: frames before that were kept"
    assert names == [HERE, BLUE]
    assert (statistics.received, statistics.unaccounted) == (2, 0)


@contextmanager
def senders_of_blue(pair: Pair) -> Iterator[socket.socket]:
    with pair.there.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((BLUE_END, 0))
        yield sender


def test_capture_ends_with_its_last_interface(two: Pair) -> None:
    with two.here.entered(), open_source(Request((HERE, BLUE))) as source:
        batches = source.batches(0.05)
        assert next(batches) is None
        two.here.ip("link", "delete", HERE)
        two.here.ip("link", "delete", BLUE)
        with pytest.raises(CaptureError) as caught:
            for _ in batches:
                pass
    assert str(caught.value) == (
        "interface here0 is gone: frames before that were kept; interface blue0 is gone: frames before that were kept"
    )


def test_more_than_can_be_held_goes_before_its_time_and_nothing_is_lost(
    two: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_FRAMES", 64)
    frames = [numbered_frame(number) for number in range(2000)]
    with two.here.entered(), open_source(Request((HERE, BLUE))) as source:
        with senders(two) as ends:
            for number, frame in enumerate(frames):
                ends[number // 500 % 2].send(frame)
        received = read(source, len(frames))
        statistics = source.statistics()
    assert sorted(received.frames) == sorted(frames)
    assert (statistics.received, statistics.delivered, statistics.unaccounted) == (2000, 2000, 0)


def test_unmerged_frames_are_in_order_within_their_interface(two: Pair) -> None:
    frames = [numbered_frame(number) for number in range(400)]
    with two.here.entered(), open_source(Request((HERE, BLUE), merge_window_ns=0)) as source:
        assert "frames of several interfaces are not sorted by time" in source.describe().remarks
        with senders(two) as ends:
            for number, frame in enumerate(frames):
                ends[number % 2].send(frame)
        received = read(source, 400)
        names = names_of(source, received)
    for at, name in enumerate((HERE, BLUE)):
        of_one = [frame for frame, found in zip(received.frames, names, strict=True) if found == name]
        assert of_one == frames[at::2]


def test_slow_reader_loses_frames_of_the_interface_that_they_came_to(two: Pair) -> None:
    request = Request((HERE, BLUE), backend="af_xdp", buffer_bytes=2)
    with two.here.entered(), open_source(request) as source:
        with senders(two) as (one, other):
            for number in range(1000):
                one.send(numbered_frame(number))
            for number in range(100):
                other.send(numbered_frame(number))
        received = read(source, 1100, timeout_s=2)
        statistics = source.statistics()
    assert statistics.unaccounted == 0
    assert statistics.by_interface[HERE].dropped_total == 1100 - len(received.frames) > 0
    assert statistics.by_interface[BLUE].dropped == {}
    assert statistics.dropped == statistics.by_interface[HERE].dropped


def test_descriptions_of_all_are_reported_and_remarks_name_theirs(two: Pair) -> None:
    with two.here.entered(), open_source(Request((HERE, BLUE), backend="af_xdp")) as source:
        description = source.describe()
    assert [line.split(":")[0] for line in description.headlines] == [HERE, BLUE]
    assert "2 of 2 receive queues" in description.headlines[1]
    assert description.what == "here0, blue0"
    assert "every frame of blue0 is taken from the kernel" in description.remarks
    assert f"{HERE}: no zero copy: the driver declares none" in description.remarks


def test_duplicate_interface_or_one_that_is_none_is_refused_and_nothing_stays_open(two: Pair) -> None:
    two.here.ip("link", "property", "add", "dev", HERE, "altname", "same")
    with two.here.entered():
        with pytest.raises(UsageError, match="here0 is given more than once with -i"):
            open_source(Request((HERE, "same")))
        with pytest.raises(CaptureError, match="there is no interface 'none'"):
            open_source(Request((HERE, "none")))
        two.here.ip("address", "add", "10.0.0.1/24", "dev", BLUE)
        with pytest.raises(UsageError, match="and blue0 has the address"):
            open_source(Request((HERE, BLUE), backend="af_xdp"))
        open_source(Request((HERE,), backend="af_xdp")).close()


def test_source_that_is_closed_early_leaves_no_thread(two: Pair) -> None:
    with two.here.entered():
        source = open_source(Request((HERE, BLUE)))
        with senders(two) as ends:
            for number in range(200):
                ends[number % 2].send(numbered_frame(number))
        batches = source.batches(0.05)
        list(itertools.islice(batches, 3))
        source.close()
        source.close()
        assert isinstance(source, SeveralSources)
        assert not any(one.thread is not None and one.thread.is_alive() for one in source._readings)
