"""Sequence numbers that TCP carries: its own, and those of the messages in its streams.

What is missing of them is worked out as that of feeds is (`uspcap.analysis.sequence`); what differs is where runs come
from. TCP's own numbers are in every segment, each direction a flow. Messages have to be put together from segments
first, and so a part of a capture keeps those of connections whose beginning it has not seen, as `orders` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap._native.segment_runs import FAR_BYTES, MODULUS, RUNS_OF_A_SEGMENT, track_segments
from uspcap._native.stream_runs import NumberMachine
from uspcap.analysis.base import Result
from uspcap.analysis.sequence import MAXIMUM_RUNS, MAXIMUM_STREAMS, NumberedStream, Sequence
from uspcap.analysis.sequence_gaps import StreamGaps
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.feeds import FeedProtocol
from uspcap.protocols.flows import Flow, FlowTable
from uspcap.protocols.headers import address_text

MAXIMUM_CONNECTIONS: Final = 1 << 16
MAXIMUM_LOG_BYTES: Final = 1 << 26
"""Bytes of connections whose beginning a part of the capture has not seen, kept to be read after the part before."""


def sequence_of(protocol: FeedProtocol, flows: FlowTable | None = None, *, chosen_by: str = "given") -> Sequence:
    """Return the analysis that follows the numbers of a protocol.

    Parameters
    ----------
    protocol : FeedProtocol
    flows : FlowTable, optional
        Shared with other analyses of the same run.
    chosen_by : str
        How the protocol was found, for the report.
    """
    kind = {"udp": Sequence, "tcp": SegmentSequence}.get(protocol.framing, MessageSequence)
    return kind(protocol, flows, chosen_by=chosen_by)


class SegmentSequence(Sequence):
    """TCP's own sequence numbers, one a byte; a stream is one direction of a connection.

    What is missing although the receiver has acknowledged it the capture has lost: it is undetermined.
    """

    _runs_a_frame = RUNS_OF_A_SEGMENT

    def _track(self, batch: FrameBatch, row: int, byte: int) -> tuple[int, int, int, int]:
        row, streams_used, runs_used = track_segments(
            batch,
            batch.headers,
            self._shift(batch),
            row,
            self._streams.view(np.uint8),
            self._streams_used,
            self._table,
            self._of_flow,
            self._runs.view(np.uint8),
            self._runs_used,
            self._counts,
        )
        return row, byte, streams_used, runs_used

    def _acknowledged(self, flows: list[Flow]) -> NDArray[np.int64]:
        """Return what the other end of each stream has acknowledged last; below 0 where that is not known."""
        numbers = self._streams["acknowledged"][: self._streams_used].copy()
        # Stamps of two sources make two flows of one direction: then what came last is not known.
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
        self._sync()
        acknowledged = self._acknowledged(self.flows.flows(self._streams["flow"][: self._streams_used]))
        for one in super()._worked_out():
            through = int(acknowledged[one.number])
            if through >= 0:
                lost_here = _acknowledged_gaps(one.account.gaps, through)
                account = replace(one.account, undetermined=one.account.undetermined | lost_here)
                one = replace(one, account=account)
            yield one


def _acknowledged_gaps(gaps: StreamGaps, through: int) -> frozenset[int]:
    """Return which gaps of the last epoch lie below an acknowledgement."""
    through += round((gaps.mark - through) / MODULUS) * MODULUS
    if abs(gaps.mark - through) > FAR_BYTES:
        return frozenset()
    return frozenset(at for at in range(gaps.gaps_before, len(gaps.gaps)) if gaps.gaps[at].last < through)


class MessageSequence(Sequence):
    """Numbers of messages in TCP streams; a stream is one direction of a connection and what names the session.

    Parameters
    ----------
    protocol : FeedProtocol
    flows : FlowTable, optional
        Not asked: connections are followed whoever stamped their frames.
    maximum_runs, maximum_streams, maximum_connections : int
        Bounds; beyond the first two messages are counted in `not_followed`, beyond the third a sample is followed.
    maximum_log_bytes : int
        Kept of connections whose beginning was not seen, until what came before is known.
    chosen_by : str
        How the protocol was found, for the report.
    """

    def __init__(
        self,
        protocol: FeedProtocol,
        flows: FlowTable | None = None,
        *,
        maximum_runs: int = MAXIMUM_RUNS,
        maximum_streams: int = MAXIMUM_STREAMS,
        maximum_connections: int = MAXIMUM_CONNECTIONS,
        maximum_log_bytes: int = MAXIMUM_LOG_BYTES,
        chosen_by: str = "given",
    ) -> None:
        super().__init__(protocol, flows, chosen_by=chosen_by)
        self._bounds = (maximum_connections, maximum_streams, maximum_runs, maximum_log_bytes)
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
        """Return what there is if nothing comes before or after; the state stays as it is."""
        if self._final is None:
            machine = self._new_machine(at_once=True)
            machine.absorb(self._machine, 0)
            machine.finish()
            self._final = machine
            self._counts[0], self._counts[2] = machine.malformed, machine.without_stamp
            self._not_followed = machine.not_followed
        return self._final

    def _worked_out(self) -> Iterator[NumberedStream]:
        machine = self._finished()
        streams, ends = machine.stream_array(), machine.end_array()
        flows = [_path(ends[row["connection"]], back=bool(row["direction"])) for row in streams]
        keys = [_name(row["name"]) for row in streams]
        return self._work_out(streams, machine.run_array(), flows, keys)

    def result(self) -> Result:
        machine = self._finished()
        breaks, cut, dropped = machine.connection_breaks(), machine.cut_connections, machine.dropped_log_bytes
        found = super().result()
        return found | {
            "complete": found["complete"] and not cut and not dropped,
            "sampled_one_in": 1 << machine.level,
            "holes": int(breaks["holes"].sum()),
            "missing_bytes": int(breaks["missing_bytes"].sum()),
            "cut_connections": cut,
            "dropped_log_bytes": dropped,
        }

    def _stream(self, one: NumberedStream) -> dict[str, Any]:
        return super()._stream(one) | {name: int(one.row[name]) for name in ("holes", "missing_bytes")}


def _path(ends: np.void, *, back: bool) -> str:
    """Return a direction of a connection as flows are written, from its sender."""
    version = int(ends["ip_version"])
    form = "[{}]:{}" if version == 6 else "{}:{}"
    low, high = (form.format(address_text(bytes(ends[end]), version), ends[f"{end}_port"]) for end in ("low", "high"))
    return f"TCP {high} > {low}" if back else f"TCP {low} > {high}"


def _name(name: bytes) -> str:
    """Return what names a session: one word, or sender and target."""
    return " > ".join(part.decode("ascii", "backslashreplace") for part in name.split(b"\0") if part)
