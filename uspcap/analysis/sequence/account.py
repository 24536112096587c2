"""One numbered stream worked out of its runs, as the analyses that follow streams report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.sequence.capture_drops import CaptureDrops
from uspcap.analysis.sequence.gaps import PacketEnds, SequenceGap, StreamGaps
from uspcap.analysis.sequence.numbered_runs import KIND_DATA, KIND_HEARTBEAT
from uspcap.analysis.sequence.result import MissingNumbers, StreamNumbers, UnconfirmedNumber
from uspcap.protocols.feeds import FeedProtocol
from uspcap.saturating import clipped_ns

GAPS_SHOWN: Final = 1000
"""Gaps of a stream in the result; the table holds all."""

JUDGED_FROM: Final = 10
"""Packets of a stream, before what its numbers do says whether they are numbers."""

NEARLY_ALL: Final = 0.9
"""Part of a stream's packets that bring nothing new, or of its numbers that are missing, with which it is refused."""

JUMPS: Final = 0.2
"""Part of a stream's packets that jump to where nothing follows, with which it is refused."""

ASTRAY: Final = 0.8
"""As much for packets that bring nothing new or jump so: where `SOME_JUMPS` of all jump, or nearly all is missing."""

SOME_JUMPS: Final = 0.05

GAPS_EVERYWHERE: Final = 0.5
"""Gaps for a packet, without which missing numbers, however many, do not refuse a stream: few gaps may be large."""


@dataclass(frozen=True, slots=True)
class NumberedTables:
    """State of numbered streams: copies of the tables of `uspcap.analysis.sequence.numbered_runs`.

    Attributes
    ----------
    streams : ndarray of STREAM_DTYPE
    most_runs : int
        How many runs of a stream are followed, but for a heartbeat before all others.
    """

    streams: NDArray[np.void]
    most_runs: int
    _runs: NDArray[np.void]
    _bounds: NDArray[np.int64]
    _ends: PacketEnds

    @classmethod
    def of(
        cls, streams: NDArray[np.void], runs: NDArray[np.void], ends: NDArray[np.void], most_runs: int
    ) -> NumberedTables:
        """Sort runs by stream."""
        order = np.argsort(runs["stream"], kind="stable")
        in_order = runs[order]
        bounds = np.searchsorted(in_order["stream"], np.arange(len(streams) + 1))
        return cls(streams, most_runs, in_order, bounds, PacketEnds(ends))

    def account(
        self, stream: int, protocol: FeedProtocol, drops: CaptureDrops, *, of_numbers: bool = False
    ) -> StreamAccount:
        """Work out a stream; `not_followed` counts packets, or numbers."""
        runs = self._runs[self._bounds[stream] : self._bounds[stream + 1]]
        announced = bool(len(runs)) and runs[0]["kind"] == KIND_HEARTBEAT
        runs = runs[: self.most_runs + announced]
        row = self.streams[stream]
        gaps = StreamGaps(protocol.modulus, protocol.far)
        gaps.take(runs, self._ends)
        undetermined = frozenset(at for at, gap in enumerate(gaps.gaps) if gap.torn or drops.within(gap))
        messages = messages_of(row)
        if of_numbers:
            not_followed = messages - sum(runs["length"][runs["kind"] == KIND_DATA].tolist())
        else:
            not_followed = int(row["packets"]) - gaps.packets
        return StreamAccount(gaps, undetermined, not_followed, messages, protocol.highest)


def messages_of(stream: np.void) -> int:
    """Return the messages of a row of STREAM_DTYPE."""
    low, high = stream["messages"].tolist()
    return int(high << 64 | low)


@dataclass(frozen=True, slots=True)
class StreamAccount:
    """Missing numbers of a stream, and where the capture itself may have lost them.

    Attributes
    ----------
    gaps : StreamGaps
    undetermined : frozenset of int
        Places in `gaps.gaps` of those within which the capture lost frames, or bytes of the stream that carries them.
    not_followed : int
        Packets after the last run that is kept, or numbers of them.
    messages : int
    highest : int
        The highest number that there can be.
    """

    gaps: StreamGaps
    undetermined: frozenset[int]
    not_followed: int
    messages: int
    highest: int

    def refusal(self) -> str | None:
        """Return the evidence that the stream is not of the protocol, as its numbers show; None without it."""
        gaps, packets = self.gaps, self.gaps.packets
        if packets < JUDGED_FROM:
            return None
        if gaps.repeated >= NEARLY_ALL * packets:
            return f"{gaps.repeated:,} of {packets:,} packets repeat numbers received before"
        jumps = gaps.implausible + len(gaps.unconfirmed)
        missing = self._missing(undetermined=False)
        is_nearly_lost = missing * (1 - NEARLY_ALL) >= self.messages * NEARLY_ALL
        astray = gaps.repeated + jumps >= ASTRAY * packets
        if jumps >= JUMPS * packets or (astray and (is_nearly_lost or jumps >= SOME_JUMPS * packets)):
            lost = f"; {missing:,} numbers are missing, and {self.messages:,} were received" if is_nearly_lost else ""
            return (
                f"of {packets:,} packets {jumps:,} have numbers that jump to where no packet follows, and "
                f"{gaps.repeated:,} repeat numbers received before{lost}"
            )
        if is_nearly_lost and len(gaps.gaps) >= GAPS_EVERYWHERE * packets:
            return f"{missing:,} numbers are missing, in {len(gaps.gaps):,} gaps, and {self.messages:,} were received"
        return None

    def unconfirmed_rows(self) -> tuple[UnconfirmedNumber, ...]:
        """Return the jumps near the stream's end that nothing confirms or refutes."""
        return tuple(
            UnconfirmedNumber(
                number=self._shown(jump.number),
                expected=self._shown(jump.expected),
                at_ns=jump.at_ns,
                frame=jump.frame,
            )
            for jump in self.gaps.unconfirmed
        )

    def numbers(self) -> StreamNumbers:
        """Return the figures of any numbered stream, without its gaps."""
        gaps = self.gaps
        return StreamNumbers(
            first=self._shown(gaps.first),
            last=self._shown(gaps.last),
            lost=self._missing(undetermined=False),
            late=gaps.late,
            duplicate=gaps.duplicate,
            overlap=gaps.overlap,
            resets=gaps.resets,
            undetermined=self._missing(undetermined=True),
            implausible=gaps.implausible,
            unconfirmed=len(gaps.unconfirmed),
            before_joined=gaps.before_joined,
            joined_at=self._shown(gaps.joined_at),
            ended=gaps.ended,
            largest_extent=max(gaps.extents, default=0),
            gap_count=len(gaps.gaps),
            coalesced=gaps.coalesced,
            not_followed=self.not_followed,
        )

    def _shown(self, number: int | None) -> int | None:
        """Return a number's value in its field, None where it does not fit: the one announced after the highest."""
        shown = None if number is None else self.gaps.shown(number)
        return shown if shown is None or shown <= self.highest else None

    def _missing(self, *, undetermined: bool) -> int:
        """Return how many numbers were never received, of undetermined or of other gaps."""
        return sum(
            gap.count - gap.filled for at, gap in enumerate(self.gaps.gaps) if (at in self.undetermined) is undetermined
        )

    def gap_rows(self, most: int | None = GAPS_SHOWN) -> tuple[MissingNumbers, ...]:
        """Return the gaps in the order in which they were found, the first `most` of them."""
        return tuple(self._gap(gap, at in self.undetermined) for at, gap in enumerate(self.gaps.gaps[:most]))

    def _gap(self, gap: SequenceGap, undetermined: bool) -> MissingNumbers:
        return MissingNumbers(
            first=self.gaps.shown(gap.first),
            last=self.gaps.shown(gap.last),
            count=gap.count,
            start_ns=gap.start_ns,
            end_ns=gap.end_ns,
            before_frame=gap.before_frame,
            after_frame=gap.after_frame,
            filled=gap.filled,
            filled_after_ns=clipped_ns(gap.filled_ns - gap.end_ns) if gap.filled else None,
            undetermined=undetermined,
        )
