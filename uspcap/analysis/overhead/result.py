"""Where bytes on the wire go."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Bytes, Count, Record, Share


class LayerBytes(Record):
    """Bytes by layer; `bytes_on_wire` is the sum of those from `link_bytes` to `undecoded_bytes`."""

    packets: Count
    bytes_on_wire: Bytes
    link_bytes: Bytes
    network_bytes: Bytes
    transport_bytes: Bytes
    payload_bytes: Bytes
    trailer_bytes: Annotated[Bytes, "Bytes after the network layer, such as padding."]
    undecoded_bytes: Bytes
    framing_bytes: Annotated[Bytes, "Preamble, FCS and minimum gap; 0 where they are not counted."]
    payload_share: Annotated[Share | None, "Of all bytes that were decoded, and of the framing."]


class ProtocolBytes(LayerBytes, inherited_after="protocol"):
    """Bytes of a protocol by layer."""

    protocol: str


class SizeBytes(LayerBytes, inherited_after="bytes"):
    """Bytes of a class of frame lengths by layer."""

    bytes: Annotated[str, "Lengths on the wire as captured, after RFC 2819."]


class OverheadResult(Result):
    """Where the bytes on the wire go, by layer."""

    framing_included: bool
    total: LayerBytes
    protocols: Annotated[tuple[ProtocolBytes, ...], "Most bytes first."]
    sizes: tuple[SizeBytes, ...]
