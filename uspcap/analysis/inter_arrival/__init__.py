"""Inter-arrival times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap.analysis.inter_arrival.analysis import InterArrival

    return InterArrival(shared.flows, **options)


ANALYSIS = Declaration(
    name="inter_arrival",
    summary="HDR histograms of all frames and of each flow, jitter, the largest gaps with their frame numbers",
    place=30,
    runs=Runs.ALWAYS,
    options=(TOP,),
    make=_make,
    view="uspcap.analysis.inter_arrival.view",
)
