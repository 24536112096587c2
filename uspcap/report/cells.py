"""Cells and headlines that the views of several analyses share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from uspcap.report.format import compact_count, count, duration
from uspcap.report.model import Column, Headline, Result
from uspcap.stats.histogram import ENOUGH_BEYOND

PERCENTILE_DIGITS = 3
"""Significant figures that the histograms hold; more would be made up."""

HEADLINE_PERCENTILES = ("50", "99", "99.9")


def samples_needed(percentile: str) -> int:
    """Return how many samples it takes before a percentile is given."""
    return -int(-100 * ENOUGH_BEYOND // (100 - Fraction(percentile)))


def percentile_cell(histogram: Result, percentile: str) -> str:
    """Return a percentile, or `n<10k`: that more samples are needed."""
    value = histogram["percentiles_ns"].get(percentile)
    if value is not None:
        return duration(value, PERCENTILE_DIGITS)
    return f"n<{compact_count(samples_needed(percentile))}" if histogram["count"] else "-"


def frames_around(gaps: Sequence[Result], rank: int = 0) -> Column:
    """Return a column of the two frames around each gap."""
    return Column("frames", [f"{count(gap['before_frame'])} - {count(gap['after_frame'])}" for gap in gaps], rank=rank)


def spread(name: str, histogram: Result) -> Headline:
    """Return percentiles and the maximum of a histogram."""
    cells = [(f"p{one}", percentile_cell(histogram, one)) for one in HEADLINE_PERCENTILES]
    return Headline(name, (*cells, ("max", duration(histogram["max_ns"]))))
