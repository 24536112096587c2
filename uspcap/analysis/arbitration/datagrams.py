"""Lines of a feed where IP fragments carry some of its datagrams.

An arbiter for each stretch between two fragments of a head would hold a ring each: packets wait there as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis.arbitration.arbiter import Arbiter
from uspcap.analysis.ip_fragments import RAW_LINK, Kept, WaitingStretch
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams
from uspcap.protocols.feed_rule import FeedRule
from uspcap.protocols.headers import Layer

_UDP: Final = 17


@dataclass(frozen=True, slots=True)
class _Packet:
    """An IP packet, from its header on."""

    data: bytes
    wire_length: int
    at_ns: int
    read_ns: int
    timestamp_source: int
    first_frame: int
    ip_version: int
    count: int = 1

    @property
    def size(self) -> int:
        return len(self.data)

    def moved(self, frame_shift: int) -> _Packet:
        return replace(self, first_frame=self.first_frame + frame_shift)


class LineStretch(WaitingStretch[Arbiter, _Packet]):
    """Pairs of lines.

    Parameters
    ----------
    arbiter : Arbiter
        Without a packet.
    rule : FeedRule
    kept : Kept, optional
        Given, packets wait.
    """

    def __init__(self, arbiter: Arbiter, rule: FeedRule, kept: Kept | None = None) -> None:
        super().__init__(kept or Kept(), arbiter if kept is None else None)
        self._template = arbiter
        self._rule = rule

    def following(self, kept: Kept) -> LineStretch:
        return LineStretch(self._template, self._rule, kept)

    def of_whole(self) -> LineStretch:
        return LineStretch(self._template.empty(is_known=True), self._rule)

    def _begun(self) -> Arbiter:
        return self._template.empty()

    def _is_empty(self, state: Arbiter) -> bool:
        return not (state.packets or state.foreign or state.excluded or state.count)

    def _join(self, state: Arbiter, later: Arbiter, frame_shift: int, frames_before: int) -> None:
        state.absorb(later, frame_shift)

    def _track(
        self,
        state: Arbiter,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        if datagrams is None:
            state.track(frames, headers, frame_shift, self._rule)
            return
        state.track_with_datagrams(
            frames, headers, frame_shift, self._rule, first, last,
            datagrams.frames, datagrams.headers, datagrams.rows,
        )  # fmt: skip

    def _rows(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> Iterator[_Packet]:
        rows = () if datagrams is None else datagrams.rows[: datagrams.frames.count]
        completed = {int(row): at for at, row in enumerate(rows)}
        is_fragment = (headers.column("fragment_offset") > 0) | (headers.column("layers") & Layer.MORE_FRAGMENTS > 0)
        is_wanted = (headers.column("protocol") == _UDP) & (headers.column("transport_offset") >= 0) & ~is_fragment
        for row in range(first, last):
            if datagrams is not None and row in completed:
                yield _packet(datagrams.frames, datagrams.headers, completed[row], 0)
            elif is_wanted[row]:
                yield _packet(frames, headers, row, frame_shift)

    def _rows_of_datagrams(self, datagrams: Datagrams) -> Iterator[_Packet]:
        for row in range(datagrams.frames.count):
            yield _packet(datagrams.frames, datagrams.headers, row, 0)

    def _play(self, state: Arbiter, rows: _Packet) -> None:
        batch = FrameBatch.from_frames(
            [rows.data], [0], wire_lengths=[rows.wire_length], interfaces=(RAW_LINK[rows.ip_version],),
            first_frame_number=rows.first_frame,
        )  # fmt: skip
        # As it was kept: a batch that somebody filled may hold any.
        batch.storage("timestamp_ns")[0] = rows.at_ns
        batch.storage("timestamp_source")[0] = rows.timestamp_source
        batch.storage("read_ns")[0] = rows.read_ns
        state.track(batch, batch.headers, 0, self._rule)


def _packet(frames: FrameColumns, headers: HeaderColumns, row: int, frame_shift: int) -> _Packet:
    """Return a UDP packet of a batch from its IP header on."""
    start = int(headers.column("network_offset")[row])
    end = int(headers.column("payload_offset")[row]) + int(headers.column("payload_length")[row])
    offset, captured = int(frames.column("offset")[row]), int(frames.column("captured_length")[row])
    return _Packet(
        frames.data[offset + start : offset + min(end, captured)].tobytes(),
        wire_length=end - start,
        at_ns=int(frames.column("timestamp_ns")[row]),
        read_ns=int(frames.column("read_ns")[row]),
        timestamp_source=int(frames.column("timestamp_source")[row]),
        first_frame=int(frames.column("frame_number")[row]) + frame_shift,
        ip_version=int(headers.column("ip_version")[row]),
    )
