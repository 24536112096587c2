"""Frames and bytes by VLAN, as an analysis of uspcap."""

from __future__ import annotations

from uspcap.analysis.declaration import Declaration, on_use
from uspcap.declared_options import Kind, Option

ANALYSIS = Declaration(
    name="vlans",
    summary="where named: frames and bytes by VLAN",
    options=(
        Option(
            flag="--fewest-frames",
            argument="fewest_frames",
            kind=Kind.COUNT,
            bounds=(1, None),
            help="Leave out VLANs with fewer frames, as 100.",
        ),
    ),
    make=on_use("uspcap_vlans.analysis:Vlans"),
    result="uspcap_vlans.result:VlansResult",
    view="uspcap_vlans.view",
)
