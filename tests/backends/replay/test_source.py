"""Replays with a clock of the test's own: nothing here waits."""

import struct
from pathlib import Path

import pytest
from support.capture_files import interface, option, packet, section
from support.traffic import Received, numbered_frame

from uspcap.backends.replay.source import ReplaySource
from uspcap.errors import CaptureFileError, FilterError, UsageError
from uspcap.formats.writer import open_writer
from uspcap.frames import LATEST_NS, FrameBatch, Interface, TimestampSource

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class FakeClock:
    """Time goes on by sleeping only."""

    def __init__(self) -> None:
        self.now_ns = 5
        self.sleeps: list[float] = []

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_ns += round(seconds * 1e9)


def write_file(path: Path, timestamps_ns: list[int], first: int = 0, interface: Interface | None = None) -> str:
    frames = [numbered_frame(first + number) for number in range(len(timestamps_ns))]
    interfaces = (interface or Interface(1, f"{path.stem}0"),)
    with open_writer(str(path), "pcap" if path.suffix == ".pcap" else "pcapng") as writer:
        writer.write(FrameBatch.from_frames(frames, timestamps_ns, interfaces=interfaces))
    return str(path)


def take_all(source: ReplaySource, timeout_s: float = 60.0) -> Received:
    received = Received()
    for batch in source.batches(timeout_s):
        if batch is not None:
            received.take(batch)
    return received


@pytest.mark.parametrize(("speed", "factor"), [(1.0, 1.0), (4.0, 0.25), (0.5, 2.0)])
def test_frames_come_when_they_are_due(tmp_path: Path, speed: float, factor: float) -> None:
    offsets_ms = [0, 10, 10, 250, 100, 900]
    path = write_file(tmp_path / "a.pcap", [START_NS + one * MS for one in offsets_ms])
    clock = FakeClock()
    came = []
    with ReplaySource([path], speed=speed, clock=clock, sleep=clock.sleep) as source:
        for batch in source.batches(60.0):
            assert batch is not None
            came += [(clock.now_ns - 5, timestamp - START_NS) for timestamp in batch.timestamp_ns.tolist()]
    assert [timestamp for _, timestamp in came] == [one * MS for one in offsets_ms]
    # The one that is timestamped earlier than the frame before it comes together with that frame.
    due_ms = [0, 10, 10, 250, 250, 900]
    for (now, _), due in zip(came, due_ms, strict=True):
        assert due * MS * factor <= now <= due * MS * factor + 2 * MS


def test_caller_may_steer_while_nothing_is_due(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.pcap", [START_NS, START_NS + 1_000 * MS])
    clock = FakeClock()
    with ReplaySource([path], clock=clock, sleep=clock.sleep) as source:
        given = [None if batch is None else batch.count for batch in source.batches(0.1)]
    assert given[0] == given[-1] == 1
    assert given[1:-1] == [None] * len(given[1:-1])
    assert len(given) >= 10
    assert max(clock.sleeps) <= 0.1


def test_stop_ends_a_replay_that_waits_for_years(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.pcap", [0, START_NS])
    clock = FakeClock()
    with ReplaySource([path], clock=clock, sleep=clock.sleep) as source:
        for batch in source.batches(0.1):
            if batch is None:
                source.stop()
        statistics = source.statistics()
    assert (statistics.received, statistics.delivered, statistics.unaccounted) == (1, 1, 0)


def test_no_speed_means_no_waiting(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.pcap", [START_NS, START_NS + 3_600_000 * MS])
    clock = FakeClock()
    with ReplaySource([path], speed=0, clock=clock, sleep=clock.sleep) as source:
        assert len(take_all(source).frames) == 2
    assert clock.sleeps == []


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_files_are_one_stream_with_the_interfaces_of_each(tmp_path: Path, speed: float) -> None:
    first = write_file(tmp_path / "a.pcapng", [START_NS + one for one in range(3)])
    second = write_file(tmp_path / "b.pcapng", [START_NS + 100 + one for one in range(2)], first=3)
    clock = FakeClock()
    with ReplaySource([first, second], speed=speed, clock=clock, sleep=clock.sleep) as source:
        received = take_all(source)
        assert [one.name for one in source.interfaces] == ["a0", "b0"]
    assert received.frames == [numbered_frame(number) for number in range(5)]
    assert received.interfaces == [0, 0, 0, 1, 1]
    assert received.numbers == [1, 2, 3, 4, 5]
    assert received.timestamps == [START_NS + one for one in (0, 1, 2, 100, 101)]
    assert set(received.sources) == {TimestampSource.FILE}


@pytest.mark.parametrize("speed", [0.0, 100.0])
def test_time_goes_on_from_loop_to_loop(tmp_path: Path, speed: float) -> None:
    first = write_file(tmp_path / "a.pcapng", [START_NS, START_NS + 10])
    second = write_file(tmp_path / "b.pcapng", [START_NS + 40], first=2)
    clock = FakeClock()
    with ReplaySource([first, second], speed=speed, loops=3, clock=clock, sleep=clock.sleep) as source:
        received = take_all(source)
        assert len(source.interfaces) == 2
    # 40 ns from first to last, and 20 on average to the next.
    assert received.timestamps == [START_NS + loop * 60 + one for loop in range(3) for one in (0, 10, 40)]
    assert received.interfaces == [0, 0, 1] * 3
    assert received.numbers == list(range(1, 10))
    assert received.frames == [numbered_frame(number) for number in (0, 1, 2)] * 3


def test_endless_loop_ends_where_files_have_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.pcap"
    open_writer(str(path), "pcap").close()
    with ReplaySource([str(path)], loops=0) as source:
        assert take_all(source).frames == []


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_filter_and_its_count(tmp_path: Path, speed: float) -> None:
    path = write_file(tmp_path / "a.pcap", [START_NS + one for one in range(10)])
    with ReplaySource([path], "ether[59] < 4", speed=speed) as source:
        received = take_all(source)
        statistics = source.statistics()
    assert received.frames == [numbered_frame(number) for number in range(4)]
    assert (statistics.received, statistics.delivered, statistics.filtered) == (10, 4, 6)
    assert statistics.unaccounted == 0


def test_frames_without_a_timestamp_come_at_once(tmp_path: Path) -> None:
    # pcapng: a section, an interface and two simple packets, which have no timestamps.
    frame = numbered_frame(1)
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    simple = struct.pack("<III", 3, 76, 60) + frame + struct.pack("<I", 76)
    path = tmp_path / "simple.pcapng"
    path.write_bytes(section + interface + simple * 2)
    clock = FakeClock()
    with ReplaySource([str(path)], loops=2, clock=clock, sleep=clock.sleep) as source:
        received = take_all(source)
    assert received.frames == [frame] * 4
    assert set(received.sources) == {TimestampSource.NONE}
    assert clock.sleeps == []


def test_damage_is_reported_once(tmp_path: Path) -> None:
    path = Path(write_file(tmp_path / "a.pcap", [START_NS, START_NS + 1]))
    path.write_bytes(path.read_bytes()[:-10])
    with ReplaySource([str(path)], speed=0, loops=3) as source:
        assert len(take_all(source).frames) == 3
        assert len(source.problems) == 1
        assert source.problems[0].file == str(path)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a capture file"):
        ReplaySource([])
    with pytest.raises(UsageError, match="once only"):
        ReplaySource(["-"], loops=2)
    for speed in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="0 or more"):
            ReplaySource(["x"], speed=speed)
    with pytest.raises(CaptureFileError), ReplaySource([str(tmp_path / "none.pcap")]) as source:
        take_all(source)
    path = write_file(tmp_path / "a.pcap", [START_NS])
    with pytest.raises(FilterError), ReplaySource([path], "udp port") as source:
        take_all(source)


def test_time_that_cannot_go_on_stays_at_the_end_and_is_reported(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.pcapng", [0, LATEST_NS - 1])
    with ReplaySource([path], speed=0, loops=5) as source:
        received = take_all(source)
        clamped = source.clamped
    assert received.timestamps == [0, LATEST_NS - 1, *[LATEST_NS] * 8]
    assert clamped.count == 8
    assert [problem.frame for problem in clamped.problems()] == list(range(3, 11))
    assert {problem.file for problem in clamped.problems()} == {path}


def test_frames_clamped_by_the_reader_are_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    described = section() + interface(options=option(9, b"\x09"))
    path.write_bytes(described + b"".join(packet(ticks, b"x") for ticks in (2**63, 1, 2**64 - 1)))
    with ReplaySource([str(path)], speed=0, loops=2) as source:
        timestamps = take_all(source).timestamps
        assert [problem.frame for problem in source.problems] == [1, 3]
    assert timestamps[:3] == [LATEST_NS, 1, LATEST_NS]


@pytest.mark.parametrize("speed", [5e-324, 1e-300, 1e300, 1.7e308])
def test_a_speed_of_any_size_is_one(tmp_path: Path, speed: float) -> None:
    path = write_file(tmp_path / "a.pcap", [0, START_NS])
    clock = FakeClock()
    with ReplaySource([path], speed=speed, clock=clock, sleep=clock.sleep) as source:
        for batch in source.batches(0.1):
            if batch is None:
                source.stop()
        assert source.statistics().delivered == (2 if speed > 1 else 1)
