"""What TCP segments say, worked out byte by byte: slow, without bounds, and with nothing shared with the compiled one.

Sequence numbers are unwrapped into positions that only grow; each way of a connection remembers every byte that was
captured, who carried it first, and which bytes have been missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from support.tcp_segments import ACK, FIN, RST, SYN, Segment

from uspcap.analysis.tcp.analysis import Tcp
from uspcap.frames import TimestampSource
from uspcap.stats.histogram import Histogram

FAR = 1 << 26
JOINED_FOR = 256
ASSUMED = 8
DEAF_AFTER = 1024

Sample = tuple[str, str, str, int]
"""Timestamp source, kind, side, and ns."""


@dataclass
class Way:
    """What one end sends."""

    next: int | None = None
    acknowledged: int | None = None
    seen: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)
    # Where bytes begin that acknowledgments claimed before they were captured, and where they all end.
    assumed: list[int] = field(default_factory=list)
    assumed_end: int = 0
    assumed_age: int = 0
    carriers: dict[int, Segment] = field(default_factory=dict)
    doubt: int | None = None
    joined_at: int | None = None
    joined_for: int = 0
    window: int | None = None
    duplicates: int = 0
    # TSval to the segment that first brought data under it; None before any TSval is known.
    timestamps: dict[int, Segment] | None = None
    highest_timestamp: int | None = None

    def position(self, sequence: int) -> int:
        """The position of a sequence number that is nearest to the next byte."""
        assert self.next is not None
        return self.next + (sequence - self.next + (1 << 31)) % (1 << 32) - (1 << 31)


def _later(timestamp: int, other: int) -> bool:
    return 0 < (timestamp - other) % (1 << 32) < 1 << 31


@dataclass
class Shake:
    """A handshake that has begun."""

    initiator: bool
    syn: Segment | None
    syn_again: bool = False
    answer: Segment | None = None
    answer_again: bool = False
    age: int = 0


class Tally(Counter[str]):
    """Counts of one end, and which frame each was counted at."""

    def __init__(self, events: list[tuple[int, str]]) -> None:
        super().__init__()
        self.frame = 0
        self.events = events

    def __setitem__(self, name: str, number: int) -> None:
        if number != self[name]:
            self.events.append((self.frame, name))
        super().__setitem__(name, number)


class Connection:
    """One connection; counts and samples are by sender, where True is what the tests call the responder."""

    def __init__(self, events: list[tuple[int, str]]) -> None:
        self.ways = {False: Way(), True: Way()}
        self.shake: Shake | None = None
        self.counts = {False: Tally(events), True: Tally(events)}
        self.frame = 0
        self.samples: list[tuple[bool | None, str, int, str, int]] = []

    def measure(self, side: bool | None, kind: str, begin: Segment, end: Segment, owner: bool) -> bool:
        if begin.source != end.source or end.source == TimestampSource.NONE:
            self.counts[owner]["different_sources"] += 1
            return False
        if end.timestamp_ns < begin.timestamp_ns:
            self.counts[owner]["negative"] += 1
            return False
        time_ns = end.timestamp_ns - begin.timestamp_ns
        self.samples.append((side, kind, time_ns, TimestampSource(end.source).name, self.frame))
        return True

    def take(self, segment: Segment, frame: int) -> None:
        side = segment.from_responder
        self.frame = self.counts[False].frame = self.counts[True].frame = frame
        counts = self.counts[side]
        counts["segments"] += 1
        counts["payload_bytes"] += segment.length
        if segment.flags & RST:
            counts["resets"] += 1
            self.shake = None
            return
        if segment.flags & SYN:
            self.take_syn(segment)
            return
        if self.shake is not None and self.shake.initiator == side:
            self.end_shake(segment)
        elif self.shake is not None and self.shake.answer is not None:
            self.shake.age += 1
            if self.shake.age >= 64:
                self.shake = None
        kept_alive = self.take_data(segment)
        if segment.flags & ACK:
            self.take_acknowledgment(segment, kept_alive)
            self.ways[side].window = segment.window
        if segment.window == 0 and not segment.flags & FIN:
            counts["zero_windows"] += 1

    # --- handshakes

    def begin(self, segment: Segment) -> None:
        way = Way(next=(segment.sequence % 2**32) + 1 + segment.length, timestamps={})
        assert way.next is not None
        way.acknowledged = way.next - segment.length
        way.seen = set(range(way.acknowledged, way.next))
        if segment.flags & ACK:
            way.window = segment.window
        self.ways[segment.from_responder] = way

    def take_syn(self, segment: Segment) -> None:
        side, shake = segment.from_responder, self.shake
        mine, other = self.ways[side], self.ways[not side]
        counts = self.counts[side]
        if not segment.flags & ACK:
            if shake and shake.syn and shake.initiator == side and shake.syn.sequence == segment.sequence:
                shake.syn_again = True
                counts["retransmissions"] += 1
                return
            if (
                shake
                and shake.answer
                and not shake.syn
                and shake.initiator == side
                and (segment.sequence + 1 - shake.answer.acknowledgment) % 2**32 == 0
            ):
                counts["out_of_order"] += 1
                counts["after_acknowledgment"] += 1
                return
            counts["syns"] += 1
            self.ways[not side] = Way()
            self.begin(segment)
            self.shake = Shake(side, segment)
            return
        if shake and shake.answer and shake.initiator != side and shake.answer.sequence == segment.sequence:
            shake.answer_again = True
            counts["retransmissions"] += 1
            return
        if shake is None and mine.next is not None and -FAR <= mine.position(segment.sequence + 1) - mine.next <= 0:
            counts["retransmissions"] += 1
            return
        if (
            shake
            and shake.syn
            and shake.answer is None
            and shake.initiator != side
            and 0
            <= (segment.acknowledgment - shake.syn.sequence - 1) % 2**32
            <= (other.next or 0) - shake.syn.sequence % 2**32 - 1
        ):
            other.acknowledged = other.position(segment.acknowledgment)
            if not shake.syn_again:
                self.measure(side, "handshake", shake.syn, segment, side)
        else:
            shake = self.shake = Shake(not side, None)
            self.ways[not side] = Way(next=segment.acknowledgment % 2**32, timestamps={})
            self.ways[not side].acknowledged = self.ways[not side].next
        self.begin(segment)
        shake.answer = segment

    def end_shake(self, segment: Segment) -> None:
        shake, side = self.shake, segment.from_responder
        self.shake = None
        assert shake is not None
        answer = shake.answer
        if answer is None or not segment.flags & ACK or shake.answer_again:
            return
        mine = self.ways[side]
        if (segment.acknowledgment - answer.sequence - 1 - answer.length) % 2**32 or all(
            (segment.sequence - (expected or 0)) % 2**32 for expected in (mine.next, mine.acknowledged)
        ):
            return
        if not self.measure(side, "handshake", answer, segment, side):
            return
        if shake.syn and not shake.syn_again:
            self.measure(None, "handshake", shake.syn, segment, side)

    # --- data

    @staticmethod
    def cast_doubt(way: Way, until: int) -> None:
        if way.acknowledged is None or until > way.acknowledged:
            way.doubt = until if way.doubt is None else max(way.doubt, until)

    def join(self, side: bool, sequence: int) -> Way:
        way = self.ways[side] = Way(next=sequence % 2**32, window=None)
        way.joined_at, way.joined_for = way.next, JOINED_FOR
        return way

    def take_data(self, segment: Segment) -> bool:
        side = segment.from_responder
        way, counts = self.ways[side], self.counts[side]
        occupied = segment.length + bool(segment.flags & FIN)
        if way.next is None:
            way = self.join(side, segment.sequence)
        assert way.next is not None
        start = way.position(segment.sequence)
        if abs(start - way.next) > FAR:
            if not occupied:
                return False
            counts["restarts"] += 1
            way = self.join(side, segment.sequence)
            assert way.next is not None
            start = way.next
        end = start + occupied
        if occupied == segment.length <= 1 and start == way.next - 1 and way.acknowledged == way.next:
            counts["keep_alives"] += 1
            return True
        if occupied and way.joined_for:
            way.joined_for -= 1
            if not way.joined_for:
                way.joined_at = None
        if start > way.next:
            counts["gaps"] += 1
            way.missing |= set(range(way.next, start))
            self.cast_doubt(way, start)
            way.next = start
        if not occupied:
            return False
        if start == way.next:
            for position in range(start, end):
                way.carriers[position] = segment
            way.next = end
        else:
            self.take_behind(way, counts, segment, start, end)
        way.seen |= set(range(start, end))
        if segment.timestamps is not None:
            value = segment.timestamps[0] % 2**32
            if way.highest_timestamp is None or _later(value, way.highest_timestamp):
                if way.timestamps is None:
                    way.timestamps = {}
                else:
                    way.timestamps[value] = segment
                way.highest_timestamp = value
        return False

    def take_behind(self, way: Way, counts: Tally, segment: Segment, start: int, end: int) -> None:
        assert way.next is not None
        old = set(range(start, min(end, way.next)))
        acknowledged = way.acknowledged is not None and end <= way.acknowledged
        if way.joined_at is not None and start < way.joined_at and not acknowledged:
            counts["before_join"] += 1
        else:
            assumed = {at for at in old if way.assumed and way.assumed[0] <= at < way.assumed_end}
            if assumed:
                counts["after_acknowledgment"] += 1
                counts["uncaptured_bytes"] -= len(assumed)
                high = max(assumed) + 1
                way.assumed = [] if high == way.assumed_end else [max(at, high) for at in way.assumed]
            again = old - way.missing - assumed
            if again:
                counts["retransmissions"] += 1
                counts["retransmitted_bytes"] += min(len(again), segment.length)
            elif not assumed:
                counts["out_of_order"] += 1
            way.missing -= old
            if start == way.acknowledged and way.duplicates >= 3:
                counts["fast_retransmissions"] += 1
        self.cast_doubt(way, end)
        way.next = max(way.next, end)

    # --- acknowledgments

    def acknowledged_to(self, side: bool, acknowledgment: int) -> None:
        number = acknowledgment % 2**32
        self.ways[side] = Way(next=number, acknowledged=number, timestamps={})

    def take_acknowledgment(self, segment: Segment, kept_alive: bool) -> None:
        side = segment.from_responder
        way, mine, counts = self.ways[not side], self.ways[side], self.counts[not side]
        if way.next is None:
            self.acknowledged_to(not side, segment.acknowledgment)
            return
        position = way.position(segment.acknowledgment)
        if position - way.next < -FAR:
            return
        if position - way.next > FAR:
            counts["restarts"] += 1
            self.acknowledged_to(not side, segment.acknowledgment)
            return
        way.assumed_age += 1
        if way.assumed_age >= DEAF_AFTER:
            way.assumed = []
        seen = position <= way.next
        if not seen:
            counts["uncaptured_bytes"] += position - way.next
            if not way.assumed or way.assumed_end != way.next:
                way.assumed = [way.next] * ASSUMED
            elif way.next % 2**32 * 0x9E3779B1 % 2**32 < (2**32 - 1) // 16:
                way.assumed = [*way.assumed[1:], way.next]
            way.assumed_end = position
            way.assumed_age = 0
            way.next = position
        if way.acknowledged is None or position > way.acknowledged:
            self.new_acknowledgment(way, counts, segment, position, seen)
        elif position < way.acknowledged:
            self.counts[side].events.append((self.frame, "old"))
        elif position == way.acknowledged == way.next:
            self.counts[side].events.append((self.frame, "nothing_new"))
        elif (
            position == way.acknowledged
            and segment.length == 0
            and not segment.flags & FIN
            and not kept_alive
            and segment.window
            and segment.window == mine.window
        ):
            self.counts[side]["duplicate_acks"] += 1
            way.duplicates += 1

    def new_acknowledgment(self, way: Way, counts: Tally, segment: Segment, position: int, seen: bool) -> None:
        side = segment.from_responder
        carrier = way.carriers.get(position - 1)
        if seen:
            way.assumed = []
        if way.doubt is not None or not seen:
            counts["ambiguous"] += 1
        elif carrier is not None:
            self.measure(side, "data_ack", carrier, segment, not side)
        elif way.acknowledged is not None:
            counts["unmatched"] += 1
        if segment.timestamps is not None and way.timestamps:
            echo = segment.timestamps[1] % 2**32
            if echo in way.timestamps:
                self.measure(side, "timestamps", way.timestamps[echo], segment, not side)
            way.timestamps = {value: carried for value, carried in way.timestamps.items() if _later(value, echo)}
        way.carriers = {at: carried for at, carried in way.carriers.items() if at >= position}
        gone = {at for at in way.missing if at < position}
        counts["uncaptured_bytes"] += len(gone)
        way.missing -= gone
        if way.doubt is not None and position >= way.doubt:
            way.doubt = None
        if way.joined_at is not None and position >= way.joined_at:
            way.joined_at, way.joined_for = None, 0
        way.acknowledged = position
        way.duplicates = 0
        if position == way.next:
            way.timestamps, way.highest_timestamp = {}, None


@dataclass
class Found:
    """What the reference says of a capture.

    Attributes
    ----------
    counts : dict
        By role of who sent it.
    samples : Counter
        How often each time was measured.
    events : set of (int, str)
        At which frames, numbered from 0, something was counted, or measured: then the kind's name and the side.
    times_ns : dict of (int, str) to int
        The time of each event that is one.
    """

    counts: dict[str, dict[str, int]]
    samples: Counter[Sample]
    events: set[tuple[int, str]]
    times_ns: dict[tuple[int, str], int]


def reference(segments: Sequence[Segment]) -> Found:
    """Go through the segments of a capture."""
    events: list[tuple[int, str]] = []
    connections: dict[int, Connection] = {}
    swapped: dict[int, bool] = {}
    for frame, segment in enumerate(segments):
        connections.setdefault(segment.connection, Connection(events)).take(segment, frame)
        if segment.flags & SYN and segment.connection not in swapped:
            swapped[segment.connection] = segment.from_responder != bool(segment.flags & ACK)
    counts: dict[str, Counter[str]] = {"from_initiator": Counter(), "from_responder": Counter()}
    samples: Counter[Sample] = Counter()
    times_ns: dict[tuple[int, str], int] = {}
    for number, connection in connections.items():
        # The responder of these tests has the lower port, which counts where there is no SYN.
        other = swapped.get(number, False)
        for side, counted in connection.counts.items():
            counts["from_responder" if side != other else "from_initiator"].update(counted)
        for end, kind, time_ns, source, frame in connection.samples:
            name = "whole" if end is None else "responder_side" if end != other else "initiator_side"
            samples[source, kind, name, time_ns] += 1
            times_ns[frame, "whole" if end is None else kind] = time_ns
    roles = {role: dict(counted) for role, counted in counts.items()}
    return Found(roles, samples, set(events) | set(times_ns), times_ns)


def assert_as_reference(analysis: Tcp, found: Found) -> None:
    """Compare all counts, and all times by timestamp source, kind and side."""
    result = analysis.result().as_dict()
    for role, expected in found.counts.items():
        measured = {name: number for name, number in result["counts"][role].items() if number}
        assert measured == {name: number for name, number in expected.items() if number}, role
    times: dict[str, list[int]] = {}
    for (source, kind, side, time_ns), number in found.samples.items():
        times.setdefault(f"{source}.{kind}.{side}", []).extend([time_ns] * number)
    histograms = analysis.histograms()
    assert histograms.keys() == times.keys()
    for name, expected_ns in times.items():
        exact = Histogram.from_values(expected_ns)
        assert histograms[name].table() == exact.table(), name
        # With exact sum and extremes.
        assert histograms[name].result() == exact.result(), name
