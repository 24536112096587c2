"""The result of `summary`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from uspcap.analysis.base import Result, clock_stepped
from uspcap.frames import NANOSECONDS
from uspcap.records import BitRate, Bytes, Count, Instant, PacketRate, Quantity, Record, Span

MeanBytes = Annotated[float, Quantity("mean_bytes", "Bytes, on average.", minimum=0)]


class ProtocolTraffic(Record):
    """Traffic of a protocol."""

    protocol: Annotated[str, "Network and transport protocol: `IPv4/TCP`; or what a frame carries instead of IP."]
    packets: Count
    bytes_on_wire: Bytes


class SizeTraffic(Record):
    """Traffic of a class of frame lengths."""

    bytes: Annotated[str, "Lengths on the wire as captured, after RFC 2819."]
    packets: Count
    bytes_on_wire: Bytes


class InterfaceTraffic(Record):
    """Traffic of an interface."""

    name: str
    description: str
    link_type: str
    snaplen: Annotated[Bytes, "Longest part of a frame that is kept; 0 where there is no limit."]
    ticks_per_second: Annotated[Count, "Resolution of the file's timestamps."]
    packets: Count
    bytes_on_wire: Bytes
    cut: Annotated[Count, "Truncated frames."]


class SummaryResult(Result):
    """What is in the capture."""

    packets: Count
    bytes_on_wire: Bytes
    bytes_captured: Bytes
    cut_packets: Annotated[Count, "Truncated frames."]
    first_timestamp_ns: Annotated[Instant | None, "Of the first frame with a timestamp."]
    last_timestamp_ns: Annotated[Instant | None, "Of the last frame with a timestamp."]
    earliest_timestamp_ns: Instant | None
    latest_timestamp_ns: Instant | None
    duration_ns: Annotated[
        Span | None, "From the earliest to the latest timestamp; without the steps, where the clock stepped."
    ]
    packets_per_second: Annotated[PacketRate | None, "Of frames with a timestamp, over `duration_ns`."]
    bits_per_second: Annotated[BitRate | None, "Of frames with a timestamp, over `duration_ns`."]
    shortest_packet_bytes: Bytes | None
    longest_packet_bytes: Bytes | None
    mean_packet_bytes: MeanBytes | None
    protocols: Annotated[tuple[ProtocolTraffic, ...], "Most bytes first."]
    sizes: tuple[SizeTraffic, ...]
    layers: Annotated[Mapping[str, Count], "Frames with each kind of header."]
    interfaces: tuple[InterfaceTraffic, ...]

    def with_run(self, source: Mapping[str, Any], longest_unread_ns: int | None) -> Self:
        """Return it with the duration that is left where the clock stepped, and the rates over that."""
        duration_ns = source.get("forward_ns")
        if not clock_stepped(source) or not duration_ns:
            return self
        packets, size = source["timestamped_packets"], source["timestamped_bytes_on_wire"]
        return replace(
            self,
            duration_ns=duration_ns,
            packets_per_second=round(packets * NANOSECONDS / duration_ns, 3),
            bits_per_second=round(size * 8 * NANOSECONDS / duration_ns, 3),
        )
