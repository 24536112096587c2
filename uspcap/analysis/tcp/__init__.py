"""TCP connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, Runs

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap.analysis.tcp.analysis import Tcp

    return Tcp(**options)


ANALYSIS = Declaration(
    name="tcp",
    summary="where named: round trips on both sides of the capture point, retransmissions, "
    "duplicate acks, resets (`docs/tcp.md`)",
    place=130,
    runs=Runs.NAMED,
    options=(TOP,),
    make=_make,
    view="uspcap.analysis.tcp.view",
)
