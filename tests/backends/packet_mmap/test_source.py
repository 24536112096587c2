"""PACKET_MMAP on veth pairs in namespaces of the test's own."""

import socket
import time

import pytest
from support.bpf_samples import TCP_FRAME
from support.nic_kernel import ALL, NONE, NicKernel
from support.traffic import LENGTHS, in_order, numbered_frame, receive, tagged
from support.veth_pairs import HERE, MakePair, Pair, wait_until

from uspcap.backends.base import BATCH_BYTES
from uspcap.backends.packet_mmap.source import BLOCK_BYTES, Direction, Fanout, PacketMmapSource, kernel_program
from uspcap.errors import CaptureError, FilterError, UsageError
from uspcap.frames import TimestampSource

DIRECTION = 0b11
"""Bits of epb_flags."""


def test_every_frame_arrives_whole_in_order_and_timestamped_within_the_sending(make_pair: MakePair) -> None:
    pair = make_pair(mtu=9100)
    frames = [numbered_frame(number, length) for number, length in enumerate(LENGTHS * 4)]
    with pair.here.entered(), PacketMmapSource(HERE) as source:
        before = time.time_ns()
        pair.send(*frames)
        after = time.time_ns()
        received, statistics = receive(source, len(frames))
    assert received.frames == frames
    assert received.lengths == [len(frame) for frame in frames]
    assert received.timestamps == sorted(received.timestamps)
    assert before <= received.timestamps[0]
    assert received.timestamps[-1] <= after
    assert set(received.sources) <= {TimestampSource.KERNEL, TimestampSource.USER}
    assert {flags & DIRECTION for flags in received.flags} == {1}
    assert received.numbers == list(range(1, len(frames) + 1))
    assert (statistics.received, statistics.delivered) == (len(frames), len(frames))
    assert statistics.unaccounted == 0
    assert statistics.dropped == {}


@pytest.mark.parametrize("tag_type", [0x8100, 0x88A8])
def test_vlan_tags_are_in_the_frames_again(pair: Pair, tag_type: int) -> None:
    frames = [tagged(numbered_frame(number), 100 + number, tag_type) for number in range(4)]
    with pair.here.entered(), PacketMmapSource(HERE) as source:
        pair.send(*frames)
        received, _ = receive(source, 4)
    assert received.frames == frames
    assert received.lengths == [64] * 4


def test_filter_keeps_what_matches_and_the_rest_is_not_counted(pair: Pair) -> None:
    matching = [numbered_frame(number) for number in range(5)]
    with pair.here.entered(), PacketMmapSource(HERE, "udp port 5000") as source:
        pair.send(*[frame for one in matching for frame in (one, TCP_FRAME)])
        received, statistics = receive(source, 5)
    assert received.frames == matching
    assert statistics.received == 5
    assert statistics.filtered == 0


def test_filter_on_vlans_sees_the_tags_and_counts_what_it_takes_out(pair: Pair) -> None:
    frames = [numbered_frame(0), tagged(numbered_frame(1), 7), tagged(numbered_frame(2), 8)]
    with pair.here.entered(), PacketMmapSource(HERE, "vlan 7 and udp port 5000") as source:
        assert "the filter tests VLAN tags" in str(source.describe())
        pair.send(*frames)
        received, statistics = receive(source, 3, patience=20)
    assert received.frames == frames[1:2]
    assert (statistics.received, statistics.delivered, statistics.filtered) == (3, 1, 2)
    assert statistics.unaccounted == 0


def test_nothing_before_the_start_and_after_the_stop_is_counted(pair: Pair) -> None:
    pair.send(numbered_frame(1))
    with pair.here.entered(), PacketMmapSource(HERE) as source:
        pair.send(numbered_frame(2))
        received, _ = receive(source, 1)
        pair.send(numbered_frame(3))
        time.sleep(0.05)
        statistics = source.statistics()
    assert list(in_order(received.frames)) == [2]
    assert statistics.received == 1


def test_snaplen_cuts_and_the_wire_length_stays(pair: Pair) -> None:
    with pair.here.entered(), PacketMmapSource(HERE, snaplen=50) as source:
        pair.send(numbered_frame(1, 1000), tagged(numbered_frame(2, 200)))
        received, statistics = receive(source, 2)
        assert source.interfaces[0].snaplen == 50
    assert received.frames == [numbered_frame(1, 1000)[:50], tagged(numbered_frame(2, 200))[:50]]
    assert received.lengths == [1000, 204]
    assert statistics.remarks == {}


@pytest.mark.parametrize(("direction", "expected"), [("in", [1]), ("out", [2]), ("inout", [1, 2])])
def test_directions(pair: Pair, direction: Direction, expected: list[int]) -> None:
    with pair.here.entered(), PacketMmapSource(HERE, "udp", direction=direction) as source:
        pair.send(numbered_frame(1))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind((HERE, 0))
            sender.send(numbered_frame(2))
        received, statistics = receive(source, len(expected))
    assert list(in_order(received.frames)) == expected
    assert [flags & DIRECTION for flags in received.flags] == expected
    assert statistics.received == len(expected)


def test_loopback_gives_each_frame_once(pair: Pair) -> None:
    with (
        pair.here.entered(),
        PacketMmapSource("lo") as source,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for number in range(3):
            sender.sendto(bytes([number] * 4), ("127.0.0.1", 9))
        received, _ = receive(source, 3, patience=4)
    udp = [frame for frame in received.frames if frame[23] == 17]
    assert [frame[-1] for frame in udp] == [0, 1, 2]


@pytest.mark.parametrize("fanout", ["cpu", "hash", "qm"])
def test_fanout_gives_each_frame_to_one_ring(make_pair: MakePair, fanout: Fanout) -> None:
    pair = make_pair(queues=4)
    frames = [numbered_frame(number) for number in range(400)]
    # Many flows, so that hashing has something to spread.
    frames = [frame[:34] + (number % 50).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]
    with (
        pair.here.entered(),
        PacketMmapSource(HERE, fanout=fanout, rings=3) as source,
        PacketMmapSource(HERE, fanout=fanout, rings=2) as another,
    ):
        assert f"3 rings, 31 MiB, blocks handed over after 20 ms, fanout {fanout}" in source.describe().mode
        pair.send(*frames)
        received, statistics = receive(source, len(frames))
        also_received, _ = receive(another, len(frames))
    assert sorted(received.frames) == sorted(frames)
    assert sorted(also_received.frames) == sorted(frames)
    assert set(received.queues) <= {0, 1, 2}
    if fanout == "hash":
        assert len(set(received.queues)) > 1
    for ring in range(3):
        mine = [frame for frame, queue in zip(received.frames, received.queues, strict=True) if queue == ring]
        assert list(in_order(mine)) == sorted(in_order(mine))
    assert statistics.unaccounted == 0


def test_full_ring_drops_and_every_frame_is_accounted_for(pair: Pair) -> None:
    # Two blocks hold fewer than these; nothing is read until all are sent.
    frames = [numbered_frame(number, 1500) for number in range(1000)]
    with pair.here.entered(), PacketMmapSource(HERE, buffer_bytes=2 * BLOCK_BYTES) as source:
        pair.send(*frames)
        assert source.statistics().waiting > 0
        received, statistics = receive(source, 1000, patience=4)
    assert 0 < len(received.frames) < 1000
    assert received.frames == [numbered_frame(number, 1500) for number in in_order(received.frames)]
    assert statistics.received == 1000
    assert statistics.dropped == {"ring full": 1000 - len(received.frames)}
    assert statistics.remarks["times that a ring was found full"] >= 1
    assert statistics.unaccounted == 0
    assert statistics.waiting == 0


def test_frames_sent_on_are_promiscuously_seen_only_where_asked(pair: Pair) -> None:
    with pair.here.entered():
        with PacketMmapSource(HERE):
            assert "promiscuity 1" in pair.here.ip("-d", "link", "show", HERE)
        with PacketMmapSource(HERE, promiscuous=False):
            assert "promiscuity 0" in pair.here.ip("-d", "link", "show", HERE)
        assert "promiscuity 0" in pair.here.ip("-d", "link", "show", HERE)


def test_interface_that_goes_down_and_up_again_is_captured_on(pair: Pair) -> None:
    with pair.here.entered(), PacketMmapSource(HERE) as source:
        batches = source.batches(0.02)
        pair.here.ip("link", "set", HERE, "down")
        assert next(batches) is None
        pair.here.ip("link", "set", HERE, "up")
        for _ in range(200):
            pair.send(numbered_frame(1))
            if next(batches) is not None:
                break
        else:
            pytest.fail("no frame came after the interface was up again")
        assert wait_until(lambda: source.statistics().remarks == {"times that the interface went down": 1})


def test_interface_that_goes_away_ends_the_capture_with_what_it_gave(pair: Pair) -> None:
    with pair.here.entered(), PacketMmapSource(HERE) as source:
        pair.send(numbered_frame(1))
        pair.here.ip("link", "delete", HERE)
        received = []
        with pytest.raises(CaptureError, match="interface here0 is gone"):
            for batch in source.batches(0.02):
                if batch is not None:
                    received += [batch.frame_bytes(row) for row in range(batch.count)]
        assert received == [numbered_frame(1)]
        assert source.statistics().unaccounted == 0


def test_unknown_interface_and_wrong_filter_are_refused(pair: Pair) -> None:
    with pair.here.entered():
        with pytest.raises(CaptureError, match="no interface 'eth7': name one of here0, lo"):
            PacketMmapSource("eth7")
        with pytest.raises(FilterError):
            PacketMmapSource(HERE, "udp port")
        with pytest.raises(UsageError, match="fanout mode"):
            PacketMmapSource(HERE, rings=2)


def test_buffer_that_cannot_be_had_is_refused(pair: Pair) -> None:
    with pair.here.entered(), pytest.raises(CaptureError, match="smaller buffer with -B"):
        PacketMmapSource(HERE, buffer_bytes=1 << 45)


def test_hardware_timestamps_of_a_driver_without_any_are_refused(pair: Pair) -> None:
    with pair.here.entered(), pytest.raises(CaptureError, match="here0 timestamps no received frames in hardware"):
        PacketMmapSource(HERE, timestamps="hardware")


def test_timestamp_of_the_xdp_hook_is_refused(pair: Pair) -> None:
    with pair.here.entered(), pytest.raises(UsageError, match="use --backend af_xdp"):
        PacketMmapSource(HERE, timestamps="xdp")


def test_reader_timestamps_where_that_is_asked_for(pair: Pair) -> None:
    with pair.here.entered(), PacketMmapSource(HERE, timestamps="user") as source:
        assert source.describe().timestamps == "when uspcap read the ring (CLOCK_REALTIME)"
        pair.send(numbered_frame(1))
        sent_at = time.time_ns()
        received, _ = receive(source, 1)
    assert received.sources == [TimestampSource.USER]
    # A block is handed over after 20 ms, and only then read: the kernel's timestamp would be from before.
    assert received.timestamps[0] > sent_at


def test_nic_that_fails_after_its_timestamping_was_switched_on_gets_its_setting_back(pair: Pair) -> None:
    nic = NicKernel()
    with pair.here.entered(), pytest.raises(CaptureError, match="smaller buffer with -B"):
        PacketMmapSource(HERE, timestamps="hardware", buffer_bytes=1 << 45, calls=nic)
    assert nic.settings_asked_for == [(0, 1, ALL), (0, 1, NONE)]
    assert nic.open_clocks == 0


def test_hardware_timestamps_that_are_missing_fall_back_frame_by_frame(pair: Pair) -> None:
    nic = NicKernel()
    with pair.here.entered(), PacketMmapSource(HERE, timestamps="hardware", calls=nic) as source:
        assert source.describe().timestamps.startswith("NIC clock /dev/ptp3 (fake clock) on UTC")
        assert "was switched from none to all" in str(source.describe())
        assert nic.setting == (0, 1, ALL)
        assert source.interfaces[0].timestamp_source is TimestampSource.HARDWARE
        pair.send(numbered_frame(1), numbered_frame(2))
        received, _ = receive(source, 2)
        said = [source.interfaces[number].timestamp_source for number in received.interfaces]
    assert TimestampSource.HARDWARE not in received.sources
    assert said == received.sources
    assert nic.setting == (0, 1, NONE)


def test_statistics_stay_after_closing(pair: Pair) -> None:
    with pair.here.entered():
        with PacketMmapSource(HERE) as source:
            pair.send(numbered_frame(1))
            receive(source, 1)
        source.close()
        assert source.statistics().received == 1


def test_program_without_a_filter_needs_no_compiler_and_keeps_the_snaplen() -> None:
    assert kernel_program(" ", 1, 96, "inout").tolist() == [(6, 0, 0, 96)]
    assert len(kernel_program("", 1, 96, "out")) == 4
    assert BATCH_BYTES >= 2 * BLOCK_BYTES
