"""What recurs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspcap.analysis.declaration import Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared) -> Analysis:
    from uspcap.analysis.patterns.analysis import Patterns

    return Patterns()


ANALYSIS = Declaration(
    name="patterns",
    summary="where named: periods in the arrivals, busier phases of the second and millisecond, "
    "flows that beat (`docs/patterns.md`)",
    place=140,
    runs=Runs.NAMED,
    make=_make,
    view="uspcap.analysis.patterns.view",
)
