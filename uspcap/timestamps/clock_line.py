"""A clock's reading as a function of UTC, through samples: straight pieces without steps between them.

A sample says how far apart two clocks were, within half its width. Between two samples the difference is taken to be
linear. A frame mostly is converted before the next sample is there; its line is drawn through the last samples and
goes on. When the next sample comes, the new piece begins where the old one has led, if frames were converted with it,
and closes the distance to the sample within `SLEWING_NS`: to jump there would make times step backward, and put the
noise of samples into the distance of two frames. The distance that is left is part of the bound.

A deviation that no rate can explain is a step of one of the clocks. It ends the line; another one begins.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import NANOSECONDS
from uspcap.timestamps.ptp_clock import ClockSample

SLEWING_NS: Final = NANOSECONDS
"""Within so long a line comes back to the samples."""

BASELINE_NS: Final = 10 * NANOSECONDS
"""The rate is taken from samples this far apart at most."""

STATED_DRIFT: Final = 1e-6
"""The rate between two clocks is taken to stay within so much of what was last measured (1 µs a second)."""

UNKNOWN_RATE: Final = 500e-6
"""Before the rate was measured: the most by which Linux slews its clock (adjtimex(2)), and beyond what crystals do."""

STEP_FLOOR_NS: Final = 1_000
"""A smaller deviation is no step."""

NODES: Final = 128
"""Pieces that are kept: older frames are converted with the oldest one."""

Int64Array = NDArray[np.int64]


class ClockLine:
    """UTC as a function of a clock, without steps.

    Parameters
    ----------
    first : ClockSample

    Attributes
    ----------
    first_sample : ClockSample
    used_until_ns : int
        Latest reading of the clock that was converted.
    worst_bound_ns : int
        Largest error that any reading may have that was converted so far, as known now.
    """

    def __init__(self, first: ClockSample) -> None:
        self._clock_ns: Int64Array = np.zeros(NODES, np.int64)
        self._utc_ns: Int64Array = np.zeros(NODES, np.int64)
        self._rate = np.zeros(NODES)
        self._bound_ns = np.zeros(NODES)
        self._growth = np.zeros(NODES)
        self._growth_before = np.zeros(NODES)
        self._count = 0
        self.first_sample = first
        self._samples = deque([first])
        self.used_until_ns = first.clock_ns
        self.worst_bound_ns = 0
        self._append(first.clock_ns, first.utc_ns, 0.0, first.half_width_ns, UNKNOWN_RATE)

    @property
    def last_sample(self) -> ClockSample:
        return self._samples[-1]

    def deviation_ns(self, sample: ClockSample) -> int:
        """Return how far a sample lies from the line, the part of UTC that the line has not foreseen."""
        return sample.utc_ns - self._value(sample.clock_ns)

    def is_step(self, sample: ClockSample) -> bool:
        """Whether a sample lies where no rate that clocks have leads to."""
        elapsed_ns = abs(sample.clock_ns - self._samples[-1].clock_ns)
        reachable_ns = self._bound_at(sample.clock_ns) + sample.half_width_ns + UNKNOWN_RATE * elapsed_ns
        return abs(self.deviation_ns(sample)) > reachable_ns + STEP_FLOOR_NS

    def add(self, sample: ClockSample) -> None:
        """Go on through a sample that is no step; one that is not later than the last says nothing new."""
        if sample.clock_ns <= self._samples[-1].clock_ns:
            return
        last = self._count - 1
        deviation_ns = self.deviation_ns(sample)
        foreseen_ns = self._bound_at(sample.clock_ns) + sample.half_width_ns
        pinned_ns = max(self.used_until_ns, int(self._clock_ns[last]))
        used = self.used_until_ns > self._clock_ns[last]
        if used:
            self.worst_bound_ns = max(self.worst_bound_ns, abs(deviation_ns) + sample.half_width_ns)
        unforeseen_ns = abs(deviation_ns) if abs(deviation_ns) > foreseen_ns else 0
        while unforeseen_ns and len(self._samples) > 1:
            self._samples.popleft()  # The rate has changed: what was before says nothing of it.
        while len(self._samples) > 1 and sample.clock_ns - self._samples[0].clock_ns > BASELINE_NS:
            self._samples.popleft()
        base = self._samples[0]
        self._samples.append(sample)
        baseline_ns = sample.clock_ns - base.clock_ns
        rate = (sample.utc_ns - base.utc_ns - baseline_ns) / baseline_ns
        growth = (sample.half_width_ns + base.half_width_ns) / baseline_ns + STATED_DRIFT
        if used and sample.clock_ns - pinned_ns < SLEWING_NS:
            correction = deviation_ns / SLEWING_NS
            self._bound_ns[last] = max(self._bound_ns[last], abs(deviation_ns) + sample.half_width_ns)
            self._append(
                sample.clock_ns,
                sample.utc_ns - deviation_ns,
                rate + correction,
                abs(deviation_ns) + sample.half_width_ns,
                growth + abs(correction),
            )
            return
        if used:
            self._append(pinned_ns, self._value(pinned_ns), 0.0, self._bound_at(pinned_ns), 0.0)
        self._interpolate_to(sample, unforeseen_ns)
        self._append(sample.clock_ns, sample.utc_ns, rate, sample.half_width_ns, growth)

    def convert(self, clock_ns: Int64Array) -> Int64Array:
        """Return UTC for readings of the clock, and note how good it is.

        Parameters
        ----------
        clock_ns : ndarray of int64, shape (n,), n > 0
            Nanoseconds.

        Returns
        -------
        ndarray of int64, shape (n,)
            Nanoseconds since the epoch.
        """
        latest_ns = int(clock_ns.max())
        earliest_ns = int(clock_ns.min())
        last = self._count - 1
        utc_ns: Int64Array
        if earliest_ns >= self._clock_ns[last]:
            elapsed = clock_ns - self._clock_ns[last]
            utc_ns = elapsed + self._utc_ns[last] + np.rint(elapsed * self._rate[last]).astype(np.int64)
            bound_ns = self._bound_at(latest_ns)
        else:
            piece = np.searchsorted(self._clock_ns[: self._count], clock_ns, "right") - 1
            np.maximum(piece, 0, out=piece)
            elapsed = clock_ns - self._clock_ns[piece]
            utc_ns = elapsed + self._utc_ns[piece] + np.rint(elapsed * self._rate[piece]).astype(np.int64)
            growth = np.where(elapsed < 0, self._growth_before[piece], self._growth[piece])
            bound_ns = float((self._bound_ns[piece] + growth * np.abs(elapsed)).max())
        self.used_until_ns = max(self.used_until_ns, latest_ns)
        self.worst_bound_ns = max(self.worst_bound_ns, int(np.ceil(bound_ns)))
        return utc_ns

    def bound_ns(self) -> int:
        """Return the bound at the last sample."""
        return int(np.ceil(self._bound_ns[self._count - 1]))

    def _interpolate_to(self, sample: ClockSample, unforeseen_ns: int) -> None:
        """Lead the last piece to a sample, which lies `unforeseen_ns` from where it was expected if that is odd."""
        last = self._count - 1
        elapsed_ns = sample.clock_ns - int(self._clock_ns[last])
        self._rate[last] = (sample.utc_ns - int(self._utc_ns[last]) - elapsed_ns) / elapsed_ns
        # Between two points, a rate within the drift stated leads no further away than by this, and one change of
        # the rate, or a small step, no further than by what was unforeseen.
        start_ns = self._bound_ns[last]
        ends_ns = max(start_ns, sample.half_width_ns)
        # Before the piece, nothing but the two points says what the rate is.
        self._growth_before[last] = (start_ns + sample.half_width_ns + unforeseen_ns) / elapsed_ns + STATED_DRIFT
        self._bound_ns[last] = ends_ns + STATED_DRIFT * elapsed_ns / 2 + unforeseen_ns
        self._growth[last] = 0.0

    def _append(self, clock_ns: int, utc_ns: int, rate: float, bound_ns: float, growth: float) -> None:
        columns: tuple[NDArray[Any], ...] = (
            *(self._clock_ns, self._utc_ns, self._rate),
            *(self._bound_ns, self._growth, self._growth_before),
        )
        if self._count == NODES:
            for column in columns:
                column[: NODES // 2] = column[NODES // 2 :]
            self._count = NODES // 2
        for column, value in zip(columns, (clock_ns, utc_ns, rate, bound_ns, growth, growth), strict=True):
            column[self._count] = value
        self._count += 1

    def _value(self, clock_ns: int) -> int:
        """Return UTC where the last piece leads, or for the one reading before it."""
        last = self._count - 1
        elapsed_ns = clock_ns - int(self._clock_ns[last])
        return int(self._utc_ns[last]) + elapsed_ns + round(elapsed_ns * float(self._rate[last]))

    def _bound_at(self, clock_ns: int) -> float:
        last = self._count - 1
        return float(self._bound_ns[last] + self._growth[last] * abs(clock_ns - int(self._clock_ns[last])))
