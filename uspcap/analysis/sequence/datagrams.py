"""A feed's streams where IP fragments carry some of its datagrams, and how they stand at a cut of the capture.

What fragments at the head of a part belong to, only the part before knows, and with it which packet of a stream comes
when the last of them does. Such fragments are kept, and the streams between two of them are kept apart: merged, all is
taken in the order in which it came (`uspcap.messages.fragments` says which fragments these are).
"""

from __future__ import annotations

from typing import Any

from uspcap.analysis import ip_fragments
from uspcap.analysis.ip_fragments import fragment_counts
from uspcap.analysis.sequence.feed_runs import track_runs, track_with_datagrams
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams, has_fragments
from uspcap.protocols.feed_rule import FeedRule


class DatagramStreams:
    """Streams of a feed over UDP.

    Parameters
    ----------
    streams : NumberedStreams
        Without a packet.
    rule : FeedRule
    is_known : bool
        Nothing comes before.

    Attributes
    ----------
    datagrams : Datagrams
    cut : int
        Fragments at the heads of parts that were left out, as more were kept already.
    """

    def __init__(self, streams: NumberedStreams, rule: FeedRule, *, is_known: bool = False) -> None:
        self._rule = rule
        self._first = streams
        self._kept: list[tuple[bytes, NumberedStreams]] = []
        self._kept_bytes = 0
        self.datagrams = Datagrams(is_known)
        self.cut = 0
        self._whole: DatagramStreams | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole": None}

    @property
    def _last(self) -> NumberedStreams:
        """What takes the next packet."""
        return self._kept[-1][1] if self._kept else self._first

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        """Take the next batch, whose frame numbers are moved by so many."""
        self._whole = None
        headers = batch.headers
        if not has_fragments(batch, headers):
            track_runs(batch, headers, frame_shift, self._rule, self._last)
            return
        first, datagrams = 0, self.datagrams
        while first < batch.count:
            last = datagrams.take(batch, headers, frame_shift, first)
            track_with_datagrams(
                batch, headers, frame_shift, self._rule, self._last, first, last,
                datagrams.frames, datagrams.headers, datagrams.rows,
            )  # fmt: skip
            if last < batch.count:
                self._keep(datagrams.event(batch, headers, frame_shift, last))
            first = last + 1

    def _keep(self, event: bytes) -> None:
        """Keep a fragment of a head."""
        if ip_fragments.is_over(len(self._kept), self._kept_bytes + len(event)):
            self.cut += 1
            return
        self._kept_bytes += len(event)
        self._kept.append((event, self._first.empty()))

    def absorb(self, later: DatagramStreams, frame_shift: int) -> None:
        """Append what came directly after, whose frame numbers are moved by so many."""
        self._whole = None
        self._last.absorb(later._first, frame_shift)
        for event, following in later._kept:
            kept = self.datagrams.take_event(event, frame_shift)
            if kept is not None:
                self._keep(kept)
            elif self.datagrams.frames.count:
                track_runs(self.datagrams.frames, self.datagrams.headers, 0, self._rule, self._last)
            self._last.absorb(following, frame_shift)
        self.datagrams.absorb(later.datagrams, frame_shift)
        self.cut += later.cut

    def whole(self) -> DatagramStreams:
        """Return how things stand if nothing came before; this stays as it is."""
        if not self._kept:
            return self
        if self._whole is None:
            self._whole = DatagramStreams(self._first.empty(), self._rule, is_known=True)
            self._whole.absorb(self, 0)
        return self._whole

    @property
    def streams(self) -> NumberedStreams:
        """The streams, of a state that keeps nothing."""
        return self._last

    def counts(self) -> dict[str, int]:
        """Return what became of datagrams in fragments, for the report."""
        return fragment_counts(self.datagrams, self.cut)
