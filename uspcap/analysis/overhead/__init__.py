"""Protocol overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration, Kind, Option, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap.analysis.overhead.analysis import Overhead

    return Overhead(**options)


ANALYSIS = Declaration(
    name="overhead",
    summary="bytes by layer, protocol and frame size; with preamble, FCS and gap by `--framing`",
    place=60,
    runs=Runs.ALWAYS,
    options=(
        Option(
            flag="--framing",
            argument="framing",
            kind=Kind.SWITCH,
            default=False,
            help="Count preamble, FCS and inter-frame gap as overhead.",
        ),
    ),
    make=_make,
    view="uspcap.analysis.overhead.view",
)
