"""Requests and responses matched the slow and obvious way, and streams of them made by hypothesis.

The rules are those at the top of `uspcap/analysis/requests/request_runs.pyx`, looked up frame by frame over the whole
stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.rules import Finder

NOTHING, REQUEST, RESPONSE = range(3)
SILENT_FRAMES = 65_536
CLASSES = 16
REPLIES = 32


@dataclass(frozen=True)
class Event:
    """One frame: its number, timestamp and source, and what it is under which key."""

    number: int
    timestamp_ns: int
    source: int = TimestampSource.FILE
    kind: int = NOTHING
    key: int = 0
    responder: int = 0

    @property
    def in_class(self) -> int:
        return min(64 - self.key.bit_length(), CLASSES - 1)


@dataclass
class Settled:
    """What a stream comes to: counts, rows, and times by measure and timestamp source."""

    level: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    pairs: list[tuple[int, int, int]] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    unsolicited: list[int] = field(default_factory=list)
    times: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    by_replies: Counter[int] = field(default_factory=Counter)

    def add_time(self, measure: str, later: Event, earlier: Event) -> bool:
        difference = later.timestamp_ns - earlier.timestamp_ns
        if difference >= 0:
            self.times.setdefault((measure, later.source), []).append(difference)
        return difference >= 0


def settled(events: Sequence[Event], *, timeout_ns: int, policy: str, maximum: int) -> Settled:
    """Match a whole stream."""
    timestamped = [event for event in events if event.source != TimestampSource.NONE]
    outcome = Settled(level=level_of(timestamped, timeout_ns, maximum))
    by_key: dict[int, list[Event]] = {}
    for event in timestamped:
        if event.kind and event.in_class >= outcome.level:
            by_key.setdefault(event.key, []).append(event)
    for of_key in by_key.values():
        run = of_key[:1]
        for before, after in pairwise(of_key):
            if boundary(timestamped, before, after, timeout_ns, policy):
                follows = after if within_reach(timestamped, before, after, timeout_ns) else None
                settle(run, outcome, rounds=policy == "rounds", follows=follows)
                run = []
            run.append(after)
        settle(run, outcome, rounds=policy == "rounds")
    outcome.pairs.sort()
    outcome.unanswered.sort()
    outcome.unsolicited.sort()
    return outcome


def level_of(timestamped: Sequence[Event], timeout_ns: int, maximum: int) -> int:
    """Return the lowest level at which no slot has too many requests and responses of one timestamp source."""
    level = 0
    for source in range(TimestampSource.NONE):
        visit: Counter[int] = Counter()
        slot = None
        for event in timestamped:
            if event.source != source or not event.kind:
                continue
            # Rounded towards zero, as C divides.
            of_event = abs(event.timestamp_ns) // timeout_ns * (1 if event.timestamp_ns >= 0 else -1)
            if slot != of_event:
                visit.clear()
            slot = of_event
            visit[event.in_class] += 1
            while level < CLASSES - 1 and sum(visit[one] for one in range(level, CLASSES)) > maximum:
                level += 1
    return level


def boundary(timestamped: Sequence[Event], before: Event, after: Event, timeout_ns: int, policy: str) -> bool:
    """Tell whether two neighbours under a key belong to different runs."""
    if not within_reach(timestamped, before, after, timeout_ns):
        return True
    if after.kind == RESPONSE:
        return False
    if policy == "each":
        return True
    if before.kind == RESPONSE:
        return policy != "rounds"
    return before.source != after.source


def within_reach(timestamped: Sequence[Event], before: Event, after: Event, timeout_ns: int) -> bool:
    """Tell whether two neighbours under a key are within the timeout."""
    between = [event for event in timestamped if before.number < event.number <= after.number]
    own = [event for event in between if event.source == before.source]
    if any(abs(event.timestamp_ns - before.timestamp_ns) > timeout_ns for event in own):
        return False
    numbers = [before.number, *(event.number for event in own), after.number]
    return all(later - earlier <= SILENT_FRAMES for earlier, later in pairwise(numbers))


def settle(run: Sequence[Event], outcome: Settled, *, rounds: bool, follows: Event | None = None) -> None:
    """Count one run."""
    requests = [event for event in run if event.kind == REQUEST]
    responses = [event for event in run if event.kind == RESPONSE]
    counts = outcome.counts
    if not requests:
        counts["unsolicited"] += len(responses)
        outcome.unsolicited.append(responses[0].number)
        if follows and responses[0].source == responses[-1].source == follows.source:
            counts["preceding"] += outcome.add_time("preceded_by", follows, responses[0])
        return
    counts["repeated"] += len(requests) - 1
    firsts = list({event.responder: event for event in reversed(responses)}.values()) if rounds else responses[:1]
    firsts.sort(key=lambda event: event.number)
    beyond = rounds and len(firsts) > REPLIES
    counts["beyond"] += beyond
    firsts = firsts[:REPLIES]
    replies = [event for event in firsts if event.number > requests[0].number]
    counts["early"] += len(firsts) - len(replies)
    if rounds and not beyond:
        outcome.by_replies[len(replies)] += 1
    if not replies:
        counts["unanswered"] += 1
        outcome.unanswered.append(requests[0].number)
        return
    answer = replies[0]
    first_after = next(event for event in responses if event.number > requests[0].number)
    asked = [event for event in requests if event.number < first_after.number][-1]
    counts["answered"] += 1
    further = len(responses) - len(firsts)
    if not beyond:
        counts["further"] += further
        counts["several"] += further > 0
    outcome.pairs.append((requests[0].number, asked.number, answer.number))
    same = [event.source == answer.source for event in (requests[0], asked)]
    counts["across_clocks"] += not all(same)
    counted = [
        outcome.add_time(measure, answer, event)
        for measure, event, one_clock in zip(("from_first", "from_last"), (requests[0], asked), same, strict=True)
        if one_clock
    ]
    counts["negative"] += not all(counted)
    for at, reply in enumerate(replies if rounds else ()):
        if reply.source == requests[0].source:
            outcome.add_time(f"reply_{at + 1}", reply, requests[0])
            if reply is replies[-1] and not beyond:
                outcome.add_time("last_reply", reply, requests[0])


class EventFinder(Finder):
    """Knows what each frame is by its number."""

    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__("events")
        self._events = {event.number: event for event in events}
        self.shift = 0

    @property
    def again(self) -> Callable[[], EventFinder]:
        return lambda: EventFinder(tuple(self._events.values()))

    def _find(self, batch: FrameBatch) -> None:
        for row, number in enumerate(batch.frame_number.tolist()):
            event = self._events[number + self.shift]
            self._kinds[row] = event.kind
            # The table is found by the lower half: few values, so that keys fall on each other's places.
            self._keys[row] = event.key, event.key % 5, event.responder


def feed(track: Any, finder: EventFinder, events: Sequence[Event], frames: range, batch_frames: int) -> int:
    """Give a part of a stream to a track, as its reader would number it; return how many frames it has.

    Numbers that no event has are frames that a filter took out.
    """
    finder.shift = frames.start - 1
    read = 0
    for start in range(0, max(len(events), 1), batch_frames):
        some = events[start : start + batch_frames]
        batch = FrameBatch.from_frames([b"\0" * 60] * len(some), [event.timestamp_ns for event in some])
        end = len(frames) if start + batch_frames >= len(events) else some[-1].number - finder.shift
        batch.storage("frame_number")[: len(some)] = np.array([one.number for one in some], np.int64) - finder.shift
        batch.storage("timestamp_source")[: len(some)] = np.array([event.source for event in some], np.uint8)
        batch.frames_before = read
        batch.frames_read = end - read
        track.update(batch, 0)
        read = end
    return read


KEYS = (1 << 63, (1 << 63) + 7, (1 << 62) + 1, 1 << 61, (1 << 60) + 3, 9)
"""Of several classes."""


@st.composite
def event_streams(draw: st.DrawFn, *, timeout_ns: int = 1000, most: int = 50) -> tuple[list[Event], int]:
    """A stream with loss, duplicates, reordering, steps of the clock, gaps; and how many frames it has."""
    sources = draw(st.sampled_from([(TimestampSource.FILE,), (TimestampSource.KERNEL, TimestampSource.HARDWARE)]))
    steps = st.one_of(
        st.integers(0, 30),
        st.integers(0, timeout_ns),
        st.integers(-timeout_ns // 2, 0),
        st.sampled_from([timeout_ns, timeout_ns + 1, -timeout_ns, -timeout_ns - 1, 20 * timeout_ns, -20 * timeout_ns]),
    )
    numbers = st.sampled_from([1] * 12 + [2, SILENT_FRAMES - 1, SILENT_FRAMES, SILENT_FRAMES + 1])
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=len(KEYS)))
    now, number = draw(st.sampled_from([0, 10**6, 1_700_000_000_000_000_000])), 0
    events = []
    for _ in range(draw(st.integers(0, most))):
        now += draw(steps)
        number += draw(numbers)
        source = draw(st.sampled_from([*sources * 4, TimestampSource.NONE]))
        kind = draw(st.sampled_from([NOTHING, REQUEST, REQUEST, RESPONSE, RESPONSE]))
        events.append(Event(number, now, source, kind, draw(st.sampled_from(keys)), draw(st.integers(1, 5))))
    return events, number + draw(st.sampled_from([0, 0, 3, SILENT_FRAMES]))
