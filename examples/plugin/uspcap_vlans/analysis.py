"""What is counted, and how parts of a capture are put together."""

from __future__ import annotations

import numpy as np

from uspcap.analysis.base import Analysis, Result, Table
from uspcap.frames import FrameBatch
from uspcap.protocols.headers import UNTAGGED

VLANS = 4096
"""VIDs have 12 bits (IEEE 802.1Q, 9.6)."""


class Vlans(Analysis):
    """Frames and bytes on the wire by the VID of the outermost tag.

    Parameters
    ----------
    fewest_frames : int
        VLANs with fewer are left out of the result.
    """

    name = "vlans"
    rests_on_timestamps = False

    def __init__(self, *, fewest_frames: int = 1) -> None:
        super().__init__()
        self._fewest_frames = fewest_frames
        self._counts = np.zeros((VLANS + 1, 2), np.int64)
        """Frames and bytes by VID; the last row is of frames without a tag."""

    def _update(self, batch: FrameBatch) -> None:
        vlans = batch.headers.column("vlan_id")
        rows = np.where(vlans == UNTAGGED, VLANS, vlans)
        np.add.at(self._counts, rows, np.stack([np.ones(batch.count, np.int64), batch.wire_length], axis=1))

    def _merge(self, later: Vlans) -> None:
        self._counts += later._counts

    def _rows(self) -> list[dict[str, int | None]]:
        met = np.flatnonzero(self._counts[:, 0] >= self._fewest_frames)
        return [
            {
                "vlan": None if at == VLANS else at,
                "packets": int(self._counts[at, 0]),
                "bytes_on_wire": int(self._counts[at, 1]),
            }
            for at in sorted(met.tolist(), key=lambda at: (-int(self._counts[at, 0]), at))
        ]

    def result(self) -> Result:
        return {"vlans": self._rows(), "left_out": int((self._counts[:, 0] > 0).sum()) - len(self._rows())}

    def tables(self) -> dict[str, Table]:
        rows = self._rows()
        return {"vlans": {name: [row[name] for row in rows] for name in ("vlan", "packets", "bytes_on_wire")}}
