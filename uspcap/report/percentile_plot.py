"""Percentile curves over each other as characters: the axis of HdrHistogram's plots, where each nine is as wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Final

from uspcap.report.format import duration
from uspcap.stats.histogram import ENOUGH_BEYOND, Histogram

ROWS: Final = 11
MARKS: Final = "kpa23456789"
SEVERAL: Final = "*"
"""Where curves meet."""

FEWEST: Final = 100
"""Values that it takes for a curve: below, there is nothing beyond the 90th percentile to be shown."""

_TICKS: Final = ("0", "50", "90", "99", "99.9", "99.99", "99.999", "99.9999")
_NARROWEST: Final = 30


def percentile_plot(histograms: Mapping[str, Histogram], width: int) -> list[str]:
    """Return the lines of a plot: percentile to the right, latency upward, both logarithmic.

    A curve ends where fewer than ten values lie beyond.

    Parameters
    ----------
    histograms : mapping of str to Histogram
        By the name of the curve; those with fewer than `FEWEST` values are left out.
    width : int
        Cells of a line at most.

    Returns
    -------
    list of str
        Empty where there is nothing to show or no room.
    """
    curves = {name: one for name, one in histograms.items() if one.total_count >= FEWEST}
    labels = 8
    columns = width - labels - 2
    if not curves or columns < _NARROWEST:
        return []
    nines = max(math.log10(curve.total_count / ENOUGH_BEYOND) for curve in curves.values())
    values = {name: _values(one, columns, nines) for name, one in curves.items()}
    known = [value for of_curve in values.values() for value in of_curve]
    low, high = math.log(min(known)), math.log(max(known))
    step = max(high - low, 1e-9) / (ROWS - 1)
    grid = [[" "] * columns for _ in range(ROWS)]
    marks = _marks(list(curves))
    for name, of_curve in values.items():
        for column, value in enumerate(of_curve):
            row = ROWS - 1 - round((math.log(value) - low) / step)
            grid[row][column] = marks[name] if grid[row][column] in (" ", marks[name]) else SEVERAL
    lines = []
    for row, cells in enumerate(grid):
        label = "" if row % 2 else duration(round(math.exp(low + (ROWS - 1 - row) * step)), 3)
        lines.append(f"{label:>{labels}} |{''.join(cells)}".rstrip())
    lines.append(f"{'':>{labels}} +{'-' * columns}")
    lines.append(_axis(labels + 2, columns, nines))
    legend = [f"{mark} {name}" for name, mark in marks.items()] + [f"{SEVERAL} several"] * (len(marks) > 1)
    hang = " " * (labels + 2)
    lines += textwrap.wrap(", ".join(legend), width, initial_indent=hang, subsequent_indent=hang)
    return lines


def _values(histogram: Histogram, columns: int, nines: float) -> list[int]:
    """Return the value of each column's percentile, up to the last that ten values lie beyond; at least 1 ns."""
    total = histogram.total_count
    found = []
    for column in range(columns):
        beyond = total * 10 ** (-column * nines / (columns - 1))
        if beyond < ENOUGH_BEYOND * (1 - 1e-9):
            break
        found.append(max(1, histogram.value_at_rank(max(1, math.ceil(total - beyond)))))
    return found


def _marks(names: list[str]) -> dict[str, str]:
    """Return a character for each curve: its first letter, where that is free."""
    marks: dict[str, str] = {}
    for name in names:
        wanted = [name[0], *MARKS]
        marks[name] = next(mark for mark in wanted if mark not in marks.values())
    return marks


def _axis(start: int, columns: int, nines: float) -> str:
    line = [" "] * (start + columns)
    end = 0
    for tick in _TICKS:
        share = 1 - float(tick) / 100
        at = start + round(-math.log10(share) / nines * (columns - 1)) if share < 1 else start
        if at + len(tick) > len(line) or (at <= end and end):
            continue
        line[at : at + len(tick)] = tick
        end = at + len(tick)
    return "".join(line).rstrip()
