"""Draining rings that lie in plain memory: no kernel, no privilege."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tpacket_ring import (
    HEADER_BYTES,
    LOSING,
    RAW_HARDWARE,
    SOFTWARE,
    TPID_VALID,
    USER,
    VLAN_VALID,
    FakeRing,
    RingFrame,
)
from support.traffic import Received, numbered_frame, tagged

from uspcap.backends.base import TimestampedInterfaces
from uspcap.backends.packet_mmap.tpacket import PacketRing
from uspcap.frames import FrameBatch, Interface, TimestampSource

BLOCK = 4096
READ_AT_NS = 1_700_000_000_000_000_000
INBOUND, OUTBOUND = 1, 2
UNICAST, MULTICAST, BROADCAST, PROMISCUOUS = (kind << 2 for kind in (1, 2, 3, 4))
TIMESTAMPS = {source: source.name for source in TimestampSource}


def make_interfaces() -> TimestampedInterfaces:
    return TimestampedInterfaces(Interface(1, "x0", timestamp_source=TimestampSource.KERNEL), TIMESTAMPS)


def make_ring(
    fake: FakeRing, interfaces: TimestampedInterfaces, *, snaplen: int = 65535, tags: bool = True
) -> PacketRing:
    count = len(fake.memory) // fake.block_bytes
    return PacketRing(fake.memory, fake.block_bytes, count, snaplen, tags, 3, False, interfaces.table)


def drain_all(ring: PacketRing, interfaces: TimestampedInterfaces, *, rows: int = 64, room: int = 1 << 16) -> Received:
    """Drain batch after batch until one stays empty."""
    received = Received()
    batch = FrameBatch(rows)
    batch.set_data(np.zeros(room, np.uint8))
    batch.frames_before = 0
    while True:
        batch.count = 0
        ring.drain(batch, 0, READ_AT_NS)
        if not batch.count:
            return received
        batch.set_interfaces(interfaces.known)
        received.take(batch)
        batch.frames_before += batch.count


def test_frames_come_out_as_they_went_in_and_blocks_go_back() -> None:
    fake, interfaces = FakeRing(BLOCK, 2), make_interfaces()
    ring = make_ring(fake, interfaces)
    frames = [numbered_frame(number, 60 + number) for number in range(6)]
    fake.fill(0, [RingFrame(frame, (7, number)) for number, frame in enumerate(frames[:4])])
    fake.fill(1, [RingFrame(frame, (8, number), packet_type=4) for number, frame in enumerate(frames[4:])])
    received = drain_all(ring, interfaces)
    assert received.frames == frames
    assert received.lengths == [len(frame) for frame in frames]
    assert received.timestamps == [
        7_000_000_000,
        7_000_000_001,
        7_000_000_002,
        7_000_000_003,
        8_000_000_000,
        8_000_000_001,
    ]
    assert received.flags == [INBOUND | UNICAST] * 4 + [OUTBOUND] * 2
    assert received.queues == [3] * 6
    assert received.numbers == [1, 2, 3, 4, 5, 6]
    assert fake.is_kernels(0)
    assert fake.is_kernels(1)
    assert (ring.malformed, ring.frames_cut) == (0, 0)


def test_reading_is_the_time_of_the_call_that_took_the_frame() -> None:
    fake, interfaces = FakeRing(BLOCK, 2), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(0, [RingFrame(numbered_frame(number)) for number in range(4)])
    fake.fill(1, [RingFrame(numbered_frame(4))])
    before = time.time_ns()
    readings = drain_all(ring, interfaces, rows=3).readings
    assert len(readings) == 5
    assert readings == sorted(readings)
    assert len(set(readings[:3])) == 1
    assert before <= readings[0] <= readings[-1] <= time.time_ns()
    fake.fill(0, [RingFrame(numbered_frame(5))])
    between = time.time_ns()
    assert drain_all(ring, interfaces).readings[0] >= between


def test_block_that_is_still_the_kernels_is_left_alone() -> None:
    fake, interfaces = FakeRing(BLOCK, 2), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(1, [RingFrame(numbered_frame(1))])
    assert drain_all(ring, interfaces).frames == []
    assert not fake.is_kernels(1)


def test_block_that_is_not_handed_over_can_be_read_once_nothing_more_comes() -> None:
    fake, interfaces = FakeRing(BLOCK, 2), make_interfaces()
    ring = make_ring(fake, interfaces)
    for block, numbers in enumerate((range(2), range(2, 5))):
        fake.fill(block, [RingFrame(numbered_frame(number)) for number in numbers])
        fake.overwrite(block, 24, block + 1)
    fake.overwrite(1, 8, 0)
    assert ring.unfinished == 0  # the block before it is to be read first
    received = drain_all(ring, interfaces).frames
    assert ring.unfinished == 3
    batch = FrameBatch(64)
    batch.set_data(np.zeros(1 << 16, np.uint8))
    ring.drain_unfinished(batch, 0, READ_AT_NS)
    assert [*received, *map(batch.frame_bytes, range(batch.count))] == [numbered_frame(number) for number in range(5)]
    assert ring.unfinished == 0


def test_batch_takes_what_it_has_room_for() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    fake.fill(0, [RingFrame(numbered_frame(number)) for number in range(4)])
    ring = make_ring(fake, interfaces)
    whole = len(numbered_frame(0))
    batch = FrameBatch(64)
    batch.set_data(np.zeros(whole + 10, np.uint8))
    with pytest.raises(ValueError, match="not within"):
        ring.drain(batch, whole + 11, READ_AT_NS)
    assert ring.drain(batch, 0, READ_AT_NS) == whole
    assert batch.count == 1
    batch.count = 0
    batch.set_data(np.zeros(whole - 10, np.uint8))
    assert ring.drain(batch, 0, READ_AT_NS) == whole - 10
    assert (batch.captured_length.tolist(), batch.wire_length.tolist()) == ([whole - 10], [whole])


def test_each_frame_says_who_timestamped_it_and_has_an_interface_for_it() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(0, [RingFrame(numbered_frame(0), status=status) for status in (SOFTWARE, 0, RAW_HARDWARE, 0, SOFTWARE)])
    received = drain_all(ring, interfaces)
    kernel, user, hardware = TimestampSource.KERNEL, TimestampSource.USER, TimestampSource.HARDWARE
    assert received.sources == [kernel, user, hardware, user, kernel]
    assert received.interfaces == [0, 1, 2, 1, 0]
    assert [one.timestamp_source for one in interfaces.known] == [kernel, user, hardware]
    assert [one.description for one in interfaces.known] == [
        f"timestamps: {name}; timestamps: {name}" for name in ("KERNEL", "USER", "HARDWARE")
    ]


@pytest.mark.parametrize(
    ("status", "tag", "given_type", "expected"),
    [
        (VLAN_VALID | TPID_VALID, 5, 0x88A8, tagged(numbered_frame(1), 5, 0x88A8)),
        (VLAN_VALID, 0xE005, 0, tagged(numbered_frame(1), 0xE005, 0x8100)),
        (VLAN_VALID | TPID_VALID, 0, 0x8100, tagged(numbered_frame(1), 0, 0x8100)),
        (0, 7, 0, tagged(numbered_frame(1), 7, 0x8100)),
        (0, 0, 0x8100, numbered_frame(1)),
    ],
)
def test_vlan_tag_is_put_back_where_there_was_one(status: int, tag: int, given_type: int, expected: bytes) -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(0, [RingFrame(numbered_frame(1), status=status | SOFTWARE, tag=tag, tag_type=given_type)])
    received = drain_all(ring, interfaces)
    assert received.frames == [expected]
    assert received.lengths == [len(expected)]


def test_tag_is_not_put_into_frames_that_are_not_ethernet() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces, tags=False)
    fake.fill(0, [RingFrame(b"\x45" + bytes(30), status=VLAN_VALID, tag=5)])
    assert drain_all(ring, interfaces).frames == [b"\x45" + bytes(30)]


@pytest.mark.parametrize("snaplen", [4, 12, 13, 15, 16, 17, 40])
def test_put_back_tag_counts_towards_the_snaplen(snaplen: int) -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces, snaplen=snaplen)
    whole = numbered_frame(1)
    # A frame cut in its addresses has no place for the tag.
    fake.fill(0, [RingFrame(whole[:snaplen], status=VLAN_VALID, tag=5, wire_length=len(whole))])
    received = drain_all(ring, interfaces)
    assert received.frames == [tagged(whole)[:snaplen] if snaplen >= 12 else whole[:snaplen]]
    assert received.lengths == [len(whole) + (4 if snaplen >= 12 else 0)]
    assert ring.frames_cut == 0


def test_frame_cut_below_the_snaplen_is_counted() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces, snaplen=1000)
    fake.fill(0, [RingFrame(numbered_frame(1, 500), wire_length=9000), RingFrame(bytes(1000), wire_length=1001)])
    assert drain_all(ring, interfaces).lengths == [9000, 1001]
    assert ring.frames_cut == 1


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (48 + 12, BLOCK),  # captured length beyond the block
        (48 + 12, 0xFFFFFFFF),
        (48 + 24, 0xFFFF),  # tp_mac
        (16, BLOCK - HEADER_BYTES + 1),  # offset_to_first_pkt
        (16, 0xFFFFFFFF),
    ],
)
def test_place_outside_of_the_block_is_refused_and_the_next_block_read(offset: int, value: int) -> None:
    fake, interfaces = FakeRing(BLOCK, 2), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(0, [RingFrame(numbered_frame(0)), RingFrame(numbered_frame(1))])
    fake.overwrite(0, offset, value)
    fake.fill(1, [RingFrame(numbered_frame(2))])
    assert drain_all(ring, interfaces).frames == [numbered_frame(2)]
    assert ring.malformed == 2
    assert fake.is_kernels(0)


@pytest.mark.parametrize("step", [0, BLOCK + 1, 0xFFFFFFF0])
def test_step_that_leads_nowhere_ends_the_block(step: int) -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces)
    fake.fill(0, [RingFrame(numbered_frame(number)) for number in range(3)])
    fake.overwrite(0, 48, step)
    assert drain_all(ring, interfaces).frames == [numbered_frame(0)]
    assert ring.malformed == 2
    assert fake.is_kernels(0)


@given(
    blocks=st.lists(st.lists(st.integers(60, 700), min_size=1, max_size=5), min_size=1, max_size=12),
    rows=st.integers(1, 7),
    room=st.integers(700, 2000),
    count=st.integers(1, 3),
)
def test_no_frame_is_lost_or_duplicated_whatever_the_sizes_of_batches_and_rings(
    blocks: list[list[int]], rows: int, room: int, count: int
) -> None:
    fake, interfaces = FakeRing(BLOCK, count), make_interfaces()
    ring = make_ring(fake, interfaces)
    sent, received = [], []
    for at, lengths in enumerate(blocks):
        frames = [numbered_frame(len(sent) + number, length) for number, length in enumerate(lengths)]
        sent += frames
        fake.fill(at % count, [RingFrame(frame) for frame in frames])
        received += drain_all(ring, interfaces, rows=rows, room=room).frames
    assert received == sent


@given(block=st.binary(min_size=512, max_size=512), snaplen=st.integers(1, 1000))
def test_no_content_of_a_block_leads_outside_of_it(block: bytes, snaplen: int) -> None:
    fake, interfaces = FakeRing(512, 1), make_interfaces()
    fake.memory[:] = np.frombuffer(block, np.uint8)
    # Handed over, with few frames said to be there, so that the end comes.
    fake.overwrite(0, 8, 1)
    fake.overwrite(0, 12, block[12])
    fake.overwrite(0, 16, 48 + block[16] % 64)
    ring = make_ring(fake, interfaces, snaplen=snaplen)
    received = drain_all(ring, interfaces)
    assert len(received.frames) + ring.malformed == block[12]
    assert all(len(frame) <= snaplen for frame in received.frames)
    assert fake.is_kernels(0)


def test_memory_that_is_no_ring_is_refused() -> None:
    table = make_interfaces().table
    memory = np.zeros(2 * BLOCK, np.uint8)
    with pytest.raises(ValueError, match="do not hold"):
        PacketRing(memory, BLOCK, 3, 100, True, 0, False, table)
    with pytest.raises(ValueError, match="no ring"):
        PacketRing(memory, 100, 1, 100, True, 0, False, table)
    with pytest.raises(ValueError, match="multiple of 8"):
        PacketRing(memory[4:], BLOCK, 1, 100, True, 0, False, table)
    with pytest.raises(ValueError, match="entries"):
        PacketRing(memory, BLOCK, 2, 100, True, 0, False, table[:4])


def test_closed_ring_is_refused() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces)
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        drain_all(ring, interfaces)


def test_hardware_timestamp_of_zero_is_none_and_gets_the_time_of_reading() -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    ring = make_ring(fake, interfaces)
    frames = [RingFrame(b"frame", (0, 0), RAW_HARDWARE), RingFrame(b"frame", (0, 1), RAW_HARDWARE)]
    fake.fill(0, [*frames, RingFrame(b"frame", (0, 0), SOFTWARE)])
    received = drain_all(ring, interfaces)
    assert received.timestamps == [READ_AT_NS, 1, 0]
    assert received.sources == [TimestampSource.USER, TimestampSource.HARDWARE, TimestampSource.KERNEL]


@pytest.mark.parametrize(
    ("packet_type", "flags"),
    [
        (0, INBOUND | UNICAST),
        (1, INBOUND | BROADCAST),
        (2, INBOUND | MULTICAST),
        (3, INBOUND | PROMISCUOUS),
        (4, OUTBOUND),
        (5, INBOUND),
        (255, INBOUND),
    ],
)
def test_flags_say_direction_and_reception_type(packet_type: int, flags: int) -> None:
    fake, interfaces = FakeRing(BLOCK, 1), make_interfaces()
    fake.fill(0, [RingFrame(numbered_frame(1), packet_type=packet_type)])
    assert drain_all(make_ring(fake, interfaces), interfaces).flags == [flags]


def test_first_frame_of_the_first_losing_block_is_pointed_out() -> None:
    fake, interfaces = FakeRing(BLOCK, 4), make_interfaces()
    ring = make_ring(fake, interfaces)
    batch = FrameBatch(64)
    batch.set_data(np.zeros(1 << 16, np.uint8))
    batch.frames_before = batch.count = 0
    for block in range(4):
        fake.fill(block, [RingFrame(numbered_frame(number)) for number in range(3)])
        if block in (1, 2):
            fake.overwrite(block, 8, USER | LOSING)
    ring.drain(batch, 0, READ_AT_NS)
    assert (batch.count, ring.losing_row) == (12, 3)
    fake.fill(0, [RingFrame(numbered_frame(1))])
    batch.count = 0
    ring.drain(batch, 0, READ_AT_NS)
    assert (batch.count, ring.losing_row) == (1, -1)
