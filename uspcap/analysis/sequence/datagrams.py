"""A feed's streams where IP fragments carry some of its datagrams."""

from __future__ import annotations

from typing import ClassVar

from uspcap._core.columns import FrameColumns, HeaderColumns
from uspcap.analysis.ip_fragments import Kept, Stretch
from uspcap.analysis.sequence.feed_runs import track_runs, track_with_datagrams
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.messages.fragments import Datagrams
from uspcap.protocols.feed_rule import FeedRule


class FeedStretch(Stretch):
    """Streams of a feed over UDP.

    Parameters
    ----------
    streams : NumberedStreams
        Without a packet.
    rule : FeedRule

    Attributes
    ----------
    streams : NumberedStreams
    """

    needs_beginning: ClassVar[bool] = False

    def __init__(self, streams: NumberedStreams, rule: FeedRule) -> None:
        self.streams = streams
        self._rule = rule

    def take(
        self,
        frames: FrameColumns,
        headers: HeaderColumns,
        frame_shift: int,
        first: int,
        last: int,
        datagrams: Datagrams | None,
    ) -> None:
        if datagrams is None:
            track_runs(frames, headers, frame_shift, self._rule, self.streams)
            return
        track_with_datagrams(
            frames, headers, frame_shift, self._rule, self.streams, first, last,
            datagrams.frames, datagrams.headers, datagrams.rows,
        )  # fmt: skip

    def take_datagrams(self, datagrams: Datagrams) -> None:
        track_runs(datagrams.frames, datagrams.headers, 0, self._rule, self.streams)

    def absorb(self, later: FeedStretch, frame_shift: int) -> None:
        self.streams.absorb(later.streams, frame_shift)

    def following(self, kept: Kept) -> FeedStretch:
        return FeedStretch(self.streams.empty(), self._rule)

    def of_whole(self) -> FeedStretch:
        return FeedStretch(self.streams.empty(), self._rule)
