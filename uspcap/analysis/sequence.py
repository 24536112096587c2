"""Gaps in the sequence numbers of feeds: what was lost, late, double, and when a stream began anew.

Packets become runs as they come (`uspcap._native.feed_runs`); what is missing is worked out of the runs when a result
is asked for (`uspcap.analysis.sequence_gaps`), so that parts of a capture are merged by putting their runs one after
the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap._native.feed_runs import HEAD_PACKETS, RUN_DTYPE, STREAM_DTYPE, fill_table, track_runs
from uspcap.analysis.base import Analysis, Result, Table, grown
from uspcap.analysis.capture_drops import CaptureDrops
from uspcap.analysis.histogram import Histogram
from uspcap.analysis.stream_account import StreamAccount
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import FeedProtocol
from uspcap.protocols.flows import FlowTable

MAXIMUM_RUNS: Final = 1 << 21
"""Bound on what is kept of all streams together, 80 bytes each; see `Sequence.result`'s `complete`."""

MAXIMUM_STREAMS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class NumberedStream:
    """One stream, worked out.

    Attributes
    ----------
    number : int
        Its place among the streams.
    key, flow : str
    row : numpy.void
        What was counted: `packets`, `messages`, `heartbeats`, `excluded`.
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
    flows : FlowTable, optional
        Shared with other analyses of the same run.
    maximum_runs, maximum_streams : int
        Bounds; beyond them packets are counted in `not_followed`, and the result depends on where a capture was cut.
    chosen_by : str
        How the protocol was found, for the report.
    """

    name = "sequence"

    _runs_a_frame = 1

    def __init__(
        self,
        protocol: FeedProtocol,
        flows: FlowTable | None = None,
        *,
        maximum_runs: int = MAXIMUM_RUNS,
        maximum_streams: int = MAXIMUM_STREAMS,
        chosen_by: str = "given",
    ) -> None:
        super().__init__()
        self.protocol = protocol
        self.flows = flows if flows is not None else FlowTable()
        self._generation = self.flows.generation
        self._maximum_runs = maximum_runs
        self._maximum_streams = maximum_streams
        self._chosen_by = chosen_by
        self._runs = np.zeros(min(1 << 12, maximum_runs), RUN_DTYPE)
        self._runs_used = 0
        self._streams = np.zeros(min(64, maximum_streams), STREAM_DTYPE)
        self._streams_used = 0
        self._table = np.full(256, -1, np.int32)
        self._of_flow = np.full(64, -1, np.int32)
        self._counts = np.zeros(3, np.int64)
        self._not_followed = 0
        self._drops = CaptureDrops()

    def _update(self, batch: FrameBatch) -> None:
        self.flows.assign(batch)
        self._sync()
        self._drops.note(batch, self._shift(batch))
        row = byte = 0
        while row < batch.count:
            row, byte, self._streams_used, self._runs_used = self._track(batch, row, byte)
            if row < batch.count and not self._make_room():
                self._not_followed += batch.count - row
                break

    def _track(self, batch: FrameBatch, row: int, byte: int) -> tuple[int, int, int, int]:
        """Take the rows from one on, of that the payload from a byte on.

        Returns
        -------
        tuple of int
            The first row not taken, how much of its payload is taken, and how many streams and runs are used then.
        """
        assert self.protocol.rule is not None
        return track_runs(
            batch,
            batch.headers,
            self._shift(batch),
            row,
            byte,
            self.protocol.rule,
            self._streams.view(np.uint8),
            self._streams_used,
            self._table,
            self._of_flow,
            self._runs.view(np.uint8),
            self._runs_used,
            self._counts,
        )

    def _sync(self) -> None:
        """Follow the flow table, and have a place for each of its flows."""
        if self._generation != self.flows.generation:
            remap = self.flows.remap_since(self._generation, len(self._of_flow))
            streams = self._streams[: self._streams_used]
            self._keep_streams(remap[streams["flow"]].astype(np.int64))
            self._generation = self.flows.generation
        if len(self.flows) > len(self._of_flow):
            of_flow = np.full(max(len(self.flows), 2 * len(self._of_flow)), -1, np.int32)
            of_flow[: len(self._of_flow)] = self._of_flow
            self._of_flow = of_flow

    def _keep_streams(self, flows: NDArray[np.int64]) -> None:
        """Give streams new flows, and let go of those whose flow is -1, with their runs."""
        kept = flows >= 0
        numbers = np.cumsum(kept) - 1
        runs = self._runs[: self._runs_used]
        wanted = kept[runs["stream"]]
        places = np.cumsum(wanted) - 1
        left = runs[wanted]
        left["stream"] = numbers[left["stream"]]
        streams = self._streams[: self._streams_used][kept]
        streams["flow"] = flows[kept]
        open_runs = streams["run"] >= 0
        streams["run"][open_runs] = places[streams["run"][open_runs]]
        self._runs[: len(left)] = left
        self._runs_used = len(left)
        self._streams[: len(streams)] = streams
        self._streams_used = len(streams)
        self._fill_table()

    def _fill_table(self) -> None:
        size = len(self._table)
        while size < 4 * self._streams_used:
            size *= 2
        self._table = np.full(size, -1, np.int32)
        self._of_flow[:] = -1
        fill_table(self._streams.view(np.uint8), self._streams_used, self._table)

    def _make_room(self) -> bool:
        """Grow what is full; False where a bound forbids it."""
        if self._runs_used + self._runs_a_frame > len(self._runs):
            if len(self._runs) >= self._maximum_runs:
                return False
            self._runs = grown(self._runs, self._maximum_runs)
            return True
        if self._streams_used == len(self._streams):
            if len(self._streams) >= self._maximum_streams:
                return False
            self._streams = grown(self._streams, self._maximum_streams)
        self._fill_table()
        return True

    def _merge(self, later: Sequence) -> None:
        later._sync()
        ids = self.flows.absorb(later.flows)
        self._sync()
        theirs = later._streams[: later._streams_used]
        flows = ids[theirs["flow"]].astype(np.int64) if len(theirs) else np.zeros(0, np.int64)
        known = {
            (int(stream["flow"]), *stream["key"].tolist()): number
            for number, stream in enumerate(self._streams[: self._streams_used])
        }
        numbers = np.full(len(theirs), -1, np.int64)
        for at, (flow, stream) in enumerate(zip(flows.tolist(), theirs, strict=True)):
            if flow < 0:
                continue
            number = known.get((flow, *stream["key"].tolist()))
            if number is None:
                number = self._begin_stream(flow, stream)
                if number is None:
                    self._not_followed += int(stream["packets"])
                    continue
            numbers[at] = number
            self._join_stream(number, stream)
        runs = later._runs[: later._runs_used]
        wanted = numbers[runs["stream"]] >= 0
        self._append_runs(runs[wanted], numbers)
        self._fill_table()
        self._counts += later._counts
        self._not_followed += later._not_followed
        self._drops.append(later._drops, self.frames_read)

    def _begin_stream(self, flow: int, stream: np.void) -> int | None:
        if self._streams_used == len(self._streams):
            if len(self._streams) >= self._maximum_streams:
                return None
            self._streams = grown(self._streams, self._maximum_streams)
        number = self._streams_used
        self._streams[number] = np.zeros((), STREAM_DTYPE)
        self._streams[number]["flow"], self._streams[number]["key"] = flow, stream["key"]
        self._streams[number]["run"] = self._streams[number]["acknowledged"] = -1
        self._streams[number]["head"] = HEAD_PACKETS
        self._streams_used += 1
        return number

    def _join_stream(self, number: int, stream: np.void) -> None:
        mine = self._streams[number]
        for name in ("packets", "messages", "heartbeats", "excluded"):
            mine[name] += stream[name]
        if stream["acknowledged"] != -1:
            mine["acknowledged"] = stream["acknowledged"]
        if stream["run"] >= 0:
            mine["run"] = -1
            mine["high"], mine["low"] = max(mine["high"], stream["high"]), 0
            mine["clean"] = 0

    def _append_runs(self, runs: NDArray[np.void], numbers: NDArray[np.int64]) -> None:
        needed = self._runs_used + len(runs)
        while needed > len(self._runs) and len(self._runs) < self._maximum_runs:
            self._runs = grown(self._runs, self._maximum_runs)
        taken = runs[: len(self._runs) - self._runs_used].copy()
        self._not_followed += int(runs["packets"][len(taken) :].sum())
        taken["stream"] = numbers[taken["stream"]]
        taken["first_frame"] += self.frames_read
        taken["last_frame"] += self.frames_read
        self._runs[self._runs_used : self._runs_used + len(taken)] = taken
        self._runs_used += len(taken)

    def _worked_out(self) -> Iterator[NumberedStream]:
        """Work out every stream, in the order of its flow and key."""
        self._sync()
        streams = self._streams[: self._streams_used]
        runs = self._runs[: self._runs_used]
        flows = [str(flow) for flow in self.flows.flows(streams["flow"])]
        keys = [self.protocol.key_text(stream["key"].tobytes()) for stream in streams]
        return self._work_out(streams, runs, flows, keys)

    def _work_out(
        self, streams: NDArray[np.void], runs: NDArray[np.void], flows: list[str], keys: list[str]
    ) -> Iterator[NumberedStream]:
        """Work out the runs of streams whose flows and keys are these."""
        order = np.argsort(runs["stream"], kind="stable")
        bounds = np.searchsorted(runs["stream"][order], np.arange(len(streams) + 1))
        for at in sorted(range(len(streams)), key=lambda at: (flows[at], keys[at])):
            mine = runs[order[bounds[at] : bounds[at + 1]]]
            account = StreamAccount.of_runs(mine, self.protocol, self._drops)
            yield NumberedStream(at, keys[at], flows[at], streams[at], account)

    def result(self) -> Result:
        worked_out = list(self._worked_out())
        streams = [self._stream(one) | {"gaps": one.account.gap_rows()} for one in worked_out]
        totals = ("lost", "late", "duplicate", "overlap", "resets", "undetermined")
        return {
            "protocol": self.protocol.name,
            "chosen_by": self._chosen_by,
            "numbers": self.protocol.numbers,
            "verified": self.protocol.verified,
            "unverified_rules": list(self.protocol.applied),
            **{name: sum(stream[name] for stream in streams) for name in totals},
            "packets": sum(stream["packets"] for stream in streams),
            "messages": sum(stream["messages"] for stream in streams),
            "excluded": sum(stream["excluded"] for stream in streams),
            "foreign": int(self._counts[0]),
            "of_untracked_flows": int(self._counts[1]),
            "not_followed": self._not_followed,
            "complete": not self._not_followed and not self._counts[1],
            "sampled_one_in": 1 << self.flows.level,
            "capture_drops": self._drops.total,
            "lateness": _lateness(worked_out).result(),
            "streams": streams,
        }

    def _stream(self, one: NumberedStream) -> dict[str, Any]:
        return {
            "protocol": self.protocol.name,
            "flow": one.flow,
            "key": one.key,
            **{name: int(one.row[name]) for name in ("packets", "messages", "heartbeats", "excluded")},
            **one.account.counts(),
        }

    def histograms(self) -> dict[str, Histogram]:
        return {"lateness": _lateness(self._worked_out())}

    def tables(self) -> dict[str, Table]:
        worked_out = list(self._worked_out())
        streams = [self._stream(one) for one in worked_out]
        gaps = [{"flow": one.flow, "key": one.key} | row for one in worked_out for row in one.account.gap_rows(None)]
        return {
            "streams": {name: [stream[name] for stream in streams] for name in (streams[0] if streams else ())},
            "gaps": {name: [gap[name] for gap in gaps] for name in (gaps[0] if gaps else ())},
        }


def _lateness(streams: Iterable[NumberedStream]) -> Histogram:
    return Histogram.from_values([late_ns for one in streams for late_ns in one.account.gaps.lateness_ns])
