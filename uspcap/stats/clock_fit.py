"""The offset and the drift between the clocks of two captures, from the differences of their frames' timestamps.

The difference of the timestamps of a frame is offset + drift x time + delay. The delay has a minimum; so all
differences lie above a line, and the line that they lie on closest, seen from the middle, is a side of the lower convex
hull of the points (time, difference). What is left above it is delay above the minimum. One-way captures
cannot distinguish the minimum delay from the offset (RFC 7679, 3.7): the line includes it.

Source: Moon, Skelly, Towsley: Estimation and removal of clock skew from network delay measurements, INFOCOM 1999; the
hull by Andrew's monotone chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.saturating import added_ns, clipped_ns, whole_ns

SLICES: Final = 16
"""The bound looks at the smallest difference in each of so many equal stretches of time."""

_BUCKETS: Final = 4_096


@dataclass(frozen=True, slots=True)
class ClockFit:
    """A line: B's clock minus A's, with the minimum delay included.

    Attributes
    ----------
    offset_ns : int
        At `origin_ns`.
    drift_ppb : float
        ns a second.
    origin_ns : int
        On A's clock.
    bound_ns : int
        The line is off by so much at most, if the minimum delay occurs in every sixteenth of the capture: how much the
        smallest differences of these stand apart, above the line.
    """

    offset_ns: int
    drift_ppb: float
    origin_ns: int
    bound_ns: int

    def at(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the line at times of A's clock, whole ns."""
        line = np.floor((times_ns - self.origin_ns) * (self.drift_ppb * 1e-9))
        return added_ns(whole_ns(line), np.full(len(line), clipped_ns(self.offset_ns)))

    def lowered(self, by_ns: int) -> ClockFit:
        """Return the line moved by so much, 0 or less; the bound grows by that."""
        return replace(self, offset_ns=self.offset_ns + by_ns, bound_ns=self.bound_ns - by_ns)


class LowerEnvelope:
    """Keeps the smallest difference of each stretch of time, however long the capture; the stretches double in time.

    A stretch is 2^shift ns, aligned to the epoch, so that which one a time lies in is a matter of bits.
    """

    def __init__(self) -> None:
        self._first = self._last = 0  # stretches, once there was a frame
        self._shift = 16
        self._least = np.full(_BUCKETS, np.iinfo(np.int64).max, np.int64)
        self._when = np.zeros(_BUCKETS, np.int64)

    def update(self, times_ns: NDArray[np.int64], differences_ns: NDArray[np.int64]) -> None:
        """Take frames.

        Parameters
        ----------
        times_ns : ndarray of int64
            On A's clock.
        differences_ns : ndarray of int64
            B's timestamp minus A's.
        """
        if not len(times_ns):
            return
        self._cover(int(times_ns.min()) >> self._shift, int(times_ns.max()) >> self._shift)
        places = (times_ns >> self._shift) - self._first
        order = np.lexsort((differences_ns, places))
        first = np.concatenate(([True], np.diff(places[order]) > 0))
        at, rows = places[order][first], order[first]
        better = differences_ns[rows] < self._least[at]
        self._least[at[better]] = differences_ns[rows[better]]
        self._when[at[better]] = times_ns[rows[better]]

    def fit(self) -> ClockFit | None:
        """Return the line; None where there was no frame."""
        used = np.flatnonzero(self._least != np.iinfo(np.int64).max)
        if not len(used):
            return None
        times, least = self._when[used], self._least[used]
        order = np.argsort(times, kind="stable")
        times, least = times[order], least[order]
        origin = int(times[0])
        x = (times - origin).astype(np.float64)
        base = int(least.min())
        # What lies above the minimum may take 64 bits without a sign.
        y = (least.astype(np.uint64) - np.uint64(base & 0xFFFF_FFFF_FFFF_FFFF)).astype(np.float64)
        hull = _lower_hull(x, y)
        middle = x[-1] / 2
        slope = 0.0
        at = hull[0]
        for left, right in pairwise(hull):
            if x[left] <= middle <= x[right] and x[right] > x[left]:
                slope, at = (y[right] - y[left]) / (x[right] - x[left]), left
                break
        intercept = y[at] - slope * x[at]
        above = y - (intercept + slope * x)
        slices = np.minimum((x / (x[-1] or 1.0) * SLICES).astype(np.int64), SLICES - 1)
        lowest = [above[slices == one].min() for one in range(SLICES) if (slices == one).any()]
        return ClockFit(
            offset_ns=base + int(np.floor(intercept)),
            drift_ppb=slope * 1e9,
            origin_ns=origin,
            # The line and the true one are that close in the first and the last slice; a slice further, a bit less.
            bound_ns=int(np.ceil(max(lowest) * SLICES / (SLICES - 2))) + 1,
        )

    def _cover(self, low: int, high: int) -> None:
        """Make the stretches wide enough for these two, and let the first of all be the lowest."""
        first, last = low, high
        if (self._least != np.iinfo(np.int64).max).any():
            first, last = min(low, self._first), max(high, self._last)
        wider = 0
        while (last >> wider) - (first >> wider) >= _BUCKETS:
            wider += 1
        if wider or first != self._first:
            self._regroup(first >> wider, self._shift + wider)
        self._last = last >> wider

    def _regroup(self, first: int, shift: int) -> None:
        used = np.flatnonzero(self._least != np.iinfo(np.int64).max)
        times, least = self._when[used].copy(), self._least[used].copy()
        self._first, self._shift = first, shift
        self._least[:] = np.iinfo(np.int64).max
        for when, difference in zip(times.tolist(), least.tolist(), strict=True):
            place = (when >> shift) - first
            if difference < self._least[place]:
                self._least[place], self._when[place] = difference, when


def _lower_hull(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int]:
    """Return the rows of the lower convex hull of points whose x rise."""
    hull: list[int] = []
    for row in range(len(x)):
        while len(hull) >= 2:
            first, second = hull[-2], hull[-1]
            turn = (x[second] - x[first]) * (y[row] - y[first]) - (y[second] - y[first]) * (x[row] - x[first])
            if turn > 0:
                break
            hull.pop()
        hull.append(row)
    return hull
