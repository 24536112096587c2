"""Quality of the timestamps."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="timestamps",
    summary="resolution observed, duplicates, backward steps, runs of equal stamps, TAI-like jumps, by stamp source",
    place=20,
    runs=Runs.ALWAYS,
    make=on_use("uspcap.analysis.timestamps.analysis:Timestamps"),
    result="uspcap.analysis.timestamps.result:TimestampsResult",
    view="uspcap.analysis.timestamps.view",
)
