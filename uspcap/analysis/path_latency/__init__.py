"""Path latency."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="path_latency",
    summary="live captures only: from each frame's timestamp to its read from the ring (`docs/capture.md`)",
    place=70,
    runs=Runs.LIVE,
    make=on_use("uspcap.analysis.path_latency.analysis:PathLatency"),
    result="uspcap.analysis.path_latency.result:PathLatencyResult",
    view="uspcap.analysis.path_latency.view",
)
