"""What is in the capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspcap.analysis.declaration import Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared) -> Analysis:
    from uspcap.analysis.summary.analysis import Summary

    return Summary()


ANALYSIS = Declaration(
    name="summary",
    summary="packets, bytes, rates; by protocol, size, interface",
    place=10,
    runs=Runs.ALWAYS,
    make=_make,
    view="uspcap.analysis.summary.view",
)
