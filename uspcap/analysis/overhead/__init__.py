"""Protocol overhead."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, Runs, on_use
from uspcap.declared_options import Kind, Option

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
    make=on_use("uspcap.analysis.overhead.analysis:Overhead"),
    result="uspcap.analysis.overhead.result:OverheadResult",
    view="uspcap.analysis.overhead.view",
)
