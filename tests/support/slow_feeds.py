"""What a payload says by a table of `feeds.toml`, read field by field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from support.hostile_numbers import Sent, Table, packet_of
from support.lines import LinePacket
from support.slow_numbers import Arrival


@dataclass(frozen=True)
class Reading:
    """One packet: its kind as `Arrival` has it, or excluded or foreign; number and what it adds up to; its key."""

    kind: str
    first: int = 0
    after: int = 0
    key: bytes = b""
    size: int = 0


def readings(table: Table, payload: bytes) -> Iterator[Reading]:
    """Yield what the packets of a datagram say, up to one that is foreign."""
    while payload:
        one, size = _reading(table, payload)
        yield replace(one, size=size)
        if one.kind == "foreign":
            return
        payload = payload[size:]


def _reading(table: Table, payload: bytes) -> tuple[Reading, int]:
    def at(place: Sequence[int]) -> int:
        offset, size = place
        return int.from_bytes(payload[offset : offset + size], table["endian"])

    foreign = Reading("foreign"), len(payload)
    if len(payload) < table["header"]:
        return foreign
    if "length" in table and at(table["length"]) + table.get("length_adds", 0) != len(payload):
        return foreign
    size = len(payload)
    if "part" in table:
        size = at(table["part"])
        if not table["header"] <= size <= len(payload):
            return foreign
    for check in table.get("checks", ()):
        if (at(check["place"]) in (check.get("values") or check["not"])) == ("not" in check):
            return foreign
    kind = "data"
    if "kind" in table:
        names = {"data": "data", "heartbeats": "next", "ends": "end", "resets": "reset"}
        kind = next((names[name] for name in names if at(table["kind"]) in table.get(name, ())), "excluded")
    key = b"".join(payload[offset : offset + of] for offset, of in table.get("key", ()))
    number, count = at(table["sequence"]), 1
    if number == table.get("unnumbered"):
        kind = "excluded"
    if "count" in table and kind == "data":
        count = at(table["count"])
        if count == table.get("heartbeat_count"):
            kind = "excluded" if table.get("heartbeat", "none") == "none" else "next"
        elif count == table.get("end_count"):
            kind = "end"
        elif table.get("header_only_is_request") and len(payload) == table["header"] and count:
            kind = "excluded"
    whole = 1 << 8 * table["sequence"][1]
    if kind == "data":
        if count > whole // 2 if table.get("wraps") else number + count > whole:
            return foreign
        return Reading("data", number, number + count, key), size
    if kind in ("next", "end") and table.get("heartbeat") == "last":
        number += 1
    return Reading(kind, number, number, key), size


@dataclass
class SlowFeed:
    """What every stream of a capture says, by its flow and key; what flows bring on each of two lines, by key; and the
    packets that are of none.
    """

    arrivals: dict[tuple[int, bytes], list[Arrival]]
    excluded: dict[tuple[int, bytes], int]
    lines: dict[bytes, list[LinePacket]]
    foreign: int = 0

    @classmethod
    def of(cls, table: Table, sent: Iterable[Sent]) -> SlowFeed:
        feed = cls({}, {}, {})
        for frame, datagram in enumerate(sent, 1):
            for one in readings(table, b"".join(packet_of(table, said) for said in datagram.said)):
                stream = datagram.flow, one.key
                if one.kind == "foreign":
                    feed.foreign += 1
                    continue
                feed.arrivals.setdefault(stream, [])
                feed.excluded.setdefault(stream, 0)
                if one.kind == "excluded":
                    feed.excluded[stream] += 1
                else:
                    arrival = Arrival(one.kind, one.first, one.after, frame, datagram.at_ns)
                    feed.arrivals[stream].append(arrival)
                    feed.lines.setdefault(one.key, []).append(LinePacket(datagram.flow % 2, arrival, one.size))
        return feed
