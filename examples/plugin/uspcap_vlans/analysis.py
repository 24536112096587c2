"""What is counted, and how parts of a capture are put together."""

from __future__ import annotations

import numpy as np

from uspcap.analysis.base import Analysis, Table
from uspcap.frames import FrameBatch
from uspcap.protocols.headers import UNTAGGED
from uspcap.records import table
from uspcap_vlans.result import VlansResult, VlanTraffic

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

    def result(self) -> VlansResult:
        met = np.flatnonzero(self._counts[:, 0] >= self._fewest_frames)
        vlans = tuple(
            VlanTraffic(
                vlan=None if at == VLANS else at,
                packets=int(self._counts[at, 0]),
                bytes_on_wire=int(self._counts[at, 1]),
            )
            for at in sorted(met.tolist(), key=lambda at: (-int(self._counts[at, 0]), at))
        )
        return VlansResult(vlans=vlans, left_out=int((self._counts[:, 0] > 0).sum()) - len(vlans))

    def tables(self) -> dict[str, Table]:
        return {"vlans": table(VlanTraffic, self.result().vlans)}
