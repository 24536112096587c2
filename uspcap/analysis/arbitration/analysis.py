"""Two lines of one feed compared: which one leads, by how much, and the loss on both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.arbitration.arbiter import LINE_DTYPE, Arbiter
from uspcap.analysis.arbitration.datagrams import LineStretch
from uspcap.analysis.arbitration.result import ArbitratedPair, ArbitrationResult, FirstCopies, LineNumbers, LineSkew
from uspcap.analysis.arbitration.skews import Skews
from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.ip_fragments import FragmentedStream, fragment_caveats
from uspcap.analysis.sequence.account import NumberedTables, StreamAccount
from uspcap.analysis.sequence.capture_drops import CaptureDrops
from uspcap.errors import UsageError
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.feeds import FeedProtocol
from uspcap.protocols.line_pairs import LinePair
from uspcap.stats.histogram import Histogram

RING_LENGTH: Final = 1 << 15
"""Numbers within which both lines must bring one for it to be compared; 24 bytes each, for each pair and key."""

MAXIMUM_RUNS: Final = 1 << 21
"""Bound on the runs of all pairs together, 104 bytes each with an end of a packet."""

RUNS_A_STREAM: Final = 1 << 17
"""Bound on the runs of a line, and of the first copies."""

MAXIMUM_PAIRS: Final = 512
"""Bound on the pairs and keys followed."""

SKEW_PERCENTILES: Final = (1, 10, 50, 90, 99)

DEFINITION = (
    "for each number on both lines, the timestamp on the first line minus that on the second, by one timestamp "
    "source; numbers count, so that a packet of ten messages weighs ten"
)


@dataclass(frozen=True, slots=True)
class _Worked:
    """A pair of lines under one key, worked out."""

    pair: LinePair
    key: str
    counted: dict[str, Any]
    skews: dict[TimestampSource, Skews]
    streams: tuple[np.void, np.void]
    lines: tuple[StreamAccount, StreamAccount]
    arbitrated: StreamAccount

    @property
    def labels(self) -> tuple[str, str]:
        return self.pair.lines[0].label, self.pair.lines[1].label


class Arbitration(Analysis):
    """The first copy of each number, of two lines that carry the same feed.

    Parameters
    ----------
    protocol : FeedProtocol
    pairs : sequence of LinePair
    ring_length : int
        Numbers within which both lines must bring one for it to be compared; a power of two. Where numbers begin again,
        a quarter of all at most.
    maximum_runs, runs_a_stream, maximum_pairs : int
        Bounds. Beyond the first and the last a sample of the pairs and keys is followed; of a line with more runs than
        the second the packets behind them are not. What that leaves out is counted, and `complete` says so.

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
        runs_a_stream: int = RUNS_A_STREAM,
        maximum_pairs: int = MAXIMUM_PAIRS,
    ) -> None:
        super().__init__()
        if protocol.rule is None:
            raise UsageError(f"arbitration compares lines of UDP, and {protocol.name} is carried by TCP: name a feed")
        self._protocol = protocol
        self._pairs = tuple(pairs)
        self._ring_length = min(ring_length, protocol.modulus // 4) if protocol.modulus else ring_length
        arbiter = Arbiter(
            _lines(self._pairs), protocol.modulus, self._ring_length, maximum_runs, runs_a_stream, maximum_pairs
        )
        self._datagrams = FragmentedStream(LineStretch(arbiter, protocol.rule))
        self._drops = CaptureDrops()

    def _update(self, batch: FrameBatch) -> None:
        self._drops.note(batch, self._shift(batch))
        self._datagrams.update(batch, self._shift(batch))

    def _merge(self, later: Arbitration) -> None:
        self._datagrams.absorb(later._datagrams, self.frames_read)
        self._drops.append(later._drops, self.frames_read)

    def _arbiter(self) -> Arbiter:
        """Return the state of the lines if nothing precedes it."""
        arbiter = self._datagrams.whole().last.state
        assert arbiter is not None
        return arbiter

    def _worked_out(self, whole: Arbiter | None = None) -> Iterator[_Worked]:
        """Work out every pair and key, in the order in which pairs were given, keys rising."""
        whole = whole or self._arbiter()
        tables = NumberedTables.of(*whole.arrays(), whole.most_runs)
        named = [whole.pair(at) for at in range(whole.count)]
        keys = [self._protocol.key_text(key) for _, key in named]
        for at in sorted(range(len(named)), key=lambda at: (named[at][0], keys[at])):
            one, other = (tables.account(3 * at + line, self._protocol, self._drops) for line in (0, 1))
            arbitrated = tables.account(3 * at + 2, self._protocol, self._drops, of_numbers=True)
            yield _Worked(
                self._pairs[named[at][0]],
                keys[at],
                whole.counts(at),
                _skews(whole, at),
                (tables.streams[3 * at], tables.streams[3 * at + 1]),
                (one, other),
                arbitrated,
            )

    def result(self) -> ArbitrationResult:
        whole = self._arbiter()
        worked_out = list(self._worked_out(whole))
        pairs = tuple(map(_reported, worked_out))
        followed = sum(int(line["packets"]) for one in worked_out for line in one.streams)
        beyond = sum(line.not_followed for one in worked_out for line in one.lines)
        not_followed = whole.packets - followed + beyond
        met = {one.pair.name for one in worked_out}
        return ArbitrationResult(
            protocol=self._protocol.name,
            numbers=self._protocol.numbers,
            definition=DEFINITION,
            compared_within=self._ring_length,
            given_pairs=tuple(
                {"name": pair.name, **{line.label: str(line) for line in pair.lines}} for pair in self._pairs
            ),
            without_packets=tuple(pair.name for pair in self._pairs if pair.name not in met),
            lost=sum(pair.arbitrated.lost for pair in pairs),
            undetermined=sum(pair.arbitrated.undetermined for pair in pairs),
            recovered=sum(pair.arbitrated.late for pair in pairs),
            excluded=whole.excluded,
            foreign=whole.foreign,
            not_followed=not_followed,
            complete=not not_followed and not any(one.arbitrated.not_followed for one in worked_out),
            sampled_one_in=1 << whole.level,
            capture_drops=self._drops.total,
            fragments=self._datagrams.whole().counts(),
            pairs=pairs,
        )

    def caveats(self) -> list[str]:
        return super().caveats() + fragment_caveats(self._datagrams.whole().counts())

    def histograms(self) -> dict[str, Histogram]:
        """Return by pair, key and timestamp source the lead of either line, and how long gaps of both were open."""
        found: dict[str, Histogram] = {}
        for one in self._worked_out():
            name = ".".join(part for part in (one.pair.name, one.key) if part)
            for source, skews in one.skews.items():
                for label, skew in zip(one.labels, skews.both, strict=True):
                    found[f"{name}.{source.name}.{label}_first_by"] = skew
            found[f"{name}.recovery"] = _recovery(one)
        return found

    def tables(self) -> dict[str, Table]:
        worked_out = list(self._worked_out())
        lines = [
            {"pair": pair.pair, "key": pair.key, "line": label, **line.as_dict()}
            for pair in map(_reported, worked_out)
            for label, line in pair.lines.items()
        ]
        gaps = [
            {"pair": one.pair.name, "key": one.key, **row.as_dict()}
            for one in worked_out
            for row in one.arbitrated.gap_rows(None)
        ]
        skews = [
            {"pair": one.pair.name, "key": one.key, "source": source.name, "first": label, **bucket}
            for one in worked_out
            for source, skews in one.skews.items()
            for label, skew in zip(one.labels, skews.both, strict=True)
            for bucket in _buckets(skew)
        ]
        return {
            name: {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}
            for name, rows in (("lines", lines), ("gaps", gaps), ("skews", skews))
        }


def _lines(pairs: Sequence[LinePair]) -> NDArray[np.void]:
    lines = np.zeros(2 * len(pairs), LINE_DTYPE)
    for at, pair in enumerate(pairs):
        for which, line in enumerate(pair.lines):
            lines[2 * at + which] = (np.frombuffer(line.address, np.uint8), line.port, which, at)
    return lines


def _skews(whole: Arbiter, at: int) -> dict[TimestampSource, Skews]:
    """Return who was first by how much, by timestamp source."""
    return {
        TimestampSource(source): Skews(
            _histogram(whole.skews(at, source, 0)), whole.ties(at, source), _histogram(whole.skews(at, source, 1))
        )
        for source in whole.sources(at)
    }


def _histogram(skews: tuple[NDArray[np.uint64], int, int, int] | None) -> Histogram:
    if skews is None:
        return Histogram()
    counts, sum_ns, lowest_ns, highest_ns = skews
    return Histogram(counts, sum_ns=sum_ns, lowest_ns=lowest_ns, highest_ns=highest_ns)


def _reported(one: _Worked) -> ArbitratedPair:
    """Return the report on a pair under one key."""
    counted = one.counted
    ties = sum(skews.ties for skews in one.skews.values())
    return ArbitratedPair(
        pair=one.pair.name,
        key=one.key,
        compared=sum(counted["first"]) + ties,
        ties=ties,
        other_clock=counted["other_clock"],
        too_late=counted["too_late"],
        too_many=counted["too_many"],
        lines={
            line.label: one.lines[at]
            .numbers()
            .extended(
                LineNumbers,
                destination=str(line),
                packets=int(one.streams[at]["packets"]),
                messages=one.lines[at].messages,
                heartbeats=int(one.streams[at]["heartbeats"]),
                brought_first=counted["first"][at],
                brought_alone=counted["alone"][at],
            )
            for at, line in enumerate(one.pair.lines)
        },
        arbitrated=one.arbitrated.numbers().extended(FirstCopies, messages=one.arbitrated.messages),
        skew={source.name: _skew(one.labels, skews) for source, skews in one.skews.items()},
        recovery=_recovery(one).summary(),
        gaps=one.arbitrated.gap_rows(),
    )


def _recovery(one: _Worked) -> Histogram:
    """Return how long gaps of the first copies were open until they were filled."""
    return Histogram.from_values(one.arbitrated.gaps.lateness_ns)


def _skew(labels: tuple[str, str], skews: Skews) -> LineSkew:
    return LineSkew(
        first_by={label: skew.summary() for label, skew in zip(labels, skews.both, strict=True)},
        ties=skews.ties,
        percentiles_ns={str(one): skews.value_at(one) for one in SKEW_PERCENTILES},
    )


def _buckets(histogram: Histogram) -> Iterator[dict[str, int]]:
    table = histogram.table()
    for row in zip(*table.values(), strict=True):
        yield dict(zip(table, row, strict=True))
