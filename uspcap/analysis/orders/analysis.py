"""Orders: from a request to the venue's answers, matched by client order id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.orders.order_machine import RULE_DTYPE, OrderMachine
from uspcap.analysis.orders.order_tables import COUNTS
from uspcap.analysis.orders.result import (
    OrderBounds,
    OrderConnection,
    OrdersResult,
    OrderStreams,
    OrderTimes,
    OuchVersions,
    Sample,
    UnansweredRequest,
)
from uspcap.analysis.protocol_options import ORDER_PROTOCOLS
from uspcap.analysis.two_clocks import two_clocks_caveats
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flows import at_tap
from uspcap.protocols.headers import address_text
from uspcap.protocols.order_entry import ANSWER_KINDS, REQUEST_KINDS, ouch_rules
from uspcap.records import table, types_of
from uspcap.saturating import difference_ns
from uspcap.stats.histogram import Histogram

MAXIMUM_CONNECTIONS = 1 << 16
MAXIMUM_REQUESTS = 1 << 18
MAXIMUM_LOG_BYTES = 1 << 26
"""Bytes of connections whose beginning a part of the capture has not seen, kept to be read after the part before."""

UNANSWERED_LISTED = 10

DEFINITION = (
    "from the frame that first carried the first byte of the request to the frame that completed the answer: "
    "the one that first carried the last of its bytes to arrive; first_byte: to the frame that first carried the first "
    "byte of the answer. A retransmitted byte counts from its first sighting. Requests and answers are matched by "
    "client order id within one TCP connection, each request with the first answer of each kind"
)

VENUE_DEFINITION = (
    "between two timestamps that the venue put into its answers to one order: one clock, the venue's, exact; the path "
    "to the venue and back is not included"
)

VENUE_PAIRS: Final = (("accepted", "executed"), ("accepted", "canceled"))
"""Answers to one request whose venue timestamps are subtracted, and the same frames' timestamps beside them."""

_CONNECTION_PROTOCOLS = ("unknown", "soupbintcp", "fix", "other")
_NO_TIMESTAMP = int(TimestampSource.NONE)


class Orders(Analysis):
    """Response times of orders: histograms by request and answer, and unanswered requests.

    Parameters
    ----------
    protocol : str, optional
        One of `ORDER_PROTOCOLS`. Without it FIX is auto-detected; of SoupBinTCP connections it is only said which
        OUCH version their messages fit, as OUCH does not say it itself.
    maximum_connections, maximum_requests : int
        Followed one by one at most; beyond either, a sample chosen by hash.
    maximum_log_bytes : int
        Kept of connections whose beginning was not seen, until what came before is known.
    shown : int
        Requests without an answer and connections in the result.
    """

    name = "orders"

    def __init__(
        self,
        protocol: str | None = None,
        *,
        maximum_connections: int = MAXIMUM_CONNECTIONS,
        maximum_requests: int = MAXIMUM_REQUESTS,
        maximum_log_bytes: int = MAXIMUM_LOG_BYTES,
        shown: int = UNANSWERED_LISTED,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._version = 0 if protocol is None else ORDER_PROTOCOLS.index(protocol) + 1
        self._bounds = (maximum_connections, maximum_requests, maximum_log_bytes)
        self._shown = shown
        self._machine = self._new_machine()
        self._final: _Final | None = None

    def _new_machine(self, *, at_once: bool = False) -> OrderMachine:
        return OrderMachine(self._version, ouch_rules(RULE_DTYPE), *self._bounds, at_once=at_once)

    def _update(self, batch: FrameBatch) -> None:
        self._final = None
        self._machine.update(batch, batch.headers, self._shift(batch))

    def _merge(self, later: Orders) -> None:
        self._final = None
        self._machine.absorb(later._machine, self.frames_read)

    def _finished(self) -> _Final:
        """Return the result if nothing precedes or follows; the state stays unchanged."""
        if self._final is None:
            machine = self._new_machine(at_once=True)
            machine.absorb(self._machine, 0)
            machine.finish()
            self._final = _Final(machine)
        return self._final

    def result(self) -> OrdersResult:
        final, machine = self._finished(), self._machine
        counts = final.counts
        unanswered = final.requests[final.requests["answered"] == 0]
        exact = final.level == 0
        return OrdersResult(
            definition=DEFINITION,
            venue_definition=VENUE_DEFINITION,
            protocol=self._protocol,
            requests={kind: counts[kind] for kind in REQUEST_KINDS},
            answers={kind: counts[kind] for kind in ANSWER_KINDS},
            followed=len(final.requests),
            sampled_one_in=Sample(connections=1 << final.level, requests=1 << final.level),
            unanswered={kind: int((unanswered["kind"] == number).sum()) for number, kind in enumerate(REQUEST_KINDS)},
            unanswered_listed=tuple(final.row(request) for request in unanswered[: self._shown]),
            repeated_requests=int(final.requests["repeats"].sum()),
            possible_duplicates=counts["possible_duplicates"],
            answers_without_request=counts["answers_without_request"] if exact else None,
            sources={source: _histograms(measures) for source, measures in final.sources.items()},
            venue=_histograms(final.venue),
            different_sources=final.different_sources,
            connections_with_orders=len(final.with_messages),
            connections=tuple(final.connection(row) for row in final.with_messages[: self._shown]),
            streams=OrderStreams(**{name: counts[name] for name in types_of(OrderStreams)}),
            ouch_versions=OuchVersions(
                application_messages=int(final.soup["application_messages"]),
                fit_4_2=int(final.soup["fits_ouch_4_2"]),
                fit_5_0=int(final.soup["fits_ouch_5_0"]),
            ),
            bounds=OrderBounds(cut_connections=machine.cut_connections, dropped_bytes=machine.dropped_log_bytes),
        )

    def caveats(self) -> list[str]:
        counts = self._finished().counts
        return super().caveats() + two_clocks_caveats(
            counts["after_acknowledgment"],
            counts["segments"],
            "response times by the capture's timestamps are wrong by as much, and orders count as unanswered whose "
            "answers precede them",
        )

    def histograms(self) -> dict[str, Histogram]:
        """Return the histograms by timestamp source and name, and those of first bytes as `….first_byte`."""
        found = {}
        final = self._finished()
        for source, measures in {**final.sources, "venue": final.venue}.items():
            for name, measure in measures.items():
                found[f"{source}.{name}"] = measure.complete
                if measure.first_byte is not None:
                    found[f"{source}.{name}.first_byte"] = measure.first_byte
        return found

    def tables(self) -> dict[str, Table]:
        final = self._finished()
        return {"requests": final.request_table(), "connections": final.connection_table()}


class _Measure:
    """The times of one kind: to the whole answer and to its first byte; negative ones are counted only."""

    def __init__(self, complete: NDArray[np.int64], first_byte: NDArray[np.int64] | None) -> None:
        self.negative = int((complete < 0).sum())
        self.complete = Histogram.from_values(complete[complete >= 0])
        self.first_byte = None if first_byte is None else Histogram.from_values(first_byte[first_byte >= 0])


def _histograms(measures: dict[str, _Measure]) -> dict[str, OrderTimes]:
    return {
        name: measure.complete.summary().extended(
            OrderTimes,
            negative=measure.negative,
            first_byte=None if measure.first_byte is None else measure.first_byte.summary(),
        )
        for name, measure in measures.items()
    }


class _Final:
    """A finished machine's requests and connections, in the order of the capture."""

    def __init__(self, machine: OrderMachine) -> None:
        self.level = machine.level
        requests, connections = machine.request_array(), machine.connection_array()
        order = np.argsort(connections["first_frame"], kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self.connections = connections[order]
        requests["connection"] = place[requests["connection"]]
        self.requests = requests[np.lexsort((requests["position"], requests["asked"]["first_frame"]))]
        totals = self.connections["counts"].sum(axis=0, dtype=np.uint64)
        self.counts = {name: int(total) for name, total in zip(COUNTS, totals, strict=True)}
        of_soup = self.connections["counts"][self.connections["protocol"] == 1].sum(axis=0, dtype=np.uint64)
        self.soup = dict(zip(COUNTS, of_soup.tolist(), strict=True))
        with_messages = self.connections["counts"][:, COUNTS.index("messages")] > 0
        self.with_messages: list[int] = np.flatnonzero(with_messages).tolist()
        self.different_sources = 0
        self.sources: dict[str, dict[str, _Measure]] = {}
        for name, sources, complete, first_byte in self._pairs():
            for source in np.unique(sources).tolist():
                chosen = sources == source
                if source == _NO_TIMESTAMP:
                    self.different_sources += int(chosen.sum())
                    continue
                measure = _Measure(complete[chosen], None if first_byte is None else first_byte[chosen])
                self.sources.setdefault(TimestampSource(source).name, {})[name] = measure
        self.sources = dict(sorted(self.sources.items()))
        self.venue = dict(self._venue_measures())

    def _pairs(self) -> Iterator[tuple[str, NDArray[Any], NDArray[np.int64], NDArray[np.int64] | None]]:
        """Give the name, the timestamp source of both ends, and the times of each kind of measure that there is."""
        for kind, asking in enumerate(REQUEST_KINDS):
            of_kind = self.requests[self.requests["kind"] == kind]
            for number, answering in enumerate(ANSWER_KINDS):
                answered = of_kind[of_kind["answered"] & (1 << number) != 0]
                if not len(answered):
                    continue
                asked, answers = answered["asked"], answered["answers"][:, number]
                sources = _common(asked["first_source"], answers["first_source"], answers["complete_source"])
                yield (
                    f"{asking}_to_{answering}",
                    sources,
                    difference_ns(answers["complete_ns"], asked["first_ns"]),
                    difference_ns(answers["first_ns"], asked["first_ns"]),
                )
        for before, after in VENUE_PAIRS:
            one, two = ANSWER_KINDS.index(before), ANSWER_KINDS.index(after)
            both = self.requests[self.requests["answered"] & (1 << one | 1 << two) == (1 << one | 1 << two)]
            if not len(both):
                continue
            earlier, later = both["answers"][:, one], both["answers"][:, two]
            yield (
                f"{before}_to_{after}",
                _common(earlier["complete_source"], later["complete_source"], later["first_source"]),
                difference_ns(later["complete_ns"], earlier["complete_ns"]),
                None,
            )

    def _venue_measures(self) -> Iterator[tuple[str, _Measure]]:
        """Return the times on the venue's own clock."""
        for before, after in VENUE_PAIRS:
            one, two = ANSWER_KINDS.index(before), ANSWER_KINDS.index(after)
            both = self.requests[self.requests["answered"] & (1 << one | 1 << two) == (1 << one | 1 << two)]
            timestamps = both["venue_ns"][(both["venue_ns"][:, [one, two]] >= 0).all(axis=1)]
            if len(timestamps):
                yield f"{before}_to_{after}", _Measure(difference_ns(timestamps[:, two], timestamps[:, one]), None)

    def ends(self, number: int) -> tuple[str, str]:
        """Return the two ends of a connection, the lower first."""
        row = self.connections[number]
        form = "[{}]:{}" if row["ip_version"] == 6 else "{}:{}"
        low, high = (address_text(bytes(row[end]), int(row["ip_version"])) for end in ("low", "high"))
        return form.format(low, row["low_port"]), form.format(high, row["high_port"])

    def tap(self, number: int) -> str:
        """Return what a connection has behind its name where there are several taps."""
        return at_tap(int(self.connections[number]["tap"]))

    def path(self, request: Any) -> str:
        """Return a request's way, from its sender."""
        ends = self.ends(int(request["connection"]))
        return " > ".join(ends[::-1] if request["direction"] else ends) + self.tap(int(request["connection"]))

    def row(self, request: Any) -> UnansweredRequest:
        """Return the row of an unanswered request."""
        return UnansweredRequest(
            request=REQUEST_KINDS[request["kind"]],
            id=_id(request),
            connection=self.path(request),
            first_ns=int(request["asked"]["first_ns"]),
            first_frame=int(request["asked"]["first_frame"]),
        )

    def protocol(self, number: int) -> str:
        """Return a connection's protocol, FIX with its BeginString."""
        row = self.connections[number]
        begin = bytes(row["begin_string"]).decode("ascii", "backslashreplace")
        return begin or _CONNECTION_PROTOCOLS[row["protocol"]]

    def connection(self, number: int) -> OrderConnection:
        """Return one connection for the result."""
        counts = dict(zip(COUNTS, self.connections[number]["counts"].tolist(), strict=True))
        return OrderConnection(
            ends=" - ".join(self.ends(number)) + self.tap(number),
            protocol=self.protocol(number),
            first_frame=int(self.connections[number]["first_frame"]),
            messages=counts["messages"],
            requests=sum(counts[kind] for kind in REQUEST_KINDS),
            answers=sum(counts[kind] for kind in ANSWER_KINDS),
            repeated_bytes=counts["repeated_bytes"],
            lost_bytes=counts["lost_bytes"],
            unread_bytes=counts["unread_bytes"],
        )

    def connection_table(self) -> Table:
        rows = [self.connection(number) for number in self.with_messages]
        return table(OrderConnection, rows) if rows else {}

    def request_table(self) -> Table:
        """Return every request that was followed, with the first answer of each kind that there is."""
        requests = self.requests
        if not len(requests):
            return {}
        asked = requests["asked"]
        columns: dict[str, list[Any]] = {
            "request": [REQUEST_KINDS[kind] for kind in requests["kind"]],
            "id": [_id(request) for request in requests],
            "connection": [self.path(request) for request in requests],
            "source": [TimestampSource(source).name for source in asked["first_source"]],
            "first_ns": asked["first_ns"].tolist(),
            "first_frame": asked["first_frame"].tolist(),
            "complete_ns": asked["complete_ns"].tolist(),
            "complete_frame": asked["complete_frame"].tolist(),
            "repeats": requests["repeats"].tolist(),
            "executions": requests["executions"].tolist(),
        }
        for number, kind in enumerate(ANSWER_KINDS):
            met = requests["answered"] & (1 << number) != 0
            if not met.any():
                continue
            answers = requests["answers"][:, number]
            for field in ("first_ns", "first_frame", "complete_ns", "complete_frame"):
                columns[f"{kind}_{field}"] = _where(met, answers[field])
            columns[f"{kind}_venue_ns"] = _where(
                met & (requests["venue_ns"][:, number] >= 0), requests["venue_ns"][:, number]
            )
        return columns


def _where(met: NDArray[np.bool_], values: NDArray[Any]) -> list[int | None]:
    return [value if there else None for there, value in zip(met.tolist(), values.tolist(), strict=True)]


def _common(*sources: NDArray[Any]) -> NDArray[Any]:
    """Return the source that timestamped all of them, NONE where there is no one source."""
    same = np.ones(len(sources[0]), bool)
    for other in sources[1:]:
        same &= sources[0] == other
    return np.where(same, sources[0], _NO_TIMESTAMP)


def _id(request: Any) -> str:
    """Return the client order id; one that was truncated ends in an ellipsis."""
    length = int(request["id_length"])
    text = bytes(request["id"])[:length].decode("ascii", "backslashreplace")
    return text + "…" if length > request["id"].shape[0] else text
