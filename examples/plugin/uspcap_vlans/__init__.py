"""Frames and bytes by VLAN, as an analysis of uspcap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration, Kind, Option

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Shared


def _make(shared: Shared, **options: Any) -> Analysis:
    from uspcap_vlans.analysis import Vlans

    return Vlans(**options)


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
    make=_make,
    view="uspcap_vlans.view",
)
