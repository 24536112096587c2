"""Frames that say how many were lost before them: on veth pairs, and in the file as tshark reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.traffic import Received, in_order, numbered_frame, receive, tagged
from support.veth_pairs import HERE, MakePair, Pair
from support.writer_cases import tshark_fields

from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.backends.base import LiveSource
from uspcap.backends.declaration import Request
from uspcap.backends.opening import open_source
from uspcap.backends.packet_mmap.source import PacketMmapSource
from uspcap.formats import open_capture
from uspcap.formats.writer import open_writer

SMALL_BYTES = 512 << 10
SENT = 1500
"""More than the smallest rings hold."""


def packet_mmap() -> LiveSource:
    return PacketMmapSource(HERE, buffer_bytes=SMALL_BYTES)


def af_xdp() -> LiveSource:
    return AfXdpSource(HERE, buffer_bytes=SMALL_BYTES)


@pytest.fixture(params=[packet_mmap, af_xdp])
def open_small(request: pytest.FixtureRequest) -> Callable[[], LiveSource]:
    if request.param is af_xdp:
        request.getfixturevalue("kernel_bpf")
    opener: Callable[[], LiveSource] = request.param
    return opener


def losses(received: Received) -> list[tuple[int, int]]:
    """Row and count of each gap in the frames' numbers; the frames are those of one ring."""
    numbers = list(in_order(received.frames))
    gaps = [after - before - 1 for before, after in zip([-1, *numbers[:-1]], numbers, strict=True)]
    return [(row, gap) for row, gap in enumerate(gaps) if gap]


def reported(received: Received) -> list[tuple[int, int]]:
    return [(row, count) for row, count in enumerate(received.drop_counts) if count]


def test_first_frame_after_a_loss_says_how_many_were_lost(pair: Pair, open_small: Callable[[], LiveSource]) -> None:
    received = Received()
    with pair.here.entered(), open_small() as source:
        batches = source.batches(0.1)
        for lap in range(3):
            # Nobody reads meanwhile, so the ring overflows, in one piece; the last frame comes to an empty one.
            first = lap * (SENT + 1)
            pair.send(*[numbered_frame(first + number, 1000) for number in range(SENT)])
            while (batch := next(batches)) is not None:
                received.take(batch)
            pair.send(numbered_frame(first + SENT, 1000))
            while (batch := next(batches)) is not None:
                received.take(batch)
        source.stop()
        for batch in batches:
            if batch is not None:
                received.take(batch)
        statistics = source.statistics()
    assert len(reported(received)) == 3
    assert reported(received) == losses(received)
    assert sum(received.drop_counts) == statistics.dropped_total > 0
    assert statistics.unaccounted == 0


def test_nothing_is_reported_where_nothing_is_lost(pair: Pair, open_small: Callable[[], LiveSource]) -> None:
    with pair.here.entered(), open_small() as source:
        pair.send(*[numbered_frame(number) for number in range(100)])
        received, statistics = receive(source, 100)
    assert received.drop_counts == [0] * 100
    assert statistics.dropped == {}


def test_others_who_ask_for_the_statistics_take_nothing_away(pair: Pair, open_small: Callable[[], LiveSource]) -> None:
    with pair.here.entered(), open_small() as source:
        pair.send(*[numbered_frame(number, 1000) for number in range(SENT)])
        lost = source.statistics().dropped_total
        received = Received()
        batches = source.batches(0.1)
        while (batch := next(batches)) is not None:
            received.take(batch)
        pair.send(numbered_frame(SENT))
        later, statistics = receive(source, 1)
    assert lost == statistics.dropped_total > 0
    assert sum(received.drop_counts) + sum(later.drop_counts) == lost


def test_count_outlives_the_frame_that_a_filter_after_the_ring_takes_out(pair: Pair) -> None:
    with pair.here.entered(), PacketMmapSource(HERE, "vlan 7", buffer_bytes=SMALL_BYTES) as source:
        pair.send(*[numbered_frame(number, 1000) for number in range(SENT)])
        received = Received()
        batches = source.batches(0.1)
        while (batch := next(batches)) is not None:
            received.take(batch)
        pair.send(*[numbered_frame(number) for number in range(5)], tagged(numbered_frame(6), 7))
        while (batch := next(batches)) is not None:
            received.take(batch)
        statistics = source.statistics()
    assert received.drop_counts == [statistics.dropped_total]
    assert statistics.dropped_total > 0


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_independent_reader_finds_queue_direction_and_losses_in_the_file(
    make_pair: MakePair, tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "af_xdp":
        request.getfixturevalue("kernel_bpf")
    pair = make_pair(queues=3)
    path = tmp_path / "out.pcapng"
    options = {"fanout": ("hash", 3)} if backend == "packet_mmap" else {"take_all": True}
    wanted = Request(interfaces=(HERE,), backend=backend, buffer_bytes=3 * SMALL_BYTES, options=options)
    received = Received()
    with pair.here.entered(), open_source(wanted) as source:
        batches = source.batches(0.1)
        with open_writer(str(path), interfaces=source.interfaces) as writer:
            for count in (3 * SENT, 3 * SENT, 30):
                # Ports spread over rings; each takes its third of what comes, about.
                pair.send(*[with_port(number) for number in range(count)])
                while (batch := next(batches)) is not None:
                    writer.write(batch)
                    received.take(batch)
    assert len(set(received.queues)) > 1
    assert reported(received)
    fields = ("frame.interface_queue", "frame.packet_flags_direction", "frame.drop_count")
    rows = [dict(zip(fields, row, strict=True)) for row in tshark_fields(path, *fields)]
    assert [int(row["frame.interface_queue"] or 0) for row in rows] == received.queues
    assert {int(row["frame.packet_flags_direction"], 0) for row in rows} == {1}
    assert [int(row["frame.drop_count"] or 0) for row in rows] == received.drop_counts
    with open_capture(str(path)) as reader:
        again = Received()
        for batch in reader.batches():
            again.take(batch)
    assert again.drop_counts == received.drop_counts
    assert again.queues == received.queues


def with_port(number: int) -> bytes:
    """A numbered frame whose source port moves on, so that hashes spread it."""
    frame = bytearray(numbered_frame(number, 1000))
    frame[34:36] = (10_000 + number).to_bytes(2, "big")
    return bytes(frame)
