"""Order entry sessions for tests: messages of OUCH and FIX, TCP segments that carry them, and what befalls those."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from uspcap.analysis.base import Analysis
from uspcap.frames import FrameBatch, TimestampSource

START_NS = 1_700_000_000_000_000_000
SYN, ACK, PSH = 0x02, 0x10, 0x08

AnyAnalysis = TypeVar("AnyAnalysis", bound=Analysis)

PROTOCOLS = ("ouch-4.2", "ouch-5.0", "fix")


@dataclass(frozen=True)
class Segment:
    """One TCP segment: when, of which connection (its number is the client's port), from which end, what.

    `kept` is how many of its payload's bytes were captured, None for all.
    """

    timestamp_ns: int
    connection: int
    from_venue: bool
    sequence: int
    payload: bytes = b""
    flags: int = ACK | PSH
    source: int = TimestampSource.FILE
    kept: int | None = None
    acknowledgment: int = 0

    def wire(self) -> bytes:
        """Ethernet, IPv4, TCP without options."""
        client, venue = (b"\xc0\0\2\x14", 40_000 + self.connection), (b"\xc0\0\2\xc8", 24_001)
        (source, source_port), (destination, port) = (venue, client) if self.from_venue else (client, venue)
        numbers = self.sequence & 0xFFFF_FFFF, self.acknowledgment & 0xFFFF_FFFF
        tcp = struct.pack("!HHIIBBHHH", source_port, port, *numbers, 0x50, self.flags, 500, 0, 0)
        length = 40 + len(self.payload)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 6, 0, source, destination)
        return bytes.fromhex("0200000000020200000000010800") + ip + tcp + self.payload

    def captured(self) -> bytes:
        """What a capture file holds of it."""
        wire = self.wire()
        return wire if self.kept is None else wire[: 54 + self.kept]


def feed(analysis: AnyAnalysis, segments: Sequence[Segment], batch_frames: int = 4096) -> AnyAnalysis:
    """Give segments to an analysis in batches, numbered from 1."""
    for start in range(0, len(segments), batch_frames):
        part = segments[start : start + batch_frames]
        batch = FrameBatch.from_frames(
            [segment.captured() for segment in part],
            [segment.timestamp_ns for segment in part],
            wire_lengths=[len(segment.wire()) for segment in part],
            first_frame_number=start + 1,
        )
        batch.storage("timestamp_source")[: len(part)] = np.array([segment.source for segment in part], np.uint8)
        analysis.update(batch)
    return analysis


def in_parts(data: st.DataObject, make: Callable[[], AnyAnalysis], segments: Sequence[Segment]) -> AnyAnalysis:
    """Analyse segments in parts of any size and batches, merged from either end, asked in between or not."""
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(segments)), max_size=4))), len(segments)]
    batch_frames = data.draw(st.sampled_from([1, 2, 64, 4096]))
    parts = [feed(make(), segments[first:last], batch_frames) for first, last in pairwise(edges)]
    if data.draw(st.booleans()):
        for part in parts:
            part.result()
    if data.draw(st.booleans()):
        for later in parts[1:]:
            parts[0].merge(later)
    else:
        # From the right: merging is associative.
        while len(parts) > 1:
            later = parts.pop()
            parts[-1].merge(later)
    return parts[0]


def soup(kind: bytes, payload: bytes = b"") -> bytes:
    """One SoupBinTCP packet."""
    return struct.pack("!Hc", 1 + len(payload), kind) + payload


def fix(message_type: str, sequence: int, *fields: tuple[int, str], begin: str = "FIX.4.4") -> bytes:
    """One FIX message, with the right length and checksum."""
    pairs = [(35, message_type), (49, "A"), (56, "B"), (34, str(sequence)), (52, "20240305-14:30:00"), *fields]
    body = b"".join(b"%d=%s\x01" % (tag, value.encode()) for tag, value in pairs)
    head = b"8=%s\x019=%d\x01" % (begin.encode(), len(body))
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


def ouch(protocol: str, kind: str, order: int, venue_ns: int = 0) -> bytes:
    """One OUCH message in its packet; a lower-case kind comes from the venue. Replacements are of `order - 1`."""
    four = protocol == "ouch-4.2"
    number = b"T%d" % order if four else order.to_bytes(4, "big")
    before = b"T%d" % (order - 1) if four else (order - 1).to_bytes(4, "big")
    if four:
        number, before = number.ljust(14), before.ljust(14)
    lengths = {
        "O": (49, 47), "U": (47, 40), "X": (19, 9), "M": (20, 12),
        "a": (66, 64), "u": (80, 68), "c": (28, 20), "e": (40, 36), "j": (24, 31), "i": (23, 15), "p": (23, 15),
        "m": (28, 20), "s": (10, 10),
    }  # fmt: skip
    length = lengths[kind][0 if four else 1]
    if kind == "s":
        return soup(b"S", b"S" + venue_ns.to_bytes(8, "big") + b"S")
    if kind.isupper():
        head = kind.encode() + (before if kind == "U" else b"") + number
        return soup(b"U", head.ljust(length, b"\0"))
    head = kind.upper().encode() + venue_ns.to_bytes(8, "big") + (before if kind == "u" and not four else b"") + number
    return soup(b"S", head.ljust(length, b"\0"))


FIX_REQUESTS = {"O": "D", "U": "G", "X": "F", "M": "G"}
FIX_EXECUTIONS = {"a": "0", "u": "5", "c": "4", "e": "F", "j": "8", "p": "A", "m": "E"}


def message(protocol: str, kind: str, order: int, venue_ns: int) -> bytes:
    """The message of a kind of any protocol; of FIX a cancel or a modification has an id of its own."""
    if protocol != "fix":
        return ouch(protocol, kind, order, venue_ns)
    if kind == "s":
        return fix("0", order)
    name = f"{'X' if kind in 'Xcip' else 'M' if kind in 'Mm' else 'T'}{order}"
    if kind in FIX_REQUESTS:
        return fix(FIX_REQUESTS[kind], order, (11, name))
    if kind == "i":
        return fix("9", order, (11, name), (39, "0"), (434, "1"))
    return fix("8", order, (37, "V"), (11, name), (150, FIX_EXECUTIONS[kind]), (39, "0"))


STORIES = (
    # what each end sends in turn, lower case from the venue
    "Oa", "OaXc", "OaeXi", "Oaee", "Oj", "O", "OaX", "OaXpc", "OaUu", "OaMm", "Oac", "Oae", "s", "OaUuXc", "e",
)  # fmt: skip


@dataclass(frozen=True)
class Session:
    """Segments as they were captured, what protocol they carry, and whether anything is missing of it."""

    protocol: str
    segments: list[Segment]
    whole: bool


@st.composite
def connections(draw: st.DrawFn, protocol: str, connection: int) -> list[Segment]:
    """The segments of one connection in order, whole: its messages cut and joined at will, some retransmitted."""
    sequences = {
        side: draw(st.sampled_from([1_000, 0xFFFF_FFFF, 0xFFFF_FF80, 0x7FFF_FFF0])) + 7 * side for side in (False, True)
    }
    segments: list[Segment] = []
    now = START_NS + draw(st.integers(0, 1000))
    if draw(st.booleans()):
        segments += [
            Segment(now, connection, False, sequences[False], flags=SYN),
            Segment(now, connection, True, sequences[True], flags=SYN | ACK),
        ]
    for side in sequences:
        sequences[side] = (sequences[side] + 1) & 0xFFFF_FFFF
    # Whatever the connection was joined in, both ends begin with something that shows what it is.
    stories = ["s", *draw(st.lists(st.sampled_from(STORIES), max_size=5))]
    waiting = {False: b"", True: b""}
    sent: list[Segment] = []
    if protocol != "fix":
        waiting[False] = soup(b"L", b"uspcap" + b"secretword" + b" " * 10 + b"1".rjust(20))
    order = 0
    for story in stories:
        order += 1
        for kind in story:
            order += kind == "U"
            now += draw(st.integers(0, 50_000))
            side = kind.islower()
            waiting[side] += message(protocol, kind, order, now - START_NS)
            if draw(st.integers(0, 3)) == 0:
                continue
            pieces = [waiting[side]]
            if draw(st.integers(0, 2)) == 0:
                length = len(waiting[side])
                cuts = sorted(draw(st.lists(st.integers(0, length), max_size=3)))
                pieces = [waiting[side][start:end] for start, end in pairwise([0, *cuts, length])]
            for piece in pieces:
                one = Segment(now, connection, side, sequences[side], piece, acknowledgment=sequences[not side])
                sequences[side] = (sequences[side] + len(piece)) & 0xFFFF_FFFF
                sent.append(one)
                segments.append(one)
                now += draw(st.integers(0, 300))
            waiting[side] = b""
            if sent and draw(st.integers(0, 3)) == 0:
                again = draw(st.sampled_from(sent[-4:]))
                skipped = draw(st.integers(0, max(len(again.payload) - 1, 0)))
                segments.append(
                    replace(
                        again,
                        timestamp_ns=now,
                        sequence=(again.sequence + skipped) & 0xFFFF_FFFF,
                        payload=again.payload[skipped:],
                        acknowledgment=sequences[not again.from_venue],
                    )
                )
    return segments


@st.composite
def sessions(draw: st.DrawFn, *, losses: bool = False) -> Session:
    """One or two connections at once, perhaps one of them duplicated; reordered, and with losses where these may be."""
    protocol = draw(st.sampled_from(PROTOCOLS))
    streams = [draw(connections(protocol, connection)) for connection in range(draw(st.integers(1, 2)))]
    if draw(st.booleans()):
        streams[0] = streams[0] + draw(
            connections(protocol, 0).filter(lambda more: bool(more and more[0].flags == SYN))
        )
    turns = draw(st.permutations([number for number, stream in enumerate(streams) for _ in stream]))
    left = [iter(stream) for stream in streams]
    segments = [next(left[number]) for number in turns]
    source = draw(st.sampled_from([(TimestampSource.FILE,), (TimestampSource.KERNEL, TimestampSource.HARDWARE)]))
    if len(source) > 1:
        segments = [replace(one, source=source[at % 3 == 0]) for at, one in enumerate(segments)]
    for at in draw(st.lists(st.integers(0, max(len(segments) - 2, 0)), max_size=4)):
        # The other way round a frame would acknowledge what comes after it; and where the beginning of a connection was
        # not seen, its first segment is its beginning.
        ends = {(one.connection, one.from_venue) for one in segments[at : at + 2]}
        begun = {(one.connection, one.from_venue) for one in segments[:at] if one.payload}
        if len(ends) == 1 and ends <= begun and not any(one.flags & SYN for one in segments[at : at + 2]):
            segments[at : at + 2] = segments[at : at + 2][::-1]
    if losses:
        for at in sorted(draw(st.sets(st.integers(0, max(len(segments) - 1, 0)), max_size=4)), reverse=True):
            if segments and draw(st.booleans()):
                segments.pop(at)
            elif segments and segments[at].payload:
                kept = draw(st.integers(0, len(segments[at].payload) - 1))
                segments[at] = replace(segments[at], kept=kept)
        for at in draw(st.lists(st.integers(0, max(len(segments) - 2, 0)), max_size=4)):
            segments[at : at + 2] = segments[at : at + 2][::-1]
    return Session(protocol, segments, not losses)
