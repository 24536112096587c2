"""CLOCK_TAI against UTC."""

import time

import pytest
from support.nic_kernel import SECOND, NicKernel

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.tai import TaiOffset, tai_offset_ns, time_scale


@pytest.mark.parametrize(
    ("ahead_ns", "scale"),
    [
        (0, "UTC"),
        (-400_000_000, "UTC"),
        (35 * SECOND, "TAI"),
        (37 * SECOND - 3_000, "TAI"),
        (37 * SECOND + 900_000_000, "TAI"),
        (38 * SECOND, "a time of its own"),
        (-37 * SECOND, "a time of its own"),
        (10**18, "a time of its own"),
    ],
)
def test_scale_is_detected_from_the_distance_to_utc(ahead_ns: int, scale: str) -> None:
    assert time_scale(ahead_ns) == scale


def test_offset_of_this_host_is_what_both_clocks_say() -> None:
    calls = KernelCalls()
    offset_ns = tai_offset_ns(calls)
    calls.close()
    assert offset_ns % SECOND == 0
    assert offset_ns == round(time.clock_gettime(time.CLOCK_TAI) - time.clock_gettime(time.CLOCK_REALTIME)) * SECOND


def test_timestamps_taken_before_the_offset_changed_are_converted_with_the_old_one() -> None:
    kernel = NicKernel(tai_s=0)
    offset = TaiOffset(kernel)
    timestamped_tai_ns = [kernel.tai_ns() + at for at in range(3)]
    kernel.pass_time(5_000)
    kernel.tai_s = 37
    timestamped_tai_ns += [kernel.tai_ns() + at for at in range(3)]
    kernel.pass_time(5_000)
    now_ns = kernel.utc_ns()
    offset_ns = offset.refresh()
    assert offset_ns == 37 * SECOND
    batch = FrameBatch.from_frames(
        [b"frame"] * 7, [one - offset_ns for one in timestamped_tai_ns] + [7], timestamp_source=TimestampSource.XDP
    )
    batch.storage("timestamp_source")[6] = TimestampSource.USER
    offset.correct(batch, now_ns)
    start = now_ns - 10_000
    assert batch.timestamp_ns.tolist() == [start, start + 1, start + 2, start + 5000, start + 5001, start + 5002, 7]
    offset.refresh()
    offset.correct(batch, now_ns)
    assert batch.timestamp_ns.tolist()[0] == start
    assert offset.changes == 1
