"""Lines of a feed where IP fragments carry some of its datagrams, and how they stand at a cut of the capture.

As `uspcap.analysis.sequence.datagrams`, but that packets between fragments at the head of a part are kept as they are:
an arbiter for each stretch of them would hold a ring each.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis import ip_fragments
from uspcap.analysis.arbitration.arbiter import Arbiter
from uspcap.analysis.ip_fragments import fragment_counts
from uspcap.frames import FrameBatch, Interface
from uspcap.messages.fragments import Datagrams, has_fragments
from uspcap.protocols.feed_rule import FeedRule
from uspcap.protocols.headers import Layer

_UDP: Final = 17
_LINK: Final = {4: Interface(link_type=228), 6: Interface(link_type=229)}


class _Kept(NamedTuple):
    """An IP packet, from its header on; or a fragment of a head, as `Datagrams.event` has it."""

    data: bytes
    is_fragment: bool
    wire_length: int = 0
    at_ns: int = 0
    read_ns: int = 0
    timestamp_source: int = 0
    frame: int = 0
    ip_version: int = 4


class LineDatagrams:
    """Pairs of lines.

    Parameters
    ----------
    arbiter : Arbiter
        Without a packet.
    rule : FeedRule
    is_known : bool
        Nothing comes before.

    Attributes
    ----------
    datagrams : Datagrams
    cut : int
        Fragments at the heads of parts that were left out, as more was kept already.
    """

    def __init__(self, arbiter: Arbiter, rule: FeedRule, *, is_known: bool = False) -> None:
        self._rule = rule
        self._first = arbiter
        self._kept: list[_Kept | Arbiter] = []
        self._kept_bytes = 0
        self.datagrams = Datagrams(is_known)
        self.cut = 0
        self._whole: LineDatagrams | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole": None}

    @property
    def _arbiter(self) -> Arbiter | None:
        """What takes the next packet; None where it is kept."""
        last = self._kept[-1] if self._kept else self._first
        return last if isinstance(last, Arbiter) else None

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        """Take the next batch, whose frame numbers are moved by so many."""
        if not batch.count:
            return
        self._whole = None
        headers = batch.headers
        self._settle(int(batch.column("frame_number")[0]) + frame_shift)
        arbiter = self._arbiter
        if arbiter is not None and not has_fragments(batch, headers):
            arbiter.track(batch, headers, frame_shift, self._rule)
            return
        first, datagrams = 0, self.datagrams
        while first < batch.count:
            last = datagrams.take(batch, headers, frame_shift, first)
            self._track(batch, headers, frame_shift, first, last)
            if last < batch.count:
                self._keep(_Kept(datagrams.event(batch, headers, frame_shift, last), is_fragment=True))
            first = last + 1

    def _settle(self, frame: int) -> None:
        """Keep no more packets where no fragment from a frame on can be of a head."""
        if self._arbiter is None and not self.datagrams.has_heads(frame):
            self._kept.append(self._first.empty())

    def _track(self, frames: FrameColumns, headers: HeaderColumns, frame_shift: int, first: int, last: int) -> None:
        """Take some rows of a batch, or keep them."""
        datagrams, arbiter = self.datagrams, self._arbiter
        if arbiter is not None:
            arbiter.track_with_datagrams(
                frames, headers, frame_shift, self._rule, first, last,
                datagrams.frames, datagrams.headers, datagrams.rows,
            )  # fmt: skip
            return
        completed = {int(row): at for at, row in enumerate(datagrams.rows[: datagrams.frames.count])}
        is_fragment = (headers.column("fragment_offset") > 0) | (headers.column("layers") & Layer.MORE_FRAGMENTS > 0)
        is_wanted = (headers.column("protocol") == _UDP) & (headers.column("transport_offset") >= 0) & ~is_fragment
        for row in range(first, last):
            if row in completed:
                self._keep(_packet(datagrams.frames, datagrams.headers, completed[row], 0))
            elif is_wanted[row]:
                self._keep(_packet(frames, headers, row, frame_shift))

    def _keep(self, kept: _Kept) -> None:
        """Keep a fragment of a head, or a packet behind one; give a packet to what takes it, if there is such."""
        is_over = ip_fragments.is_over(len(self._kept), self._kept_bytes + len(kept.data))
        if is_over and kept.is_fragment:
            self.cut += 1
            return
        if is_over and self._arbiter is None:
            self._kept.append(self._first.empty())
        arbiter = self._arbiter
        if arbiter is not None and not kept.is_fragment:
            batch = FrameBatch.from_frames(
                [kept.data], [kept.at_ns], wire_lengths=[kept.wire_length], interfaces=(_LINK[kept.ip_version],),
                first_frame_number=kept.frame,
            )  # fmt: skip
            batch.storage("timestamp_source")[0] = kept.timestamp_source
            batch.storage("read_ns")[0] = kept.read_ns
            arbiter.track(batch, batch.headers, 0, self._rule)
            return
        self._kept_bytes += len(kept.data)
        self._kept.append(kept)

    def absorb(self, later: LineDatagrams, frame_shift: int) -> None:
        """Append what came directly after, whose frame numbers are moved by so many."""
        self._whole = None
        datagrams = self.datagrams
        for kept in (later._first, *later._kept):
            if isinstance(kept, Arbiter):
                self._absorb_arbiter(kept, frame_shift)
            elif not kept.is_fragment:
                self._keep(kept._replace(frame=kept.frame + frame_shift))
            else:
                event = datagrams.take_event(kept.data, frame_shift)
                if event is not None:
                    self._keep(_Kept(event, is_fragment=True))
                elif datagrams.frames.count:
                    self._keep(_packet(datagrams.frames, datagrams.headers, 0, 0))
        datagrams.absorb(later.datagrams, frame_shift)
        self.cut += later.cut

    def _absorb_arbiter(self, later: Arbiter, frame_shift: int) -> None:
        """Append what an arbiter of a later part has taken, if anything."""
        if not (later.packets or later.foreign or later.excluded or later.count):
            return
        if self._arbiter is None:
            self._kept.append(self._first.empty())
        arbiter = self._arbiter
        assert arbiter is not None
        arbiter.absorb(later, frame_shift)

    def whole(self) -> LineDatagrams:
        """Return how things stand if nothing came before; this stays as it is."""
        if self._whole is None:
            self._whole = LineDatagrams(self._first.empty(is_known=True), self._rule, is_known=True)
            self._whole.absorb(self, 0)
        return self._whole

    @property
    def arbiter(self) -> Arbiter:
        """The pairs of lines, of a state that keeps nothing."""
        return self._first

    def counts(self) -> dict[str, int]:
        """Return what became of datagrams in fragments, for the report."""
        return fragment_counts(self.datagrams, self.cut)


def _packet(frames: FrameColumns, headers: HeaderColumns, row: int, frame_shift: int) -> _Kept:
    """Return a UDP packet of a batch from its IP header on."""
    start = int(headers.column("network_offset")[row])
    end = int(headers.column("payload_offset")[row]) + int(headers.column("payload_length")[row])
    offset, captured = int(frames.column("offset")[row]), int(frames.column("captured_length")[row])
    return _Kept(
        frames.data[offset + start : offset + min(end, captured)].tobytes(),
        is_fragment=False,
        wire_length=end - start,
        at_ns=int(frames.column("timestamp_ns")[row]),
        read_ns=int(frames.column("read_ns")[row]),
        timestamp_source=int(frames.column("timestamp_source")[row]),
        frame=int(frames.column("frame_number")[row]) + frame_shift,
        ip_version=int(headers.column("ip_version")[row]),
    )
