"""Protocol overhead, shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspcap.analysis.overhead.result import OverheadResult, ProtocolBytes, SizeBytes
from uspcap.report.format import (
    safe_text,
    share,
)
from uspcap.report.model import Column, Context, Headline, Section, bar
from uspcap.report.units import Unit

ROWS_SHOWN = 10
"""Rows of a list; the JSON report and the CSV tables hold more."""

LAYERS = ("payload", "transport", "network", "link", "trailer", "undecoded", "framing")


def section(result: OverheadResult, context: Context) -> Section:
    """Where the bytes go."""
    view = Section("Overhead")
    total = result.total
    layers = [layer for layer in LAYERS if total[f"{layer}_bytes"]]
    whole = total.bytes_on_wire + total.framing_bytes
    sizes = [total[f"{layer}_bytes"] for layer in layers]
    view.table(
        [
            Column("layer", layers, left=True),
            Column("bytes", sizes, unit=Unit.COUNT),
            Column("share", [(size, whole) for size in sizes], unit=Unit.SHARE),
            Column("", [bar(size, whole) for size in sizes], left=True, rank=1, tone="bar"),
        ],
    )
    for key in ("protocol", "bytes"):
        rows: Sequence[ProtocolBytes | SizeBytes] = result.protocols if key == "protocol" else result.sizes
        shown = rows[: context.rows(ROWS_SHOWN)]
        view.line()
        view.table(
            [
                Column(key, [safe_text(row[key]) for row in shown], left=True),
                Column("packets", [row.packets for row in shown], rank=2, unit=Unit.COUNT),
                *(
                    Column(
                        layer,
                        [(row[f"{layer}_bytes"], row.bytes_on_wire + row.framing_bytes) for row in shown],
                        rank=0 if layer == "payload" else 1,
                        unit=Unit.SHARE,
                    )
                    for layer in layers
                ),
            ],
        )
        view.more(len(rows) - len(shown), "size" if key == "bytes" else key)
    framing = "with" if result.framing_included else "without"
    view.paragraph(f"{framing} preamble, FCS and minimum gap (24 bytes a frame)", tone="note")
    return view


def headlines(result: OverheadResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    if result.total.payload_share is not None:
        yield Headline("payload", (("", f"{share(result.total.payload_share)} of bytes"),))
