"""Bursts."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use
from uspcap.declared_options import Kind, Option

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
    make=on_use("uspcap.analysis.bursts.analysis:Bursts"),
    result="uspcap.analysis.bursts.result:BurstsResult",
    view="uspcap.analysis.bursts.view",
)
