"""Gaps within flows."""

from __future__ import annotations

from uspcap.analysis.declaration import TOP, Declaration, Runs, on_use
from uspcap.declared_options import Kind, Option

ANALYSIS = Declaration(
    name="gaps",
    summary="gaps over a threshold, given (`--gap-threshold 1ms`) or each flow's own",
    place=40,
    runs=Runs.ALWAYS,
    options=(
        Option(
            flag="--gap-threshold",
            argument="threshold_ns",
            kind=Kind.DURATION,
            help="Count gaps longer than this, as 1ms; without it, each flow has its own threshold.",
        ),
        TOP,
    ),
    make=on_use("uspcap.analysis.gaps.analysis:Gaps", "flows"),
    result="uspcap.analysis.gaps.result:GapsResult",
    view="uspcap.analysis.gaps.view",
)
