"""Two lines of one feed against each other: who is first, by how much, and what is lost on both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap._native.arbitration import ARRIVAL_DTYPE, LINE_DTYPE, collect_arrivals, lay_out_lines
from uspcap._native.feed_runs import STREAM_DTYPE, fill_table
from uspcap.analysis.base import Analysis, Result, Table
from uspcap.analysis.capture_drops import CaptureDrops
from uspcap.analysis.histogram import Histogram
from uspcap.analysis.line_pair_state import (
    ARBITRATED,
    MAXIMUM_LOG,
    MAXIMUM_RUNS,
    RING_LENGTH,
    PairPart,
    PairState,
    Skews,
)
from uspcap.analysis.stream_account import StreamAccount
from uspcap.errors import UsageError
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import FeedProtocol
from uspcap.protocols.line_pairs import LinePair

MAXIMUM_STREAMS: Final = 512
"""Bound on the pairs and keys followed."""

LOG_BUDGET: Final = 1 << 21
"""Arrivals in all logs together, 48 bytes each."""

LEAST_LOG: Final = 1 << 10

ARRIVALS_AT_ONCE: Final = 1 << 13

SKEW_PERCENTILES: Final = (1, 10, 50, 90, 99)

DEFINITION = (
    "of each number that both lines bring, the stamp on the first line less that on the second, by one stamp source; "
    "numbers count, so that a packet of ten messages weighs ten"
)


@dataclass(frozen=True, slots=True)
class _Worked:
    """A pair of lines under one key, worked out."""

    pair: LinePair
    key: str
    state: PairState
    lines: tuple[StreamAccount, StreamAccount]
    arbitrated: StreamAccount

    @property
    def labels(self) -> tuple[str, str]:
        return self.pair.lines[0].label, self.pair.lines[1].label


class Arbitration(Analysis):
    """What taking the first copy of each number, of two lines that carry the same feed, brings.

    Parameters
    ----------
    protocol : FeedProtocol
    pairs : sequence of LinePair
    ring_length, maximum_runs, maximum_streams, maximum_log : int
        Bounds; what is beyond them is counted, and `complete` says so.

    Raises
    ------
    UsageError
        The protocol is none of UDP.
    """

    name = "arbitration"

    def __init__(
        self,
        protocol: FeedProtocol,
        pairs: Sequence[LinePair],
        *,
        ring_length: int = RING_LENGTH,
        maximum_runs: int = MAXIMUM_RUNS,
        maximum_streams: int = MAXIMUM_STREAMS,
        maximum_log: int = MAXIMUM_LOG,
    ) -> None:
        super().__init__()
        if protocol.rule is None:
            raise UsageError(f"arbitration compares lines of UDP, and {protocol.name} is carried by TCP: name a feed")
        self._protocol = protocol
        self._rule = protocol.rule
        self._pairs = tuple(pairs)
        self._ring_length = ring_length
        self._maximum_runs = maximum_runs
        self._maximum_log = maximum_log
        self._lines, self._line_table = _laid_out(self._pairs)
        self._streams = np.zeros(maximum_streams, STREAM_DTYPE)
        self._streams_used = 0
        self._table = np.full(1 << (4 * maximum_streams - 1).bit_length(), -1, np.int32)
        self._parts: list[PairPart] = []
        self._arrivals = np.zeros(ARRIVALS_AT_ONCE, ARRIVAL_DTYPE)
        self._counts = np.zeros(3, np.int64)
        self._drops = CaptureDrops()

    def _update(self, batch: FrameBatch) -> None:
        self._drops.note(batch, self._shift(batch))
        row = byte = 0
        while row < batch.count:
            row, byte, self._streams_used, used = collect_arrivals(
                batch,
                batch.headers,
                self._shift(batch),
                row,
                byte,
                self._rule,
                self._lines.view(np.uint8),
                self._line_table,
                self._streams.view(np.uint8),
                self._streams_used,
                self._table,
                self._arrivals.view(np.uint8),
                self._counts,
            )
            self._take(self._arrivals[:used])

    def _take(self, arrivals: NDArray[np.void]) -> None:
        """Give arrivals to the parts of their streams, each in their order."""
        self._have_parts()
        if not len(arrivals):
            return
        streams = arrivals["stream"]
        if (streams == streams[0]).all():
            self._parts[int(streams[0])].take(arrivals)
            return
        order = np.argsort(streams, kind="stable")
        bounds = np.searchsorted(streams[order], np.arange(self._streams_used + 1))
        for stream in np.flatnonzero(np.diff(bounds)).tolist():
            self._parts[stream].take(arrivals[order[bounds[stream] : bounds[stream + 1]]])

    def _have_parts(self) -> None:
        while len(self._parts) < self._streams_used:
            room = max(LEAST_LOG, LOG_BUDGET // self._streams_used)
            self._parts.append(
                PairPart(
                    self._rule,
                    ring_length=self._ring_length,
                    maximum_runs=self._maximum_runs,
                    maximum_log=min(room, self._maximum_log),
                )
            )

    def _merge(self, later: Arbitration) -> None:
        known = {
            (int(stream["flow"]), stream["key"].tobytes()): number
            for number, stream in enumerate(self._streams[: self._streams_used])
        }
        for number, stream in enumerate(later._streams[: later._streams_used]):
            mine = known.get((int(stream["flow"]), stream["key"].tobytes()))
            if mine is None:
                if self._streams_used == len(self._streams):
                    self._counts[2] += int(later._parts[number].whole().streams["packets"][:ARBITRATED].sum())
                    continue
                mine = self._streams_used
                self._streams[mine] = stream
                self._streams_used += 1
                self._have_parts()
            self._parts[mine].merge(later._parts[number], self.frames_read)
        self._table[:] = -1
        fill_table(self._streams.view(np.uint8), self._streams_used, self._table)
        self._counts += later._counts
        self._drops.append(later._drops, self.frames_read)

    def _worked_out(self) -> Iterator[_Worked]:
        """Work out every pair and key, in the order in which pairs were given, keys rising."""
        streams = self._streams[: self._streams_used]
        keys = [self._protocol.key_text(stream["key"].tobytes()) for stream in streams]
        for at in sorted(range(len(streams)), key=lambda at: (int(streams[at]["flow"]), keys[at])):
            state = self._parts[at].whole()
            one, other, arbitrated = (
                StreamAccount.of_runs(state.runs_of(stream), self._protocol, self._drops)
                for stream in (0, 1, ARBITRATED)
            )
            yield _Worked(self._pairs[int(streams[at]["flow"])], keys[at], state, (one, other), arbitrated)

    def result(self) -> Result:
        worked_out = list(self._worked_out())
        pairs = [_told(one) | {"gaps": one.arbitrated.gap_rows()} for one in worked_out]
        not_followed = int(self._counts[2]) + sum(one.state.not_followed for one in worked_out)
        doubtful = sum(one.state.doubtful_cuts for one in worked_out)
        return {
            "protocol": self._protocol.name,
            "numbers": self._protocol.numbers,
            "definition": DEFINITION,
            "compared_within": self._ring_length,
            "given_pairs": [
                {"name": pair.name, **{line.label: str(line) for line in pair.lines}} for pair in self._pairs
            ],
            "without_packets": [
                pair.name
                for at, pair in enumerate(self._pairs)
                if at not in self._streams["flow"][: self._streams_used]
            ],
            "lost": sum(one["arbitrated"]["lost"] for one in pairs),
            "undetermined": sum(one["arbitrated"]["undetermined"] for one in pairs),
            "recovered": sum(one["arbitrated"]["late"] for one in pairs),
            "excluded": int(self._counts[1]),
            "foreign": int(self._counts[0]),
            "not_followed": not_followed,
            "complete": not (not_followed or doubtful),
            "capture_drops": self._drops.total,
            "pairs": pairs,
        }

    def histograms(self) -> dict[str, Histogram]:
        """Return by pair, key and stamp source how much either line was first, and how long gaps of both were open."""
        found: dict[str, Histogram] = {}
        for one in self._worked_out():
            name = ".".join(part for part in (one.pair.name, one.key) if part)
            for source, skews in one.state.skews().items():
                for label, skew in zip(one.labels, skews.both, strict=True):
                    found[f"{name}.{source.name}.{label}_first_by"] = skew
            found[f"{name}.recovery"] = _recovery(one)
        return found

    def tables(self) -> dict[str, Table]:
        worked_out = list(self._worked_out())
        lines = [
            {"pair": told["pair"], "key": told["key"], "line": label, **line}
            for told in map(_told, worked_out)
            for label, line in told["lines"].items()
        ]
        gaps = [
            {"pair": one.pair.name, "key": one.key} | row for one in worked_out for row in one.arbitrated.gap_rows(None)
        ]
        skews = [
            {"pair": one.pair.name, "key": one.key, "source": source.name, "first": label, **bucket}
            for one in worked_out
            for source, skews in one.state.skews().items()
            for label, skew in zip(one.labels, skews.both, strict=True)
            for bucket in _buckets(skew)
        ]
        return {
            name: {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}
            for name, rows in (("lines", lines), ("gaps", gaps), ("skews", skews))
        }


def _laid_out(pairs: Sequence[LinePair]) -> tuple[NDArray[np.void], NDArray[np.int16]]:
    lines = np.zeros(2 * len(pairs), LINE_DTYPE)
    for at, pair in enumerate(pairs):
        for which, line in enumerate(pair.lines):
            address = np.frombuffer(line.address, np.uint8)
            lines[2 * at + which] = (address, line.port, which, at)
    table = np.full(1 << (2 * len(lines)).bit_length(), -1, np.int16)
    lay_out_lines(lines.view(np.uint8), table)
    return lines, table


def _told(one: _Worked) -> dict[str, Any]:
    """Return what the report says of a pair under one key, apart from the gaps."""
    counted = one.state.pair[0]
    first, alone = counted["first"].tolist(), one.state.alone()
    ties = sum(skews.ties for skews in one.state.skews().values())
    return {
        "pair": one.pair.name,
        "key": one.key,
        "compared": sum(first) + ties,
        "ties": ties,
        "other_clock": int(counted["other_clock"]),
        "too_late": int(counted["too_late"]),
        "too_many": int(counted["too_many"]),
        "lines": {
            line.label: {
                "destination": str(line),
                **{name: int(one.state.streams[at][name]) for name in ("packets", "messages", "heartbeats")},
                **one.lines[at].counts(),
                "brought_first": first[at],
                "brought_alone": alone[at],
            }
            for at, line in enumerate(one.pair.lines)
        },
        "arbitrated": {"messages": int(one.state.streams[ARBITRATED]["messages"]), **one.arbitrated.counts()},
        "skew": {source.name: _skew(one.labels, skews) for source, skews in one.state.skews().items()},
        "recovery": _recovery(one).result(),
    }


def _recovery(one: _Worked) -> Histogram:
    """Return how long gaps of the first copies were open, of what filled them."""
    return Histogram.from_values(one.arbitrated.gaps.lateness_ns)


def _skew(labels: tuple[str, str], skews: Skews) -> dict[str, Any]:
    return {
        "first_by": {label: skew.result() for label, skew in zip(labels, skews.both, strict=True)},
        "ties": skews.ties,
        "percentiles_ns": {str(one): skews.value_at(one) for one in SKEW_PERCENTILES},
    }


def _buckets(histogram: Histogram) -> Iterator[dict[str, int]]:
    table = histogram.table()
    for row in zip(*table.values(), strict=True):
        yield dict(zip(table, row, strict=True))
