"""Gaps within flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, Kind, Option, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap.analysis.gaps.analysis import Gaps

    return Gaps(shared.flows, **options)


ANALYSIS = Declaration(
    name="gaps",
    summary="silences over a threshold, given (`--gap-threshold 1ms`) or each flow's own",
    place=40,
    runs=Runs.ALWAYS,
    options=(
        Option(
            flag="--gap-threshold",
            argument="threshold_ns",
            kind=Kind.DURATION,
            help="Gaps longer than this count, as 1ms; else each flow's own.",
        ),
        TOP,
    ),
    make=_make,
    view="uspcap.analysis.gaps.view",
)
