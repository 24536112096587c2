"""Bursts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration, Kind, Option, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap.analysis.bursts.analysis import Bursts

    return Bursts(**options)


ANALYSIS = Declaration(
    name="bursts",
    summary="peak bytes and frames in sliding windows of 1 µs to 1 s, against the mean and a `--line-rate`",
    place=50,
    runs=Runs.ALWAYS,
    options=(
        Option(
            flag="--line-rate",
            argument="line_rate_bps",
            kind=Kind.BIT_RATE,
            help="Compare bursts with this rate, as 10G.",
        ),
    ),
    make=_make,
    view="uspcap.analysis.bursts.view",
)
