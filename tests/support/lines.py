"""Two lines that carry one feed, made up with what can happen to each; and a slow account of what both bring."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from support.feeds import START_NS, Packet
from support.slow_numbers import Arrival, SlowNumbers, assert_as_slow

FAR = 1000
NEAR = 64
BEHIND_FOR = 2000
RINGS_BEHIND = 64


def two_lines(seed: int, sends: int, *, loss: float, restart: float = 0.0, plain: bool = False) -> list[Packet]:
    """Return what two lines bring of one feed, in the order in which it comes."""
    chance = random.Random(seed)
    at_ns, number = START_NS, chance.choice([1, 1, 77, 5_000])
    last_ns = [0, 0]
    arrivals: list[tuple[int, int, Packet]] = []
    for _ in range(sends):
        at_ns += chance.randrange(1, 20_000)
        count = 1 if plain else chance.randrange(1, 5)
        if not plain and chance.random() < 0.03:
            count = 0
        if chance.random() < 0.02:
            number += chance.randrange(1, 40)
        if chance.random() < restart:
            number = 1 if number > FAR else number + 2 * FAR
        for line in (0, 1):
            came_ns = max(last_ns[line], at_ns + chance.choice([0, 500, 13_000 * line]) + chance.randrange(800))
            fate = chance.random()
            if fate < loss:
                continue
            dropped = chance.randrange(1, 3) if chance.random() < 0.01 else 0
            packet = Packet(number, count, came_ns, dropped_before=dropped, line=line)
            if fate > 0.97:
                packet = Packet(number, count, came_ns + 30_000, line=line)
            else:
                last_ns[line] = came_ns
            arrivals.append((packet.at_ns, len(arrivals), packet))
            if fate > 0.99:
                arrivals.append((came_ns + 700, len(arrivals), Packet(number, count, came_ns + 700, line=line)))
        number += count
    return [packet for _, _, packet in sorted(arrivals, key=lambda one: one[:2])]


@dataclass(frozen=True)
class LinePacket:
    """A packet of a line: what it says, its payload's size and who timestamped it (None for nobody)."""

    line: int
    arrival: Arrival
    size: int = 1 << 16
    source: int | None = 5


@dataclass
class Place:
    """What lies in a place of the ring."""

    number: int
    session: int
    at_ns: int
    source: int | None
    lines: set[int]
    late: bool = False


def line_packets(packets: Iterable[Packet]) -> Iterator[LinePacket]:
    """Yield what packets say, numbered from 1 as frames."""
    for frame, packet in enumerate(packets, 1):
        yield LinePacket(packet.line, packet.arrival(frame))


@dataclass
class SlowPair:
    """What two lines bring, number by number, in the order of their packets.

    `within` is the length of the ring; `modulus` after how many numbers they begin again, 0 for never.
    """

    within: int
    modulus: int = 0
    lines: tuple[list[Arrival], list[Arrival]] = field(default_factory=lambda: ([], []))
    copies: list[Arrival] = field(default_factory=list)
    skews: list[int] = field(default_factory=list)
    other_clock: int = 0
    too_late: int = 0
    too_many: int = 0
    alone: list[int] = field(default_factory=lambda: [0, 0])
    session: int = 0
    _ring: dict[int, Place] = field(default_factory=dict)
    _last: list[tuple[int, int] | None] = field(default_factory=lambda: [None, None])
    _behind: tuple[int, int] | None = None
    _packets: int = 0

    @classmethod
    def of(cls, packets: Iterable[LinePacket], within: int, *, modulus: int = 0) -> SlowPair:
        """Take all packets, in their order."""
        slow = cls(within, modulus)
        for packet in packets:
            slow._take(packet)
        for place in slow._ring.values():
            slow._leave(place)
        return slow

    def account(self, line: int) -> SlowNumbers:
        return SlowNumbers.of(self.lines[line], modulus=self.modulus)

    def arbitrated(self) -> SlowNumbers:
        return SlowNumbers.of(self.copies, modulus=self.modulus)

    def _distance(self, one: int, other: int) -> int:
        whole = self.modulus or 1 << 64
        return min((one - other) % whole, (other - one) % whole)

    def _position(self, line: int) -> int | None:
        """Return where a line stands, if it has come lately."""
        last = self._last[line]
        return last[0] if last is not None and self._packets - last[1] <= BEHIND_FOR else None

    def _take(self, packet: LinePacket) -> None:
        line, arrival = packet.line, packet.arrival
        self.lines[line].append(arrival)
        first, mine, other = arrival.first, self._position(line), self._position(1 - line)
        fallen = arrival.kind == "data" and not self.modulus and first <= 1 and mine is not None and mine - first > FAR
        restarted = arrival.kind == "reset" or fallen
        self._packets += 1
        if self._behind is not None and self._packets - self._behind[1] > BEHIND_FOR:
            self._behind = None
        begins = restarted
        if restarted and other is not None:
            begins = self._distance(other, first) > FAR
            if mine is not None:
                begins = self._distance(other, mine) < self._distance(other, first)
        if restarted:
            self._behind = (1 - line, self._packets) if begins and other is not None else None
        if begins:
            self.session += 1
            self.copies.append(Arrival("reset", first, first, arrival.frame, arrival.at_ns))
        if other is not None and self._distance(other, first) <= NEAR:
            self._behind = None
        self._last[line] = (arrival.after % (self.modulus or 1 << 64), self._packets)
        if arrival.kind == "reset":
            return
        count = arrival.after - first if arrival.kind == "data" else 0
        if count > min(self.within, packet.size):
            self.too_many += 1
        elif self._behind is not None and self._behind[0] == line:
            self.too_late += count
        elif arrival.kind == "data":
            self.copies += self._compared(packet)
        else:
            self.copies.append(arrival)

    def _compared(self, packet: LinePacket) -> Iterator[Arrival]:
        """Yield what of a packet is the first copy, numbers that follow each other together."""
        fresh: list[int] = []
        for number in range(packet.arrival.first, packet.arrival.after):
            if self._is_first(packet, number % self.modulus if self.modulus else number):
                fresh.append(number)
                continue
            if fresh:
                yield replace(packet.arrival, first=fresh[0], after=fresh[-1] + 1)
            fresh = []
        if fresh:
            yield replace(packet.arrival, first=fresh[0], after=fresh[-1] + 1)

    def _is_first(self, packet: LinePacket, number: int) -> bool:
        line, place = packet.line, self._ring.get(number % self.within)
        here = place is not None and place.session == self.session
        if place is not None and here and place.number == number:
            if line not in place.lines:
                self._meet(packet, place)
            place.lines.add(line)
            return False
        new = Place(number, self.session, packet.arrival.at_ns, packet.source, {line})
        if place is not None:
            self._leave(place)
            whole = self.modulus or 1 << 64
            ahead = (place.number - number) % whole
            new.late = here and ahead <= RINGS_BEHIND * self.within and 2 * ahead < whole
            self.too_late += new.late
        self._ring[number % self.within] = new
        return not new.late

    def _meet(self, packet: LinePacket, place: Place) -> None:
        if place.late:
            self.too_late += 1
        elif place.source is None or place.source != packet.source:
            self.other_clock += 1
        else:
            skew = place.at_ns - packet.arrival.at_ns
            self.skews.append(skew if packet.line == 1 else -skew)

    def _leave(self, place: Place) -> None:
        if len(place.lines) == 1 and not place.late:
            self.alone[next(iter(place.lines))] += 1


def assert_pair_as_slow(pair: dict[str, Any], slow: SlowPair, *, bits: int = 64) -> None:
    """Compare a pair of a report, all of whose timestamps are the file's or none, with the slow account."""
    for at, line in enumerate(pair["lines"].values()):
        assert_as_slow(line, slow.account(at), but=["excluded"], bits=bits)
        first = [abs(skew) for skew in slow.skews if (skew < 0) == (at == 0) and skew]
        assert line["brought_first"] == len(first)
        assert line["brought_alone"] == slow.alone[at]
        if "FILE" in pair["skew"]:
            skews = list(pair["skew"]["FILE"]["first_by"].values())[at]
            assert skews["count"] == len(first)
            assert skews["min_ns"] == min(first, default=None)
            assert skews["max_ns"] == max(first, default=None)
            assert not first or abs(skews["mean_ns"] * len(first) - sum(first)) * 2 <= len(first)
    arbitrated = slow.arbitrated()
    copies = pair["arbitrated"] | {"gaps": pair["gaps"]}
    assert_as_slow(copies, arbitrated, but=["packets", "heartbeats", "excluded"], bits=bits)
    assert pair["recovery"]["count"] == len(arbitrated.lateness_ns) or pair["arbitrated"]["coalesced"]
    assert pair["compared"] == len(slow.skews)
    assert pair["ties"] == slow.skews.count(0)
    for name in ("other_clock", "too_late", "too_many"):
        assert pair[name] == getattr(slow, name), name
