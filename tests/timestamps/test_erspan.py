"""Timestamps of ERSPAN type III: ticks that come round, and seconds of the platforms that give them."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record
from support.command_line import assert_one_clear_line, invoke
from support.header_frames import batch_of, ethernet, ipv4, udp, vlan

from uspcap.frames import LATEST_NS, FrameBatch, TimestampSource
from uspcap.timestamps.trailer_decoding import TrailerFormat, TrailerStatus
from uspcap.timestamps.trailers import TrailerStage, anchors_of

START_NS = 1_700_000_000_000_000_000
NANOSECOND_MAGIC = 0xA1B23C4D


def mirrored(ticks, *, granularity=1, session=5, hardware=3, source="10.0.0.1", subheader=b"", tagged=False):
    """Return a frame of a feed in ERSPAN III."""
    inner = ethernet(0x0800, ipv4(17, udp(b"x" * 20, 1, 26400)))
    last = (hardware & 15) << 4 | granularity << 1 | bool(subheader)
    header = struct.pack("!HHIHBB", 0x2007, session, ticks % (1 << 32), 0, 0x80 | hardware >> 4, last)
    packet = ipv4(47, struct.pack("!HHI", 0x1000, 0x22EB, 9) + header + subheader + inner, source, "10.0.0.2")
    return ethernet(0x8100, vlan(5, 0x0800, packet)) if tagged else ethernet(0x0800, packet)


def seconds(platform, second):
    return struct.pack("!HHI", platform << 10, 0, second)


def timestamped(frames, timestamps, anchors=None):
    def batch() -> FrameBatch:
        made = batch_of(frames)
        made.storage("timestamp_ns")[: len(frames)] = timestamps
        return made

    found = batch()
    TrailerStage(TrailerFormat.ERSPAN, anchors_of([batch()]) if anchors is None else anchors).apply(found)
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0, 100_000), (1, 100)]),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(-50_000_000, 50_000_000)), min_size=1, max_size=30),
)
def test_ticks_are_what_lies_between_frames_however_often_they_come_round(begin, unit, steps):
    granularity, tick_ns = unit
    ticks, files, passed = [], [], 0
    for step, late_ns in steps:
        passed += step % (600_000_000_000 // tick_ns)
        ticks.append(begin + passed)
        files.append(START_NS + passed * tick_ns + late_ns)
    frames = [mirrored(one, granularity=granularity) for one in ticks]
    found = timestamped(frames, files)
    assert found.timestamp_ns[0] == files[0]
    assert [int(one) - files[0] for one in found.timestamp_ns] == [(one - ticks[0]) * tick_ns for one in ticks]
    assert set(found.timestamp_source.tolist()) == {TimestampSource.TRAILER}
    assert [found.frame_bytes(row) for row in range(len(frames))] == frames


@given(st.integers(-LATEST_NS, LATEST_NS), st.integers(-LATEST_NS, LATEST_NS), st.integers(0, 2**32 - 1))
def test_times_at_the_ends_of_what_is_counted_in_stay_within(file_ns, other_ns, ticks):
    found = timestamped([mirrored(ticks), mirrored(7)], [file_ns, other_ns])
    assert (abs(found.timestamp_ns) <= LATEST_NS).all()


def test_sessions_have_clocks_of_their_own():
    frames = [mirrored(1000), mirrored(70, session=6), mirrored(9, source="10.0.0.9"), mirrored(2000, tagged=True)]
    frames += [mirrored(71, session=6), mirrored(11, source="10.0.0.9"), mirrored(5, hardware=17)]
    timestamps = [START_NS + 1_000_000 * number for number in range(len(frames))]
    found = timestamped(frames, timestamps).timestamp_ns.tolist()
    assert found == [*timestamps[:3], START_NS + 100_000, timestamps[1] + 100, timestamps[2] + 200, timestamps[6]]


def test_a_session_that_begins_too_late_keeps_the_files_timestamps():
    anchors = anchors_of([batch_of([mirrored(1)])])
    found = timestamped([mirrored(1), mirrored(1, session=9)], [START_NS, START_NS], anchors)
    assert found.timestamp_source.tolist() == [TimestampSource.TRAILER, TimestampSource.FILE]
    assert found.trailers.column("status").tolist() == [TrailerStatus.FOUND, TrailerStatus.IMPLAUSIBLE]


@pytest.mark.parametrize("platform", [5, 6])
def test_seconds_of_a_subheader_are_taken_as_they_are(platform):
    second, ns = divmod(START_NS + 123, 10**9)
    frame = mirrored(ns, granularity=2, subheader=seconds(platform, second))
    found = timestamped([frame, frame], [START_NS + 10**9, START_NS + 31 * 86400 * 10**9])
    assert found.timestamp_ns.tolist() == [START_NS + 123, START_NS + 31 * 86400 * 10**9]
    assert found.timestamp_source.tolist() == [TimestampSource.TRAILER, TimestampSource.FILE]


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (mirrored(1, granularity=2), TrailerStatus.IMPLAUSIBLE),
        (mirrored(1, granularity=2, subheader=seconds(3, 1_700_000_000)), TrailerStatus.IMPLAUSIBLE),
        (mirrored(2**31, granularity=2, subheader=seconds(5, 1_700_000_000)), TrailerStatus.IMPLAUSIBLE),
        (mirrored(1, granularity=3), TrailerStatus.IMPLAUSIBLE),
        (ethernet(0x0800, ipv4(17, udp())), TrailerStatus.ABSENT),
        (ethernet(0x0800, ipv4(47, struct.pack("!HHI", 0x1000, 0x88BE, 9) + bytes(40))), TrailerStatus.ABSENT),
        (mirrored(1)[:50], TrailerStatus.CUT),
        (mirrored(1, granularity=2, subheader=seconds(5, 1_700_000_000))[:56], TrailerStatus.CUT),
    ],
)
def test_what_is_no_time_keeps_the_files(frame, status):
    found = timestamped([frame], [START_NS])
    assert found.trailers.column("status").tolist() == [status]
    assert (found.timestamp_ns[0], found.timestamp_source[0]) == (START_NS, TimestampSource.FILE)


def test_frames_cut_anywhere_are_read_within_their_bytes():
    frame = mirrored(1, granularity=2, subheader=seconds(5, 1_700_000_000))
    found = timestamped([frame[:length] for length in range(len(frame) + 1)], [START_NS] * (len(frame) + 1))
    assert found.timestamp_source[-1] == TimestampSource.TRAILER


def capture(path: Path, count: int = 200) -> Path:
    """A frame a millisecond by the switch's clock; the file's comes up to 0.4 ms later."""
    records = []
    for number in range(count):
        ns = START_NS + number * 1_000_000 + (number * 7919 % 400) * 1000
        records.append(pcap_record(*divmod(ns, 10**9), mirrored(4_294_900_000 + number * 10_000)))
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))
    return path


def test_the_switchs_clock_gives_the_time_between_frames(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap")
    command = ("analyze", path, "--timestamps", "trailer:erspan", "--format", "json", "--only", "inter_arrival,trailer")
    ended = invoke(*command)
    assert ended.code == 0
    analyses = json.loads(ended.stdout)["analyses"]
    (flow,) = analyses["inter_arrival"]["flows"]["by_count"]
    assert (flow["min_ns"], flow["max_ns"]) == (1_000_000, 1_000_000)
    assert flow["flow"].startswith("UDP") and "26400" in flow["flow"]
    assert analyses["trailer"]["format"] == "erspan"
    assert analyses["trailer"]["frames"]["found"] == 200
    assert "count from an unknown moment" in analyses["trailer"]["warnings"][0]


@pytest.mark.parametrize(
    "command",
    [("analyze", "-", "--timestamps", "trailer:erspan"), ("capture", "-i", "lo", "--timestamps", "trailer:erspan")],
)
def test_where_they_begin_has_to_be_seen_first(command: tuple[str, ...]) -> None:
    assert_one_clear_line(invoke(*command), 2, "the epoch of ERSPAN's timestamps is found at the beginning of a file")
