"""A simulated NIC's clock through a whole capture: drift, steps of 37 s, readers that come late."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
from support.nic_kernel import EXTENDED, PLAIN, PRECISE, SECOND, START_NS, NicKernel

from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.timestamps.nic_clock import NicClock

MS = 1_000_000


class Capture:
    """Frames that come every `frame_every_ns`, are read every `read_every_ns`, and how they were converted."""

    def __init__(self, kernel: NicKernel, frame_every_ns: int = 3 * MS, read_every_ns: int = 10 * MS) -> None:
        self.kernel = kernel
        self.clock = NicClock("x0", 3, kernel)
        self.frame_every_ns, self.read_every_ns = frame_every_ns, read_every_ns
        self.truth: list[int] = []
        self.converted: list[int] = []

    def go_on(self, duration_ns: int, at_ns: int = -1, then: Callable[[], None] | None = None) -> None:
        """Capture for a time; `then` happens at `at_ns` from now."""
        start = self.kernel.elapsed_ns
        waiting: list[tuple[int, int]] = []
        read_at = start + self.read_every_ns
        happened = then is None
        while self.kernel.elapsed_ns < start + duration_ns:
            if not happened and self.kernel.elapsed_ns >= start + at_ns:
                assert then is not None
                then()
                happened = True
            waiting.append((self.kernel.utc_ns(), self.kernel.clock_ns()))
            self.kernel.pass_time(self.frame_every_ns)
            if self.kernel.elapsed_ns >= read_at:
                self.read(waiting)
                waiting = []
                read_at += self.read_every_ns
        self.read(waiting)

    def read(self, waiting: list[tuple[int, int]]) -> None:
        if waiting:
            self.truth += [truth for truth, _ in waiting]
            self.converted += self.clock.convert(np.array([timestamp for _, timestamp in waiting], np.int64)).tolist()

    @property
    def errors(self) -> list[int]:
        return [abs(one - truth) for one, truth in zip(self.converted, self.truth, strict=True)]


@pytest.mark.parametrize("methods", [{PRECISE}, {EXTENDED}, {PLAIN}])
@pytest.mark.parametrize("rate_ppm", [0.0, 37.5, -100.0])
@pytest.mark.parametrize("offset_ns", [0, 37 * SECOND, 123 - START_NS])
def test_every_timestamp_is_within_the_reported_bound(methods: set[int], rate_ppm: float, offset_ns: int) -> None:
    capture = Capture(NicKernel(methods=methods, rate_ppm=rate_ppm, clock_offset_ns=offset_ns))
    capture.go_on(5 * SECOND)
    account = capture.clock.account()
    assert max(capture.errors) <= account.error_bound_ns
    # Half of 900 ns; what the first rate, from two samples 20 ms apart, does in the 100 ms to the third.
    assert account.error_bound_ns < 8_000
    assert account.frames == len(capture.converted)
    assert account.samples >= 40
    assert account.steps_total == account.samples_failed == 0
    assert account.time_scale == {0: "UTC", 37 * SECOND: "TAI"}.get(offset_ns, "a time of its own")
    assert np.diff(capture.converted).min() > 0


def test_readers_that_come_late_get_timestamps_within_the_bound() -> None:
    """A consumer that stops for 20 s: frames lie between two samples that are far apart."""
    capture = Capture(NicKernel(rate_ppm=80, methods={EXTENDED}), frame_every_ns=50 * MS)
    capture.go_on(2 * SECOND)
    capture.read_every_ns = 20 * SECOND
    capture.go_on(21 * SECOND)
    assert max(capture.errors) <= capture.clock.account().error_bound_ns
    assert np.diff(capture.converted).min() > 0


def test_samples_are_taken_while_nothing_comes() -> None:
    kernel = NicKernel(rate_ppm=50)
    clock = NicClock("x0", 3, kernel)
    for _ in range(100):
        kernel.pass_time(100 * MS)
        clock.follow()
        clock.follow()
    assert clock.account().samples == 102


@pytest.mark.parametrize("step_ns", [37 * SECOND, -37 * SECOND, SECOND, -SECOND, 20 * MS, -20 * MS])
@pytest.mark.parametrize("of_utc", [False, True])
@pytest.mark.parametrize("at_ms", [1001, 1050, 1093])
def test_step_is_reported_and_no_timestamp_is_off_by_more_than_the_bound(
    step_ns: int, of_utc: bool, at_ms: int
) -> None:
    kernel = NicKernel(rate_ppm=20, methods={EXTENDED}, reading_ns=800)

    def step() -> None:
        if of_utc:
            kernel.utc_stepped_ns -= step_ns
        else:
            kernel.clock_offset_ns += step_ns

    capture = Capture(kernel)
    capture.go_on(3 * SECOND, at_ms * MS, step)
    account = capture.clock.account()
    assert account.steps_total == 1
    (step,) = account.steps
    assert abs(step.step_ns - step_ns) < 10_000
    assert "was stepped 1 times, first by" in str(account)
    if of_utc:
        # Which UTC a frame of that moment has is a matter of definition; all others are right.
        assert sum(error > 100_000 for error in capture.errors) <= 100 * MS // capture.frame_every_ns + 2
        return
    assert max(capture.errors) <= account.error_bound_ns
    if abs(step_ns) > SECOND:
        # Frames from before the step were still in the ring when it was found, and are still right.
        assert max(capture.errors) < 1 * MS


@pytest.mark.parametrize("step_ns", [-37 * SECOND, 37 * SECOND, -31 * SECOND, 2 * SECOND])
@pytest.mark.parametrize("at_ms", [511, 550, 599])
def test_step_that_cannot_go_unseen_is_not_in_the_bound(step_ns: int, at_ms: int) -> None:
    kernel = NicKernel(rate_ppm=30.0)
    capture = Capture(kernel)

    def step() -> None:
        kernel.clock_offset_ns += step_ns

    capture.go_on(2 * SECOND, at_ms * MS, step)
    account = capture.clock.account()
    assert account.steps_total == 1
    assert max(capture.errors) <= account.error_bound_ns < 100_000


def test_jump_to_tai_and_back_leaves_every_timestamp_right() -> None:
    kernel = NicKernel(methods={PRECISE})
    capture = Capture(kernel)
    for step_s in (37, -37, 37):

        def step(step_s: int = step_s) -> None:
            kernel.clock_offset_ns += step_s * SECOND

        capture.go_on(2 * SECOND, 511 * MS, step)
    assert capture.clock.account().steps_total == 3
    assert max(capture.errors) < 1 * MS
    assert max(capture.errors) <= capture.clock.account().error_bound_ns


def test_clock_that_falls_silent_is_counted_and_the_bound_goes_on_growing() -> None:
    kernel = NicKernel(rate_ppm=10)
    capture = Capture(kernel)
    capture.go_on(2 * SECOND)
    before = capture.clock.account().error_bound_ns
    kernel.refuses_clock = errno.EIO
    capture.go_on(20 * SECOND)
    account = capture.clock.account()
    assert account.samples_failed > 100
    assert account.error_bound_ns >= before + 15_000
    assert max(capture.errors) <= account.error_bound_ns
    assert f"{account.samples_failed} samples failed" in str(account)


@pytest.mark.parametrize("rate_ppm", [1_500_000.0, -400_000.0, 2_000.0])
def test_clock_whose_rate_is_off_is_reported_as_a_rate_and_not_as_steps(rate_ppm: float) -> None:
    capture = Capture(NicKernel(methods={PLAIN}, rate_ppm=rate_ppm))
    capture.go_on(4 * SECOND)
    account = capture.clock.account()
    assert account.off_rate == pytest.approx(rate_ppm * 1e-6, rel=0.05)
    said = str(account)
    assert "its rate is off" in said
    assert ("gains" if rate_ppm > 0 else "loses") in said
    assert "stepped" not in said


def test_steps_of_a_clock_that_somebody_sets_are_no_rate() -> None:
    kernel = NicKernel()
    capture = Capture(kernel)

    def step() -> None:
        kernel.clock_offset_ns += SECOND

    for _ in range(5):
        capture.go_on(SECOND, 500 * MS, step)
    account = capture.clock.account()
    assert account.steps_total == 5
    assert account.off_rate is None
    assert "stepped 5 times" in str(account)


def test_nic_that_timestamps_nothing_is_reported() -> None:
    clock = NicClock("x0", 3, NicKernel())
    clock.frames_unstamped = 500
    assert str(clock.account()) == "the NIC timestamped none of 500 frames"


def test_timestamps_that_no_clock_has_made_become_ends_of_time_and_disturb_no_other() -> None:
    kernel = NicKernel(rate_ppm=20.0, clock_offset_ns=37 * SECOND)
    clock = NicClock("x0", 3, kernel)
    alone = NicClock("x0", 3, NicKernel(rate_ppm=20.0, clock_offset_ns=37 * SECOND))
    true = kernel.clock_ns()
    timestamps = np.array([-(2**63), true, EARLIEST_NS, 0, LATEST_NS, true - 5, 2**63 - 1], np.int64)
    converted = clock.convert(timestamps).tolist()
    assert converted[:1] + converted[2:3] == [EARLIEST_NS] * 2
    assert converted[4:5] + converted[6:] == [LATEST_NS] * 2
    assert [converted[1], converted[3], converted[5]] == alone.convert(timestamps[[1, 3, 5]]).tolist()
    assert clock.convert(timestamps[[0]]).tolist() == [EARLIEST_NS]
