"""What a report shows of VLANs."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.report.format import count, plural
from uspcap.report.model import Column, Context, Headline, Section
from uspcap.report.units import Unit
from uspcap_vlans.result import VlansResult

ROWS_SHOWN = 10


def section(result: VlansResult, context: Context) -> Section:
    """Return the busiest VLANs."""
    view = Section("VLANs")
    rows = result.vlans
    shown = rows[: context.rows(ROWS_SHOWN)]
    view.table(
        [
            Column("VLAN", ["untagged" if row.vlan is None else str(row.vlan) for row in shown], left=True),
            Column("packets", [row.packets for row in shown], unit=Unit.COUNT),
            Column("on the wire", [row.bytes_on_wire for row in shown], unit=Unit.BYTES),
        ]
    )
    view.more(len(rows) - len(shown), "VLAN")
    if result.left_out:
        view.paragraph(f"left out: {plural(result.left_out, 'VLAN')} with fewer frames", "note")
    return view


def headlines(result: VlansResult) -> Iterator[Headline]:
    """Return how many VLANs there are."""
    yield Headline("VLANs", (("", count(len(result.vlans))),))
