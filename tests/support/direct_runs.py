"""A plain numbered protocol that compiled modules are called with directly, and its runs by a slow account."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from support.feeds import START_NS, frame_of

from uspcap.analysis.sequence.numbered_runs import KIND_DATA, KIND_END, KIND_HEARTBEAT
from uspcap.analysis.sequence.numbered_streams import NumberedStreams
from uspcap.frames import FrameBatch
from uspcap.protocols.feed_rule import FeedRule

HEARTBEAT_COUNT, END_COUNT = 0, 0xFFFF
LONGEST = 1 << 30


@dataclass(frozen=True)
class Numbered:
    """One packet: the number that it begins with, and how many it has; END_COUNT for the end of a session."""

    first: int
    count: int = 1
    session: bytes = b"SESS"
    line: int = 0

    def payload(self) -> bytes:
        return struct.pack("!4sQI", self.session, self.first, self.count)


def plain_rule(*, number_bytes: int = 8, **changes: Any) -> FeedRule:
    """Return a rule: a session of 4 bytes, a number in the last of 8, a count in 4."""
    made_of: dict[str, Any] = {
        "header_bytes": 16, "sequence": (12 - number_bytes, number_bytes, True), "count": (12, 4, True),
        "length": (0, 0, True), "length_adds": 0, "part": (0, 0, True), "keys": [(0, 4)], "checks": [], "kinds": None,
        "heartbeat_count": HEARTBEAT_COUNT, "end_count": END_COUNT, "excluded_count": None, "unnumbered": None,
        "heartbeat_is_last": False, "header_only_is_request": False, "wraps": number_bytes < 8,
    }  # fmt: skip
    return FeedRule(**{**made_of, **changes})


def new_streams(*, number_bytes: int = 8, runs: int = 1 << 12, a_stream: int = 1 << 12, most: int = 64) -> Any:
    return NumberedStreams(0 if number_bytes == 8 else 1 << 8 * number_bytes, runs, a_stream, most)


def batch_of(packets: Sequence[Numbered]) -> FrameBatch:
    """Return a batch of packets, one a nanosecond, numbered from 1."""
    times = [START_NS + at for at in range(len(packets))]
    return FrameBatch.from_frames([frame_of(one.payload(), one.line) for one in packets], times)


@dataclass
class SlowStream:
    """What a stream comes to."""

    mask: int
    wraps: bool
    packets: int = 0
    messages: int = 0
    heartbeats: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    _open: int | None = None
    _next: int = 0

    def take(self, kind: int, first: int, length: int, frame: int) -> None:
        self.packets += kind == KIND_DATA
        self.messages += length
        self.heartbeats += kind != KIND_DATA
        goes_on = self._open == kind == KIND_DATA and self._next == first and length < LONGEST
        expected = self._next == first and (
            (kind == KIND_HEARTBEAT and self._open in (KIND_DATA, KIND_HEARTBEAT)) or self._open == kind == KIND_END
        )
        if goes_on:
            run = self.runs[-1]
            run["length"] += length
            run["packets"] += 1
            run["last_ns"] = run["seen_ns"] = START_NS + frame - 1
            run["ends"].append(run["length"])
        elif expected:
            run = self.runs[-1]
            run["seen_ns"] = START_NS + frame - 1
        else:
            at_ns = START_NS + frame - 1
            run = {
                "kind": kind, "first": first, "length": length, "packets": int(kind == KIND_DATA),
                "first_frame": frame, "first_ns": at_ns, "last_ns": at_ns, "seen_ns": at_ns, "ends": [length],
            }  # fmt: skip
            self.runs.append(run)
            self._open = None if length >= LONGEST else kind
        run["seen_frame"] = frame
        if goes_on or not expected:
            self._next = (first + length) & self.mask
            if length and not self._next and not self.wraps:
                self._open = None


RUN_FIELDS = (
    "kind", "first", "length", "packets", "first_frame", "seen_frame", "first_ns", "last_ns", "seen_ns",
)  # fmt: skip


def slow_streams(packets: Sequence[Numbered], number_bytes: int = 8) -> dict[tuple[int, bytes], SlowStream]:
    """Take packets one by one; streams by line and session. Those that claim what no field holds are left out."""
    highest = (1 << 8 * number_bytes) - 1
    found: dict[tuple[int, bytes], SlowStream] = {}
    for frame, one in enumerate(packets, 1):
        first = one.first & highest
        kind = {HEARTBEAT_COUNT: KIND_HEARTBEAT, END_COUNT: KIND_END}.get(one.count, KIND_DATA)
        most = highest - first + 1 if number_bytes == 8 else highest // 2 + 1
        if kind == KIND_DATA and one.count > most:
            continue
        stream = found.setdefault((one.line, one.session), SlowStream(highest, number_bytes < 8))
        stream.take(kind, first, one.count if kind == KIND_DATA else 0, frame)
    return found


def streams_as_slow(streams: NumberedStreams) -> dict[tuple[int, bytes], dict[str, Any]]:
    """Return streams by line and session: counts, and runs with the ends that are kept."""
    names, counts, runs, ends = streams.arrays()
    found: dict[tuple[int, bytes], dict[str, Any]] = {}
    for at, name in enumerate(names):
        mine = []
        for run in runs[runs["stream"] == at]:
            kept, end = [], int(run["first_end"])
            while end >= 0:
                kept.append(int(ends[end]["after"]))
                end = int(ends[end]["next"])
            mine.append(({key: int(run[key]) for key in RUN_FIELDS}, kept))
        row = counts[at]
        messages = int(row["messages"][0]) + (int(row["messages"][1]) << 64)
        line = int(name["flow"]["destination_port"]) - 30_001
        session = name["key"].tobytes()[:4]
        found[line, session] = {
            "packets": int(row["packets"]), "messages": messages, "heartbeats": int(row["heartbeats"]), "runs": mine,
        }  # fmt: skip
    return found


NUMBERS = st.one_of(st.integers(0, 12), st.sampled_from([250, 255, (1 << 64) - 1, (1 << 64) - 3, 1 << 63, 1 << 32]))
COUNTS = st.sampled_from([1, 1, 1, 1, 2, 3, HEARTBEAT_COUNT, END_COUNT, LONGEST - 1, LONGEST, (1 << 32) - 1])
SESSIONS = st.sampled_from([b"SESS", b"SESS", b"OTHR", b"\0\0\0\0"])


@st.composite
def numbered_packets(draw: st.DrawFn, most: int = 40) -> list[Numbered]:
    """Draw packets, most of which go on where the last one of their stream ended."""
    following: dict[tuple[int, bytes], int] = {}
    packets = []
    for _ in range(draw(st.integers(0, most))):
        line, session = draw(st.sampled_from([0, 0, 1])), draw(SESSIONS)
        expected = following.get((line, session), 1)
        first = draw(st.one_of(st.just(expected), st.just(expected), NUMBERS))
        packets.append(Numbered(first, draw(COUNTS), session, line))
        advance = packets[-1].count if packets[-1].count != END_COUNT else 0
        following[line, session] = (first + advance) % (1 << 64)
    return packets
