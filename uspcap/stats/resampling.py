"""Bootstrap over pairs of runs: the percentiles of all runs together, and how far their difference can be trusted.

References
----------
T. C. Hesterberg: What Teachers Should Know About the Bootstrap, The American Statistician 69(4), 2015 (the expanded
percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.stats.histogram import bounds, enough_for, rank_of
from uspcap.stats.intervals import normal_below, student_quantile
from uspcap.stats.runs import Ranked, Run

_RESAMPLES_AT_ONCE: Final = 16
"""Few enough that the sums of all buckets stay in the cache."""


@dataclass(frozen=True, slots=True)
class PooledDifference:
    """One percentile of all runs' frames together, None where n does not suffice or it is a lost frame.

    Attributes
    ----------
    a_ns, b_ns : int or None
        Of either path.
    difference_ns, low_ns, high_ns : int or None
        Path b minus path a, and the interval that resampling pairs of runs gives it: approximate.
    """

    a_ns: int | None = None
    b_ns: int | None = None
    difference_ns: int | None = None
    low_ns: int | None = None
    high_ns: int | None = None


class Pooled:
    """All runs of two paths together, and the result of resampling their pairs."""

    def __init__(
        self,
        of_a: Sequence[Run],
        of_b: Sequence[Run],
        percentiles: Sequence[str],
        generator: np.random.Generator,
        resamples: int,
    ) -> None:
        self._runs = len(of_a)
        picked = generator.integers(0, self._runs, (resamples, self._runs))
        weights = np.stack([np.bincount(row, minlength=self._runs) for row in picked]).astype(np.float64)
        self._sides = [Ranked(runs) for runs in (of_a, of_b)]
        self._known = [one for one in percentiles if all(enough_for(one, side.total) for side in self._sides)]
        a, b = (
            _resampled(side, runs, weights, self._known) for side, runs in zip(self._sides, (of_a, of_b), strict=True)
        )
        self._resampled = dict(zip(self._known, zip(a, b, strict=True), strict=True))

    def difference(self, percentile: str, confidence: float) -> PooledDifference:
        """Return one percentile of both paths; nothing where fewer than ten frames lie beyond it."""
        if percentile not in self._known:
            return PooledDifference()
        a, b = (side.ends(rank_of(percentile, side.total)) for side in self._sides)
        if a is None or b is None:
            return PooledDifference(None if a is None else a[1], None if b is None else b[1])
        low, high = self._interval(percentile, confidence)
        return PooledDifference(a[1], b[1], round((sum(b) - sum(a)) / 2), low, high)

    def _interval(self, percentile: str, confidence: float) -> tuple[int | None, int | None]:
        """Return the expanded percentile interval; none for fewer than three runs, or where losses reach up to it.

        Expanded: for a mean, percentile intervals of n runs are too short, by normal instead of t
        quantiles and by sqrt((n - 1) / n). The shares of the tails are moved so that a normal mean is covered right.
        """
        a, b = self._resampled[percentile]
        if self._runs < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return None, None
        share = _expanded_tail(self._runs, (1 - confidence) / 2)
        low, high = np.quantile(b - a, [share, 1 - share])
        return math.floor(low), math.ceil(high)


def _resampled(
    side: Ranked, runs: Sequence[Run], weights: NDArray[np.float64], percentiles: Sequence[str]
) -> NDArray[np.float64]:
    """Return percentiles of resampled runs, infinite where they are lost frames or there is no frame.

    Parameters
    ----------
    side : Ranked
        All runs together.
    runs : sequence of Run
    weights : ndarray of float64, shape (resamples, runs)
        How often a resample has each run.
    percentiles : sequence of str

    Returns
    -------
    ndarray of float64, shape (percentiles, resamples)
        The middle of a bucket, in ns.
    """
    lowest, highest = bounds()
    middles = np.append((lowest[side.buckets] + highest[side.buckets]) / 2, np.inf)
    counts = np.stack([np.append(run.latency.counts[side.buckets].astype(np.float64), run.lost) for run in runs])
    # Counts are whole numbers, exact in float64 up to 2^53.
    cumulative_of_runs = np.cumsum(counts, axis=1)
    values = np.empty((len(percentiles), len(weights)))
    room = np.empty((_RESAMPLES_AT_ONCE, cumulative_of_runs.shape[1]))
    for start in range(0, len(weights), _RESAMPLES_AT_ONCE):
        part = slice(start, min(start + _RESAMPLES_AT_ONCE, len(weights)))
        cumulative = np.matmul(weights[part], cumulative_of_runs, out=room[: part.stop - start])
        totals = cumulative[:, -1].astype(np.int64).tolist()
        for at, percentile in enumerate(percentiles):
            rank = {total: rank_of(percentile, total) for total in set(totals)}
            found = [np.searchsorted(row, rank[total]) for row, total in zip(cumulative, totals, strict=True)]
            # Of no frames at all there is no percentile: it lies beyond all of them.
            values[at, part] = middles[np.minimum(found, len(middles) - 1)]
    return values


def _expanded_tail(runs: int, tail: float) -> float:
    """Return the share of bootstrap means beyond which `tail` of the sampling distribution lies, for normal means."""
    return normal_below(math.sqrt(runs / (runs - 1)) * student_quantile(tail, runs - 1))
