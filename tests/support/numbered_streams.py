"""Numbers that TCP carries, made up with what can happen to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import strategies as st
from support.order_sessions import ACK, PSH, START_NS, SYN, Segment, soup
from support.slow_numbers import Arrival

FIN, RST = 0x01, 0x04

CLIENT, VENUE = "192.0.2.20:40000", "192.0.2.200:24001"


def direction_of(from_venue: bool) -> str:
    """A direction of connection 0 of `Segment`, as reports write it."""
    return f"TCP {VENUE} > {CLIENT}" if from_venue else f"TCP {CLIENT} > {VENUE}"


@dataclass(frozen=True)
class TcpCapture:
    """Segments as they were captured, and what each direction says, in numbers that never wrap."""

    segments: list[Segment]
    arrivals: dict[bool, list[Arrival]]
    acknowledged: dict[bool, int | None]


@st.composite
def tcp_captures(draw: st.DrawFn, most: int = 40) -> TcpCapture:
    """Draw a connection's segments: lost, late, retransmitted whole or in part, restarted, across 2^32."""
    segments: list[Segment] = []
    arrivals: dict[bool, list[Arrival]] = {False: [], True: []}
    acknowledged: dict[bool, int | None] = {False: None, True: None}
    starts = st.sampled_from([0, 1_000, 2**31 - 50, 2**32 - 100, 2**32 - 1])
    at = {side: 2**40 + draw(starts) for side in arrivals}
    held: list[tuple[int, bool, int, int]] = []
    since = {False: 0, True: 0}
    now = START_NS

    def put(side: bool, first: int, length: int, flags: int = ACK | PSH) -> None:
        ack = at[not side]
        segments.append(Segment(now, 0, side, first, b"x" * length, flags, acknowledgment=ack))
        frame = len(segments)
        if flags & SYN:
            first += 1
            arrivals[side].append(Arrival("reset", first, first, frame, now))
            acknowledged[side] = None
        if flags & ACK:
            acknowledged[side] = ack
        if length or flags & FIN:
            after = first + length + bool(flags & FIN)
            arrivals[side].append(Arrival("data", first, after, frame, now))
            if flags & FIN:
                arrivals[side].append(Arrival("end", after, after, frame, now))
        elif not flags & SYN:
            arrivals[side].append(Arrival("next", first, first, frame, now))

    if draw(st.booleans()):
        for side in (False, True):
            put(side, at[side], 0, SYN | (ACK if side else 0))
            at[side] += 1
    for step in range(draw(st.integers(0, most))):
        now += draw(st.integers(1, 100_000))
        side = draw(st.booleans())
        what = draw(st.sampled_from(["data"] * 8 + ["ack", "lose", "hold", "again", "part", "alive", "restart", "fin"]))
        length = draw(st.integers(1, 60))
        if what in ("lose", "hold"):
            if what == "hold":
                held.append((step + draw(st.integers(1, 6)), side, at[side], length))
            at[side] += length
        elif what == "data":
            put(side, at[side], length)
            at[side] += length
        elif what == "ack":
            put(side, at[side], 0, ACK)
        elif what == "alive":
            put(side, at[side] - 1, draw(st.integers(0, 1)), ACK)
        elif what in ("again", "part"):
            sent = [one for one in arrivals[side][since[side] :][-8:] if one.kind == "data"]
            if sent:
                old = draw(st.sampled_from(sent))
                skipped = draw(st.integers(0, old.after - old.first - 1)) if what == "part" else 0
                put(side, old.first + skipped, old.after - old.first - skipped + (5 if what == "part" else 0))
                at[side] = max(at[side], old.after + 5) if what == "part" else at[side]
        elif what == "restart":
            # Never the number that it began with, which would say so again only.
            nearby = st.integers(3_000, 20_000)
            at[side] += draw(st.one_of(nearby, nearby.map(int.__neg__), st.integers(2**30, 2**31 - 2_000)))
            since[side] = len(arrivals[side])
            put(side, at[side], 0, SYN | (ACK if side else 0))
            at[side] += 1
        else:
            put(side, at[side], draw(st.sampled_from([0, length])), FIN | ACK)
            at[side] = arrivals[side][-1].after
        for due, of, first, late in [one for one in held if one[0] <= step]:
            held.remove((due, of, first, late))
            # What was restarted since may be far away now, and would restart the stream itself.
            if abs(first - at[of]) < 30_000:
                put(of, first, late)
    return TcpCapture(segments, arrivals, acknowledged)


def fix_of(
    message_type: str, number: int, *fields: tuple[int, str], sender: str | None = "A", target: str | None = "B"
) -> bytes:
    """One FIX message, with the right length and checksum; without the ids that are None."""
    ids = [(tag, name) for tag, name in ((49, sender), (56, target)) if name is not None]
    body = b"".join(
        b"%d=%s\x01" % (tag, value.encode()) for tag, value in [(35, message_type), *ids, (34, str(number)), *fields]
    )
    head = b"8=FIX.4.4\x019=%d\x01" % len(body)
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


@st.composite
def fix_messages(draw: st.DrawFn, most: int = 25) -> list[bytes]:
    """Draw what one end of a FIX session says: skipped numbers, resends, gap fills, resets."""
    number = draw(st.sampled_from([1, 1, 40, 5_000]))
    messages = [fix_of("A", number, *draw(st.sampled_from([(), ((141, "Y"),), ((141, "N"),)])))]
    number += 1
    skipped: list[int] = []
    for _ in range(draw(st.integers(0, most))):
        what = draw(
            st.sampled_from(
                ["D"] * 8 + ["0", "0", "skip", "resend", "fill", "resent fill", "reset", "logon", "5", "old"]
            )
        )
        if what in ("D", "0", "5"):
            messages.append(fix_of(what, number, (11, f"T{number}")))
            number += 1
        elif what == "skip":
            count = draw(st.integers(1, 4))
            skipped += range(number, number + count)
            number += count
        elif what == "resend":
            of = draw(st.sampled_from(skipped)) if skipped and draw(st.booleans()) else max(1, number - 2)
            messages.append(fix_of("D", of, (43, "Y"), (122, "20240305-14:30:00")))
        elif what == "fill":
            after = number + draw(st.integers(-1, 6))
            messages.append(fix_of("4", number, (123, "Y"), (36, str(after))))
            number = max(number + 1, after)
        elif what == "resent fill" and skipped:
            first = draw(st.sampled_from(skipped))
            after = first + draw(st.integers(1, 4))
            messages.append(fix_of("4", first, (43, "Y"), (123, "Y"), (36, str(after))))
        elif what == "reset":
            after = draw(st.sampled_from([1, number + 10, 3_000]))
            messages.append(fix_of("4", number, *draw(st.sampled_from([(), ((123, "N"),)])), (36, str(after))))
            number = after
        elif what == "logon":
            again = draw(st.sampled_from([1, number]))
            messages.append(fix_of("A", again, *draw(st.sampled_from([(), ((141, "Y"),)]))))
            number = again + 1
        elif what == "old":
            messages.append(fix_of("D", draw(st.sampled_from([1, max(1, number - 3)]))))
            number = max(number, 2) if number < 1_002 else number
    return messages


def fix_arrivals(messages: Sequence[tuple[bytes, int, int]]) -> dict[str, list[Arrival]]:
    """Say what FIX messages (each with frame and timestamp) say by session, from their text."""
    sessions: dict[str, list[Arrival]] = {}
    for message, frame, at_ns in messages:
        fields = dict(re.findall(rb"(?:^|\x01)(\d+)=([^\x01]*)", message))
        number, following = (_fix_number(fields.get(tag)) for tag in (b"34", b"36"))
        if number is None:
            continue
        arrivals = sessions.setdefault(" > ".join(fields[tag].decode() for tag in (b"49", b"56") if tag in fields), [])
        fills, again = fields.get(b"123") == b"Y", fields.get(b"43") == b"Y"
        if fields[b"35"] == b"4" and not fills:
            if following is not None and not again:
                arrivals.append(Arrival("reset", following, following, frame, at_ns))
            continue
        after = max(number + 1, following or 0) if fields[b"35"] == b"4" else number + 1
        if again:
            arrivals.append(Arrival("fill", number, after, frame, at_ns))
            continue
        if fields[b"35"] == b"A" and (number == 1 or fields.get(b"141") == b"Y"):
            arrivals.append(Arrival("reset", number, number, frame, at_ns))
        arrivals.append(Arrival("data", number, after, frame, at_ns, messages=1))
        if fields[b"35"] == b"5":
            arrivals.append(Arrival("end", after, after, frame, at_ns))
    return sessions


def _fix_number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) <= 18 else None


@st.composite
def soup_messages(draw: st.DrawFn, most: int = 25) -> list[bytes]:
    """Draw what a SoupBinTCP server says: logins that go on, skip or go back, packets with numbers and without."""
    number = draw(st.sampled_from([1, 1, 300]))
    session = b"SESSION1"
    messages = []
    if draw(st.integers(0, 3)):
        messages.append(soup(b"A", session.rjust(10) + b"%20d" % number))
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["S"] * 8 + ["H", "Z", "A", "U", "+"]))
        if kind == "A":
            number = max(1, number + draw(st.sampled_from([0, 0, 3, -2])))
            session = draw(st.sampled_from([session, session, b"SESSION2"]))
            messages.append(soup(b"A", session.rjust(10) + b"%20d" % number))
        elif kind in "HZ":
            messages.append(soup(kind.encode()))
        else:
            number += kind == "S"
            messages.append(soup(kind.encode(), b"x" * draw(st.integers(1, 30))))
    return messages


def soup_arrivals(messages: Sequence[tuple[bytes, int, int]]) -> tuple[dict[str, list[Arrival]], int]:
    """Say what SoupBinTCP packets say by session, and how many sequenced ones came before any login."""
    arrivals: dict[str, list[Arrival]] = {}
    session, number, unnumbered = None, None, 0
    for message, frame, at_ns in messages:
        kind = message[2:3]
        if kind == b"A":
            session, number = message[3:13].decode().strip(), int(message[13:33])
            if number > 2**64 - 2:
                number = None
                continue
            arrivals.setdefault(session, []).append(Arrival("next", number, number, frame, at_ns))
        elif kind == b"S" and number is None:
            unnumbered += 1
        elif kind == b"S" and session is not None:
            arrivals[session].append(Arrival("data", number, number + 1, frame, at_ns))
            number = number + 1 if number < 2**64 - 2 else None
        elif kind == b"Z" and session is not None and number is not None:
            arrivals[session].append(Arrival("end", number, number, frame, at_ns))
    return arrivals, unnumbered


@dataclass(frozen=True)
class Carried:
    """Segments of one connection that carry messages of both ends, and the messages of each with their frames."""

    segments: list[Segment]
    messages: dict[bool, list[tuple[bytes, int, int]]]


def carry(draw: st.DrawFn, messages: dict[bool, list[bytes]], *, losses: bool = False) -> Carried:
    """Cut messages into segments at will, some retransmitted, some out of order; lose some where that may be."""
    sequences = {
        side: draw(st.sampled_from([1_000, 0xFFFF_FFFF, 0xFFFF_FF80, 0x7FFF_FFF0])) + 7 * side for side in messages
    }
    segments = [
        Segment(START_NS, 0, False, sequences[False], flags=SYN),
        Segment(START_NS, 0, True, sequences[True], flags=SYN | ACK, acknowledgment=sequences[False] + 1),
    ]
    pieces: dict[bool, list[tuple[int, bytes]]] = {}
    for side, all_of in messages.items():
        data = b"".join(all_of)
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
        pieces[side] = [(first, data[first:last]) for first, last in pairwise([0, *cuts, len(data)]) if first < last]
    turns = draw(st.permutations([side for side, of in pieces.items() for _ in of]))
    left = {side: iter(of) for side, of in pieces.items()}
    sent = {side: number + 1 for side, number in sequences.items()}
    now = START_NS
    for side in turns:
        now += draw(st.integers(1, 50_000))
        offset, piece = next(left[side])
        segments.append(Segment(now, 0, side, sequences[side] + 1 + offset, piece, acknowledgment=sent[not side]))
        sent[side] = sequences[side] + 1 + offset + len(piece)
    for at in draw(st.lists(st.integers(2, len(segments)), max_size=3)):
        again = draw(st.sampled_from(segments[2:at] or [None]))
        if again is not None:
            segments.insert(at, replace(again, timestamp_ns=segments[at - 1].timestamp_ns))
    for at in draw(st.lists(st.integers(2, max(len(segments) - 2, 2)), max_size=4)):
        segments[at : at + 2] = segments[at : at + 2][::-1]
    if losses:
        lost = draw(st.sets(st.integers(0, len(segments) - 1), max_size=3))
        segments = [one for at, one in enumerate(segments) if at not in lost]
    if not losses or draw(st.booleans()):
        # What comes late would be given up where it is acknowledged before.
        segments = [replace(one, flags=one.flags & ~ACK) if one.payload else one for one in segments]
    return Carried(segments, {side: _framed(side, of, segments, sequences[side] + 1) for side, of in messages.items()})


def _framed(side: bool, messages: list[bytes], segments: list[Segment], start: int) -> list[tuple[bytes, int, int]]:
    """Give each whole message with the frame that brought the last of its bytes to come, byte by byte."""
    first_seen: dict[int, int] = {}
    for frame, segment in enumerate(segments, 1):
        if segment.from_venue is side:
            for at in range(len(segment.payload)):
                first_seen.setdefault(segment.sequence + at, frame)
    framed, at = [], start
    for message in messages:
        frames = [first_seen.get(number) for number in range(at, at + len(message))]
        at += len(message)
        known = [frame for frame in frames if frame is not None]
        if len(known) == len(message):
            framed.append((message, max(known), segments[max(known) - 1].timestamp_ns))
    return framed


@st.composite
def fix_sessions(draw: st.DrawFn, *, losses: bool = False) -> Carried:
    return carry(draw, {side: draw(fix_messages()) for side in (False, True)}, losses=losses)


@st.composite
def soup_sessions(draw: st.DrawFn, *, losses: bool = False) -> Carried:
    client = [soup(b"L", b"uspcap" + b"secretword" + b" " * 10 + b"1".rjust(20)), soup(b"U", b"order")]
    return carry(draw, {False: client, True: draw(soup_messages())}, losses=losses)
