"""Path latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspcap.analysis.declaration import Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared) -> Analysis:
    from uspcap.analysis.path_latency.analysis import PathLatency

    return PathLatency()


ANALYSIS = Declaration(
    name="path_latency",
    summary="live captures only: from each frame's stamp to its reading from the ring (`docs/capture.md`)",
    place=70,
    runs=Runs.LIVE,
    make=_make,
    view="uspcap.analysis.path_latency.view",
)
