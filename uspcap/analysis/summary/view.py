"""What is in the capture, shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from uspcap.analysis.summary.result import InterfaceTraffic, ProtocolTraffic, SizeTraffic, SummaryResult
from uspcap.report.format import (
    count,
    safe_text,
    share,
)
from uspcap.report.model import Column, Context, Headline, Section, bar
from uspcap.report.units import Unit

ROWS_SHOWN = 10
"""Rows of a list; the JSON report and the CSV tables hold more."""


def section(result: SummaryResult, context: Context) -> Section:
    """Protocols, sizes, layers and interfaces."""
    view = Section("Summary")
    shortest, longest = result.shortest_packet_bytes, result.longest_packet_bytes
    lengths = f"{count(shortest)} bytes a packet"
    if shortest != longest:
        lengths = f"{count(shortest)} to {count(longest)} bytes a packet, {result.mean_packet_bytes:,.1f} on average"
    if result.cut_packets:
        lengths += f"; {count(result.cut_packets)} truncated"
    view.paragraph(lengths)
    view.line()
    _traffic(view, result.protocols, "protocol", result, context)
    view.line()
    _traffic(view, [row for row in result.sizes if row.packets], "bytes", result, context)
    if result.layers:
        layers = ", ".join(
            f"{name.replace('_', ' ')} {count(frames)} ({share(frames, result.packets)})"
            for name, frames in result.layers.items()
        )
        view.line()
        view.paragraph(f"headers found: {layers}")
    _interfaces(view, result.interfaces, context)
    return view


def _traffic(
    view: Section, rows: Sequence[ProtocolTraffic | SizeTraffic], key: str, result: SummaryResult, context: Context
) -> None:
    shown = rows[: context.rows(ROWS_SHOWN)]
    packets, size = result.packets, result.bytes_on_wire
    view.table(
        [
            Column(key, [safe_text(row[key]) for row in shown], left=True),
            Column("packets", [row.packets for row in shown], unit=Unit.COUNT),
            Column("share", [(row.packets, packets) for row in shown], unit=Unit.SHARE),
            Column("on the wire", [row.bytes_on_wire for row in shown], unit=Unit.BYTES),
            Column("share", [(row.bytes_on_wire, size) for row in shown], unit=Unit.SHARE),
            Column("", [bar(row.packets, packets) for row in shown], left=True, rank=1, tone="bar"),
        ],
    )
    view.more(len(rows) - len(shown), "size" if key == "bytes" else key)


def _interfaces(view: Section, interfaces: Sequence[InterfaceTraffic], context: Context) -> None:
    if len(interfaces) < 2 and not any(interface.name or interface.description for interface in interfaces):
        return
    shown = interfaces[: context.rows(ROWS_SHOWN)]
    view.line()
    view.table(
        [
            Column("interface", [safe_text(one.name or f"#{at}") for at, one in enumerate(shown)], left=True),
            Column("link", [safe_text(interface.link_type) for interface in shown], left=True),
            Column("packets", [interface.packets for interface in shown], unit=Unit.COUNT),
            Column("on the wire", [interface.bytes_on_wire for interface in shown], unit=Unit.BYTES),
            Column("truncated", [interface.cut for interface in shown], rank=2, unit=Unit.COUNT),
            Column(
                "snaplen",
                [interface.snaplen if interface.snaplen else "none" for interface in shown],
                rank=3,
                unit=Unit.COUNT,
            ),
            Column("ticks/s", [f"{interface.ticks_per_second:,}" for interface in shown], rank=1),
            Column("description", [safe_text(interface.description) for interface in shown], left=True, rank=4),
        ],
    )
    view.more(len(interfaces) - len(shown), "interface")


def headlines(result: SummaryResult) -> Iterable[Headline]:
    """Nothing: the source's own headline has these figures."""
    return ()
