"""TCP connections."""

from __future__ import annotations

from uspcap.analysis.declaration import TOP, Declaration, Runs, on_use

ANALYSIS = Declaration(
    name="tcp",
    summary="where named: round trips on both sides of the capture point, retransmissions, "
    "duplicate acks, resets (`docs/tcp.md`)",
    place=130,
    runs=Runs.NAMED,
    options=(TOP,),
    make=on_use("uspcap.analysis.tcp.analysis:Tcp"),
    result="uspcap.analysis.tcp.result:TcpResult",
    view="uspcap.analysis.tcp.view",
)
