"""Quality of the timestamps."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="timestamps",
    summary="by timestamp source: observed resolution, equal timestamps, steps backward, TAI-like jumps",
    place=20,
    runs=Runs.ALWAYS,
    make=on_use("uspcap.analysis.timestamps.analysis:Timestamps"),
    result="uspcap.analysis.timestamps.result:TimestampsResult",
    view="uspcap.analysis.timestamps.view",
)
