"""Tick to trade: from what came in to what went out because of it."""

from __future__ import annotations

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.ip_fragments import fragment_caveats
from uspcap.analysis.matching_options import TIMEOUT_NS
from uspcap.analysis.requests.datagrams import FragmentedPairs
from uspcap.analysis.requests.pairs import MAXIMUM_FRAMES, ROWS_KEPT, PairTrack, tables_of
from uspcap.analysis.requests.result import ReplyMeasures
from uspcap.analysis.tick_to_trade.result import TickToTradeResult
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.rules import RuleFinder, RulePair
from uspcap.stats.histogram import Histogram

BY_ID = (
    "from the timestamp of a trigger to that of the first response with the same key; a trigger with that key again "
    "before "
    "the response (the other line of a feed) is the same one"
)

BY_NEAREST = (
    "from the timestamp of a trigger to that of the first response after it, before the next trigger: a response is "
    "attributed to the latest trigger, whether or not that was the cause"
)

TIMESTAMPED = (
    "times are between timestamps: first byte in to first byte out where the timestamps are of the first byte; the "
    "timeout ends an exchange when a frame is timestamped more than that after its last frame"
)

UNBOUNDED = 1 << 62
"""Without keys there is one trigger at a time, and no memory to bound."""


class TickToTrade(Analysis):
    """Histograms of the time from a trigger to its response.

    Parameters
    ----------
    pair : RulePair
        By key where the rules have one, else by the nearest trigger before.
    timeout_ns : int
    shown : int
        Rows in the result's lists.
    rows_kept, maximum : int
        Bounds on the rows of tables, and on the triggers and responses followed in one timeout's time.
    """

    name = "tick_to_trade"

    def __init__(
        self,
        pair: RulePair,
        *,
        timeout_ns: int = TIMEOUT_NS,
        shown: int = 10,
        rows_kept: int = ROWS_KEPT,
        maximum: int = MAXIMUM_FRAMES,
    ) -> None:
        super().__init__()
        self._pair = pair
        self._timeout_ns = timeout_ns
        self._shown = shown
        self._by_id = pair.request.key.kind != "none"
        self._measures = ("from_first", "from_last") if self._by_id else ("from_first",)
        track = PairTrack(
            RuleFinder(pair),
            timeout_ns=timeout_ns,
            policy="retransmitted" if self._by_id else "each",
            maximum=maximum if self._by_id else UNBOUNDED,
            rows_kept=rows_kept,
        )
        self._pairs = FragmentedPairs([track])

    @property
    def _track(self) -> PairTrack:
        """The rule as it stands if nothing came before."""
        return self._pairs.tracks[0]

    def _update(self, batch: FrameBatch) -> None:
        self._pairs.update(batch, self._shift(batch))

    def _merge(self, later: TickToTrade) -> None:
        self._pairs.absorb(later._pairs, self.frames_read)

    def caveats(self) -> list[str]:
        found = super().caveats() + self._track.hints + self._track.outcome().caveats()
        return found + fragment_caveats(self._pairs.whole().counts())

    def result(self) -> TickToTradeResult:
        outcome = self._track.outcome()
        counts = outcome.counts
        return outcome.base().extended(
            TickToTradeResult,
            definition=f"{BY_ID if self._by_id else BY_NEAREST}; {TIMESTAMPED}",
            timeout_ns=self._timeout_ns,
            fragments=self._pairs.whole().counts(),
            trigger=self._pair.request.text,
            response=self._pair.response.text,
            matched_by="id" if self._by_id else "nearest trigger",
            triggers=outcome.seen[0],
            responses=outcome.seen[1],
            triggers_followed=outcome.followed[0],
            responses_followed=outcome.followed[1],
            repeated_triggers=counts["repeated"],
            further_responses=counts["further"],
            with_several_responses=counts["several"],
            responses_without_trigger=counts["unsolicited"],
            sources={
                TimestampSource(source).name: ReplyMeasures(
                    from_first=outcome.times("from_first", source),
                    from_last=outcome.times("from_last", source) if self._by_id else None,
                )
                for source in outcome.sources()
            },
            slowest=outcome.pairs("slowest", self._shown),
            first_unanswered=outcome.unanswered(self._shown),
            first_unsolicited=outcome.unsolicited(self._shown),
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return histograms by timestamp source and measure, joined by a dot."""
        outcome = self._track.outcome()
        return {
            f"{TimestampSource(source).name}.{measure}": outcome.histogram(measure, source)[0]
            for source in outcome.sources()
            for measure in self._measures
        }

    def tables(self) -> dict[str, Table]:
        return tables_of([self._track.outcome()], self._measures)
