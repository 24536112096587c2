"""From what is asked for to who timestamps, on simulated NICs of every kind."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from support.nic_kernel import ALL, EXTENDED, NONE, PTP_V2_EVENT, SECOND, SOME, NicKernel

from uspcap.errors import CaptureError, PermissionDenied, UsageError
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.timestamps import Timestamps
from uspcap.timestamps.timestamping import Timestamping

HARDWARE, XDP, KERNEL, USER = (
    TimestampSource.HARDWARE,
    TimestampSource.XDP,
    TimestampSource.KERNEL,
    TimestampSource.USER,
)


@pytest.mark.parametrize("software", [KERNEL, XDP])
def test_auto_takes_hardware_timestamps_where_they_are_on_already(software: TimestampSource) -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    timestamping = Timestamping("x0", "auto", software, kernel)
    assert timestamping.expected is HARDWARE
    assert timestamping.hardware
    timestamping.close()
    assert kernel.settings_asked_for == []
    assert kernel.open_clocks == 0
    assert kernel.closed


@pytest.mark.parametrize(
    ("kernel", "remark"),
    [
        (NicKernel(), "x0 could timestamp in hardware; --timestamps hardware switches that on"),
        (NicKernel(setting=(0, 1, PTP_V2_EVENT)), "x0 could timestamp in hardware"),
        (NicKernel(refuses_reading=errno.EOPNOTSUPP), "x0 could timestamp in hardware"),
        (NicKernel(setting=(0, 1, ALL), flags=0), ""),
        (NicKernel(setting=(0, 1, ALL), clock_index=-1), ""),
        (NicKernel(setting=(0, 1, ALL), rx_filters=1 << PTP_V2_EVENT), ""),
        (NicKernel(setting=(0, 1, ALL), refuses_opening=errno.EACCES), "hardware timestamps are not used: cannot read"),
        (NicKernel(setting=(0, 1, ALL), refuses_clock=errno.EIO), "not used: cannot compare the NIC's clock"),
        (NicKernel(setting=(0, 1, ALL), methods={EXTENDED}, reading_ns=60_000), "can be compared with UTC within"),
    ],
)
def test_auto_changes_nothing_and_leaves_what_it_cannot_trust(kernel: NicKernel, remark: str) -> None:
    timestamping = Timestamping("x0", "auto", KERNEL, kernel)
    assert timestamping.expected is KERNEL
    assert str(timestamping) == "kernel on receipt (CLOCK_REALTIME)"
    assert len(timestamping.remarks) == bool(remark)
    assert remark in "".join(timestamping.remarks)
    assert timestamping.accounts() == ()
    timestamping.close()
    assert kernel.settings_asked_for == []
    assert kernel.open_clocks == 0


def test_hardware_switches_timestamping_on_until_the_end() -> None:
    kernel = NicKernel()
    timestamping = Timestamping("x0", "hardware", KERNEL, kernel)
    assert kernel.setting == (0, 1, ALL)
    assert "switched from none to all" in timestamping.remarks[0]
    assert str(timestamping) == (
        "NIC clock /dev/ptp3 (fake clock) on UTC, put on UTC by PTP_SYS_OFFSET_PRECISE within 0 ns of CLOCK_REALTIME "
        "at the start; where it has none: kernel on receipt (CLOCK_REALTIME)"
    )
    timestamping.close()
    timestamping.close()
    assert kernel.setting == (0, 1, NONE)
    assert kernel.open_clocks == 0


@pytest.mark.parametrize(
    ("kernel", "kind", "sentence"),
    [
        (
            NicKernel(flags=0),
            CaptureError,
            "the driver of x0 timestamps no received frames in hardware; use --timestamps",
        ),
        (NicKernel(rx_filters=1 << PTP_V2_EVENT), CaptureError, "only those of ptpv2-event \\(for PTP alone"),
        (NicKernel(clock_index=-1), CaptureError, "its timestamps have no date"),
        (NicKernel(refuses_opening=errno.EACCES), CaptureError, "cannot read the NIC's clock /dev/ptp3"),
        (NicKernel(refuses_setting=errno.ERANGE), CaptureError, "refuses to timestamp every frame"),
        (NicKernel(refuses_setting=errno.EPERM), PermissionDenied, "cannot switch on hardware timestamping"),
        (NicKernel(widens={ALL: SOME}), CaptureError, "timestamps some instead"),
    ],
)
def test_hardware_that_cannot_be_had_is_refused_and_nothing_left_changed(
    kernel: NicKernel, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        Timestamping("x0", "hardware", XDP, kernel)
    assert kernel.setting == (0, 1, NONE)
    assert kernel.open_clocks == 0
    assert kernel.closed


@pytest.mark.parametrize(
    ("wanted", "software", "expected"),
    [("kernel", KERNEL, KERNEL), ("xdp", XDP, XDP), ("user", KERNEL, USER), ("user", XDP, USER)],
)
def test_other_timestamps_leave_the_nic_alone(
    wanted: Timestamps, software: TimestampSource, expected: TimestampSource
) -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    timestamping = Timestamping("x0", wanted, software, kernel)
    assert timestamping.expected is expected
    assert timestamping.user is (expected is USER)
    assert ("when uspcap read the ring" in str(timestamping)) is timestamping.user
    assert kernel.open_clocks == 0


@pytest.mark.parametrize(
    ("wanted", "software", "sentence"),
    [
        ("xdp", KERNEL, "packet_mmap gets frames of x0 long after the XDP hook"),
        ("kernel", XDP, "AF_XDP takes frames of x0 before the kernel timestamps them"),
    ],
)
def test_timestamp_that_the_backend_does_not_have_is_refused(
    wanted: Timestamps, software: TimestampSource, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Timestamping("x0", wanted, software, NicKernel())


def test_clock_on_tai_without_the_kernels_offset_is_warned_of() -> None:
    for tai_s, ahead_s, warned in ((0, 37, True), (37, 37, False), (0, 0, False), (0, 36, True)):
        kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=ahead_s * SECOND, tai_s=tai_s)
        timestamping = Timestamping("x0", "auto", KERNEL, kernel)
        assert ("on TAI" in str(timestamping)) is bool(ahead_s)
        assert ("the kernel's TAI offset is 0" in "".join(timestamping.remarks)) is warned


def test_clock_that_nothing_sets_is_used_and_reported() -> None:
    kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=-123_456 * SECOND)
    timestamping = Timestamping("x0", "auto", KERNEL, kernel)
    assert timestamping.hardware
    assert "is -123456.000000 s ahead of UTC, so nothing sets it" in timestamping.remarks[0]


def test_backend_that_gets_no_hardware_timestamps_does_without_only_under_auto() -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    timestamping = Timestamping("x0", "auto", XDP, kernel)
    timestamping.give_up_hardware("it cannot")
    assert timestamping.expected is XDP
    assert str(timestamping) == "XDP hook (CLOCK_TAI, converted to UTC)"
    assert kernel.open_clocks == 0
    asked_for = Timestamping("x0", "hardware", XDP, NicKernel())
    with pytest.raises(CaptureError, match="x0 cannot hand over hardware timestamps: it cannot; use"):
        asked_for.give_up_hardware("it cannot")
    asked_for.close()


def test_only_the_nics_timestamps_are_converted() -> None:
    kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=37 * SECOND)
    timestamping = Timestamping("x0", "auto", KERNEL, kernel)
    kernel.pass_time(1000)
    nic_ns, utc_ns = kernel.clock_ns(), kernel.utc_ns()
    kernel.pass_time(1000)
    batch = FrameBatch.from_frames([b"frame"] * 4, [nic_ns, utc_ns, utc_ns + 5, nic_ns + 7])
    batch.storage("timestamp_source")[:4] = [HARDWARE, KERNEL, USER, HARDWARE]
    timestamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns, utc_ns + 5, utc_ns + 7]
    batch.storage("timestamp_source")[:4] = KERNEL
    timestamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns, utc_ns + 5, utc_ns + 7]
    batch = FrameBatch.from_frames([b"frame"] * 3, np.arange(nic_ns, nic_ns + 3), timestamp_source=HARDWARE)
    timestamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns + 1, utc_ns + 2]
    (account,) = timestamping.accounts()
    assert account.frames == 5
    assert account.time_scale == "TAI"


def test_setting_that_cannot_be_put_back_is_reported_after_all_is_closed() -> None:
    kernel = NicKernel()
    timestamping = Timestamping("x0", "hardware", KERNEL, kernel)
    kernel.refuses_setting = errno.EIO
    with pytest.raises(CaptureError, match="cannot switch hardware timestamping of x0 back to none"):
        timestamping.close()
    assert kernel.closed
    assert kernel.open_clocks == 0


def test_ptp_alone_is_taken_where_the_nic_cannot_timestamp_more() -> None:
    kernel = NicKernel(rx_filters=1 << NONE | 1 << PTP_V2_EVENT)
    with pytest.raises(CaptureError, match="for PTP alone: --timestamps hardware:ptp"):
        Timestamping("x0", "hardware", TimestampSource.KERNEL, kernel)
    timestamping = Timestamping("x0", "hardware:ptp", TimestampSource.KERNEL, kernel)
    assert kernel.setting[2] == PTP_V2_EVENT
    assert "PTP's events only, the others: kernel on receipt" in str(timestamping)
    timestamping.close()
    assert kernel.setting[2] == NONE


def test_frames_of_ptp_alone_do_not_count_the_others_as_without_timestamp() -> None:
    kernel = NicKernel(rx_filters=1 << NONE | 1 << PTP_V2_EVENT)
    timestamping = Timestamping("x0", "hardware:ptp", TimestampSource.KERNEL, kernel)
    batch = FrameBatch(4)
    batch.count = 4
    batch.storage("timestamp_source")[:] = TimestampSource.KERNEL
    timestamping.convert(batch)
    (account,) = timestamping.accounts()
    assert account.frames_unstamped == 0
    timestamping.close()
