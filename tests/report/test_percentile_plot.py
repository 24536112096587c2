"""Percentile curves as characters: where marks stand, and when there is no plot."""

from __future__ import annotations

import numpy as np
import pytest
from rich.cells import cell_len

from uspcap.report.percentile_plot import ROWS, percentile_plot
from uspcap.stats.histogram import Histogram


def flat(value: int, count: int = 100_000) -> Histogram:
    return Histogram.from_values(np.full(count, value))


def test_constant_curves_are_straight_lines_at_either_end() -> None:
    lines = percentile_plot({"kernel": flat(100_000), "af_xdp": flat(1_000)}, 80)
    top, bottom = lines[0], lines[ROWS - 1]
    assert set(top[10:]) == {"k"}
    assert set(bottom[10:]) == {"a"}
    assert all(not set(line[10:]) for line in lines[1 : ROWS - 1])
    assert top.split("|")[0].strip() == "100 µs"
    assert bottom.split("|")[0].strip() == "1.00 µs"


def test_a_tail_of_one_in_a_thousand_rises_at_the_third_nine() -> None:
    values = np.full(1_000_000, 1_000)
    values[:1_000] = 1_000_000
    lines = percentile_plot({"kernel": Histogram.from_values(values)}, 80)
    axis = lines[ROWS + 1]
    assert axis.split() == ["0", "50", "90", "99", "99.9", "99.99"]
    rise = lines[0].index("k")
    assert abs(rise - axis.index("99.9")) <= 1
    assert lines[ROWS - 1].rindex("k") == rise - 1


def test_a_curve_ends_where_ten_values_lie_beyond() -> None:
    lines = percentile_plot({"kernel": flat(9_000, 100_000), "af_xdp": flat(500, 1_000)}, 80)
    assert cell_len(lines[0]) == 80
    # Two of four nines.
    assert cell_len(lines[ROWS - 1]) == pytest.approx(10 + 70 / 2, abs=1)


def test_curves_that_meet_and_names_that_begin_alike_are_distinguished() -> None:
    lines = percentile_plot({"kernel": flat(5_000), "kernel_2": flat(5_000)}, 80)
    assert lines[-1].strip() == "k kernel, p kernel_2, * several"
    assert sum("*" in line for line in lines[:ROWS]) == 1


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_plot_keeps_to_its_width(width: int) -> None:
    values = np.random.default_rng(1).lognormal(9, 1, 50_000).astype(np.int64)
    lines = percentile_plot({"kernel": Histogram.from_values(values)}, width)
    assert max(map(cell_len, lines)) <= width


def test_there_is_no_plot_of_too_little() -> None:
    assert percentile_plot({"kernel": flat(5_000, 99)}, 80) == []
    assert percentile_plot({"kernel": flat(5_000)}, 30) == []
    assert percentile_plot({}, 80) == []
