"""Several rings as one stream: with real rings on veth, and with a stand-in that lags as wanted."""

from collections.abc import Iterator

import numpy as np
import pytest
from support.traffic import in_order, numbered_frame, receive
from support.veth_pairs import HERE, MakePair, Pair

from uspcap.backends.base import SourceStatistics
from uspcap.backends.declaration import Request
from uspcap.backends.merging import MergedSource
from uspcap.backends.opening import open_source
from uspcap.backends.packet_mmap.source import PacketMmapSource
from uspcap.backends.rings import RingSource
from uspcap.errors import CaptureError
from uspcap.frames import FrameBatch, Interface

WINDOW_NS = 100


def many_flows(count: int) -> list[bytes]:
    """Frames of 50 flows, which reach several rings, with a number at their end."""
    frames = [numbered_frame(number) for number in range(count)]
    return [frame[:34] + (number % 50).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]


def test_frames_of_four_af_xdp_queues_come_in_the_order_of_their_timestamps(
    make_pair: MakePair, kernel_bpf: None
) -> None:
    pair = make_pair(queues=4)
    frames = many_flows(2000)
    with pair.here.entered(), open_source(Request(interfaces=(HERE,), options={"take_all": True})) as source:
        assert "rings merged by time within 5 ms" in str(source.describe())
        pair.send(*frames)
        received, statistics = receive(source, len(frames))
    assert sorted(received.frames) == sorted(frames)
    assert received.timestamps == sorted(received.timestamps)
    assert received.numbers == list(range(1, 2001))
    assert (statistics.received, statistics.delivered, statistics.unaccounted) == (2000, 2000, 0)
    assert statistics.remarks == {}


def test_frames_of_four_packet_mmap_rings_come_in_the_order_in_which_they_were_sent(pair: Pair) -> None:
    frames = many_flows(2000)
    request = Request(interfaces=(HERE,), options={"fanout": ("hash", 4)}, direction="in")
    with pair.here.entered(), open_source(request) as source:
        assert "rings merged by time within 50 ms" in str(source.describe())
        pair.send(*frames)
        received, statistics = receive(source, len(frames))
    assert len(set(received.queues)) > 1
    assert list(in_order(received.frames)) == list(range(2000))
    assert statistics.unaccounted == 0


@pytest.mark.parametrize(
    "request_",
    [Request(interfaces=(HERE,)), Request(interfaces=(HERE,), options={"fanout": ("hash", 2)}, merge_window_ns=0)],
)
def test_one_ring_or_a_window_of_nothing_leaves_frames_as_they_come(pair: Pair, request_: Request) -> None:
    with pair.here.entered(), open_source(request_) as source:
        assert isinstance(source, PacketMmapSource)


class Lagging(MergedSource):
    """Two rings whose batches are made up: (ring, timestamp) of each frame, and what `emptied` says after them."""

    def __init__(self, pair: Pair, steps: list[tuple[list[tuple[int, int]], bool] | CaptureError | None]) -> None:
        with pair.here.entered():
            self.rings = PacketMmapSource(HERE, fanout="hash", rings=2)
        super().__init__(self.rings, WINDOW_NS)
        self.steps = steps
        self.rings.batches = self.made_up  # type: ignore[method-assign]
        self.rings.statistics = self.counted  # type: ignore[method-assign]

    def made_up(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        for step in self.steps:
            assert self.rings.wait_s == (WINDOW_NS / 1e9 if self._merger.held else None)
            if isinstance(step, CaptureError):
                raise step
            if step is None:
                yield None
                continue
            rows, self.rings.emptied = step
            batch = FrameBatch.from_frames([bytes([ring]) for ring, _ in rows], [timestamp for _, timestamp in rows])
            batch.storage("queue")[: len(rows)] = np.array([ring for ring, _ in rows], np.uint32)
            yield batch

    def counted(self) -> SourceStatistics:
        count = sum(len(step[0]) for step in self.steps if isinstance(step, tuple))
        return SourceStatistics(received=count)

    def timestamps(self) -> Iterator[list[int] | None]:
        for batch in self.batches(1.0):
            yield None if batch is None else batch.timestamp_ns.tolist()


def test_frames_wait_until_a_younger_one_proves_that_nothing_older_comes(pair: Pair) -> None:
    with Lagging(pair, [([(0, 1000), (0, 1050)], True), ([(1, 1020), (1, 1150)], True), None]) as source:
        # 1050 is the last that is at least as old as the window, counted from 1150.
        assert list(source.timestamps()) == [[1000, 1020, 1050], [1150], None]
        assert source.statistics().remarks == {}


def test_ring_that_was_not_looked_at_holds_everything_back(pair: Pair) -> None:
    with Lagging(pair, [([(0, 1000), (0, 2000)], False), ([(1, 900)], True)]) as source:
        assert list(source.timestamps()) == [[900, 1000], [2000]]


def test_frame_that_lags_by_more_than_the_window_is_given_late_and_counted(pair: Pair) -> None:
    with Lagging(pair, [([(0, 1000), (0, 2000)], True), ([(1, 900)], True)]) as source:
        first = source.timestamps()
        assert next(first) == [1000]
        assert source.statistics().waiting == 1
        assert list(first) == [[900], [2000]]
        statistics = source.statistics()
    assert statistics.remarks == {"frames that came too late to be put in order": 1}
    assert (statistics.delivered, statistics.waiting) == (3, 0)


def test_frames_held_are_given_before_the_error_that_ends_the_capture(pair: Pair) -> None:
    with Lagging(pair, [([(0, 1000)], True), CaptureError("gone")]) as source:
        timestamps = source.timestamps()
        assert next(timestamps) == [1000]
        with pytest.raises(CaptureError, match="gone"):
            next(timestamps)


def test_more_than_can_be_held_makes_the_oldest_go(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspcap.backends.merging.HELD_FRAMES", 4)
    with Lagging(pair, [([(0, timestamp) for timestamp in range(10)], False)]) as source:
        given = [timestamp for timestamps in source.timestamps() if timestamps for timestamp in timestamps]
    assert given == list(range(10))


def test_interfaces_of_a_merged_source_are_those_of_its_rings(pair: Pair) -> None:
    with Lagging(pair, []) as source:
        assert isinstance(source.rings, RingSource)
        assert source.interfaces == source.rings.interfaces
        assert all(isinstance(one, Interface) for one in source.interfaces)
        assert source.backend == "packet_mmap"


def test_rings_that_had_no_frame_so_far_hold_nothing_back(pair: Pair) -> None:
    with Lagging(pair, [([], True), ([(0, 1000)], True), ([], True)]) as source:
        assert list(source.timestamps()) == [[1000]]
