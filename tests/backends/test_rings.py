"""What ring sources do with timestamps, on a ring in plain memory and a simulated NIC: no privilege."""

from __future__ import annotations

import pytest
from support.memory_ring import BLOCK, MemoryRing, timestamped_frame
from support.nic_kernel import ALL, EXTENDED, SECOND, NicKernel
from support.tpacket_ring import RAW_HARDWARE, SOFTWARE, FakeRing
from support.traffic import Received

from uspcap.backends.merging import MergedSource
from uspcap.formats.pcapng import written_source
from uspcap.frames import TimestampSource
from uspcap.timestamps.timestamping import Timestamping


def test_hardware_timestamps_come_out_in_utc_and_each_frame_says_who_timestamped_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = NicKernel(setting=(0, 1, ALL), rate_ppm=25, clock_offset_ns=37 * SECOND, methods={EXTENDED})
    monkeypatch.setattr("uspcap.backends.rings.time.time_ns", kernel.utc_ns)
    fake = FakeRing(BLOCK, 2)
    source = MemoryRing(fake, Timestamping("lo", "auto", TimestampSource.KERNEL, kernel))
    truth, frames = [], []
    for number in range(10):
        kernel.pass_time(30_000_000)
        truth.append(kernel.utc_ns())
        if number == 4:
            frames.append(timestamped_frame(number, kernel.utc_ns(), SOFTWARE))
        else:
            frames.append(timestamped_frame(number, 0 if number == 7 else kernel.clock_ns(), RAW_HARDWARE))
    kernel.pass_time(1_000_000)
    fake.fill(0, frames[:5])
    fake.fill(1, frames[5:])
    received = Received()
    read_from_ns = kernel.utc_ns()
    for batch in source.batches(0.0):
        if batch is None:
            source.stop()
        else:
            received.take(batch)
    expected = [TimestampSource.HARDWARE] * 10
    expected[4], expected[7] = TimestampSource.KERNEL, TimestampSource.USER
    assert received.sources == expected
    assert [written_source(source.interfaces[number].description) for number in received.interfaces] == expected
    # A hardware timestamp of 0 is none: the frame has the time that it was read.
    truth[7] = read_from_ns
    (account,) = source.clocks()
    assert account.frames == 8
    errors = [abs(one - was) for one, was in zip(received.timestamps, truth, strict=True)]
    assert errors[4] == errors[7] == 0
    assert max(errors) <= account.error_bound_ns
    assert account.error_bound_ns < 20_000


def test_reader_timestamps_every_frame_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = NicKernel()
    monkeypatch.setattr("uspcap.backends.rings.time.time_ns", kernel.utc_ns)
    fake = FakeRing(BLOCK, 2)
    source = MemoryRing(fake, Timestamping("lo", "user", TimestampSource.KERNEL, kernel))
    fake.fill(0, [timestamped_frame(1, 5, SOFTWARE), timestamped_frame(2, 6, RAW_HARDWARE), timestamped_frame(3, 7, 0)])
    batch = next(source.batches(0.0))
    assert batch is not None
    assert batch.timestamp_ns.tolist() == [kernel.utc_ns()] * 3
    assert batch.timestamp_source.tolist() == [TimestampSource.USER] * 3
    assert batch.interface.tolist() == [0] * 3
    assert source.clocks() == ()


def test_clock_is_followed_while_nothing_comes() -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    source = MemoryRing(FakeRing(BLOCK, 2), Timestamping("lo", "auto", TimestampSource.KERNEL, kernel))
    batches = source.batches(0.0)
    for _ in range(5):
        kernel.pass_time(100_000_000)
        assert next(batches) is None
    (account,) = source.clocks()
    assert account.samples == 2 + 5


def test_merged_rings_tell_of_the_clock_too() -> None:
    timestamping = Timestamping("lo", "auto", TimestampSource.KERNEL, NicKernel(setting=(0, 1, ALL)))
    with MergedSource(MemoryRing(FakeRing(BLOCK, 2), timestamping), 1_000_000) as source:
        (account,) = source.clocks()
    assert account.clock == "/dev/ptp3 (fake clock)"
