"""One numbered stream worked out of its runs, as the analyses that follow streams report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.capture_drops import CaptureDrops
from uspcap.analysis.sequence_gaps import SequenceGap, StreamGaps
from uspcap.protocols.feeds import FeedProtocol

GAPS_SHOWN: Final = 1000
"""Gaps of a stream in the result; the table holds all."""


@dataclass(frozen=True, slots=True)
class StreamAccount:
    """What is missing of a stream, and where the capture itself may have lost it.

    Attributes
    ----------
    gaps : StreamGaps
    undetermined : frozenset of int
        Places in `gaps.gaps` of those within which the capture lost frames, or bytes of the stream that carries them.
    """

    gaps: StreamGaps
    undetermined: frozenset[int]

    @classmethod
    def of_runs(cls, runs: NDArray[np.void], protocol: FeedProtocol, drops: CaptureDrops) -> StreamAccount:
        """Work out a stream's runs, rows of `RUN_DTYPE` in their order."""
        gaps = StreamGaps()
        gaps.take(runs, modulus=protocol.modulus, far=protocol.far)
        return cls(gaps, frozenset(at for at, gap in enumerate(gaps.gaps) if gap.torn or drops.within(gap)))

    def counts(self) -> dict[str, Any]:
        """Return what the report says of any numbered stream, apart from its gaps."""
        gaps = self.gaps
        return {
            "first": gaps.first,
            "last": gaps.last,
            "lost": self._missing(undetermined=False),
            "late": gaps.late,
            "duplicate": gaps.duplicate,
            "overlap": gaps.overlap,
            "resets": gaps.resets,
            "undetermined": self._missing(undetermined=True),
            "before_joined": gaps.before_joined,
            "joined_at": gaps.joined_at,
            "ended": gaps.ended,
            "largest_extent": max(gaps.extents, default=0),
            "gap_count": len(gaps.gaps),
        }

    def _missing(self, *, undetermined: bool) -> int:
        """Return how many numbers never came, of gaps that are undetermined or are not."""
        return sum(
            gap.count - gap.filled for at, gap in enumerate(self.gaps.gaps) if (at in self.undetermined) is undetermined
        )

    def gap_rows(self, most: int | None = GAPS_SHOWN) -> list[dict[str, Any]]:
        """Return the gaps in the order in which they were found, the first `most` of them."""
        return [self._gap(gap, at in self.undetermined) for at, gap in enumerate(self.gaps.gaps[:most])]

    def _gap(self, gap: SequenceGap, undetermined: bool) -> dict[str, Any]:
        return {
            "first": gap.first,
            "last": gap.last,
            "count": gap.count,
            "start_ns": gap.start_ns,
            "end_ns": gap.end_ns,
            "before_frame": gap.before_frame,
            "after_frame": gap.after_frame,
            "filled": gap.filled,
            "filled_after_ns": gap.filled_ns - gap.end_ns if gap.filled else None,
            "undetermined": undetermined,
        }
