"""Where the capture itself lost frames: numbers missing there need not be lost by the network."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.sequence.gaps import SequenceGap
from uspcap.frames import FrameBatch

MAXIMUM_DROPS: Final = 1 << 16
"""Places that are remembered; what is lost at later ones is counted only."""


class CaptureDrops:
    """Frames before which the capture lost others, as `drop_count` has it.

    Attributes
    ----------
    total : int
        Frames lost.
    """

    def __init__(self) -> None:
        self.total = 0
        self._before = np.zeros(0, np.int64)
        self._sorted: NDArray[np.int64] | None = None

    def note(self, batch: FrameBatch, shift: int) -> None:
        """Remember a batch's, whose frame numbers are moved by `shift`."""
        dropped = batch.column("drop_count")
        if not dropped.any():
            return
        # By halves, as the sum of what a file claims may not fit 64 bits.
        self.total += (int((dropped >> np.uint64(32)).sum()) << 32) + int((dropped & np.uint64(0xFFFF_FFFF)).sum())
        self._add(batch.column("frame_number")[np.flatnonzero(dropped)] + shift)

    def append(self, later: CaptureDrops, frames_before: int) -> None:
        """Append those of what came directly after so many frames."""
        self.total += later.total
        self._add(later._before + frames_before)

    def _add(self, before: NDArray[np.int64]) -> None:
        self._before = np.concatenate([self._before, before[: MAXIMUM_DROPS - len(self._before)]])
        self._sorted = None

    def within(self, gap: SequenceGap) -> bool:
        """Tell whether frames were lost after the packet before a gap and up to the one after it."""
        if self._sorted is None:
            self._sorted = np.sort(self._before)
        low, high = np.searchsorted(self._sorted, [gap.before_frame, gap.after_frame], side="right")
        return bool(high > low)
