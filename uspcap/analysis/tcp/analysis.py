"""TCP connections: round trips on both sides of the capture point, and losses, retransmissions and resets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.tcp.result import (
    KINDS,
    ROLES,
    SIDES,
    BothSides,
    Connection,
    ConnectionRoundTrips,
    Connections,
    Directions,
    Handshakes,
    RoundTrips,
    SegmentCounts,
    SourceRoundTrips,
    TcpResult,
)
from uspcap.analysis.tcp.tcp_state import COUNTS
from uspcap.analysis.tcp.tcp_tracks import MEASURE_COUNT, TcpTracks
from uspcap.analysis.two_clocks import two_clocks_caveats
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flows import at_tap
from uspcap.protocols.headers import address_text
from uspcap.stats.buckets import Cells
from uspcap.stats.histogram import Histogram, percentile_of_each

MAXIMUM_CONNECTIONS = 1 << 16
"""Connections followed one by one; beyond it, a sample."""

MAXIMUM_LINES = 1 << 20
"""Lines of 32 histogram buckets of all connections together; beyond it, a smaller sample."""

MAXIMUM_LOGGED = 1 << 20
LOGGED_A_CONNECTION = 4096
"""Segments, in all and of each connection, that a part of a capture keeps to be read after what came before it."""

CONNECTIONS_SHOWN = 10

DEFINITIONS: Final = {
    "sides": (
        "initiator_side: from the capture point to the end that opened the connection, and back; responder_side: to "
        "the other end, and back. Where no SYN was captured the end with the lower port is taken for the responder"
    ),
    "handshake": (
        "responder_side: SYN to SYN-ACK; initiator_side: SYN-ACK to the initiator's next segment, which acknowledges "
        "nothing more; whole: SYN to that segment. None where the SYN or SYN-ACK that it begins with was retransmitted"
    ),
    "data_ack": (
        "from the frame that carried the last byte acknowledged to the acknowledgment; the delay of the acknowledging "
        "host is included. None while bytes that were retransmitted, out of order or missing are not yet "
        "acknowledged (Karn's rule, RFC 6298)"
    ),
    "timestamps": (
        "from the first frame that brought data under a TSval to the first acknowledgment of new data that echoes it "
        "(RFC 7323); it distinguishes retransmissions from originals"
    ),
    "retransmissions": (
        "segments with a byte that was captured before, and repeated SYNs; out_of_order: segments that precede ones "
        "captured earlier, and whose bytes were not captured before: overtaken on the path, or retransmitted after a "
        "loss before the capture point"
    ),
}


class Tcp(Analysis):
    """Round trips of TCP connections, and what else segments tell.

    Parameters
    ----------
    maximum_connections, maximum_lines : int
        Bounds on connections followed and on lines of histogram buckets; beyond either, a sample chosen by hash.
    maximum_logged, logged_a_connection : int
        Segments kept at the beginning of a part of a capture, in all and of each connection.
    shown : int
        Connections in the result.
    """

    name = "tcp"

    def __init__(
        self,
        *,
        maximum_connections: int = MAXIMUM_CONNECTIONS,
        maximum_lines: int = MAXIMUM_LINES,
        maximum_logged: int = MAXIMUM_LOGGED,
        logged_a_connection: int = LOGGED_A_CONNECTION,
        shown: int = CONNECTIONS_SHOWN,
    ) -> None:
        super().__init__()
        self._bounds = (maximum_connections, maximum_lines, maximum_logged, logged_a_connection)
        self._shown = shown
        self._tracks = TcpTracks(*self._bounds)
        self._final: _Final | None = None

    def _update(self, batch: FrameBatch) -> None:
        self._final = None
        self._tracks.update(batch, batch.headers, self._shift(batch))

    def _merge(self, later: Tcp) -> None:
        self._final = None
        self._tracks.absorb(later._tracks, self.frames_read)

    def _finished(self) -> _Final:
        """Return what there is if nothing comes before; the state stays as it is."""
        if self._final is None:
            tracks = TcpTracks(*self._bounds, at_once=True)
            tracks.absorb(self._tracks, 0)
            self._final = _Final(tracks)
        return self._final

    def result(self) -> TcpResult:
        final = self._finished()
        tracks = final.tracks
        order = np.lexsort((np.arange(len(final.connections)), -final.segments))[: self._shown]
        return TcpResult(
            definitions=dict(DEFINITIONS),
            segments=tracks.segments,
            segments_followed=int(final.segments.sum()),
            undecoded=tracks.undecoded,
            fragments=tracks.fragments,
            connections=Connections(
                followed=len(final.connections),
                estimated=len(final.connections) << tracks.level,
                sampled_one_in=1 << tracks.level,
                roles_by_ports=int(final.by_ports.sum()),
            ),
            counts=Directions(
                from_initiator=_named(final.counts[:, 0].sum(axis=0)),
                from_responder=_named(final.counts[:, 1].sum(axis=0)),
                total=_named(final.counts.sum(axis=(0, 1))),
            ),
            sources={source: _round_trips(kinds) for source, kinds in final.sources.items()},
            listed=tuple(final.connection(row) for row in order.tolist()),
            unsettled_connections=tracks.unsettled,
        )

    def caveats(self) -> list[str]:
        counts = self._finished().counts.sum(axis=(0, 1))
        return super().caveats() + two_clocks_caveats(
            int(counts[COUNTS.index("after_acknowledgment")]),
            int(counts[COUNTS.index("segments")]),
            "round-trip times of both sides are wrong by as much",
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return the histograms by timestamp source, kind and side."""
        return {
            f"{source}.{kind}.{side}": one.histogram
            for source, kinds in self._finished().sources.items()
            for kind, sides in kinds.items()
            for side, one in sides.items()
            if one.count
        }

    def tables(self) -> dict[str, Table]:
        final = self._finished()
        return {"connections": final.connection_table(), "round_trips": final.round_trip_table()}


def _named(counts: NDArray[np.int64]) -> SegmentCounts:
    return SegmentCounts(**dict(zip(COUNTS, counts.tolist(), strict=True)))


def _round_trips(kinds: Mapping[str, Mapping[str, _Group]]) -> SourceRoundTrips:
    sides = {kind: {side: one.result() for side, one in groups.items()} for kind, groups in kinds.items()}
    return SourceRoundTrips(
        data_ack=BothSides(**sides["data_ack"]),
        timestamps=BothSides(**sides["timestamps"]),
        handshake=Handshakes(**sides["handshake"]),
    )


def _sums(tracks: NDArray[Any]) -> list[int]:
    """Return the sums, which take two words each."""
    pairs = zip(tracks["sum_high"].tolist(), tracks["sum_low"].tolist(), strict=True)
    return [high << 64 | low for high, low in pairs]


class _Group:
    """All times of one kind on one side, by one timestamp source.

    Parameters
    ----------
    tracks : ndarray of TRACK_DTYPE
        Of each connection that has such times.
    cells : tuple of ndarray
        The buckets that are not empty, rising, and their counts.
    """

    def __init__(self, tracks: NDArray[Any], cells: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
        self.histogram = Histogram.from_buckets(*cells)
        self.count = int(tracks["count"].sum())
        self.max_frame: int | None = None
        if self.count:
            self.histogram.sum_ns = sum(_sums(tracks))
            self.histogram.lowest_ns = int(tracks["lowest_ns"].min())
            self.histogram.highest_ns = int(tracks["highest_ns"].max())
            highest = tracks["highest_frame"][tracks["highest_ns"] == self.histogram.highest_ns]
            self.max_frame = int(highest.min())

    def result(self) -> RoundTrips:
        return self.histogram.summary().extended(RoundTrips, max_frame=self.max_frame)


class _Final:
    """What tracks hold at the end, connections in the order of the capture, their ends by role."""

    def __init__(self, tracks: TcpTracks) -> None:
        self.tracks = tracks
        connections = tracks.connection_array()
        order = np.argsort(connections["first_frame"], kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self.connections = connections[order]
        self.by_ports: NDArray[np.bool_] = self.connections["initiator"] == 2
        guessed = (self.connections["low_port"] < self.connections["high_port"]).astype(np.int64)
        self.initiators = np.where(self.by_ports, guessed, self.connections["initiator"]).astype(np.int64)
        # By role of the sender instead of by end.
        ways = np.stack([self.initiators, 1 - self.initiators], axis=1)
        self.counts: NDArray[np.int64] = np.take_along_axis(self.connections["counts"], ways[:, :, None], axis=1)
        self.segments: NDArray[np.int64] = self.counts[:, :, COUNTS.index("segments")].sum(axis=1)
        blocks = tracks.block_array()
        blocks["connection"] = place[blocks["connection"]]
        self.blocks = blocks
        self._medians = self._percentiles("50")
        self.sources = self._groups()

    def _percentiles(self, percentile: str) -> NDArray[np.int64]:
        """Return a percentile of each block's measures: int64 of shape (blocks, MEASURE_COUNT), -1 where not enough."""
        cells = self.tracks.cells.by_flow()
        values = np.full(len(self.blocks) * MEASURE_COUNT, -1, np.int64)
        values[cells.flows] = percentile_of_each(cells, percentile)
        bounded: NDArray[np.int64] = np.minimum(values.reshape(-1, MEASURE_COUNT), self.blocks["tracks"]["highest_ns"])
        return bounded

    def _measures(self) -> Iterator[tuple[int, str, int | None]]:
        """Give each measure's number, kind, and the end that it is of, None for both."""
        for kind_number, kind in enumerate(KINDS):
            for end in range(2):
                yield 2 * kind_number + end, kind, end
        yield MEASURE_COUNT - 1, "handshake", None

    def _side(self, end: int | None, initiator: int) -> str:
        return "whole" if end is None else SIDES[end != initiator]

    def _groups(self) -> dict[str, dict[str, dict[str, _Group]]]:
        """Return the times of all connections: by timestamp source, kind and side."""
        initiators = self.initiators[self.blocks["connection"]]
        sources = np.unique(self.blocks["source"]).tolist()
        sides = (*SIDES, "whole")
        names = [(source, kind, side) for source in sources for kind in KINDS for side in sides]
        chosen: dict[tuple[int, str, str], list[NDArray[Any]]] = {name: [] for name in names}
        flows = np.full(max(len(self.blocks) * MEASURE_COUNT, 1), -1, np.int32)
        for source in sources:
            for number, kind, end in self._measures():
                for initiator in range(2):
                    rows = np.flatnonzero((self.blocks["source"] == source) & (initiators == initiator))
                    name = (source, kind, self._side(end, initiator))
                    flows[rows * MEASURE_COUNT + number] = names.index(name)
                    tracks = self.blocks["tracks"][rows, number]
                    chosen[name].append(tracks[tracks["count"] > 0])
        together = Cells()
        together.absorb(self.tracks.cells, flows)
        cells = together.by_flow()
        return {
            TimestampSource(source).name: {
                kind: {
                    side: _Group(
                        np.concatenate(chosen[source, kind, side]),
                        cells.histogram_of(names.index((source, kind, side))),
                    )
                    for side in sides
                    if side != "whole" or kind == "handshake"
                }
                for kind in KINDS
            }
            for source in sources
        }

    def ends(self, row: int) -> tuple[str, str]:
        """Return the initiator and the responder of a connection."""
        connection = self.connections[row]
        form = "[{}]:{}" if connection["ip_version"] == 6 else "{}:{}"
        low, high = (
            form.format(address_text(bytes(connection[end]), int(connection["ip_version"])), connection[f"{end}_port"])
            for end in ("low", "high")
        )
        initiator, responder = (high, low) if self.initiators[row] else (low, high)
        return initiator, responder + at_tap(int(connection["tap"]))

    def _round_trips(self, at: int) -> Iterator[tuple[str, str, ConnectionRoundTrips]]:
        """Give kind, side and times of a block, where there are any."""
        block = self.blocks[at]
        for number, kind, end in self._measures():
            track = block["tracks"][number]
            if not track["count"]:
                continue
            median = int(self._medians[at, number])
            times = ConnectionRoundTrips(
                count=int(track["count"]),
                min_ns=int(track["lowest_ns"]),
                mean_ns=(2 * _sums(track[None])[0] + int(track["count"])) // (2 * int(track["count"])),
                p50_ns=median if median >= 0 else None,
                max_ns=int(track["highest_ns"]),
                max_frame=int(track["highest_frame"]),
            )
            yield kind, self._side(end, int(self.initiators[block["connection"]])), times

    def _blocks_of(self, row: int) -> list[int]:
        """Return a connection's blocks by timestamp source."""
        of_row = np.flatnonzero(self.blocks["connection"] == row)
        found: list[int] = of_row[np.argsort(self.blocks["source"][of_row])].tolist()
        return found

    def connection(self, row: int) -> Connection:
        """Return a connection for the result."""
        initiator, responder = self.ends(row)
        round_trips: dict[str, dict[str, dict[str, ConnectionRoundTrips]]] = {}
        for at in self._blocks_of(row):
            kinds = round_trips.setdefault(TimestampSource(int(self.blocks["source"][at])).name, {})
            for kind, side, times in self._round_trips(at):
                kinds.setdefault(kind, {})[side] = times
        return Connection(
            initiator=initiator,
            responder=responder,
            roles_by_ports=bool(self.by_ports[row]),
            first_frame=int(self.connections[row]["first_frame"]),
            last_frame=int(self.connections[row]["last_frame"]),
            from_initiator=_named(self.counts[row, 0]),
            from_responder=_named(self.counts[row, 1]),
            round_trips=round_trips,
        )

    def connection_table(self) -> Table:
        if not len(self.connections):
            return {}
        ends = [self.ends(row) for row in range(len(self.connections))]
        table: dict[str, list[Any]] = {
            "initiator": [initiator for initiator, _ in ends],
            "responder": [responder for _, responder in ends],
            "roles_by_ports": self.by_ports.tolist(),
            "first_frame": self.connections["first_frame"].tolist(),
            "last_frame": self.connections["last_frame"].tolist(),
        }
        for number, role in enumerate(ROLES):
            for count, name in enumerate(COUNTS):
                table[f"{role}_{name}"] = self.counts[:, number, count].tolist()
        return table

    def round_trip_table(self) -> Table:
        """Return the times of each connection, a row for each timestamp source, kind and side."""
        rows = []
        for at in np.lexsort((self.blocks["source"], self.blocks["connection"])).tolist():
            row = int(self.blocks["connection"][at])
            initiator, responder = self.ends(row)
            for kind, side, times in self._round_trips(at):
                rows.append(
                    {
                        "initiator": initiator,
                        "responder": responder,
                        "first_frame": int(self.connections[row]["first_frame"]),
                        "source": TimestampSource(int(self.blocks["source"][at])).name,
                        "kind": kind,
                        "side": side,
                        **times.as_dict(),
                    }
                )
        return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
