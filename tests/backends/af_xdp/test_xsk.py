"""Draining AF_XDP rings that lie in plain memory: no kernel, no privilege."""

import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traffic import Received, numbered_frame
from support.xsk_rings import CONTINUED, ENTRIES, FakeSocket, at_head, metadata

from uspcap.backends.af_xdp.xsk import ReceiveQueue, Ring
from uspcap.backends.base import TimestampedInterfaces
from uspcap.bpf.xdp_program import METADATA_MAGIC
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, Interface, TimestampSource

TAI_OFFSET_NS = 37_000_000_000
READ_AT_NS = 1_700_000_000_000_000_000
TIMESTAMPS = {source: source.name for source in TimestampSource}


class Rig:
    """A fake socket and the queue that drains it."""

    def __init__(
        self,
        chunks: int = 8,
        *,
        snaplen: int = 65535,
        hardware: bool = False,
        rows: int = 64,
        room: int = 1 << 17,
        cookie: int = 0,
    ) -> None:
        self.socket = FakeSocket(chunks)
        self.interfaces = TimestampedInterfaces(Interface(1, "x0", timestamp_source=TimestampSource.XDP), TIMESTAMPS)
        self.queue = ReceiveQueue(
            self.socket.umem,
            self.socket.chunk_bytes,
            self.socket.receive,
            self.socket.fill,
            snaplen,
            2,
            hardware,
            self.interfaces.table,
            cookie=cookie,
            ethernet=True,
        )
        self.queue.prime()
        self.batch = FrameBatch(rows)
        self.batch.set_data(np.zeros(room, np.uint8))
        self.batch.frames_before = 0

    def drain(self) -> Received:
        received = Received()
        while True:
            self.batch.count = 0
            used = self.queue.drain(self.batch, 0, TAI_OFFSET_NS, READ_AT_NS)
            assert used == int(self.batch.captured_length.sum())
            if not self.batch.count:
                return received
            self.batch.set_interfaces(self.interfaces.known)
            received.take(self.batch)
            self.batch.frames_before += self.batch.count


def test_reading_is_the_time_of_the_call_that_took_the_frame() -> None:
    rig = Rig(8, rows=2)
    for number in range(3):
        rig.socket.deliver(numbered_frame(number))
    before = time.time_ns()
    (first, second, third) = rig.drain().readings
    assert before <= first == second <= third <= time.time_ns()
    rig.socket.deliver(numbered_frame(3))
    between = time.time_ns()
    assert rig.drain().readings[0] >= between


def test_every_chunk_is_given_before_the_first_frame() -> None:
    rig = Rig(8)
    assert rig.socket.chunks_given() == [2048 * number for number in range(8)]


def test_frames_come_out_as_they_went_in_and_chunks_go_back() -> None:
    rig = Rig(4)
    for lap in range(5):
        frames = [numbered_frame(10 * lap + number, 60 + number) for number in range(3)]
        for frame in frames:
            rig.socket.deliver(frame)
        assert len(rig.socket.chunks_given()) == 1
        received = rig.drain()
        assert received.frames == frames
        assert received.lengths == [60, 61, 62]
        assert received.queues == [2, 2, 2]
        assert received.flags == [1, 1, 1]
        assert received.numbers == [3 * lap + one for one in (1, 2, 3)]
        assert sorted(rig.socket.chunks_given()) == [0, 2048, 4096, 6144]
    assert rig.queue.malformed == 0


def test_frame_in_fragments_is_one_again() -> None:
    rig = Rig(8)
    frames = [numbered_frame(1, 9000), numbered_frame(2, 60), numbered_frame(3, 1793)]
    rig.socket.deliver(frames[0], metadata(TAI_OFFSET_NS + 5))
    rig.socket.deliver(frames[1], metadata(TAI_OFFSET_NS + 6))
    received = rig.drain()
    rig.socket.deliver(frames[2], metadata(TAI_OFFSET_NS + 7))
    received_later = rig.drain()
    assert received.frames + received_later.frames == frames
    assert received.lengths + received_later.lengths == [9000, 60, 1793]
    assert received.timestamps + received_later.timestamps == [5, 6, 7]
    assert len(rig.socket.chunks_given()) == 8


def test_frame_whose_last_fragment_is_missing_waits_for_it() -> None:
    rig = Rig(8)
    first, second = rig.socket.take_chunk() + 256, rig.socket.take_chunk() + 256
    rig.socket.umem[first : first + 100] = 1
    rig.socket.umem[second : second + 50] = 2
    rig.socket.describe(first, 100, CONTINUED)
    assert rig.drain().frames == []
    assert len(rig.socket.chunks_given()) == 6
    rig.socket.describe(second, 50)
    assert rig.drain().frames == [b"\1" * 100 + b"\2" * 50]
    assert len(rig.socket.chunks_given()) == 8


def test_ring_full_of_a_frame_without_end_is_emptied_and_counted() -> None:
    rig = Rig(4)
    for _ in range(4):
        rig.socket.describe(rig.socket.take_chunk() + 256, 100, CONTINUED)
    assert rig.drain().frames == []
    assert rig.queue.malformed == 1
    assert len(rig.socket.chunks_given()) == 4


@pytest.mark.parametrize("snaplen", [1, 59, 60, 1792, 1793, 5000, 9000, 9001])
def test_snaplen_cuts_across_fragments(snaplen: int) -> None:
    rig = Rig(8, snaplen=snaplen)
    rig.socket.deliver(numbered_frame(1, 9000))
    received = rig.drain()
    assert received.frames == [numbered_frame(1, 9000)[:snaplen]]
    assert received.lengths == [9000]


def test_timestamps_say_where_they_come_from() -> None:
    for hardware in (False, True):
        rig = Rig(8, hardware=hardware)
        hook = TAI_OFFSET_NS + 1000
        for area in (
            metadata(hook),
            metadata(hook, 77),
            metadata(hook, 77, flags=0),  # a timestamp that the program does not vouch for
            metadata(hook, 0, flags=1),  # a timestamp of 0 is none, never 1970
            metadata(hook, magic=METADATA_MAGIC ^ 1),
            b"",
        ):
            rig.socket.deliver(numbered_frame(1), area)
        received = rig.drain()
        xdp, user = TimestampSource.XDP, TimestampSource.USER
        second = (TimestampSource.HARDWARE, 77) if hardware else (xdp, 1000)
        assert list(zip(received.sources, received.timestamps, strict=True)) == [
            (xdp, 1000),
            second,
            (xdp, 1000),
            (xdp, 1000),
            (user, READ_AT_NS),
            (user, READ_AT_NS),
        ]
        said = [rig.interfaces.known[number].timestamp_source for number in received.interfaces]
        assert said == received.sources


def test_frame_at_the_start_of_a_chunk_has_no_metadata() -> None:
    rig = Rig(2)
    rig.socket.take_chunk()
    address = rig.socket.take_chunk()
    rig.socket.umem[address - 32 : address] = np.frombuffer(metadata(TAI_OFFSET_NS), np.uint8)
    rig.socket.describe(address, 60)
    assert rig.drain().sources == [TimestampSource.USER]


@pytest.mark.parametrize(
    ("address", "length"), [(8 * 2048, 1), (8 * 2048 - 10, 11), (1 << 63, 60), ((1 << 64) - 1, 2), (0, 0xFFFFFFFF)]
)
def test_descriptor_that_points_outside_is_left_out(address: int, length: int) -> None:
    rig = Rig(8)
    rig.socket.describe(address, length)
    rig.socket.deliver(numbered_frame(7))
    assert rig.drain().frames == [numbered_frame(7)]
    assert rig.queue.malformed == 1


def test_wish_to_be_woken_is_seen() -> None:
    rig = Rig(2)
    assert not rig.queue.needs_wakeup
    rig.socket.ask_for_wakeup(True)
    assert rig.queue.needs_wakeup


@given(
    laps=st.lists(st.lists(st.integers(60, 5000), min_size=1, max_size=4), min_size=1, max_size=10),
    rows=st.integers(1, 5),
    room=st.integers(5000, 9000),
)
def test_no_frame_is_lost_or_duplicated_whatever_the_sizes(laps: list[list[int]], rows: int, room: int) -> None:
    rig = Rig(16, rows=rows, room=room)
    sent, received = [], []
    for lengths in laps:
        frames = [numbered_frame(len(sent) + number, length) for number, length in enumerate(lengths)]
        sent += frames
        for number, frame in enumerate(frames):
            rig.socket.deliver(frame, metadata(TAI_OFFSET_NS + number))
        received += rig.drain().frames
        assert sorted(rig.socket.chunks_given()) == [2048 * number for number in range(16)]
    assert received == sent


@given(descriptors=st.lists(st.binary(min_size=16, max_size=16), min_size=8, max_size=8), produced=st.integers(0, 9))
def test_no_content_of_the_ring_leads_outside_of_the_umem(descriptors: list[bytes], produced: int) -> None:
    rig = Rig(8, snaplen=3000)
    data = b"".join(descriptors)
    rig.socket.receive_memory[ENTRIES : ENTRIES + len(data)] = np.frombuffer(data, np.uint8)
    start = 0xFFFFFFFD
    rig.socket.receive_memory[0:4] = np.frombuffer(struct.pack("=I", (start + produced) & 0xFFFFFFFF), np.uint8)
    assert all(len(frame) <= 3000 for frame in rig.drain().frames)


def test_memory_that_does_not_fit_is_refused() -> None:
    memory = np.zeros(1000, np.uint8)
    for arguments, said in (
        ((0, 64, 192, 128, 3, 16), "power of two"),
        ((0, 998, 192, 128, 4, 16), "not within"),
        ((0, 64, 192, 128, 64, 16), "not within"),
        ((0, 64, 194, 128, 4, 16), "not within"),
    ):
        with pytest.raises(ValueError, match=said):
            Ring(memory, *arguments)
    rig = Rig(4)
    table = rig.interfaces.table
    receive, fill = rig.socket.receive, rig.socket.fill
    with pytest.raises(ValueError, match="chunks of 3000"):
        ReceiveQueue(rig.socket.umem, 3000, receive, fill, 100, 0, False, table)
    with pytest.raises(ValueError, match="no room for all chunks"):
        ReceiveQueue(rig.socket.umem, 1024, receive, fill, 100, 0, False, table)
    with pytest.raises(ValueError, match="entries"):
        ReceiveQueue(rig.socket.umem, 2048, receive, fill, 100, 0, False, table[:3])
    rig.queue.close()
    with pytest.raises(ValueError, match="closed"):
        rig.queue.drain(rig.batch, 0, 0, 0)


def test_loss_is_reported_by_the_first_frame_after_what_the_ring_held_then() -> None:
    rig = Rig(8)
    for number in range(3):
        rig.socket.deliver(numbered_frame(number))
    rig.queue.note_lost(5)
    for number in range(3, 6):
        rig.socket.deliver(numbered_frame(number))
    assert rig.drain().drop_counts == [0, 0, 0, 5, 0, 0]
    assert rig.queue.lost == 0


def test_loss_without_a_frame_after_it_waits_for_one() -> None:
    rig = Rig(8)
    rig.socket.deliver(numbered_frame(0))
    rig.queue.note_lost(7)
    assert rig.drain().drop_counts == [0]
    assert rig.queue.lost == 7
    with pytest.raises(ValueError, match="while 7 wait"):
        rig.queue.note_lost(1)
    rig.socket.deliver(numbered_frame(1))
    assert rig.drain().drop_counts == [7]
    with pytest.raises(ValueError, match="0 frames cannot be noted"):
        rig.queue.note_lost(0)


def test_loss_goes_on_where_the_frame_at_its_place_is_malformed() -> None:
    rig = Rig(8)
    rig.queue.note_lost(2)
    rig.socket.describe(1 << 40, 60)
    rig.socket.deliver(numbered_frame(1))
    assert rig.drain().drop_counts == [2]
    assert rig.queue.malformed == 1


COOKIE = 0x0123456789ABCDEF


def test_metadata_at_the_head_is_left_out_of_the_frame() -> None:
    rig = Rig(8, cookie=COOKIE)
    frames = [numbered_frame(1), numbered_frame(2, 5000), numbered_frame(3)]
    for number, frame in enumerate(frames):
        rig.socket.deliver(at_head(TAI_OFFSET_NS + number, COOKIE) + frame)
    received = rig.drain()
    assert received.frames == frames
    assert received.lengths == [len(frame) for frame in frames]
    assert received.timestamps == [0, 1, 2]
    assert received.sources == [TimestampSource.XDP] * 3
    assert rig.queue.without_timestamp == 0


@pytest.mark.parametrize("cookie", [0, COOKIE + 1])
def test_frame_that_only_looks_like_metadata_at_the_head_stays_whole(cookie: int) -> None:
    rig = Rig(8, cookie=cookie)
    frame = at_head(TAI_OFFSET_NS, COOKIE) + numbered_frame(1)
    rig.socket.deliver(frame)
    received = rig.drain()
    assert received.frames == [frame]
    assert received.sources == [TimestampSource.USER]
    assert rig.queue.without_timestamp == 1


def test_metadata_is_taken_once() -> None:
    """The next frame in its chunk, without metadata of its own, is timestamped by the reader."""
    rig = Rig(1)
    rig.socket.deliver(numbered_frame(1), metadata(TAI_OFFSET_NS + 5))
    assert rig.drain().sources == [TimestampSource.XDP]
    rig.socket.deliver(numbered_frame(2))
    assert rig.drain().sources == [TimestampSource.USER]


def whole_frame(length: int, tags: int = 0, version: int = 4) -> bytes:
    """An Ethernet frame whose IP header gives its length."""
    head = bytes(12) + b"\x81\x00\x00\x05" * tags
    room = length - len(head) - 2
    if version == 4:
        return head + struct.pack("!HBBH", 0x0800, 0x45, 0, room) + bytes(room - 4)
    return head + struct.pack("!HIH", 0x86DD, 6 << 28, room - 40) + bytes(room - 6)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", [0, 1, 2, 3])
@given(lengths=st.lists(st.tuples(st.integers(80, 5000), st.booleans()), min_size=1, max_size=20), room=st.just(1024))
def test_frames_that_a_driver_cut_are_counted_and_no_others(
    tags: int, version: int, lengths: list[tuple[int, bool]], room: int
) -> None:
    """Cut are those longer than a buffer; of others some have lost their end, or are padded."""
    rig = Rig(64)
    cut = truncated = 0
    for length, damaged in lengths:
        frame = whole_frame(length, tags, version)
        if length > room:
            pieces = [frame[at : at + room] for at in range(0, length, room)]
            cut += 1
            truncated += 1
        elif damaged:
            # What comes next is no rest of it: its own length says so.
            pieces = [frame[:-1], whole_frame(80, 0, 4)]
            truncated += 1
        else:
            pieces = [frame + bytes(7)]
        for piece in pieces:
            rig.socket.deliver(piece)
        rig.drain()
    assert (rig.queue.cut, rig.queue.truncated) == (cut, truncated)


@given(st.binary(min_size=1, max_size=120))
def test_any_bytes_are_captured_whatever_their_lengths_say(frame: bytes) -> None:
    rig = Rig(8)
    rig.socket.deliver(frame)
    assert rig.drain().frames == [frame]
    assert rig.queue.cut == 0


@pytest.mark.parametrize("hardware", [False, True])
@pytest.mark.parametrize("timestamp", [LATEST_NS - 1, LATEST_NS, LATEST_NS + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_timestamps_beyond_what_is_counted_are_clamped(hardware: bool, timestamp: int) -> None:
    rig = Rig(8, hardware=hardware)
    rig.socket.deliver(numbered_frame(1), metadata(timestamp, timestamp if hardware else 0))
    # The hook's timestamp wraps as a 64-bit number does; a NIC's counts on from 0.
    converted = timestamp if hardware else (timestamp - TAI_OFFSET_NS + 2**63) % 2**64 - 2**63
    assert rig.drain().timestamps == [max(EARLIEST_NS, min(LATEST_NS, converted))]
