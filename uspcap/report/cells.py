"""Cells and headlines that the views of several analyses share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from uspcap.report.format import MISSING, compact_count, count, duration
from uspcap.report.model import Column, Headline, Values
from uspcap.report.units import Unit
from uspcap.stats.histogram import ENOUGH_BEYOND

HEADLINE_PERCENTILES = ("50", "99", "99.9")


def samples_needed(percentile: str) -> int:
    """Return how many samples it takes before a percentile is given."""
    return -int(-100 * ENOUGH_BEYOND // (100 - Fraction(percentile)))


def percentile_value(histogram: Values, percentile: str) -> int | str:
    """Return a percentile in ns, or `n<10k`: that more samples are needed."""
    value: int | None = histogram["percentiles_ns"].get(percentile)
    if value is not None:
        return value
    return f"n<{compact_count(samples_needed(percentile))}" if histogram["count"] else MISSING


def percentile_cell(histogram: Values, percentile: str) -> str:
    """Return a percentile, or `n<10k`, as people read it."""
    return Unit.PERCENTILE.text(percentile_value(histogram, percentile))


def frames_around(gaps: Sequence[Values], rank: int = 0) -> Column:
    """Return a column of the two frames around each gap."""
    return Column("frames", [f"{count(gap['before_frame'])} - {count(gap['after_frame'])}" for gap in gaps], rank=rank)


def spread(name: str, histogram: Values) -> Headline:
    """Return percentiles and the maximum of a histogram."""
    cells = [(f"p{percentile}", percentile_cell(histogram, percentile)) for percentile in HEADLINE_PERCENTILES]
    return Headline(name, (*cells, ("max", duration(histogram["max_ns"]))))
