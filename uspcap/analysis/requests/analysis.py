"""Request and response latency: DNS, echo, NTP, and rules of the user."""

from __future__ import annotations

from collections.abc import Sequence

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.ip_fragments import fragment_caveats
from uspcap.analysis.matching_options import TIMEOUT_NS
from uspcap.analysis.requests.datagrams import FragmentedPairs
from uspcap.analysis.requests.pairs import (
    MAXIMUM_FRAMES,
    MAXIMUM_FRAMES_IN_ROUNDS,
    ROWS_KEPT,
    PairOutcome,
    PairTrack,
    tables_of,
)
from uspcap.analysis.requests.result import ReplyMeasures, RequestRule, RequestsResult, RoundMeasures, Rounds
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.rules import KNOWN, KnownFinder, RuleFinder, RulePair
from uspcap.stats.histogram import Histogram

DEFINITION = (
    "from the timestamp of a request to that of the first response with its key, by one timestamp source; the same "
    "request again before that is a retransmission, and both times are reported; the timeout ends an exchange when a "
    "frame is timestamped more than that after its last frame"
)

MEASURES = ("from_first", "from_last")


class Requests(Analysis):
    """Histograms of response times by rule and timestamp source; unanswered, unsolicited and duplicate frames.

    Parameters
    ----------
    pairs : sequence of RulePair
        Beside the protocols of `KNOWN`.
    quorum : int or str, optional
        How many responders make a quorum in rounds of the pairs, or `majority` of those that there are; None where
        requests have one responder.
    timeout_ns : int
    shown : int
        Rows in the result's lists.
    rows_kept, maximum, maximum_in_rounds : int
        Bounds on the rows of tables, and on the requests and responses followed in one timeout's time.
    """

    name = "requests"

    def __init__(
        self,
        pairs: Sequence[RulePair] = (),
        *,
        quorum: int | str | None = None,
        timeout_ns: int = TIMEOUT_NS,
        shown: int = 10,
        rows_kept: int = ROWS_KEPT,
        maximum: int = MAXIMUM_FRAMES,
        maximum_in_rounds: int = MAXIMUM_FRAMES_IN_ROUNDS,
    ) -> None:
        super().__init__()
        self._quorum = quorum
        self._timeout_ns = timeout_ns
        self._shown = shown
        self._rule_texts = dict(KNOWN)
        tracks = [
            PairTrack(
                KnownFinder(name), timeout_ns=timeout_ns, policy="retransmitted", maximum=maximum, rows_kept=rows_kept
            )
            for name in KNOWN
        ]
        for pair in pairs:
            self._rule_texts[pair.name] = f"{pair.request.text} -> {pair.response.text}, matched by {pair.match}"
            tracks.append(
                PairTrack(
                    RuleFinder(pair),
                    timeout_ns=timeout_ns,
                    policy="retransmitted" if quorum is None else "rounds",
                    maximum=maximum if quorum is None else maximum_in_rounds,
                    rows_kept=rows_kept,
                )
            )

        self._pairs = FragmentedPairs(tracks)

    def _update(self, batch: FrameBatch) -> None:
        self._pairs.update(batch, self._shift(batch))

    def _merge(self, later: Requests) -> None:
        self._pairs.absorb(later._pairs, self.frames_read)

    def _outcomes(self) -> list[PairOutcome]:
        return [track.outcome() for track in self._pairs.tracks]

    def result(self) -> RequestsResult:
        return RequestsResult(
            definition=DEFINITION,
            timeout_ns=self._timeout_ns,
            fragments=self._pairs.whole().counts(),
            rules=tuple(
                self._rule(track, outcome) for track, outcome in zip(self._pairs.tracks, self._outcomes(), strict=True)
            ),
        )

    def caveats(self) -> list[str]:
        found = super().caveats() + [hint for track in self._pairs.tracks for hint in track.hints]
        found += [caveat for outcome in self._outcomes() for caveat in outcome.caveats()]
        return found + fragment_caveats(self._pairs.whole().counts())

    def _rule(self, track: PairTrack, outcome: PairOutcome) -> RequestRule:
        counts = outcome.counts
        return outcome.base().extended(
            RequestRule,
            rule=self._rule_texts[outcome.name],
            requests=outcome.seen[0],
            responses=outcome.seen[1],
            requests_followed=outcome.followed[0],
            responses_followed=outcome.followed[1],
            retransmitted_requests=counts["repeated"],
            duplicate_responses=counts["further"],
            unsolicited_responses=counts["unsolicited"],
            sources={
                TimestampSource(source).name: ReplyMeasures(
                    from_first=outcome.times("from_first", source), from_last=outcome.times("from_last", source)
                )
                for source in outcome.sources()
            },
            slowest=outcome.pairs("slowest", self._shown),
            first_unanswered=outcome.unanswered(self._shown),
            first_unsolicited=outcome.unsolicited(self._shown),
            rounds=self._rounds(outcome) if track.rounds else None,
        )

    def _rounds(self, outcome: PairOutcome) -> Rounds:
        assert self._quorum is not None
        quorum = outcome.quorum(self._quorum)
        replies = outcome.by_replies
        rounds = sum(replies) + outcome.counts["beyond"]
        return Rounds(
            quorum_wanted=self._quorum,
            quorum=quorum,
            responders=outcome.responders,
            more_responders=outcome.more_responders,
            rounds=rounds,
            reached=None if quorum is None else sum(replies[quorum:]) + outcome.counts["beyond"],
            never_reached=None if quorum is None else sum(replies[:quorum]),
            by_replies=tuple(replies[: max((at for at, many in enumerate(replies) if many), default=0) + 1]),
            too_many_responders=outcome.counts["beyond"],
            replies_before_request=outcome.counts["early"],
            sources={
                TimestampSource(source).name: RoundMeasures(
                    first_reply=outcome.times("reply_1", source),
                    quorum_reply=None if quorum is None else outcome.times(f"reply_{quorum}", source),
                    last_reply=outcome.times("last_reply", source),
                )
                for source in outcome.sources()
            },
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return histograms by rule, timestamp source and measure, joined by dots."""
        return {
            f"{outcome.name}.{TimestampSource(source).name}.{measure}": outcome.histogram(measure, source)[0]
            for track, outcome in zip(self._pairs.tracks, self._outcomes(), strict=True)
            for source in outcome.sources()
            for measure in self._measures(track, outcome)
        }

    def _measures(self, track: PairTrack, outcome: PairOutcome) -> tuple[str, ...]:
        """Return what was measured: in rounds the first, the quorum's and the last reply too."""
        if not track.rounds or self._quorum is None:
            return MEASURES
        quorum = outcome.quorum(self._quorum)
        replies = ("reply_1",) if quorum in (None, 1) else ("reply_1", f"reply_{quorum}")
        return (*MEASURES, *replies, "last_reply")

    def tables(self) -> dict[str, Table]:
        outcomes = self._outcomes()
        measures = dict.fromkeys(
            measure
            for track, outcome in zip(self._pairs.tracks, outcomes, strict=True)
            for measure in self._measures(track, outcome)
        )
        return tables_of(outcomes, list(measures))
