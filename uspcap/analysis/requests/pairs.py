"""What analyses of requests and responses share: one rule's runs, their outcome, and its times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import FrameColumns
from uspcap.analysis.base import Table
from uspcap.analysis.requests.request_ledger import LIST_NAMES, MEASURE_NAMES, RequestLedger
from uspcap.analysis.requests.request_runs import CLASS_COUNT, POLICIES, REPLIES_KEPT, RequestRuns
from uspcap.analysis.requests.result import (
    AnsweredRequest,
    PairCounts,
    PrecedingResponses,
    ReplyTimes,
    UnansweredRequest,
    UnsolicitedResponse,
)
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.rules import Finder
from uspcap.records import Record, as_json
from uspcap.report.format import duration
from uspcap.stats.histogram import Histogram

MAXIMUM_FRAMES = 1 << 20
"""Bound on the requests and responses followed in one timeout's time."""

MAXIMUM_FRAMES_IN_ROUNDS = 1 << 17
"""The same where replies are kept one by one, which take four times the memory."""

PRECEDING_SHARE = 0.02
"""Part of the exchanges whose response has to precede its request before the times of the others are doubted.

Keys of few bits come round within the timeout, and what answers a request from before the capture precedes the next.
"""

ROWS_KEPT = 10_000
"""Bound on the rows of each list and rule."""

MEASURES = {name: number for number, name in enumerate(MEASURE_NAMES)}


class PairTrack:
    """Requests and responses of one rule: a monoid as an analysis is one.

    Parameters
    ----------
    finder : Finder
    timeout_ns : int
    policy : str
        Of `POLICIES`.
    maximum : int
        Bound on the frames followed in one timeout's time.
    rows_kept : int
        Bound on the rows of each list.
    """

    def __init__(
        self, finder: Finder, *, timeout_ns: int, policy: str, maximum: int, rows_kept: int = ROWS_KEPT
    ) -> None:
        self.name = finder.name
        self.rounds = policy == "rounds"
        self.finder = finder
        self._again = partial(PairTrack, timeout_ns=timeout_ns, policy=policy, maximum=maximum, rows_kept=rows_kept)
        self._rows_kept = rows_kept
        self._runs = RequestRuns(timeout_ns, POLICIES[policy], maximum)
        self._ledger = RequestLedger(rows_kept)

    def again(self, finder: Finder) -> PairTrack:
        """Return another one without a frame."""
        return self._again(finder)

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        """Take a batch, whose frame numbers go up by `frame_shift`."""
        self.take(batch, frame_shift, *self.finder.find(batch))

    def take(self, frames: FrameColumns, frame_shift: int, kinds: NDArray[np.uint8], keys: NDArray[np.uint64]) -> None:
        """Take frames classified by `finder`."""
        self._runs.update(frames, frame_shift, kinds, keys)
        self._settle()

    def merge(self, later: PairTrack, frames_read: int) -> None:
        """Append the state of what follows directly after `frames_read` frames; `later` is used up."""
        self.append(later, frames_read)
        self.finder.absorb(later.finder)

    def append(self, later: PairTrack, frames_read: int) -> None:
        """Do the same but for what finders have counted."""
        self._runs.merge(later._runs)
        self._ledger.absorb(later._ledger, frames_read)
        self._settle()

    @property
    def hints(self) -> list[str]:
        """Hints about the rules' filters."""
        return self.finder.hints

    def _settle(self) -> None:
        if self._runs.over.count:
            self._ledger.take(self._runs.take_over(), self.rounds)

    def outcome(self) -> PairOutcome:
        """Return the outcome as if the capture ended here."""
        ledger = RequestLedger(self._rows_kept)
        ledger.absorb(self._ledger, 0)
        ledger.take(self._runs.open_runs(), self.rounds)
        return PairOutcome(self.name, ledger, self._runs, self.finder)


class PairOutcome:
    """The result of one rule's requests and responses.

    Attributes
    ----------
    name : str
    counts : dict of str to int
        As `COUNT_NAMES` of request_ledger says; of the classes that the bound left.
    seen : tuple of int
        Requests and responses, all of them.
    followed : tuple of int
        Those of the classes that the bound left.
    sampled_one_in : int
    without_timestamp, without_key, matched_both : int
    by_replies : list of int
        Rounds by how many responders replied, from none on.
    responders : int
        As many as replied, at most `RESPONDERS_KEPT` of request_runs.
    more_responders : bool
    """

    def __init__(self, name: str, ledger: RequestLedger, runs: RequestRuns, finder: Finder) -> None:
        self.name = name
        self._ledger = ledger
        self._level = runs.level
        self.counts, self.by_replies = ledger.counted(runs.level)
        seen = runs.seen()
        self.seen: tuple[int, int] = (int(seen[0].sum()), int(seen[1].sum()))
        self.followed: tuple[int, int] = (int(seen[0, self._level :].sum()), int(seen[1, self._level :].sum()))
        self.sampled_one_in = 1 << runs.level
        self.without_timestamp = runs.without_timestamp
        self.without_key, self.matched_both = finder.without_key, finder.matched_both
        self._keyed = finder.has_key
        self.responders, self.more_responders = runs.responders_seen()
        self._tracks = ledger.tracks_by_group()
        self._cells = ledger.by_group()

    def sources(self) -> list[int]:
        """Return the timestamp sources that have any response time measured."""
        counts = np.delete(self._tracks["count"], MEASURES["preceded_by"], axis=0)
        return [int(one) for one in np.flatnonzero(counts[:, :, self._level :].sum(axis=(0, 2)))]

    def preceding(self) -> PrecedingResponses | None:
        """Return what came before the request with its key; None where nothing did, or where keys say nothing."""
        tracks = self._tracks[MEASURES["preceded_by"], :, self._level :]
        tracks = tracks[tracks["count"] > 0]
        if not self._keyed or not len(tracks):
            return None
        return PrecedingResponses(
            exchanges=self.counts["preceding"],
            least_ns=int(tracks["lowest_ns"].min()),
            most_ns=int(tracks["highest_ns"].max()),
        )

    def caveats(self) -> list[str]:
        """Return what makes the times of the rule doubtful."""
        found = self.preceding()
        if found is None or found.exchanges < PRECEDING_SHARE * (found.exchanges + self.counts["answered"]):
            return []
        apart = duration(found.least_ns)
        if found.most_ns > found.least_ns:
            apart += f" to {duration(found.most_ns)}"
        return [
            f"{self.name}: {found.exchanges:,} of the responses without a request precede the request with their key, "
            f"by {apart}: the two directions are not on one clock, or were not captured in order; then all times of "
            f"{self.name} are wrong by as much, and no count of what is unanswered or unsolicited holds"
        ]

    def histogram(self, measure: str, source: int) -> tuple[Histogram, int]:
        """Return the histogram of a measure and a timestamp source, and the frame that the longest time began with."""
        number = MEASURES[measure]
        tracks = self._tracks[number, source, self._level :]
        histogram = Histogram()
        for in_class in range(self._level, CLASS_COUNT):
            group = (number * self._tracks.shape[1] + source) * CLASS_COUNT + in_class
            buckets, counts = self._cells.histogram_of(group)
            histogram.counts[buckets] += counts.astype(np.uint64)
        tracks = tracks[tracks["count"] > 0]
        if not len(tracks):
            return histogram, 0
        histogram.lowest_ns, histogram.highest_ns = int(tracks["lowest_ns"].min()), int(tracks["highest_ns"].max())
        histogram.sum_ns = sum(int(track["sum_high"]) << 64 | int(track["sum_low"]) for track in tracks)
        return histogram, int(tracks["highest_frame"][tracks["highest_ns"] == histogram.highest_ns].min())

    def times(self, measure: str, source: int) -> ReplyTimes:
        """Return a measure's distribution for the report."""
        histogram, frame = self.histogram(measure, source)
        return histogram.summary().extended(ReplyTimes, max_frame=frame)

    def quorum(self, wanted: int | str) -> int | None:
        """Return how many replies make a quorum; None where there is no majority of the responders."""
        if isinstance(wanted, int):
            return wanted
        majority = self.responders // 2 + 1
        return None if self.more_responders or self.responders == 0 or majority > REPLIES_KEPT else majority

    def rows(self, name: str, most: int | None = None) -> NDArray[Any]:
        """Return the first rows of a list, as ROW_DTYPE of request_ledger."""
        kept = self._ledger.rows_kept
        return self._ledger.rows(LIST_NAMES.index(name), self._level, kept if most is None else min(most, kept))

    def pairs(self, name: str, most: int | None = None) -> tuple[AnsweredRequest, ...]:
        """Return rows of requests with their answers."""
        return tuple(
            AnsweredRequest(
                request_frame=int(row["first_request_frame"]),
                request_ns=int(row["first_request_ns"]),
                last_request_frame=int(row["asked_frame"]),
                response_frame=int(row["answer_frame"]),
                latency_from_first_ns=_latency(row, "first_request_ns", "request_source"),
                latency_from_last_ns=_latency(row, "asked_ns", "asked_source"),
                requests=int(row["requests"]),
                responses=int(row["responses"]),
                source=TimestampSource(int(row["answer_source"])).name,
            )
            for row in self.rows(name, most)["run"]
        )

    def unanswered(self, most: int | None = None) -> tuple[UnansweredRequest, ...]:
        """Return rows of requests without an answer."""
        return tuple(
            UnansweredRequest(
                request_frame=int(row["first_request_frame"]),
                request_ns=int(row["first_request_ns"]),
                requests=int(row["requests"]),
                source=TimestampSource(int(row["request_source"])).name,
            )
            for row in self.rows("unanswered", most)["run"]
        )

    def unsolicited(self, most: int | None = None) -> tuple[UnsolicitedResponse, ...]:
        """Return rows of responses without a request, the first of each run."""
        return tuple(
            UnsolicitedResponse(
                response_frame=int(row["answer_frame"]),
                response_ns=int(row["answer_ns"]),
                responses=int(row["responses"]),
                source=TimestampSource(int(row["answer_source"])).name,
            )
            for row in self.rows("unsolicited", most)["run"]
        )

    def base(self) -> PairCounts:
        """Return the counts that every report of requests and responses has."""
        return PairCounts(
            name=self.name,
            sampled_one_in=self.sampled_one_in,
            answered=self.counts["answered"],
            unanswered=self.counts["unanswered"],
            across_clocks=self.counts["across_clocks"],
            negative=self.counts["negative"],
            without_timestamp=self.without_timestamp,
            without_key=self.without_key,
            matched_both=self.matched_both,
            preceding=self.preceding(),
        )


def _latency(row: Any, field: str, source_field: str) -> int | None:
    """Return the time to the answer; None where the two timestamps are of different sources."""
    return int(row["answer_ns"]) - int(row[field]) if row[source_field] == row["answer_source"] else None


def table_of(outcomes: Sequence[tuple[str, Sequence[Record | dict[str, Any]]]]) -> Table:
    """Return rows of several rules as one table, whose first column is the rule's name; empty where there are none."""
    columns: dict[str, list[Any]] = {}
    for name, rows in outcomes:
        for row in rows:
            for column, value in {"rule": name, **as_json(row)}.items():
                columns.setdefault(column, []).append(value)
    return columns


def tables_of(outcomes: Sequence[PairOutcome], measures: Sequence[str]) -> dict[str, Table]:
    """Return the tables of several rules: all rows kept, and the buckets of their histograms."""
    buckets: list[tuple[str, list[Record | dict[str, Any]]]] = []
    for outcome in outcomes:
        for source in outcome.sources():
            for measure in measures:
                part = outcome.histogram(measure, source)[0].table()
                rows = [dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True)]
                named = {"source": TimestampSource(source).name, "measure": measure}
                buckets.append((outcome.name, [named | row for row in rows]))
    return {
        "pairs": table_of([(outcome.name, outcome.pairs("pairs")) for outcome in outcomes]),
        "unanswered": table_of([(outcome.name, outcome.unanswered()) for outcome in outcomes]),
        "unsolicited": table_of([(outcome.name, outcome.unsolicited()) for outcome in outcomes]),
        "histogram": table_of(buckets),
    }
