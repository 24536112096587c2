"""From what is asked for to who stamps, on simulated NICs of every kind."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from support.nic_kernel import ALL, EXTENDED, NONE, PTP_V2_EVENT, SECOND, SOME, NicKernel

from uspcap.errors import CaptureError, PermissionDenied, UsageError
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.timestamps import Timestamps
from uspcap.timestamps.stamping import Stamping

HARDWARE, XDP, KERNEL, USER = (
    TimestampSource.HARDWARE,
    TimestampSource.XDP,
    TimestampSource.KERNEL,
    TimestampSource.USER,
)


@pytest.mark.parametrize("software", [KERNEL, XDP])
def test_auto_takes_hardware_stamps_where_they_are_on_already(software: TimestampSource) -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    stamping = Stamping("x0", "auto", software, kernel)
    assert stamping.expected is HARDWARE
    assert stamping.hardware
    stamping.close()
    assert kernel.settings_asked_for == []
    assert kernel.open_clocks == 0
    assert kernel.closed


@pytest.mark.parametrize(
    ("kernel", "remark"),
    [
        (NicKernel(), "x0 could stamp in hardware; --timestamps hardware switches that on"),
        (NicKernel(setting=(0, 1, PTP_V2_EVENT)), "x0 could stamp in hardware"),
        (NicKernel(refuses_reading=errno.EOPNOTSUPP), "x0 could stamp in hardware"),
        (NicKernel(setting=(0, 1, ALL), flags=0), ""),
        (NicKernel(setting=(0, 1, ALL), clock_index=-1), ""),
        (NicKernel(setting=(0, 1, ALL), rx_filters=1 << PTP_V2_EVENT), ""),
        (NicKernel(setting=(0, 1, ALL), refuses_opening=errno.EACCES), "hardware stamps are not used: cannot read"),
        (NicKernel(setting=(0, 1, ALL), refuses_clock=errno.EIO), "not used: cannot compare the NIC's clock"),
        (NicKernel(setting=(0, 1, ALL), methods={EXTENDED}, reading_ns=60_000), "can be compared with UTC within"),
    ],
)
def test_auto_changes_nothing_and_leaves_what_it_cannot_trust(kernel: NicKernel, remark: str) -> None:
    stamping = Stamping("x0", "auto", KERNEL, kernel)
    assert stamping.expected is KERNEL
    assert str(stamping) == "kernel on receipt (CLOCK_REALTIME)"
    assert len(stamping.remarks) == bool(remark)
    assert remark in "".join(stamping.remarks)
    assert stamping.accounts() == ()
    stamping.close()
    assert kernel.settings_asked_for == []
    assert kernel.open_clocks == 0


def test_hardware_switches_stamping_on_until_the_end() -> None:
    kernel = NicKernel()
    stamping = Stamping("x0", "hardware", KERNEL, kernel)
    assert kernel.setting == (0, 1, ALL)
    assert "switched from none to all" in stamping.remarks[0]
    assert str(stamping) == (
        "NIC clock /dev/ptp3 (fake clock) on UTC, put on UTC by PTP_SYS_OFFSET_PRECISE within 0 ns of CLOCK_REALTIME "
        "at the start; where it has none: kernel on receipt (CLOCK_REALTIME)"
    )
    stamping.close()
    stamping.close()
    assert kernel.setting == (0, 1, NONE)
    assert kernel.open_clocks == 0


@pytest.mark.parametrize(
    ("kernel", "kind", "sentence"),
    [
        (NicKernel(flags=0), CaptureError, "the driver of x0 stamps no received frames in hardware; use --timestamps"),
        (NicKernel(rx_filters=1 << PTP_V2_EVENT), CaptureError, "only those of ptpv2-event \\(for PTP alone"),
        (NicKernel(clock_index=-1), CaptureError, "its stamps have no date"),
        (NicKernel(refuses_opening=errno.EACCES), CaptureError, "cannot read the NIC's clock /dev/ptp3"),
        (NicKernel(refuses_setting=errno.ERANGE), CaptureError, "refuses to stamp every frame"),
        (NicKernel(refuses_setting=errno.EPERM), PermissionDenied, "cannot switch on hardware stamping"),
        (NicKernel(widens={ALL: SOME}), CaptureError, "stamps some instead"),
    ],
)
def test_hardware_that_cannot_be_had_is_refused_and_nothing_left_changed(
    kernel: NicKernel, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        Stamping("x0", "hardware", XDP, kernel)
    assert kernel.setting == (0, 1, NONE)
    assert kernel.open_clocks == 0
    assert kernel.closed


@pytest.mark.parametrize(
    ("wanted", "software", "expected"),
    [("kernel", KERNEL, KERNEL), ("xdp", XDP, XDP), ("user", KERNEL, USER), ("user", XDP, USER)],
)
def test_other_stamps_leave_the_nic_alone(
    wanted: Timestamps, software: TimestampSource, expected: TimestampSource
) -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    stamping = Stamping("x0", wanted, software, kernel)
    assert stamping.expected is expected
    assert stamping.user is (expected is USER)
    assert ("when uspcap read the ring" in str(stamping)) is stamping.user
    assert kernel.open_clocks == 0


@pytest.mark.parametrize(
    ("wanted", "software", "sentence"),
    [
        ("xdp", KERNEL, "packet_mmap gets frames of x0 long after the XDP hook"),
        ("kernel", XDP, "AF_XDP takes frames of x0 before the kernel stamps them"),
    ],
)
def test_stamp_that_the_backend_does_not_have_is_refused(
    wanted: Timestamps, software: TimestampSource, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Stamping("x0", wanted, software, NicKernel())


def test_clock_on_tai_without_the_kernels_offset_is_warned_of() -> None:
    for tai_s, ahead_s, warned in ((0, 37, True), (37, 37, False), (0, 0, False), (0, 36, True)):
        kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=ahead_s * SECOND, tai_s=tai_s)
        stamping = Stamping("x0", "auto", KERNEL, kernel)
        assert ("on TAI" in str(stamping)) is bool(ahead_s)
        assert ("the kernel's TAI offset is 0" in "".join(stamping.remarks)) is warned


def test_clock_that_nothing_sets_is_used_and_told() -> None:
    kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=-123_456 * SECOND)
    stamping = Stamping("x0", "auto", KERNEL, kernel)
    assert stamping.hardware
    assert "is -123456.000000 s ahead of UTC, so nothing sets it" in stamping.remarks[0]


def test_backend_that_gets_no_hardware_stamps_does_without_only_under_auto() -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    stamping = Stamping("x0", "auto", XDP, kernel)
    stamping.give_up_hardware("it cannot")
    assert stamping.expected is XDP
    assert str(stamping) == "XDP hook (CLOCK_TAI, converted to UTC)"
    assert kernel.open_clocks == 0
    asked_for = Stamping("x0", "hardware", XDP, NicKernel())
    with pytest.raises(CaptureError, match="x0 cannot hand over hardware stamps: it cannot; use"):
        asked_for.give_up_hardware("it cannot")
    asked_for.close()


def test_only_the_nics_stamps_are_converted() -> None:
    kernel = NicKernel(setting=(0, 1, ALL), clock_offset_ns=37 * SECOND)
    stamping = Stamping("x0", "auto", KERNEL, kernel)
    kernel.pass_time(1000)
    nic_ns, utc_ns = kernel.clock_ns(), kernel.utc_ns()
    kernel.pass_time(1000)
    batch = FrameBatch.from_frames([b"frame"] * 4, [nic_ns, utc_ns, utc_ns + 5, nic_ns + 7])
    batch.storage("timestamp_source")[:4] = [HARDWARE, KERNEL, USER, HARDWARE]
    stamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns, utc_ns + 5, utc_ns + 7]
    batch.storage("timestamp_source")[:4] = KERNEL
    stamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns, utc_ns + 5, utc_ns + 7]
    batch = FrameBatch.from_frames([b"frame"] * 3, np.arange(nic_ns, nic_ns + 3), timestamp_source=HARDWARE)
    stamping.convert(batch)
    assert batch.timestamp_ns.tolist() == [utc_ns, utc_ns + 1, utc_ns + 2]
    (account,) = stamping.accounts()
    assert account.frames == 5
    assert account.time_scale == "TAI"


def test_setting_that_cannot_be_put_back_is_told_after_all_is_closed() -> None:
    kernel = NicKernel()
    stamping = Stamping("x0", "hardware", KERNEL, kernel)
    kernel.refuses_setting = errno.EIO
    with pytest.raises(CaptureError, match="cannot switch hardware stamping of x0 back to none"):
        stamping.close()
    assert kernel.closed
    assert kernel.open_clocks == 0


def test_ptp_alone_is_taken_where_the_nic_cannot_stamp_more() -> None:
    kernel = NicKernel(rx_filters=1 << NONE | 1 << PTP_V2_EVENT)
    with pytest.raises(CaptureError, match="for PTP alone: --timestamps hardware:ptp"):
        Stamping("x0", "hardware", TimestampSource.KERNEL, kernel)
    stamping = Stamping("x0", "hardware:ptp", TimestampSource.KERNEL, kernel)
    assert kernel.setting[2] == PTP_V2_EVENT
    assert "PTP's events only, the others: kernel on receipt" in str(stamping)
    stamping.close()
    assert kernel.setting[2] == NONE


def test_frames_of_ptp_alone_do_not_make_the_others_unstamped() -> None:
    kernel = NicKernel(rx_filters=1 << NONE | 1 << PTP_V2_EVENT)
    stamping = Stamping("x0", "hardware:ptp", TimestampSource.KERNEL, kernel)
    batch = FrameBatch(4)
    batch.count = 4
    batch.storage("timestamp_source")[:] = TimestampSource.KERNEL
    stamping.convert(batch)
    (account,) = stamping.accounts()
    assert account.frames_unstamped == 0
    stamping.close()
