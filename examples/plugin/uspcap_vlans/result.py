"""What is found of VLANs: the schema and the JSON are made of this."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, Quantity, Record

Vid = Annotated[int, Quantity("vid", "VLAN identifier, IEEE 802.1Q.", minimum=0, maximum=4095)]


class VlanTraffic(Record):
    """What there is of one VLAN."""

    vlan: Annotated[Vid | None, "Null for frames without a tag."]
    packets: Count
    bytes_on_wire: Bytes


class VlansResult(Result):
    """Frames by VLAN."""

    vlans: Annotated[tuple[VlanTraffic, ...], "Most frames first."]
    left_out: Annotated[Count, "VLANs with fewer frames than asked for."]
