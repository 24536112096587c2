"""Two lines that carry one feed, made up with what can happen to each; and a slow account of what both bring."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from support.feeds import RESET_DISTANCE, START_NS, Packet, Slow

TOO_LATE_IN_A_ROW = 1024


def two_lines(seed: int, sends: int, *, loss: float, anew: float = 0.0, plain: bool = False) -> list[Packet]:
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
        if chance.random() < anew:
            number = 1 if number > RESET_DISTANCE else number + 2 * RESET_DISTANCE
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


@dataclass
class SlowPair:
    """What dictionaries of every number say of two lines, in the order of their packets."""

    within: int
    lines: tuple[Slow, Slow] = field(default_factory=lambda: (Slow(), Slow()))
    arbitrated: Slow = field(default_factory=Slow)
    skews: list[int] = field(default_factory=list)
    brought: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    too_late: int = 0
    epoch: int = 0
    high: int | None = None
    _epochs: list[int | None] = field(default_factory=lambda: [None, None])
    _nexts: list[int] = field(default_factory=lambda: [0, 0])
    _fresh: list[tuple[int, Packet]] = field(default_factory=list)

    def take(self, packets: Iterable[tuple[int, Packet]]) -> None:
        """Take packets with their frame numbers."""
        for frame, packet in packets:
            self.lines[packet.line].take([(frame, packet)])
            self._follow(packet)
            if self.high is None:
                self.high = packet.sequence
            if self._epochs[packet.line] < self.epoch:  # type: ignore[operator]
                self.too_late += packet.count
                continue
            self._compare(frame, packet)

    def _follow(self, packet: Packet) -> None:
        """Tell when a line begins anew; the first that does takes both with it."""
        line, after = packet.line, packet.sequence + packet.count
        mine = self._epochs[line]
        if mine is None:
            self._epochs[line], self._nexts[line] = self.epoch, after
        elif packet.count and packet.sequence <= 1 and self._nexts[line] - packet.sequence > RESET_DISTANCE:
            mine = self._epochs[line] = max(mine + 1, self.epoch)
            self._nexts[line] = after
            if mine > self.epoch:
                self.epoch, self.high = mine, packet.sequence
        else:
            self._nexts[line] = max(self._nexts[line], after)

    def _compare(self, frame: int, packet: Packet) -> None:
        assert self.high is not None
        if not packet.count:
            if packet.sequence > self.high or self.arbitrated.joined_at is None:
                self.arbitrated.take([(frame, packet)])
                self.high = max(self.high, packet.sequence)
            return
        fresh: list[int] = []
        for number in range(packet.sequence, packet.sequence + packet.count):
            self.high = max(self.high, number + 1)
            if number < self.high - self.within:
                self.too_late += 1
                continue
            by = self.brought.setdefault((self.epoch, number), {})
            if not by:
                fresh.append(number)
            elif packet.line not in by:
                ((line, stamp),) = by.items()
                self.skews.append(stamp - packet.at_ns if line == 0 else packet.at_ns - stamp)
            by.setdefault(packet.line, packet.at_ns)
        while fresh:
            many = next((at for at in range(1, len(fresh)) if fresh[at] != fresh[0] + at), len(fresh))
            self.arbitrated.take([(frame, Packet(fresh[0], many, packet.at_ns))])
            del fresh[:many]

    def finish(self) -> SlowPair:
        """Count what never came."""
        for one in (*self.lines, self.arbitrated):
            one.finish()
        return self

    def alone(self, line: int) -> int:
        """Return how many numbers a line alone has brought."""
        return sum(list(by) == [line] for by in self.brought.values())
