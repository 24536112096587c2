"""Protocol overhead: where the bytes on the wire go, by layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.overhead.result import LayerBytes, OverheadResult, ProtocolBytes, SizeBytes
from uspcap.analysis.summary.analysis import SIZE_NAMES, protocol_class_name
from uspcap.analysis.tally import LAYER_FIELDS, PROTOCOL_CLASSES, SIZE_CLASSES, tally_layers
from uspcap.frames import FrameBatch
from uspcap.records import table

FIELDS = (
    "packets",
    "bytes_on_wire",
    "link_bytes",
    "network_bytes",
    "transport_bytes",
    "payload_bytes",
    "trailer_bytes",
    "undecoded_bytes",
)
"""Columns of the tallies; `bytes_on_wire` is the sum of those after it."""

PREAMBLE_BYTES = 8
"""Preamble and start frame delimiter, IEEE 802.3 clause 3.1.1."""

FCS_BYTES = 4
GAP_BYTES = 12
"""Interpacket gap at its minimum of 96 bit times, IEEE 802.3 clause 4.4.2."""


class Overhead(Analysis):
    """Header bytes against payload bytes, in total, by protocol and by frame size.

    Parameters
    ----------
    framing : bool
        Add what no capture holds: preamble, FCS and the minimum gap, 24 bytes a frame.
    """

    name = "overhead"
    rests_on_timestamps = False

    def __init__(self, *, framing: bool = False) -> None:
        super().__init__()
        self._framing = framing
        self._by_protocol = np.zeros((PROTOCOL_CLASSES, LAYER_FIELDS), np.uint64)
        self._by_size = np.zeros((SIZE_CLASSES, LAYER_FIELDS), np.uint64)

    def _update(self, batch: FrameBatch) -> None:
        tally_layers(batch, batch.headers, self._by_protocol, self._by_size)

    def _merge(self, later: Overhead) -> None:
        self._by_protocol += later._by_protocol
        self._by_size += later._by_size

    def _row(self, counts: NDArray[np.uint64]) -> LayerBytes:
        row = {field: int(count) for field, count in zip(FIELDS, counts, strict=True)}
        framing = (PREAMBLE_BYTES + FCS_BYTES + GAP_BYTES) * row["packets"] if self._framing else 0
        total = row["bytes_on_wire"] - row["undecoded_bytes"] + framing
        share = round(row["payload_bytes"] / total, 6) if total else None
        return LayerBytes(**row, framing_bytes=framing, payload_share=share)

    def _rows(self) -> tuple[tuple[ProtocolBytes, ...], tuple[SizeBytes, ...]]:
        kinds = np.flatnonzero(self._by_protocol[:, 0])
        order = np.lexsort((kinds, -self._by_protocol[kinds, 1].astype(np.int64)))
        protocols = tuple(
            self._row(self._by_protocol[kind]).extended(ProtocolBytes, protocol=protocol_class_name(int(kind)))
            for kind in kinds[order]
        )
        sizes = tuple(
            self._row(counts).extended(SizeBytes, bytes=name)
            for name, counts in zip(SIZE_NAMES, self._by_size, strict=True)
            if counts[0]
        )
        return protocols, sizes

    def result(self) -> OverheadResult:
        protocols, sizes = self._rows()
        return OverheadResult(
            framing_included=self._framing,
            total=self._row(self._by_size.sum(axis=0)),
            protocols=protocols,
            sizes=sizes,
        )

    def tables(self) -> dict[str, Table]:
        protocols, sizes = self._rows()
        return {"protocols": table(ProtocolBytes, protocols), "sizes": table(SizeBytes, sizes)}
