"""How rings are visited and batches handed over, on rings in plain memory: no kernel, no privilege."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.tpacket_ring import FakeRing, RingFrame
from support.traffic import Received, numbered_frame

from uspcap.backends.base import TimestampedInterfaces
from uspcap.backends.gathering import HANDED_OVER, INTERRUPTED, QUIET, FillNotices, Gatherer
from uspcap.backends.packet_mmap.tpacket import PacketRing
from uspcap.frames import FrameBatch, Interface, TimestampSource

BLOCK = 4096
MILLISECOND = 1_000_000
FOR_EVER_NS = 3600 * 1000 * MILLISECOND
INTERFACES = TimestampedInterfaces(
    Interface(1, "x0", timestamp_source=TimestampSource.KERNEL), {source: source.name for source in TimestampSource}
)


def ring_of(fake: FakeRing) -> PacketRing:
    count = len(fake.memory) // fake.block_bytes
    return PacketRing(fake.memory, fake.block_bytes, count, 65535, True, 0, False, INTERFACES.table)


def empty_batch(rows: int = 64) -> FrameBatch:
    batch = FrameBatch(rows)
    batch.set_data(np.zeros(1 << 16, np.uint8))
    batch.set_interfaces(INTERFACES.known)
    return batch


def fill(fake: FakeRing, block: int, *numbers: int) -> None:
    fake.fill(block, [RingFrame(numbered_frame(number)) for number in numbers])


@pytest.fixture
def silent() -> Iterator[int]:
    """Give a descriptor on which nothing ever comes."""
    read, write = os.pipe()
    yield read
    os.close(read)
    os.close(write)


@pytest.fixture
def readable() -> Iterator[int]:
    """Give a descriptor on which something is always there."""
    descriptor = os.eventfd(1)
    yield descriptor
    os.close(descriptor)


TIMES_NS = st.sampled_from([0, 1000, 300_000, 3 * MILLISECOND])


@given(
    blocks=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    nap_ns=TIMES_NS,
    hand_over_ns=TIMES_NS,
    timeout_ns=TIMES_NS,
    wanted=st.integers(1, 20),
    rows=st.integers(1, 20),
)
def test_every_frame_is_handed_over_once_and_in_order(
    blocks: list[int], nap_ns: int, hand_over_ns: int, timeout_ns: int, wanted: int, rows: int
) -> None:
    fake = FakeRing(BLOCK, len(blocks))
    expected = []
    for block, count in enumerate(blocks):
        numbers = range(len(expected), len(expected) + count)
        fill(fake, block, *numbers)
        expected += [numbered_frame(number) for number in numbers]
    received = Received()
    batch = empty_batch(rows)
    read, write = os.pipe()
    try:
        gatherer = Gatherer(
            (ring_of(fake),), (read,), room_bytes=2048, nap_ns=nap_ns, hand_over_ns=hand_over_ns, held_back_ns=0
        )
        while gatherer.gather(batch, wanted, 0, timeout_ns) == HANDED_OVER:
            assert 0 < batch.count <= rows
            received.take(batch)
    finally:
        os.close(read)
        os.close(write)
    assert not batch.count
    assert gatherer.emptied
    assert received.frames == expected


@pytest.mark.parametrize("hand_over_ns", [0, 5 * MILLISECOND, 100 * MILLISECOND])
def test_frames_gather_for_a_whole_nap_however_soon_they_are_handed_over(readable: int, hand_over_ns: int) -> None:
    nap_ns = 30 * MILLISECOND
    blocks = 64
    fake = FakeRing(BLOCK, blocks)
    ended = threading.Event()
    fed = 0

    def feed() -> None:
        nonlocal fed
        while not ended.wait(0.001):
            if fake.is_kernels(fed % blocks):
                fill(fake, fed % blocks, fed)
                fed += 1

    gatherer = Gatherer((ring_of(fake),), (readable,), room_bytes=2048, nap_ns=nap_ns, hand_over_ns=hand_over_ns)
    feeder = threading.Thread(target=feed)
    feeder.start()
    batch = empty_batch()
    batches = 0
    began_ns = time.monotonic_ns()
    while time.monotonic_ns() < began_ns + 20 * nap_ns:
        gatherer.gather(batch, 64, 0, 250 * MILLISECOND)
        batches += bool(batch.count)
    elapsed_ns = time.monotonic_ns() - began_ns
    ended.set()
    feeder.join()
    # The first comes at once, and a sleep never ends early.
    assert 1 < batches <= elapsed_ns / nap_ns + 1


def test_nap_ends_in_time_for_a_last_look(silent: int) -> None:
    fake = FakeRing(BLOCK, 2)
    gatherer = Gatherer((ring_of(fake),), (silent,), room_bytes=2048, nap_ns=FOR_EVER_NS)
    batch = empty_batch()
    fill(fake, 0, 0)
    assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == HANDED_OVER
    fill(fake, 1, 1)
    assert gatherer.gather(batch, 64, 0, 10 * MILLISECOND) == HANDED_OVER
    assert batch.count == 1
    assert gatherer.gather(batch, 64, 0, 10 * MILLISECOND) == QUIET


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Give what sends this process a signal in 20 ms, which does nothing."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.02) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def positions() -> NDArray[np.uint64]:
    """Give positions in a ring buffer of notices: how far it was read here, and how far the kernel has written."""
    return np.zeros(2, np.uint64)


def test_a_notice_ends_a_nap_and_is_cleared_by_the_visit(silent: int, positions: NDArray[np.uint64]) -> None:
    fake = FakeRing(BLOCK, 3)
    wakeup = os.eventfd(0)
    ours, kernels = positions[:1].view(np.uint8), positions[1:].view(np.uint8)
    notices = FillNotices(ours, kernels, wakeup)
    gatherer = Gatherer((ring_of(fake),), (silent,), room_bytes=2048, nap_ns=FOR_EVER_NS, notices=notices)
    batch = empty_batch()
    fill(fake, 0, 0)
    assert gatherer.gather(batch, 1, 0, FOR_EVER_NS) == HANDED_OVER
    fill(fake, 1, 1)
    assert gatherer.gather(batch, 64, 0, 0) == HANDED_OVER

    def fill_up() -> None:
        fill(fake, 2, 2)
        positions[1] = 24
        os.eventfd_write(wakeup, 1)

    threading.Timer(0.02, fill_up).start()
    assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == HANDED_OVER
    assert (batch.count, positions[0]) == (1, 24)
    assert gatherer.gather(batch, 64, 0, 0) == QUIET
    os.close(wakeup)


def test_notices_let_go_of_their_memory(positions: NDArray[np.uint64]) -> None:
    ours, kernels = bytearray(positions[:1].tobytes()), bytearray(positions[1:].tobytes())
    notices = FillNotices(ours, kernels, -1)
    with pytest.raises(BufferError):
        ours.append(0)
    notices.close()
    ours.append(0)
    kernels.append(0)


def test_a_signal_ends_a_wait_and_a_nap(silent: int, positions: NDArray[np.uint64], alarm: Callable[[], None]) -> None:
    for notices in (None, FillNotices(positions[:1].view(np.uint8), positions[1:].view(np.uint8), silent)):
        fake = FakeRing(BLOCK, 2)
        gatherer = Gatherer((ring_of(fake),), (silent,), room_bytes=2048, nap_ns=FOR_EVER_NS, notices=notices)
        batch = empty_batch()
        alarm()
        assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == INTERRUPTED
        fill(fake, 0, 0)
        assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == HANDED_OVER
        alarm()
        assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == INTERRUPTED


def test_how_long_a_ring_went_unread_is_said_once(silent: int) -> None:
    fake = FakeRing(BLOCK, 1)
    gatherer = Gatherer((ring_of(fake),), (silent,), room_bytes=2048)
    time.sleep(0.01)
    gatherer.gather(empty_batch(), 64, 0, 0)
    assert gatherer.take_recent_unread_ns() == gatherer.longest_unread_ns >= 10 * MILLISECOND
    assert gatherer.take_recent_unread_ns() == 0


def test_what_cannot_be_read_is_refused(silent: int) -> None:
    ring = ring_of(FakeRing(BLOCK, 1))
    with pytest.raises(ValueError, match="no ring"):
        Gatherer((), (silent,), room_bytes=2048)
    with pytest.raises(ValueError, match="not negative"):
        Gatherer((ring,), (silent,), room_bytes=2048, nap_ns=-1)
    with pytest.raises(ValueError, match="multiple of 8"):
        FillNotices(bytearray(7), bytearray(8), silent)


def test_ring_that_was_not_emptied_is_read_on_without_a_nap(silent: int) -> None:
    fake = FakeRing(BLOCK, 1)
    fill(fake, 0, *range(5))
    gatherer = Gatherer((ring_of(fake),), (silent,), room_bytes=2048, nap_ns=FOR_EVER_NS, hand_over_ns=FOR_EVER_NS)
    batch = empty_batch(2)
    for expected in (2, 2):
        assert gatherer.gather(batch, 64, 0, FOR_EVER_NS) == HANDED_OVER
        assert batch.count == expected
        assert not gatherer.emptied
    assert gatherer.wakeups == 0
