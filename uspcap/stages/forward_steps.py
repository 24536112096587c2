"""A clock that stepped forward: an interface beside it that goes on distinguishes that from a gap.

Frames of the interfaces of a file are written as they come, side by side. Where those of one jump forward and stay, and
those of another that are written among them go on where time had been, the clocks of the two parted there. Of an
interface alone, a jump forward is a gap: whether a clock was set or nothing was sent, its timestamps do not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from uspcap.frames import FrameBatch
from uspcap.saturating import difference_ns
from uspcap.stages.order import NO_TIMESTAMP
from uspcap.stages.ordering import MOST_LISTED

AMONG: Final = 64
"""Frames before a jump, and after it, that are looked at in the order in which they were written."""

FEWEST: Final = 8
"""So many of the interface that jumped, and of another, must be among those on either side."""


@dataclass(frozen=True, slots=True)
class ForwardStep:
    """A jump forward of one interface, and the interface that went on.

    Attributes
    ----------
    before_frame, frame : int
        The frames of the interface before and after it, by their numbers in the file.
    before_ns, timestamp_ns : int
    interface, other : int
        Their numbers in the file.
    others : int
        Frames of the other that were written behind the jump, of the next `AMONG`, and lie before it in time.
    """

    before_frame: int
    frame: int
    before_ns: int
    timestamp_ns: int
    interface: int
    other: int
    others: int


class ForwardSteps:
    """Looks for such jumps in the frames of a file, in the order in which they were written.

    Parameters
    ----------
    window_ns : int
        How far frames that are written side by side may lie apart in time.

    Attributes
    ----------
    found : list of ForwardStep
        The first `MOST_LISTED`.
    """

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._last: dict[int, tuple[int, int]] = {}
        self._rows = np.empty((3, 0), np.int64)
        self._looked_at = 0
        self.found: list[ForwardStep] = []

    def update(self, batch: FrameBatch) -> None:
        """Take the next batch of the file."""
        timestamped = batch.column("timestamp_source") < NO_TIMESTAMP
        rows = np.stack(
            [batch.column(name)[timestamped].astype(np.int64) for name in ("timestamp_ns", "interface", "frame_number")]
        )
        self._rows = np.concatenate([self._rows, rows], axis=1)
        self._look(self._rows.shape[1] - AMONG)

    def finish(self) -> None:
        """Know that no more frames come."""
        self._look(self._rows.shape[1])

    def _look(self, until: int) -> None:
        """Look at the rows up to one, of which all that come behind are known that matter."""
        if until <= self._looked_at:
            return
        times, interfaces, frames = self._rows
        for interface in np.unique(interfaces[self._looked_at : until]).tolist():
            rows = self._looked_at + np.flatnonzero(interfaces[self._looked_at : until] == interface)
            before_ns, before_frame = self._last.get(interface, (int(times[rows[0]]), 0))
            jumps_ns = difference_ns(times[rows], np.concatenate([[before_ns], times[rows[:-1]]]))
            self._last[interface] = int(times[rows[-1]]), int(frames[rows[-1]])
            for at in np.flatnonzero(jumps_ns > self._window_ns).tolist():
                if at:
                    before_ns, before_frame = int(times[rows[at - 1]]), int(frames[rows[at - 1]])
                went_on = self._went_on(int(rows[at]), before_ns)
                if went_on is not None and len(self.found) < MOST_LISTED:
                    row = int(rows[at])
                    self.found.append(
                        ForwardStep(before_frame, int(frames[row]), before_ns, int(times[row]), interface, *went_on)
                    )
        first = max(until - AMONG, 0)
        self._rows = self._rows[:, first:]
        self._looked_at = until - first

    def _went_on(self, row: int, before_ns: int) -> tuple[int, int] | None:
        """Return an interface that went on where another jumped, and how many of its frames say so."""
        first = max(row - AMONG, 0)
        times, interfaces, _ = self._rows[:, first : row + 1 + AMONG]
        row -= first
        jumped = interfaces == interfaces[row]
        mine = np.flatnonzero(jumped)
        if min(np.count_nonzero(mine < row), np.count_nonzero(mine > row)) < FEWEST:
            return None
        if (difference_ns(times[mine[mine > row]], times[row]) < -self._window_ns).any():
            return None
        # How far each frame lies behind that of the interface that was written last before it.
        last = np.maximum.accumulate(np.where(jumped, np.arange(len(times)), -1))
        behind_ns = np.where(last >= 0, difference_ns(times[last], times), 0)
        for other in np.unique(interfaces[row:][~jumped[row:]]).tolist():
            theirs = np.flatnonzero(interfaces == other)
            before, after = theirs[theirs < row], theirs[theirs > row]
            both = interfaces[row:][np.isin(interfaces[row:], (interfaces[row], other))]
            if min(len(before), len(after), int(np.count_nonzero(np.diff(both)))) < FEWEST:
                continue
            since_ns = difference_ns(times[after], np.array([before_ns], np.int64))
            went_on = (behind_ns[after] > self._window_ns) & (since_ns >= -self._window_ns)
            if went_on.all() and (np.abs(behind_ns[before]) <= self._window_ns).all():
                return other, len(after)
        return None
