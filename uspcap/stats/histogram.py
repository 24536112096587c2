"""HDR histograms: log-linear buckets, three significant figures, mergeable by addition.

Source of the bucket layout and of the interchange formats: HdrHistogram (Gil Tene), HdrHistogram_c's
hdr_histogram.h and HdrHistogram's histogram log format 1.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache, cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from uspcap.records import Count, Quantity, Record, Span
from uspcap.stats.buckets import BUCKETS, CellsByFlow, bucket_bounds, record_many

PERCENTILES = ("50", "90", "99", "99.9", "99.99", "99.999")
"""Reported percentiles, as the keys of `percentiles_ns`."""

ENOUGH_BEYOND = 10
"""A percentile is given only where at least so many values lie beyond it."""


@cache
def bounds() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest value of every bucket, int64 of shape (BUCKETS,) each."""
    return bucket_bounds()


def enough_for(percentile: str, count: int) -> bool:
    """Tell whether at least `ENOUGH_BEYOND` of `count` values lie beyond a percentile."""
    numerator, denominator = _ratio(percentile)
    return count * (100 * denominator - numerator) >= 100 * denominator * ENOUGH_BEYOND


def rank_of(percentile: str, count: int) -> int:
    """Return which of `count` sorted values, from 1, a percentile is: the smallest rank that covers it."""
    numerator, denominator = _ratio(percentile)
    return max(1, -(-numerator * count // (100 * denominator)))


@cache
def _ratio(percentile: str) -> tuple[int, int]:
    """Return a percentile as a fraction: comparisons ask for the rank of one some ten thousand times."""
    return Fraction(percentile).as_integer_ratio()


Percentile = Annotated[
    str, Quantity("percentile", "A decimal number, up to 100.", pattern=r"^(100|[0-9]{1,2}(\.[0-9]+)?)$")
]


class HistogramSummary(Record):
    """An HDR histogram of durations, three significant figures."""

    count: Count
    min_ns: Span | None
    max_ns: Span | None
    mean_ns: Span | None
    stddev_ns: Span | None
    percentiles_ns: Annotated[
        Mapping[Percentile, Span | None],
        "Percentile, as a decimal number, to its value; null where too few values lie beyond it.",
    ]
    insufficient: Annotated[tuple[Percentile, ...], "The percentiles that are null."]


class Histogram:
    """Counts of non-negative int64 values, in ns unless said otherwise.

    Parameters
    ----------
    counts : ndarray of uint64, shape (BUCKETS,), optional
        Taken over, not copied, and not to be changed once something was asked of the histogram.
    sum_ns, lowest_ns, highest_ns : int
        Exact where given; from the buckets otherwise.
    """

    def __init__(
        self,
        counts: NDArray[np.uint64] | None = None,
        *,
        sum_ns: int | None = None,
        lowest_ns: int | None = None,
        highest_ns: int | None = None,
    ) -> None:
        self._counts = np.zeros(BUCKETS, np.uint64) if counts is None else counts
        self.sum_ns = sum_ns
        self.lowest_ns = lowest_ns
        self.highest_ns = highest_ns

    @classmethod
    def from_values(cls, values: Sequence[int] | NDArray[np.int64]) -> Histogram:
        """Count values, with exact sum and extremes."""
        array = np.ascontiguousarray(values, np.int64)
        histogram = cls()
        record_many(histogram._counts, array)
        if len(array):
            histogram.sum_ns = sum(map(int, array.tolist()))
            histogram.lowest_ns, histogram.highest_ns = int(array.min()), int(array.max())
        return histogram

    @classmethod
    def from_buckets(cls, buckets: NDArray[Any], counts: NDArray[np.int64]) -> Histogram:
        """Take the numbers of the buckets that are not empty, rising, and their counts."""
        histogram = cls.__new__(cls)
        histogram.sum_ns = histogram.lowest_ns = histogram.highest_ns = None
        histogram._used = (buckets, counts)
        return histogram

    @classmethod
    def from_table(cls, table: Mapping[str, Sequence[int]]) -> Histogram:
        """Take the columns that `table` returned, as reports keep them.

        Raises
        ------
        ValueError
            The columns are not of one length, or no buckets of this kind, rising.
        """
        lowest = np.asarray(table["lowest_ns"], np.int64)
        counts = np.asarray(table["count"], np.int64)
        buckets = np.searchsorted(bounds()[0], lowest)
        known = len(lowest) == len(counts) and bool((counts > 0).all() and (np.diff(lowest) > 0).all())
        small = sum(table["count"]) < 1 << 53  # so that histograms can be added up, and floats hold the sum
        if not (known and small) or (buckets == BUCKETS).any() or (bounds()[0][buckets] != lowest).any():
            raise ValueError("these are no columns of a histogram")
        return cls.from_buckets(buckets, counts)

    @cached_property
    def _counts(self) -> NDArray[np.uint64]:
        counts = np.zeros(BUCKETS, np.uint64)
        buckets, of_buckets = self._used
        counts[buckets] = of_buckets.astype(np.uint64)
        return counts

    @property
    def counts(self) -> NDArray[np.uint64]:
        """Counts by bucket: ndarray of uint64, shape (BUCKETS,)."""
        return self._counts

    @property
    def total_count(self) -> int:
        """Values counted."""
        return int(self._used[1].sum())

    def value_at(self, percentile: str) -> int:
        """Return the highest value of the bucket that holds a percentile, at most the exact maximum.

        Parameters
        ----------
        percentile : str
            A decimal number of 0 to 100, as text, so that 99.999 is exact.
        """
        return self.value_at_rank(rank_of(percentile, int(self._cumulative[-1])))

    def value_at_rank(self, rank: int) -> int:
        """Return the highest value of the bucket that holds a value, at most the exact maximum.

        Parameters
        ----------
        rank : int
            Of the sorted values, from 1.
        """
        at = int(np.searchsorted(self._cumulative, rank))
        value = int(bounds()[1][self._used[0][at]])
        return value if self.highest_ns is None else min(value, self.highest_ns)

    @cached_property
    def _used(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        used = np.flatnonzero(self._counts)
        return used, self._counts[used].astype(np.int64)

    @cached_property
    def _cumulative(self) -> NDArray[np.int64]:
        return np.cumsum(self._used[1])

    def summary(self, percentiles: Iterable[str] = PERCENTILES) -> HistogramSummary:
        """Return its summary for reports.

        A percentile with fewer than `ENOUGH_BEYOND` values beyond it is None, and named in
        `insufficient`. The mean is exact where the sum is; the standard deviation is that of the middles of the
        buckets around their own mean, as HdrHistogram has it, so that equal values deviate by nothing.
        """
        used, counts = self._used
        if not len(used):
            return HistogramSummary(
                count=0, min_ns=None, max_ns=None, mean_ns=None, stddev_ns=None,
                percentiles_ns=dict.fromkeys(percentiles), insufficient=tuple(percentiles),
            )  # fmt: skip
        lowest, highest = bounds()
        total = int(counts.sum())
        middles = lowest[used] + (highest[used] - lowest[used]) // 2
        total_ns = self.sum_ns
        if total_ns is None:
            total_ns = sum(int(m) * int(c) for m, c in zip(middles, counts, strict=True))
        mean = Fraction(total_ns, total)
        # From the first bucket on, whose middle may lie far from 0: their differences are exact.
        offsets = (middles - middles[0]).astype(np.float64)
        deviations = (offsets - np.average(offsets, weights=counts)) ** 2
        given = {p: self.value_at(p) if enough_for(p, total) else None for p in percentiles}
        return HistogramSummary(
            count=total,
            min_ns=int(lowest[used[0]]) if self.lowest_ns is None else self.lowest_ns,
            max_ns=int(highest[used[-1]]) if self.highest_ns is None else self.highest_ns,
            mean_ns=round(mean),
            stddev_ns=round(float(np.sqrt(np.average(deviations, weights=counts)))),
            percentiles_ns=given,
            insufficient=tuple(p for p, value in given.items() if value is None),
        )

    def result(self, percentiles: Iterable[str] = PERCENTILES) -> dict[str, Any]:
        """Return `summary` as JSON has it."""
        return self.summary(percentiles).as_dict()

    def table(self) -> dict[str, list[int]]:
        """Return the buckets that are not empty, as columns."""
        used, counts = self._used
        lowest, highest = bounds()
        return {
            "lowest_ns": lowest[used].tolist(),
            "highest_ns": highest[used].tolist(),
            "count": counts.tolist(),
        }


def percentile_of_each(cells: CellsByFlow, percentile: str) -> NDArray[np.int64]:
    """Return one percentile of each flow's histogram: ndarray of int64, shape (flows,), in ns.

    It is -1 where fewer than `ENOUGH_BEYOND` values lie beyond it.
    """
    totals = cells.totals
    ranks = {total: rank_of(percentile, total) for total in set(totals.tolist())}
    values = bounds()[1][cells.buckets_of(np.array([ranks[total] for total in totals.tolist()], np.int64))]
    share = 100 - Fraction(percentile)
    enough = totals * share.numerator >= 100 * ENOUGH_BEYOND * share.denominator
    return np.where(enough, values, -1)
