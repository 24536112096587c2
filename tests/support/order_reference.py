"""Orders by plain Python: every stream put together byte by byte in a dict, then read from its beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.order_sessions import ACK, SYN, Segment

OUCH_TO_VENUE = {"O": "enter", "U": "replace", "X": "cancel", "M": "modify"}
OUCH_FROM_VENUE = {
    "A": "accepted", "U": "replaced", "C": "canceled", "E": "executed", "J": "rejected", "I": "rejected",
    "P": "pending", "M": "modified",
}  # fmt: skip
FIX_REQUESTS = {"D": "enter", "F": "cancel", "G": "replace"}
FIX_EXECUTIONS = {
    "0": "accepted", "1": "executed", "2": "executed", "F": "executed", "4": "canceled", "5": "replaced",
    "8": "rejected", "A": "pending", "6": "pending", "E": "pending", "C": "expired",
}  # fmt: skip


@dataclass
class Stream:
    """What one end sent: byte and frame index by sequence number, the first sighting of each."""

    start: int | None = None
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Request:
    """A request and the first answer of each kind: (first frame, complete frame, venue's timestamp), frames from 0."""

    kind: str
    id: str
    first: int
    complete: int
    answers: dict[str, tuple[int, int, int | None]] = field(default_factory=dict)
    executions: int = 0


def slow_requests(protocol: str, segments: Sequence[Segment]) -> list[Request]:
    """All requests of whole streams, in the order of their first bytes."""
    generations: dict[int, int] = {}
    streams: dict[tuple[int, int, bool], Stream] = {}
    for index, segment in enumerate(segments):
        if segment.flags & SYN and not segment.flags & ACK:
            generations[segment.connection] = generations.get(segment.connection, 0) + 1
        generation = generations.get(segment.connection, 0)
        stream = streams.setdefault((segment.connection, generation, segment.from_venue), Stream())
        if segment.flags & SYN:
            stream.start = segment.sequence + 1
        elif segment.payload and stream.start is None:
            stream.start = segment.sequence
        for at, byte in enumerate(segment.payload):
            stream.seen.setdefault((segment.sequence + at) % 2**32, (byte, index))

    events = []
    for (connection, generation, _), stream in streams.items():
        events += [(ready, at, (connection, generation), *rest) for ready, at, *rest in _messages(stream, protocol)]
    events.sort(key=lambda event: event[:2])
    found: list[tuple[int, int, Request]] = []
    known: dict[Any, Request] = {}
    for _, at, connection, message, first, complete in events:
        if protocol == "fix":
            _fix(known, found, connection, message, first, complete, at)
        else:
            _ouch(protocol == "ouch-5.0", known, found, connection, message, first, complete, at)
    return [request for _, _, request in sorted(found, key=lambda one: one[:2])]


def _messages(stream: Stream, protocol: str) -> Iterator[tuple[int, int, bytes, int, int]]:
    """Give (frame when it could be read, position, message, frame of the first byte, frame of the last to come)."""
    data, frames = bytearray(), []
    if stream.start is not None:
        at = stream.start % 2**32
        while at in stream.seen:
            data.append(stream.seen[at][0])
            frames.append(stream.seen[at][1])
            at = (at + 1) % 2**32
    begin = ready = 0
    while begin < len(data):
        if protocol == "fix":
            length_field = data[begin:].split(b"\x01")[1]
            end = begin + len(b"\x01".join(data[begin:].split(b"\x01")[:2])) + 1 + int(length_field[2:] or b"0") + 7
        else:
            end = begin + 2 + int.from_bytes(data[begin : begin + 2], "big")
        if end > len(data):
            return
        complete = max(frames[begin:end])
        ready = max(ready, complete)
        yield ready, begin, bytes(data[begin:end]), frames[begin], complete
        begin = end


def _ask(
    known: Any, found: Any, key: Any, kind: str, name: str, first: int, complete: int, at: int, again: bool
) -> None:
    if key in known and not (again and known[key].answers):
        return
    known[key] = Request(kind, name, first, complete)
    found.append((first, at, known[key]))


def _answer(known: Any, key: Any, kind: str, first: int, complete: int, venue_ns: int | None) -> None:
    if key not in known:
        return
    known[key].executions += kind == "executed"
    known[key].answers.setdefault(kind, (first, complete, venue_ns))


def _ouch(
    five: bool, known: Any, found: Any, connection: Any, message: bytes, first: int, complete: int, at: int
) -> None:
    if message[2:3] not in b"US" or chr(message[3]) not in "OUXMACEJIP":
        return
    kind, body = chr(message[3]), message[3:]

    def name(offset: int) -> str:
        token = body[offset : offset + (4 if five else 14)]
        return str(int.from_bytes(token, "big")) if five else token.decode().rstrip(" ")

    if message[2:3] == b"U":
        offset = 1 if kind != "U" else 5 if five else 15
        space = kind if kind in "XM" else "O"
        key = (connection, space, name(offset))
        _ask(known, found, key, OUCH_TO_VENUE[kind], name(offset), first, complete, at, space != "O")
        return
    if kind not in OUCH_FROM_VENUE:
        return
    token = name(13 if five and kind == "U" else 9)
    space = {"C": "X", "I": "X", "P": "X", "M": "M"}.get(kind, "O")
    key = (connection, space, token)
    if kind == "C" and (key not in known or {"canceled", "rejected"} & set(known[key].answers)):
        key = (connection, "O", token)
    _answer(known, key, OUCH_FROM_VENUE[kind], first, complete, int.from_bytes(body[1:9], "big"))


def _fix(known: Any, found: Any, connection: Any, message: bytes, first: int, complete: int, at: int) -> None:
    fields = dict(pair.split(b"=", 1) for pair in message.split(b"\x01")[:-1])
    message_type = fields[b"35"].decode()
    name = fields.get(b"11", b"").decode()
    if message_type in FIX_REQUESTS:
        _ask(known, found, (connection, name), FIX_REQUESTS[message_type], name, first, complete, at, False)
    elif message_type == "9":
        _answer(known, (connection, name), "rejected", first, complete, None)
    elif message_type == "8" and fields[b"150"].decode() in FIX_EXECUTIONS:
        _answer(known, (connection, name), FIX_EXECUTIONS[fields[b"150"].decode()], first, complete, None)
