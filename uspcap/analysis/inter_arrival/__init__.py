"""Inter-arrival times."""

from __future__ import annotations

from uspcap.analysis.declaration import TOP, Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="inter_arrival",
    summary="HDR histograms of all frames and of each flow, jitter, the largest gaps with their frame numbers",
    place=30,
    runs=Runs.ALWAYS,
    options=(TOP,),
    make=on_use("uspcap.analysis.inter_arrival.analysis:InterArrival", "flows"),
    result="uspcap.analysis.inter_arrival.result:InterArrivalResult",
    view="uspcap.analysis.inter_arrival.view",
)
