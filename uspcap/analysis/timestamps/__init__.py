"""Quality of the timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspcap.analysis.declaration import Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared) -> Analysis:
    from uspcap.analysis.timestamps.analysis import Timestamps

    return Timestamps()


ANALYSIS = Declaration(
    name="timestamps",
    summary="resolution observed, duplicates, backward steps, runs of equal stamps, TAI-like jumps, by stamp source",
    place=20,
    runs=Runs.ALWAYS,
    make=_make,
    view="uspcap.analysis.timestamps.view",
)
