"""A NIC's clock followed through a capture: compared with UTC ten times a second, and its timestamps put on UTC.

The loop that drains the rings samples, directly after a drain and before the frames of that drain are converted, and
whenever nothing comes: so at most a tenth of a second of extrapolation lies between a frame and a sample, as long as
the consumer of the frames keeps up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

import numpy as np

from uspcap.frames import EARLIEST_NS, LATEST_NS, NANOSECONDS
from uspcap.timestamps.clock_line import STATED_DRIFT, UNKNOWN_RATE, ClockLine, Int64Array
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.ptp_clock import PtpClock
from uspcap.timestamps.tai import time_scale

SAMPLE_EVERY_NS: Final = NANOSECONDS // 10
FIRST_PAUSE_S: Final = 0.02
"""Between the first two samples, from which the first rate comes."""

OUT_OF_TIME_NS: Final = NANOSECONDS // 1000
"""A frame from so far in the future is out of time: a clock was stepped since the last sample."""

WAITED_NS: Final = NANOSECONDS
"""A frame that seems to be older than this may be out of time as well, or has waited in the ring."""

BEFORE_STEP_NS: Final = 30 * NANOSECONDS
"""After a step, frames from before it are looked for so long."""

STEPS_LISTED: Final = 20

_FEWEST_STEPS_OF_A_RATE: Final = 3
_RATES_ALIKE: Final = 0.25
"""Steps between samples that grow with the time between them, within so much, are none: the clock's rate is off."""

FARTHEST_NS: Final = 1 << 61
"""A frame that is farther than 73 years from what the clock shows has no time of it."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """One of the two clocks was set.

    Attributes
    ----------
    after_ns, before_ns : int
        UTC of the two samples between which it happened.
    step_ns : int
        By how much the NIC's clock was moved ahead of UTC, negative for behind.
    """

    after_ns: int
    before_ns: int
    step_ns: int


@dataclass(frozen=True, slots=True)
class ClockAccount:
    """How a clock's timestamps were put on UTC, for the report.

    Attributes
    ----------
    interface, clock, method : str
        Network interface, device, and the ioctl that compared.
    time_scale : str
        What the clock seems to run on: 'UTC', 'TAI' or 'a time of its own'.
    ahead_of_utc_ns : int
        At the last sample.
    frames : int
        Timestamps converted.
    frames_unstamped : int
        Frames that came without one, though they were to have it.
    samples, samples_failed : int
    error_bound_ns : int
        Of every timestamp, against CLOCK_REALTIME of this host; how right that is, the bound does not say.
    stated_drift_ppb : int
        By how much the rate may change between samples without the bound being broken.
    steps : tuple of ClockStep
        The first ones.
    steps_total : int
    """

    interface: str
    clock: str
    method: str
    time_scale: str
    ahead_of_utc_ns: int
    frames: int
    frames_unstamped: int
    samples: int
    samples_failed: int
    error_bound_ns: int
    stated_drift_ppb: int
    steps: tuple[ClockStep, ...]
    steps_total: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as the JSON report has it."""
        return {**asdict(self), "steps": [asdict(step) for step in self.steps]}

    @property
    def off_rate(self) -> float | None:
        """By how many seconds a second the clock gains on CLOCK_REALTIME, where that explains what looks like steps."""
        if self.steps_total < _FEWEST_STEPS_OF_A_RATE:
            return None
        rates = sorted(step.step_ns / max(1, step.before_ns - step.after_ns) for step in self.steps)
        middle = rates[len(rates) // 2]
        alike = all(abs(rate - middle) <= _RATES_ALIKE * abs(middle) for rate in rates)
        return middle if alike and self.steps_total >= (self.samples - 1) / 2 else None

    def __str__(self) -> str:
        if not self.frames and self.frames_unstamped:
            line = f"the NIC timestamped none of {self.frames_unstamped} frames"
            rate = self.off_rate
            return line if rate is None else f"{line}; its clock {self.clock} {_gain(rate)}"
        line = (
            f"{self.frames} timestamps of the NIC's clock {self.clock} are within {self.error_bound_ns} ns of "
            f"CLOCK_REALTIME ({self.samples} samples by {self.method}, a drift of {self.stated_drift_ppb} ppb allowed)"
        )
        if self.samples_failed:
            line += f"; {self.samples_failed} samples failed"
        if self.frames_unstamped:
            line += f"; {self.frames_unstamped} frames came without one"
        rate = self.off_rate
        if rate is not None:
            line += f"; the clock {_gain(rate)}, so its timestamps give UTC only roughly"
        elif self.steps_total:
            first = self.steps[0]
            line += (
                f"; the clock or CLOCK_REALTIME was stepped {self.steps_total} times, first by "
                f"{first.step_ns / NANOSECONDS:+.9f} s: timestamps around it may be off by a step"
            )
        return line


def _gain(rate: float) -> str:
    verb = "gains" if rate > 0 else "loses"
    return f"{verb} {abs(rate):.3g} s a second against CLOCK_REALTIME: its rate is off, and nothing sets it"


class NicClock:
    """The clock of one interface.

    Parameters
    ----------
    interface : str
    index : int
        Of /dev/ptp<index>.
    calls : KernelCalls

    Attributes
    ----------
    frames_unstamped : int
        For the account; whoever hands timestamps over counts the frames that have none.

    Raises
    ------
    CaptureError
        The clock cannot be read.
    """

    def __init__(self, interface: str, index: int, calls: KernelCalls) -> None:
        self._interface = interface
        self._calls = calls
        self._clock = PtpClock(index, calls)
        self._samples = self._samples_failed = self._frames = 0
        self.frames_unstamped = 0
        self._steps: list[ClockStep] = []
        self._steps_total = 0
        self._line: ClockLine | None = None
        self._before_step: ClockLine | None = None
        self._stepped_at_ns = self._step_bound_ns = self._worst_before_ns = 0
        self._sampled_at_ns = calls.monotonic_ns() - SAMPLE_EVERY_NS
        self._take_sample()
        calls.sleep(FIRST_PAUSE_S)
        self._take_sample()

    @property
    def name(self) -> str:
        return self._clock.name

    @property
    def method(self) -> str:
        return self._clock.method

    @property
    def usable(self) -> bool:
        """Whether it could be compared with UTC at all."""
        return self._line is not None

    @property
    def ahead_of_utc_ns(self) -> int:
        """How far it was ahead of UTC at the last sample."""
        if self._line is None:
            return 0
        last = self._line.last_sample
        return last.clock_ns - last.utc_ns

    @property
    def bound_ns(self) -> int:
        """The bound at the last sample."""
        return 0 if self._line is None else self._line.bound_ns()

    def follow(self) -> None:
        """Compare the clock with UTC where the last time is long enough ago."""
        if self._calls.monotonic_ns() - self._sampled_at_ns >= SAMPLE_EVERY_NS:
            self._take_sample()

    def convert(self, timestamps_ns: Int64Array) -> Int64Array:
        """Return UTC for timestamps that were just read from a ring.

        Parameters
        ----------
        timestamps_ns : ndarray of int64, shape (n,)
            Of this clock, in nanoseconds.

        Returns
        -------
        ndarray of int64, shape (n,)
            Nanoseconds since the epoch; `EARLIEST_NS` or `LATEST_NS` for what is no time of this clock.
        """
        if not len(timestamps_ns):
            return timestamps_ns
        assert self._line is not None, "a clock that is not usable converts nothing"
        self.follow()
        shown_ns = self._line.last_sample.clock_ns
        if int(timestamps_ns.max()) > shown_ns + FARTHEST_NS or int(timestamps_ns.min()) < shown_ns - FARTHEST_NS:
            return self._convert_some(timestamps_ns, shown_ns)
        self._frames += len(timestamps_ns)
        now_ns = self._calls.utc_ns()
        # Before it is said that these timestamps were converted: a step since the last sample would make that wrong.
        guessed_ns = timestamps_ns + (self._line.last_sample.utc_ns - self._line.last_sample.clock_ns)
        if int(guessed_ns.max()) > now_ns + OUT_OF_TIME_NS or int(guessed_ns.min()) < now_ns - WAITED_NS:
            self._take_sample()
        before = self._before_step
        if before is None:
            return self._line.convert(timestamps_ns)
        if self._calls.monotonic_ns() - self._stepped_at_ns > BEFORE_STEP_NS:
            self._worst_before_ns = max(self._worst_before_ns, before.worst_bound_ns)
            self._before_step = None
            return self._line.convert(timestamps_ns)
        return self._convert_around_step(timestamps_ns, before, self._line, now_ns)

    def _convert_some(self, timestamps_ns: Int64Array, shown_ns: int) -> Int64Array:
        """Return UTC for timestamps that may be of a clock that shows `shown_ns`; for the others, an end of time."""
        early, late = timestamps_ns < shown_ns - FARTHEST_NS, timestamps_ns > shown_ns + FARTHEST_NS
        utc_ns = np.where(early, EARLIEST_NS, LATEST_NS)
        there = ~(early | late)
        utc_ns[there] = self.convert(timestamps_ns[there])
        return utc_ns

    def account(self) -> ClockAccount:
        """Return how the timestamps were converted so far."""
        lines = (self._before_step, self._line)
        worst_ns = max([self._worst_before_ns, *(line.worst_bound_ns for line in lines if line is not None)])
        return ClockAccount(
            interface=self._interface,
            clock=self.name,
            method=self.method,
            time_scale=time_scale(self.ahead_of_utc_ns),
            ahead_of_utc_ns=self.ahead_of_utc_ns,
            frames=self._frames,
            frames_unstamped=self.frames_unstamped,
            samples=self._samples,
            samples_failed=self._samples_failed,
            error_bound_ns=worst_ns,
            stated_drift_ppb=round(STATED_DRIFT * 1e9),
            steps=tuple(self._steps),
            steps_total=self._steps_total,
        )

    def close(self) -> None:
        """Close the clock; may be called again."""
        self._clock.close()

    def _take_sample(self) -> None:
        self._sampled_at_ns = self._calls.monotonic_ns()
        try:
            sample = self._clock.sample()
        except OSError:
            self._samples_failed += 1
            return
        self._samples += 1
        line = self._line
        if line is None:
            self._line = ClockLine(sample)
        elif not line.is_step(sample):
            line.add(sample)
        else:
            step_ns = (sample.clock_ns - sample.utc_ns) - self.ahead_of_utc_ns
            self._steps_total += 1
            if len(self._steps) < STEPS_LISTED:
                self._steps.append(ClockStep(line.last_sample.utc_ns, sample.utc_ns, step_ns))
            apart_ns = abs(sample.utc_ns - line.last_sample.utc_ns)
            widths_ns = line.last_sample.half_width_ns + sample.half_width_ns
            self._step_bound_ns = abs(step_ns) + widths_ns + ceil(UNKNOWN_RATE * apart_ns)
            if line.used_until_ns > line.last_sample.clock_ns and abs(step_ns) <= WAITED_NS:
                # What was converted since the last sample may be from after the step. After a longer step it would
                # have been out of time, and a sample taken before it was converted.
                self._worst_before_ns = max(self._worst_before_ns, self._step_bound_ns)
            if self._before_step is not None:
                self._worst_before_ns = max(self._worst_before_ns, self._before_step.worst_bound_ns)
            self._before_step = line
            self._line = ClockLine(sample)
            self._stepped_at_ns = self._sampled_at_ns

    def _convert_around_step(
        self, timestamps_ns: Int64Array, before: ClockLine, after: ClockLine, now_ns: int
    ) -> Int64Array:
        """Convert each timestamp with the line on whose side of the step that puts it.

        Where both do, after a step shorter than the time between two samples, or one back by less than frames may
        have waited, the later line is taken, and the step is the bound.
        """
        last, first = before.last_sample, after.first_sample
        shift_ns = first.utc_ns - first.clock_ns
        shift_before_ns = last.utc_ns - last.clock_ns
        by_after, by_before = timestamps_ns + shift_ns, timestamps_ns + shift_before_ns
        fits_after = (by_after >= last.utc_ns) & (by_after <= now_ns + OUT_OF_TIME_NS)
        fits_before = by_before <= first.utc_ns + OUT_OF_TIME_NS
        is_before = fits_before & ~fits_after
        waited_too_long = by_before < now_ns - BEFORE_STEP_NS
        if (fits_before & fits_after & ~waited_too_long).any():
            self._worst_before_ns = max(self._worst_before_ns, self._step_bound_ns)
        utc_ns = np.empty_like(timestamps_ns)
        for line, rows in ((before, is_before), (after, ~is_before)):
            if rows.any():
                utc_ns[rows] = line.convert(timestamps_ns[rows])
        return utc_ns
