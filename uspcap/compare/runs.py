"""What one run of one path came to, and its sorted values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uspcap.analysis.histogram import Histogram, bounds


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one path came to, without warm-up and cool-down.

    Attributes
    ----------
    latency : Histogram
        Of the frames that arrived.
    lost : int
        Frames that did not: slower than any that did (RFC 7679, section 5.1), and part of every percentile.
    """

    latency: Histogram
    lost: int = 0


class Ranked:
    """The sorted values of some runs of a path, as buckets; lost frames come last.

    Parameters
    ----------
    runs : sequence of Run
        At least one.

    Attributes
    ----------
    buckets, counts, cumulative : ndarray of int64, same shape
        Buckets that are not empty, rising, how many values each has, and how many it has with all before it.
    arrived, lost, total : int
        Frames.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        counts = runs[0].latency.counts.astype(np.int64)
        for run in runs[1:]:
            counts += run.latency.counts.astype(np.int64)
        self.buckets = np.flatnonzero(counts)
        self.counts = counts[self.buckets]
        self.cumulative = np.cumsum(self.counts)
        self.lost = sum(run.lost for run in runs)
        self.arrived = int(self.cumulative[-1]) if len(self.buckets) else 0
        self.total = self.arrived + self.lost

    def ends(self, rank: int) -> tuple[int, int] | None:
        """Return the lowest and highest value that the value of a rank may have; None where it is a lost frame."""
        if rank > self.arrived:
            return None
        bucket = self.buckets[np.searchsorted(self.cumulative, rank)]
        lowest, highest = bounds()
        return int(lowest[bucket]), int(highest[bucket])


def grouped(runs: Sequence[Run], size: int) -> Iterator[Ranked]:
    """Merge neighbouring runs; what is left over goes to the last group."""
    number = len(runs) // size
    for at in range(number):
        yield Ranked(runs[at * size : None if at == number - 1 else (at + 1) * size])
