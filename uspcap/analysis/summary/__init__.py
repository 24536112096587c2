"""What is in the capture."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="summary",
    summary="packets, bytes, rates; by protocol, size, interface",
    place=10,
    runs=Runs.ALWAYS,
    make=on_use("uspcap.analysis.summary.analysis:Summary"),
    result="uspcap.analysis.summary.result:SummaryResult",
    view="uspcap.analysis.summary.view",
)
