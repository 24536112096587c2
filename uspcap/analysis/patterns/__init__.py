"""What recurs."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="patterns",
    summary="where named: periods in the arrivals, busier phases of the second and millisecond, "
    "flows with heartbeats (`docs/patterns.md`)",
    place=140,
    runs=Runs.NAMED,
    make=on_use("uspcap.analysis.patterns.analysis:Patterns"),
    result="uspcap.analysis.patterns.result:PatternsResult",
    view="uspcap.analysis.patterns.view",
)
