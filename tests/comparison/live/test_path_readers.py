"""Readers of paths on rings in plain memory and on loopback sockets: no privilege."""

import mmap
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support.path_probes import at_the_hook, digest_of, probe_payload, udp_frame
from support.probes import ANSWER, decode, loopback_pair
from support.xsk_rings import FakeSocket

from uspcap.backends.af_xdp.xsk import ReceiveQueue, TransmitQueue
from uspcap.comparison.live.path_readers import (
    COLUMNS,
    WAKEUPS,
    AnswerReader,
    PathReader,
    RingReader,
    SocketReader,
    XskReader,
    clock_cost_ns,
)
from uspcap.probe.endpoints import Endpoint, open_socket

PATH = 3
HOOK_NS = 1_700_000_000_000_000_000
SLOT = 2048
STATUS_USER, STATUS_SOFTWARE_TIMESTAMP = 1, 1 << 29


def columns(frames: int = 64) -> np.ndarray:
    return np.zeros((len(COLUMNS), frames), np.int64)


def marked(sequence: int, size: int = 64, path: int = PATH) -> bytes:
    return at_the_hook(probe_payload(sequence, HOOK_NS - 5, size), HOOK_NS + sequence, path)


def run_until(reader: PathReader, frames: int, send: Callable[[], None] = lambda: None) -> np.ndarray:
    """Run a reader until it has seen so many frames of whatever kind; return its records.

    `send` is called once the reader has looked and found nothing.
    """
    thread = threading.Thread(target=reader.run)
    thread.start()
    end = time.monotonic() + 10
    while not reader.system_calls and time.monotonic() < end:
        time.sleep(0.001)
    send()
    while reader.received + reader.foreign < frames and time.monotonic() < end:
        time.sleep(0.001)
    reader.stop()
    thread.join()
    assert reader.received + reader.foreign == frames
    return reader.records()


def run_dry(reader: PathReader) -> np.ndarray:
    """Read what is there already."""
    reader.stop()
    reader.run()
    return reader.records()


@pytest.fixture
def pipe() -> Iterator[int]:
    """A descriptor that never becomes readable."""
    one, other = socket.socketpair()
    with one, other:
        yield one.fileno()


@pytest.fixture
def receiving() -> Iterator[socket.socket]:
    with open_socket(Endpoint("127.0.0.1", 0), None) as opened:
        yield opened


def epoll_of(fd: int, wakeup: str) -> select.epoll | None:
    if wakeup != "epoll":
        return None
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN)
    return epoll


@pytest.mark.parametrize("wakeup", WAKEUPS)
def test_socket_reader_records_the_times_of_each_probe(receiving: socket.socket, wakeup: str) -> None:
    epoll = epoll_of(receiving.fileno(), wakeup)
    reader = SocketReader(receiving.fileno(), PATH, wakeup, columns(), epoll_fd=-1 if epoll is None else epoll.fileno())
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    before_utc = time.time_ns()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for sequence in range(20):
                sender.sendto(marked(sequence, 64 + sequence), receiving.getsockname())

    records = run_until(reader, 20, send)
    after, after_utc = time.clock_gettime_ns(time.CLOCK_TAI), time.time_ns()
    sequence, intended, hook, kernel, found, user = records
    assert sequence.tolist() == list(range(20))
    assert set(intended.tolist()) == {HOOK_NS - 5}
    assert hook.tolist() == [HOOK_NS + number for number in range(20)]
    assert np.all((before_utc <= kernel) & (kernel <= after_utc))
    assert np.all((before <= found) & (found <= user) & (user <= after))
    assert np.all(np.diff(user) >= 0)
    assert reader.payload_bytes == sum(range(64, 84))
    assert reader.system_calls >= 20
    assert (reader.wake_ups > 0) == (wakeup != "spin")
    assert reader.cpu_ns > 0
    assert (reader.cycles >= 0) != (reader.cycles_error != 0)
    if epoll is not None:
        epoll.close()


def test_frames_that_are_no_probes_of_the_path_are_foreign(receiving: socket.socket) -> None:
    frames = [
        marked(0),
        marked(1, path=PATH + 1),
        probe_payload(2),  # never at the hook
        marked(3)[:63],
        b"",
        b"USPC\x01\x02\x00\x40" + marked(4)[8:],
        marked(5),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for frame in frames:
            sender.sendto(frame, receiving.getsockname())
    reader = SocketReader(receiving.fileno(), PATH, "poll", columns())
    assert run_until(reader, len(frames))[0].tolist() == [0, 5]
    assert (reader.received, reader.foreign) == (2, 5)


def test_probes_beyond_the_room_are_counted_and_not_recorded(receiving: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for sequence in range(5):
            sender.sendto(marked(sequence), receiving.getsockname())
    reader = SocketReader(receiving.fileno(), PATH, "block", columns(3))
    assert run_until(reader, 5)[0].tolist() == [0, 1, 2]
    assert (reader.received, reader.unrecorded) == (5, 2)


def test_delay_comes_before_the_look_at_the_clock(receiving: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for sequence in range(3):
            sender.sendto(marked(sequence), receiving.getsockname())
    reader = SocketReader(receiving.fileno(), PATH, "block", columns(), delay_ns=200_000)
    records = run_until(reader, 3)
    assert np.all(records[5] - records[4] >= 200_000)


def test_reading_that_fails_for_good_ends_the_loop() -> None:
    with loopback_pair() as (one, _):
        fd = one.fileno()
        reader = SocketReader(fd, PATH, "spin", columns())
        one.detach()
        socket.close(fd)
        reader.run()
    assert reader.error_number == 9  # EBADF


class Slots:
    """A TPACKET_V2 ring in plain memory (struct tpacket2_hdr of linux/if_packet.h)."""

    def __init__(self, count: int) -> None:
        self.memory = mmap.mmap(-1, count * SLOT)
        self.count = count
        self.next = 0

    def deliver(self, frame: bytes, timestamp_ns: int = 0, *, mac: int = 82, captured: int | None = None) -> None:
        status = STATUS_USER | (STATUS_SOFTWARE_TIMESTAMP if timestamp_ns else 0)
        at = self.next * SLOT
        length = len(frame) if captured is None else captured
        seconds, rest = divmod(timestamp_ns, 10**9)
        struct.pack_into("=IIIHHII", self.memory, at, status, len(frame), length, mac, 96, seconds, rest)
        self.memory[at + 82 : at + 82 + len(frame)] = frame
        self.next = (self.next + 1) % self.count

    def statuses(self) -> list[int]:
        return [struct.unpack_from("=I", self.memory, at * SLOT)[0] for at in range(self.count)]


def test_ring_reader_takes_slots_in_turn_and_gives_them_back(pipe: int) -> None:
    slots = Slots(4)
    next_slot = 0
    for first in range(0, 9, 3):
        for sequence in range(first, first + 3):
            slots.deliver(udp_frame(marked(sequence)), 1_600_000_000_123_456_789 + sequence)
        reader = RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns(), first_slot=next_slot)
        records = run_dry(reader)
        assert records[0].tolist() == list(range(first, first + 3))
        assert records[3].tolist() == [1_600_000_000_123_456_789 + number for number in range(first, first + 3)]
        assert np.all(records[5] >= records[4])
        assert np.all(records[4][1:] >= records[5][:-1])  # each is looked at when the one before is read
        assert slots.statuses() == [0] * 4
        assert reader.system_calls == 0
        next_slot = reader.next_slot
    assert next_slot == 9 % 4


def test_full_ring_is_read_once_around(pipe: int) -> None:
    slots = Slots(4)
    for sequence in range(4):
        slots.deliver(udp_frame(marked(sequence)))
    reader = RingReader(slots.memory, SLOT, pipe, PATH, "spin", columns())
    assert run_dry(reader)[0].tolist() == [0, 1, 2, 3]
    assert reader.records()[3].tolist() == [0] * 4  # no software timestamp


@pytest.mark.parametrize(("mac", "captured"), [(SLOT + 1, 64), (82, SLOT), (65535, 0xFFFFFFFF)])
def test_slot_whose_frame_lies_outside_is_left_out(pipe: int, mac: int, captured: int) -> None:
    slots = Slots(2)
    slots.deliver(udp_frame(marked(0)), mac=mac, captured=captured)
    slots.deliver(udp_frame(marked(1)))
    reader = RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns())
    assert run_dry(reader)[0].tolist() == [1]
    assert (reader.malformed, slots.statuses()) == (1, [0, 0])


def test_frame_shorter_than_its_headers_is_foreign(pipe: int) -> None:
    slots = Slots(2)
    slots.deliver(b"short")
    reader = RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns())
    run_dry(reader)
    assert (reader.received, reader.foreign, reader.malformed) == (0, 1, 0)


def queue_of(rings: FakeSocket) -> ReceiveQueue:
    queue = ReceiveQueue(
        rings.umem, rings.chunk_bytes, rings.receive, rings.fill, 65535, 0, False, np.zeros(9, np.uint16)
    )
    queue.prime()
    return queue


def test_xsk_reader_takes_frames_of_all_queues_and_gives_chunks_back(pipe: int) -> None:
    rings = [FakeSocket(4), FakeSocket(4, start=7)]
    queues = [queue_of(one) for one in rings]
    for lap in range(3):
        for number, one in enumerate(rings):
            for at in range(3):
                one.deliver(udp_frame(marked(100 * number + 3 * lap + at)))
        reader = XskReader(queues, [pipe, pipe], PATH, "spin", columns())
        records = run_dry(reader)
        wanted = [100 * number + 3 * lap + at for number in range(2) for at in range(3)]
        assert records[0].tolist() == wanted
        assert records[2].tolist() == [HOOK_NS + sequence for sequence in wanted]
        assert records[3].tolist() == [0] * 6
        assert np.all(records[5] >= records[4])
        assert [len(one.chunks_given()) for one in rings] == [4, 4]


def test_descriptor_outside_of_the_umem_is_left_out(pipe: int) -> None:
    rings = FakeSocket(4)
    queue = queue_of(rings)
    rings.describe(4 * 2048 - 10, 64)
    rings.describe(1 << 60, 64)
    rings.deliver(udp_frame(marked(1)))
    reader = XskReader([queue], [pipe], PATH, "spin", columns())
    assert run_dry(reader)[0].tolist() == [1]
    assert reader.malformed == 2


def test_probe_that_arrives_short_is_counted_and_not_measured(pipe: int) -> None:
    """A driver may cut frames that are longer than its buffer; what is left of a probe looks like one."""
    rings, slots = FakeSocket(4), Slots(2)
    queue = queue_of(rings)
    whole = udp_frame(marked(1, 200))
    for deliver in (rings.deliver, slots.deliver):
        deliver(whole[:150])
        deliver(whole)
    for reader in (
        XskReader([queue], [pipe], PATH, "spin", columns()),
        RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns()),
    ):
        assert run_dry(reader)[0].tolist() == [1]
        assert (reader.received, reader.short) == (1, 1)


def test_probe_in_several_chunks_is_no_short_one(pipe: int) -> None:
    rings = FakeSocket(8)
    queue = queue_of(rings)
    rings.deliver(udp_frame(marked(1, 4000)))
    reader = XskReader([queue], [pipe], PATH, "spin", columns())
    assert run_dry(reader)[0].tolist() == [1]
    assert reader.short == 0


def test_spinning_reader_wakes_the_driver_that_asks_for_it(pipe: int) -> None:
    rings = FakeSocket(4)
    queue = queue_of(rings)
    quiet = XskReader([queue], [pipe], PATH, "spin", columns())
    run_dry(quiet)
    rings.ask_for_wakeup(True)
    asked = XskReader([queue], [pipe], PATH, "spin", columns())
    run_dry(asked)
    assert (quiet.system_calls, asked.system_calls) == (0, 1)


def test_same_frames_read_the_same_on_every_path(receiving: socket.socket, pipe: int) -> None:
    payloads = [marked(sequence, 64 + 16 * sequence) for sequence in range(4)]
    slots, rings = Slots(4), FakeSocket(4)
    queue = queue_of(rings)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for payload in payloads:
            sender.sendto(payload, receiving.getsockname())
            slots.deliver(udp_frame(payload))
            rings.deliver(udp_frame(payload))
    readers = [
        SocketReader(receiving.fileno(), PATH, "poll", columns()),
        RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns()),
        XskReader([queue], [pipe], PATH, "poll", columns()),
    ]
    kept = [run_dry(reader)[:3].tolist() for reader in readers]
    assert kept[0] == kept[1] == kept[2]
    assert {(reader.received, reader.foreign, reader.payload_bytes) for reader in readers} == {(4, 0, 352)}


def test_other_traffic_has_the_same_digest_on_every_path(receiving: socket.socket, pipe: int) -> None:
    payloads = [bytes(range(size % 256)) * (size // 256) + bytes(range(size % 256)) for size in (0, 5, 8, 20, 64, 700)]
    slots, rings = Slots(8), FakeSocket(8)
    queue = queue_of(rings)
    others = [udp_frame(b"y" * 20, protocol=6), udp_frame(b"y" * 20, fragment=1), b"short"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for payload in payloads:
            sender.sendto(payload, receiving.getsockname())
            for path in (slots, rings):
                path.deliver(udp_frame(payload).ljust(60, b"\xee"))
    for path in (slots, rings):
        for frame in others[: 8 - len(payloads)]:
            path.deliver(frame)
    readers = [
        SocketReader(receiving.fileno(), PATH, "poll", columns()),
        RingReader(slots.memory, SLOT, pipe, PATH, "poll", columns()),
        XskReader([queue], [pipe], PATH, "poll", columns()),
    ]
    for reader in readers:
        reader.take_others()
        assert run_dry(reader)[0].view(np.uint64).tolist() == [digest_of(payload) for payload in payloads]
        assert (reader.received, reader.payload_bytes) == (len(payloads), sum(map(len, payloads)))
    assert [reader.foreign for reader in readers] == [0, 2, 2]


def test_socket_sends_each_probe_back_marked_and_no_other_frame(receiving: socket.socket) -> None:
    reader = SocketReader(receiving.fileno(), PATH, "poll", columns())
    reader.answer("marked")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(5)
        sender.connect(receiving.getsockname())
        sender.send(marked(5, 90))
        sender.send(marked(6, path=PATH + 1))
        sender.send(b"something else")
        run_dry(reader)
        answer = sender.recv(200)
        sender.setblocking(False)
        with pytest.raises(BlockingIOError):
            sender.recv(200)
    sent = marked(5, 90)
    assert (reader.received, reader.foreign, reader.answered, reader.unanswered) == (1, 2, 1, 0)
    assert answer[:5] == sent[:5]
    assert answer[5] == ANSWER
    assert answer[6:56] == sent[6:56]
    assert answer[64:] == sent[64:]


def test_answers_come_to_columns_with_the_senders_times() -> None:
    with loopback_pair() as (one, other):
        for sequence in range(3):
            probe = marked(sequence, path=sequence % 2)
            one.send(probe[:5] + bytes([ANSWER]) + probe[6:])
        one.send(marked(9))  # A probe is no answer.
        reader = AnswerReader(other.fileno(), columns(), utc_ahead_ns=HOOK_NS)
        before = time.monotonic_ns()
        rows = dict(zip(COLUMNS, run_dry(reader).tolist(), strict=True))
        after = time.monotonic_ns()
    assert (reader.received, reader.foreign) == (3, 1)
    assert rows["sequence"] == [0, 1, 2]
    assert rows["intended_ns"] == [HOOK_NS - 5] * 3
    assert rows["hook_ns"] == [HOOK_NS + sequence for sequence in range(3)]
    assert rows["kernel_ns"] == [0, 1, 0]
    assert rows["found_ns"] == [HOOK_NS - 5] * 3
    assert all(before <= at - HOOK_NS <= after for at in rows["user_ns"])
    with pytest.raises(ValueError, match="cannot answer"):
        reader.answer("marked")


def answering_queue(rings: FakeSocket, fd: int) -> tuple[ReceiveQueue, TransmitQueue]:
    queue = queue_of(rings)
    return queue, TransmitQueue(queue, rings.transmit, rings.completion, fd)


def test_xsk_turns_each_probe_round_where_it_lies(pipe: int) -> None:
    rings = FakeSocket(8)
    queue, transmit = answering_queue(rings, pipe)
    for lap in range(5):
        probes = [
            bytes(range(12)) + udp_frame(marked(3 * lap + at, 64 + at), checksum=0)[12:26]
            + socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1")
            + udp_frame(marked(3 * lap + at, 64 + at), checksum=0)[34:]
            for at in range(3)
        ]  # fmt: skip
        for probe in probes:
            rings.deliver(probe)
        reader = XskReader([queue], [pipe], PATH, "spin", columns(), transmits=[transmit])
        reader.answer("marked")
        run_dry(reader)
        answers = rings.send()
        assert (reader.received, reader.answered, reader.unanswered) == (3, 3, 0)
        for probe, answer in zip(probes, answers, strict=True):
            assert (answer[:6], answer[6:12]) == (probe[6:12], probe[:6])
            assert (answer[26:30], answer[30:34]) == (probe[30:34], probe[26:30])
            assert (answer[34:36], answer[36:38]) == (probe[36:38], probe[34:36])
            assert (answer[12:26], answer[38:47], answer[48:98]) == (probe[12:26], probe[38:47], probe[48:98])
            assert answer[47] == ANSWER
            assert answer[106:] == probe[106:]
    # What the kernel has sent comes back to the fill ring with the next look.
    answering = XskReader([queue], [pipe], PATH, "spin", columns(), transmits=[transmit])
    answering.answer("marked")
    run_dry(answering)
    assert sorted(rings.chunks_given()) == [2048 * chunk for chunk in range(8)]


def test_timestamped_answers_have_the_times_of_the_description(pipe: int) -> None:
    rings = FakeSocket(4)
    queue, transmit = answering_queue(rings, pipe)
    rings.deliver(udp_frame(marked(1)))
    reader = XskReader([queue], [pipe], PATH, "spin", columns(), transmits=[transmit])
    reader.answer("timestamped", tai_offset_ns=37_000_000_000)
    before = time.clock_gettime_ns(time.CLOCK_TAI) - 37_000_000_000
    run_dry(reader)
    after = time.clock_gettime_ns(time.CLOCK_TAI) - 37_000_000_000
    (answer,) = map(decode, (frame[42:] for frame in rings.send()))
    assert answer.kernel_ns == HOOK_NS + 1 - 37_000_000_000
    assert before <= answer.read_ns <= answer.answered_ns <= after


def test_enough_answers_end_the_reader(pipe: int) -> None:
    rings = FakeSocket(8)
    queue, transmit = answering_queue(rings, pipe)
    for sequence in range(5):
        rings.deliver(udp_frame(marked(sequence)))
    reader = XskReader([queue], [pipe], PATH, "spin", columns(), transmits=[transmit])
    reader.answer("marked", most=3)
    reader.run()
    assert (reader.answered, reader.unanswered) == (3, 2)
    assert len(rings.send()) == 3


def test_frame_in_several_chunks_is_not_answered(pipe: int) -> None:
    rings = FakeSocket(4)
    queue, transmit = answering_queue(rings, pipe)
    rings.deliver(udp_frame(marked(1, 3000)))
    reader = XskReader([queue], [pipe], PATH, "spin", columns(), transmits=[transmit])
    reader.answer("marked")
    run_dry(reader)
    assert (reader.received, reader.answered, reader.unanswered) == (1, 0, 1)
    assert len(rings.chunks_given()) == 4


def test_paths_that_only_receive_do_not_answer(pipe: int) -> None:
    queue = queue_of(FakeSocket(4))
    for reader in (
        RingReader(Slots(4).memory, SLOT, pipe, PATH, "poll", columns()),
        XskReader([queue], [pipe], PATH, "poll", columns()),
    ):
        with pytest.raises(ValueError, match="cannot answer"):
            reader.answer("marked")


def test_arguments_that_make_no_reader_are_refused(pipe: int) -> None:
    with pytest.raises(ValueError, match="no way to wait"):
        SocketReader(pipe, PATH, "doze", columns())
    with pytest.raises(ValueError, match="epoll needs"):
        SocketReader(pipe, PATH, "epoll", columns())
    with pytest.raises(ValueError, match="no negative delay"):
        SocketReader(pipe, PATH, "poll", columns(), delay_ns=-1)
    with pytest.raises(ValueError, match="6 columns"):
        SocketReader(pipe, PATH, "poll", np.zeros((5, 4), np.int64))
    with pytest.raises(ValueError, match="room for a frame"):
        SocketReader(pipe, PATH, "poll", columns(0))
    with pytest.raises(ValueError, match="slots of 100"):
        RingReader(mmap.mmap(-1, 4096), 100, pipe, PATH, "poll", columns())
    with pytest.raises(ValueError, match="no slot 2"):
        RingReader(mmap.mmap(-1, 4096), 2048, pipe, PATH, "poll", columns(), first_slot=2)
    with pytest.raises(ValueError, match="one socket"):
        XskReader([], [pipe], PATH, "poll", columns())


def test_a_look_at_the_clock_takes_time() -> None:
    assert 0 < clock_cost_ns(100) < 1e9
