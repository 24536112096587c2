"""Sequence numbers that TCP carries: its own, and those of the messages in its streams.

What is missing of them is worked out as that of feeds is (`sequence.analysis`); what differs is where runs come
from. TCP's own numbers are in every segment, each direction a flow. Messages have to be put together from segments
first, and so a part of a capture keeps those of connections whose beginning it has not seen, as `orders` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.sequence.account import NumberedTables
from uspcap.analysis.sequence.analysis import MAXIMUM_RUNS, MAXIMUM_STREAMS, RUNS_A_STREAM, NumberedStream, Sequence
from uspcap.analysis.sequence.gaps import StreamGaps
from uspcap.analysis.sequence.result import SequenceResult, StreamCounts
from uspcap.analysis.sequence.segment_runs import track_segments
from uspcap.analysis.sequence.stream_runs import NumberMachine
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.feeds import FAR_BYTES, FeedProtocol
from uspcap.protocols.flows import Flow, at_tap, flow_of
from uspcap.protocols.headers import address_text

MAXIMUM_CONNECTIONS: Final = 1 << 16
MAXIMUM_LOG_BYTES: Final = 1 << 26
"""Bytes of connections whose beginning a part of the capture has not seen, kept to be read after the part before."""


def sequence_of(
    protocol: FeedProtocol, *, maximum_streams: int = MAXIMUM_STREAMS, chosen_by: str = "given"
) -> Sequence:
    """Return the analysis that follows the numbers of a protocol.

    Parameters
    ----------
    protocol : FeedProtocol
    maximum_streams : int
        Beyond them a sample is followed.
    chosen_by : str
        How the protocol was found, for the report.
    """
    kind = {"udp": Sequence, "tcp": SegmentSequence}.get(protocol.framing, MessageSequence)
    return kind(protocol, maximum_streams=min(maximum_streams, MAXIMUM_STREAMS), chosen_by=chosen_by)


class SegmentSequence(Sequence):
    """TCP's own sequence numbers, one a byte; a stream is one direction of a connection.

    What is missing although the receiver has acknowledged it the capture has lost: it is undetermined.
    """

    def _track(self, batch: FrameBatch) -> None:
        track_segments(batch, batch.headers, self._shift(batch), self._streams)

    @staticmethod
    def _acknowledged(flows: list[Flow], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the last acknowledgment of each stream's other end; below 0 where it is unknown.

        Parameters
        ----------
        flows : list of Flow
            One a stream.
        numbers : ndarray of int64
            What the sender of each has acknowledged.
        """
        # Timestamps of two sources make two flows of one direction: then what came last is not known.
        ends: dict[Flow, int] = {}
        for at, flow in enumerate(flows):
            one = replace(flow, timestamp_source=TimestampSource.NONE)
            ends[one] = at if one not in ends else -1
        of_reverse = np.full(len(flows), -1, np.int64)
        for flow, at in ends.items():
            back = replace(
                flow,
                source=flow.destination,
                destination=flow.source,
                source_port=flow.destination_port,
                destination_port=flow.source_port,
            )
            other = ends.get(back, -1)
            if at >= 0 and other >= 0:
                of_reverse[at] = numbers[other]
        return of_reverse

    def _worked_out(self) -> Iterator[NumberedStream]:
        names, streams, _, _ = self._streams.arrays()
        acknowledged = self._acknowledged([flow_of(flow) for flow in names["flow"]], streams["acknowledged"])
        for one in super()._worked_out():
            through = int(acknowledged[one.number])
            if through >= 0:
                lost_here = _acknowledged_gaps(one.account.gaps, through)
                account = replace(one.account, undetermined=one.account.undetermined | lost_here)
                one = replace(one, account=account)
            yield one


def _acknowledged_gaps(gaps: StreamGaps, through: int) -> frozenset[int]:
    """Return which gaps of the last epoch lie below an acknowledgement."""
    through = gaps.nearest(through)
    if abs(gaps.mark - through) > FAR_BYTES:
        return frozenset()
    return frozenset(at for at in range(gaps.gaps_before, len(gaps.gaps)) if gaps.gaps[at].last < through)


class MessageSequence(Sequence):
    """Numbers of messages in TCP streams; a stream is one direction of a connection and the name of the session.

    Parameters
    ----------
    protocol : FeedProtocol
    maximum_runs, runs_a_stream, maximum_streams, maximum_connections : int
        Bounds. Beyond any but the second a sample of the connections is followed; of a stream with more runs than the
        second the messages behind them are not.
    maximum_log_bytes : int
        Kept of connections whose beginning was not seen, until what came before is known.
    chosen_by : str
        How the protocol was found, for the report.
    """

    def __init__(
        self,
        protocol: FeedProtocol,
        *,
        maximum_runs: int = MAXIMUM_RUNS,
        runs_a_stream: int = RUNS_A_STREAM,
        maximum_streams: int = MAXIMUM_STREAMS,
        maximum_connections: int = MAXIMUM_CONNECTIONS,
        maximum_log_bytes: int = MAXIMUM_LOG_BYTES,
        chosen_by: str = "given",
    ) -> None:
        super().__init__(protocol, chosen_by=chosen_by)
        self._bounds = (maximum_connections, maximum_streams, maximum_runs, runs_a_stream, maximum_log_bytes)
        self._machine = self._new_machine()
        self._final: NumberMachine | None = None

    def _new_machine(self, *, at_once: bool = False) -> NumberMachine:
        return NumberMachine(self.protocol.framing == "fix", *self._bounds, at_once=at_once)

    def _update(self, batch: FrameBatch) -> None:
        self._final = None
        self._drops.note(batch, self._shift(batch))
        self._machine.update(batch, batch.headers, self._shift(batch))

    def _merge(self, later: Sequence) -> None:
        assert isinstance(later, MessageSequence)
        self._final = None
        self._drops.append(later._drops, self.frames_read)
        self._machine.absorb(later._machine, self.frames_read)

    def _finished(self) -> NumberMachine:
        """Return the result if nothing precedes or follows; the state stays unchanged."""
        if self._final is None:
            machine = self._new_machine(at_once=True)
            machine.absorb(self._machine, 0)
            machine.finish()
            self._final = machine
        return self._final

    def _worked_out(self) -> Iterator[NumberedStream]:
        machine = self._finished()
        sessions, streams, runs, ends = machine.arrays()
        connections = machine.end_array()
        flows = [_path(connections[row["connection"]], back=bool(row["direction"])) for row in sessions]
        keys = [_name(row["name"]) for row in sessions]
        return self._work_out(NumberedTables.of(streams, runs, ends, machine.most_runs), flows, keys, sessions)

    def _foreign(self) -> int:
        return self._finished().counted()[0]

    def _untracked(self, tracked: int) -> int:
        return 0

    def _not_followed_elsewhere(self) -> int:
        return self._finished().counted()[1]

    def _sampled_one_in(self) -> int:
        return 1 << self._finished().level

    def result(self) -> SequenceResult:
        machine = self._finished()
        breaks, cut, dropped = machine.connection_breaks(), machine.cut_connections, machine.dropped_log_bytes
        found = super().result()
        return replace(
            found,
            complete=found.complete and not cut and not dropped,
            holes=int(breaks["holes"].sum()),
            missing_bytes=int(breaks["missing_bytes"].sum()),
            cut_connections=cut,
            dropped_log_bytes=dropped,
        )

    def _stream(self, one: NumberedStream) -> StreamCounts:
        row = one.row
        return replace(super()._stream(one), holes=int(row["holes"]), missing_bytes=int(row["missing_bytes"]))


def _path(ends: np.void, *, back: bool) -> str:
    """Return a direction of a connection as flows are written, from its sender."""
    version = int(ends["ip_version"])
    form = "[{}]:{}" if version == 6 else "{}:{}"
    low, high = (form.format(address_text(bytes(ends[end]), version), ends[f"{end}_port"]) for end in ("low", "high"))
    return (f"TCP {high} > {low}" if back else f"TCP {low} > {high}") + at_tap(int(ends["tap"]))


def _name(name: bytes) -> str:
    """Return the name of a session: one word, or sender and target."""
    return " > ".join(part.decode("ascii", "backslashreplace") for part in name.split(b"\0") if part)
