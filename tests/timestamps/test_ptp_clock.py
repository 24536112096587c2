"""Reading a simulated NIC clock by each of the three ioctls."""

import errno
import subprocess
from pathlib import Path

import pytest
from support.nic_kernel import EXTENDED, PLAIN, PRECISE, SECOND, NicKernel

from uspcap.errors import CaptureError
from uspcap.timestamps import ptp_clock
from uspcap.timestamps.ptp_clock import PtpClock

HEADER = Path("/usr/include/linux/ptp_clock.h")


@pytest.mark.parametrize(
    ("methods", "chosen"),
    [
        ({PLAIN, EXTENDED, PRECISE}, "PTP_SYS_OFFSET_PRECISE"),
        ({PLAIN, EXTENDED}, "PTP_SYS_OFFSET_EXTENDED"),
        ({PLAIN}, "PTP_SYS_OFFSET"),
    ],
)
@pytest.mark.parametrize("offset_ns", [0, 37 * SECOND + 5, -SECOND // 3, -1_699_999_000 * SECOND])
def test_best_way_is_taken_and_true_to_its_width(methods: set[int], chosen: str, offset_ns: int) -> None:
    kernel = NicKernel(methods=methods, clock_offset_ns=offset_ns)
    clock = PtpClock(3, kernel)
    assert clock.method == chosen
    for _ in range(200):
        sample = clock.sample()
        assert abs(sample.clock_ns - offset_ns - sample.utc_ns) <= sample.half_width_ns
        # Of seven readings, most are without the interruption that a third of them have.
        assert sample.half_width_ns <= 450
    clock.close()
    clock.close()
    assert kernel.open_clocks == 0


def test_reading_in_which_utc_went_backward_is_left_out() -> None:
    assert ptp_clock._narrowest([(10, 1, 5), (20, 2, 120), (30, 3, 50)]).clock_ns == 3
    with pytest.raises(OSError, match="stepped backward"):
        ptp_clock._narrowest([(10, 1, 5)])


def test_clock_that_answers_nothing_is_refused_with_each_reason() -> None:
    kernel = NicKernel(methods=set())
    with pytest.raises(CaptureError, match=r"/dev/ptp3 with UTC \(PTP_SYS_OFFSET_PRECISE: .*; PTP_SYS_OFFSET: "):
        PtpClock(3, kernel)
    assert kernel.open_clocks == 0


def test_clock_that_may_not_be_opened_is_refused_with_a_hint() -> None:
    with pytest.raises(CaptureError, match=r"Permission denied; run as root, or let root .*'chgrp \d+ /dev/ptp3"):
        PtpClock(3, NicKernel(refuses_opening=errno.EACCES))


def test_closed_clock_gives_no_sample() -> None:
    clock = PtpClock(3, NicKernel())
    clock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        clock.sample()


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed (linux-libc-dev)")
def test_ioctl_numbers_and_sizes_are_those_of_the_kernels_header(tmp_path: Path) -> None:
    program = tmp_path / "numbers.c"
    names = ("PTP_SYS_OFFSET", "PTP_SYS_OFFSET_PRECISE", "PTP_SYS_OFFSET_EXTENDED")
    prints = "".join(f'printf("%u\\n", (unsigned) {name});' for name in names)
    program.write_text(f"#include <stdio.h>\n#include <linux/ptp_clock.h>\nint main(void) {{ {prints} }}\n")
    built = tmp_path / "numbers"
    done = subprocess.run(["cc", str(program), "-o", str(built)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    said = subprocess.run([str(built)], capture_output=True, text=True, check=True).stdout.split()
    assert [int(one) for one in said] == [getattr(ptp_clock, name) for name in names]
    assert [int(one) for one in said] == [PLAIN, PRECISE, EXTENDED]


@pytest.mark.parametrize("methods", [{PRECISE}, {EXTENDED}, {PLAIN}])
def test_a_clock_that_shows_a_time_beyond_what_is_counted_is_refused(methods: set[int]) -> None:
    with pytest.raises(CaptureError, match="before 1823 or after 2116"):
        PtpClock(3, NicKernel(methods=methods, clock_offset_ns=2**40 * SECOND))
