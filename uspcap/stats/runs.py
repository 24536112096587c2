"""The result of one run of one path, and its sorted values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uspcap.stats.histogram import Histogram, bounds, rank_of


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run of one path, without warm-up and cool-down.

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
    """Merge neighbouring runs; the remainder goes to the last group."""
    number = len(runs) // size
    for at in range(number):
        yield Ranked(runs[at * size : None if at == number - 1 else (at + 1) * size])


@dataclass(frozen=True, slots=True)
class Located:
    """The position of a percentile in each of some groups of runs.

    Attributes
    ----------
    middles : ndarray of float64, shape (groups,)
        Of the buckets, ns.
    half_width : float
        Half of the widest bucket's width: a value is known to its bucket only.
    """

    middles: NDArray[np.float64]
    half_width: float


def locate(groups: Sequence[Ranked], percentile: str) -> Located | None:
    """Return the position of a percentile in each group; None where it is a lost frame in one of them."""
    ends = [group.ends(rank_of(percentile, group.total)) for group in groups]
    found = [end for end in ends if end is not None]
    if len(found) < len(ends):
        return None
    low, high = np.array(found, np.float64).T
    return Located((low + high) / 2, float((high - low).max()) / 2)
