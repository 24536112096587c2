"""Gaps in the sequence numbers of feeds: lost, late and duplicate messages, and resets.

Packets become runs as they come (`uspcap.analysis.sequence.numbered_runs`); what is missing is worked out of the runs
when a result is asked for (`uspcap.analysis.sequence.gaps`), so that parts of a capture are merged by putting their
runs one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.ip_fragments import FragmentedStream, IpFragments, fragment_caveats
from uspcap.analysis.sequence.account import NumberedTables, StreamAccount
from uspcap.analysis.sequence.capture_drops import CaptureDrops
from uspcap.analysis.sequence.datagrams import FeedStretch
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.analysis.sequence.result import FollowedStream, MissingNumbers, RefusedStream, SequenceResult, StreamCounts
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import FeedProtocol
from uspcap.protocols.flows import flow_of
from uspcap.records import table
from uspcap.stats.histogram import Histogram

MAXIMUM_RUNS: Final = 1 << 21
"""Bound on the runs of all streams together, 104 bytes each with an end of a packet."""

RUNS_A_STREAM: Final = 1 << 18
"""Bound on the runs of one stream; see `Sequence.result`'s `not_followed`."""

MAXIMUM_STREAMS: Final = 1 << 16

TOTALS: Final = (
    "lost", "late", "duplicate", "overlap", "resets", "undetermined",
    "implausible", "unconfirmed", "packets", "messages", "excluded", "not_followed", "coalesced",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NumberedStream:
    """One stream, worked out.

    Attributes
    ----------
    number : int
        Its place among the streams.
    key, flow : str
    row : numpy.void
        What was counted: `packets`, `heartbeats`, `excluded`.
    account : StreamAccount
    """

    number: int
    key: str
    flow: str
    row: np.void
    account: StreamAccount


class Sequence(Analysis):
    """Sequence numbers of one protocol, stream by stream.

    Parameters
    ----------
    protocol : FeedProtocol
    maximum_runs, runs_a_stream, maximum_streams : int
        Bounds. Beyond the first and the last a sample of the streams is followed, and packets of the others are counted
        in `of_untracked_flows`; of a stream with more runs than the second the packets behind them are `not_followed`.
    chosen_by : str
        How the protocol was found, for the report.
    """

    name = "sequence"

    def __init__(
        self,
        protocol: FeedProtocol,
        *,
        maximum_runs: int = MAXIMUM_RUNS,
        runs_a_stream: int = RUNS_A_STREAM,
        maximum_streams: int = MAXIMUM_STREAMS,
        chosen_by: str = "given",
    ) -> None:
        super().__init__()
        self.protocol = protocol
        self._chosen_by = chosen_by
        streams = NumberedStreams(protocol.modulus, maximum_runs, runs_a_stream, maximum_streams)
        self._datagrams = None if protocol.rule is None else FragmentedStream(FeedStretch(streams, protocol.rule))
        self._tcp_streams = streams
        self._drops = CaptureDrops()

    def _update(self, batch: FrameBatch) -> None:
        self._drops.note(batch, self._shift(batch))
        self._track(batch)

    @property
    def _streams(self) -> NumberedStreams:
        """The streams as they stand if nothing came before."""
        return self._tcp_streams if self._datagrams is None else self._datagrams.whole().last.streams

    def _track(self, batch: FrameBatch) -> None:
        assert self._datagrams is not None
        self._datagrams.update(batch, self._shift(batch))

    def _merge(self, later: Sequence) -> None:
        if self._datagrams is None or later._datagrams is None:
            self._tcp_streams.absorb(later._tcp_streams, self.frames_read)
        else:
            self._datagrams.absorb(later._datagrams, self.frames_read)
        self._drops.append(later._drops, self.frames_read)

    def _worked_out(self) -> Iterator[NumberedStream]:
        """Work out every stream, in the order of its flow and key."""
        names, streams, runs, ends = self._streams.arrays()
        flows = [str(flow_of(flow)) for flow in names["flow"]]
        keys = [self.protocol.key_text(key.tobytes()) for key in names["key"]]
        return self._work_out(NumberedTables.of(streams, runs, ends, self._streams.most_runs), flows, keys)

    def _work_out(
        self, tables: NumberedTables, flows: list[str], keys: list[str], rows: NDArray[np.void] | None = None
    ) -> Iterator[NumberedStream]:
        """Work out streams whose flows and keys are these; `rows` are what is reported of them, if others."""
        rows = tables.streams if rows is None else rows
        for at in sorted(range(len(flows)), key=lambda at: (flows[at], keys[at])):
            account = tables.account(at, self.protocol, self._drops)
            yield NumberedStream(at, keys[at], flows[at], rows[at], account)

    def result(self) -> SequenceResult:
        lateness_ns: list[int] = []
        streams: list[FollowedStream] = []
        refused: list[RefusedStream] = []
        for one in self._worked_out():
            evidence = self._refusal(one)
            if evidence is not None:
                refused.append(self._stream(one).extended(RefusedStream, evidence=evidence))
                continue
            gaps, jumps = one.account.gap_rows(), one.account.unconfirmed_rows()
            streams.append(self._stream(one).extended(FollowedStream, gaps=gaps, unconfirmed_jumps=jumps))
            lateness_ns += one.account.gaps.lateness_ns
        totals = {name: sum(stream[name] for stream in streams) for name in TOTALS}
        totals["not_followed"] += self._not_followed_elsewhere()
        untracked = self._untracked(sum(stream.packets for stream in (*streams, *refused)))
        sampled_one_in = self._sampled_one_in()
        found: dict[str, Any] = {
            **totals,
            "protocol": self.protocol.name,
            "chosen_by": self._chosen_by,
            "numbers": self.protocol.numbers,
            "verified": self.protocol.verified,
            "unverified_rules": tuple(self.protocol.applied),
            "foreign": self._foreign(),
            "of_untracked_flows": untracked,
            "complete": not totals["not_followed"] and not untracked and sampled_one_in == 1,
            "sampled_one_in": sampled_one_in,
            "capture_drops": self._drops.total,
            "fragments": self._fragments(),
            "lateness": Histogram.from_values(lateness_ns).summary(),
            "streams": tuple(streams),
            "refused": tuple(refused),
        }
        return SequenceResult(**found)

    def _fragments(self) -> IpFragments | None:
        """Return the reassembly counts of IP fragments; None for protocols over TCP."""
        return None if self._datagrams is None else self._datagrams.whole().counts()

    def caveats(self) -> list[str]:
        fragments = self._fragments()
        return super().caveats() + ([] if fragments is None else fragment_caveats(fragments))

    def _refusal(self, one: NumberedStream) -> str | None:
        """Return why a stream is not of the protocol, None where it is; TCP's are known by more than numbers."""
        return one.account.refusal() if self.protocol.over == "udp" else None

    def _accepted(self) -> Iterator[NumberedStream]:
        return (one for one in self._worked_out() if self._refusal(one) is None)

    def _foreign(self) -> int:
        return self._streams.foreign

    def _untracked(self, tracked: int) -> int:
        """Return how many packets are of streams that are not followed, given how many are of others."""
        return self._streams.packets - tracked

    def _not_followed_elsewhere(self) -> int:
        """Return how many packets are not followed that no stream counts."""
        return 0

    def _sampled_one_in(self) -> int:
        return 1 << self._streams.level

    def _stream(self, one: NumberedStream) -> StreamCounts:
        return one.account.numbers().extended(
            StreamCounts,
            protocol=self.protocol.name,
            flow=one.flow,
            key=one.key,
            packets=int(one.row["packets"]),
            messages=one.account.messages,
            heartbeats=int(one.row["heartbeats"]),
            excluded=int(one.row["excluded"]),
        )

    def histograms(self) -> dict[str, Histogram]:
        lateness_ns = [late_ns for one in self._accepted() for late_ns in one.account.gaps.lateness_ns]
        return {"lateness": Histogram.from_values(lateness_ns)}

    def tables(self) -> dict[str, Table]:
        worked_out = list(self._accepted())
        streams = [self._stream(one) for one in worked_out]
        gaps = [(one, row) for one in worked_out for row in one.account.gap_rows(None)]
        of_gaps: Table = {
            "flow": [one.flow for one, _ in gaps],
            "key": [one.key for one, _ in gaps],
            **table(MissingNumbers, (row for _, row in gaps)),
        }
        return {
            "streams": table(StreamCounts, streams, [name for name, _ in streams[0].items()]) if streams else {},
            "gaps": of_gaps if gaps else {},
        }
