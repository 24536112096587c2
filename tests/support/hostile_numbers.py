"""Numbered streams made to break what follows them: jumps near half the modulus, numbers at the ends of their field,
restarts, claims of far too much, sessions that change, repeats, overlaps, several streams at once.

Every choice comes from a `Choices`: hypothesis draws them (`Drawn`), and so does a seed (`Seeded`) where millions of
packets are wanted. Packets are laid out as a table of `feeds.toml` says, whichever it is.
"""

from __future__ import annotations

import random
import struct
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record
from support.numbered_streams import fix_of
from support.order_sessions import ACK, START_NS, SYN, Segment, soup

FIN, RST = 0x01, 0x04

T = TypeVar("T")


class Choices(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def pick(self, options: Sequence[T]) -> T: ...


class Seeded:
    """Choices of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        return options[self._random.randrange(len(options))]


class Drawn:
    """Choices that hypothesis makes, and makes smaller."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))


Table = Mapping[str, Any]


def shipped_tables(*, unverified: bool = False) -> dict[str, Table]:
    """Return the tables of what UDP carries, by name, with or without the rules that are not verified."""
    text = (resources.files("uspcap.protocols") / "feeds.toml").read_text(encoding="utf-8")
    tables = {name: table for name, table in tomllib.loads(text).items() if "framing" not in table}
    return {name: table | (table.get("unverified", {}) if unverified else {}) for name, table in tables.items()}


@dataclass(frozen=True)
class Said:
    """What one packet has in its fields; `kind` is the value of the table's field of kinds, where it has one."""

    number: int
    count: int
    session: int = 0
    kind: int | None = None


def edges_of(bits: int) -> list[int]:
    """Return numbers at the ends, the middle and the quarters of a field, and where restarts are detected."""
    whole = 1 << bits
    near = [0, 1, whole // 4, whole // 2, 3 * whole // 4, whole, 1_000, 1 << 31, 1 << 32, 1 << 63]
    return sorted({(one + by) % whole for one in near for by in (-2, -1, 0, 1, 2)})


def numbers_said(choices: Choices, table: Table, most: int, sessions: int = 1) -> Iterator[Said]:
    """Yield what packets of up to so many sessions say, calm and hostile by turns."""
    bits = 8 * table["sequence"][1]
    whole = 1 << bits
    edges = edges_of(bits)
    count_bits = 8 * table["count"][1] if "count" in table else 0
    kinds = [kind for name in ("data", "heartbeats", "ends", "resets") for kind in table.get(name, ())]
    data_kind = table["data"][0] if "data" in table else None
    next_of = [choices.pick([1, 1, 77, *edges]) for _ in range(sessions)]
    recent: list[Said] = []
    held: list[Said] = []
    while most > 0:
        session = choices.integer(0, sessions - 1) if sessions > 1 else 0
        at = next_of[session]
        count = _count(choices, count_bits)
        move = choices.pick(_MOVES)
        said: list[Said] = []
        if move == "calm":
            for _ in range(choices.pick([1, 2, 3, 5, 8])):
                some = 1 if not count_bits else choices.pick([1, 1, 2, 3])
                said.append(Said(at, some, session, data_kind))
                at = (at + some) % whole
        elif move == "long":
            some = 1 if not count_bits else choices.pick([1, 2])
            for _ in range(choices.pick([30, 63, 64, 65, 66, 130])):
                said.append(Said(at, some, session, data_kind))
                at = (at + some) % whole
        elif move == "again":
            said = [choices.pick(recent[-20:])] if recent else []
        elif move == "all again":
            said = recent[-choices.pick([3, 10, 70, 140]) :]
        elif move == "hold" and len(held) < 8:
            held.append(Said(at, count, session, data_kind))
            at = (at + count) % whole
        elif move == "release" and held:
            said = [held.pop(choices.integer(0, len(held) - 1))]
        elif move == "kind":
            said = [Said(choices.pick([at, at, *edges]), count, session, choices.pick([*kinds, 0, 255]))]
        else:
            if move == "lose":
                at = (at + choices.pick([1, 1, 2, 5, 70])) % whole
            elif move == "back":
                at = (at - choices.pick([1, 1, 2, 5, 70, 1_000, 1_001])) % whole
            elif move == "half":
                at = (at + whole // 2 + choices.pick([-2, -1, 0, 1, 2])) % whole
            elif move == "quarter":
                at = (at + choices.pick([1, 3]) * whole // 4 + choices.pick([-1, 0, 1])) % whole
            elif move == "edge":
                at = choices.pick(edges)
            elif move == "restart":
                at = choices.pick([0, 1, 1])
            elif move == "anywhere":
                at = choices.integer(0, whole - 1)
            elif move == "overlap":
                at, count = (at - choices.pick([1, 2, 3])) % whole, max(count, 1) + choices.pick([0, 1, 2, 5])
            elif move == "claim":
                count = choices.pick([0, 1 << count_bits >> 1, (1 << count_bits) - 1]) + choices.pick([-1, 0, 1])
                count %= 1 << count_bits
            said = [Said(at, count, session, data_kind)]
            at = (at + count) % whole
        next_of[session] = at
        recent = [*recent[-140:], *said]
        yield from said[:most]
        most -= max(len(said), 1)


_MOVES = (
    ["calm"] * 12
    + ["lose", "lose", "back", "back", "again", "again", "overlap", "hold", "release", "kind"]
    + ["half", "quarter", "edge", "restart", "anywhere", "claim", "long", "all again"]
)  # fmt: skip


def _count(choices: Choices, bits: int) -> int:
    return 1 if not bits else choices.pick([1, 1, 1, 2, 3, 0, 40]) % (1 << bits)


def packet_of(table: Table, said: Said) -> bytes:
    """Lay a packet out as a table says; as long as its fields say it is, whatever it claims to hold."""
    endian = table["endian"]
    payload = bytearray(table["header"] + 1 + said.number % 3)

    def put(place: Sequence[int], value: int) -> None:
        offset, size = place
        payload[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, endian)

    for check in table.get("checks", ()):
        put(check["place"], check["values"][said.session % len(check["values"])] if "values" in check else 1)
    for offset, size in table.get("key", ()):
        text = b"%0*d" % (size, said.session)
        payload[offset : offset + size] = text[-size:] if size > 2 else said.session.to_bytes(size, "little")
    # Where a check is of a key's bytes, the check has the last word; where of the number's, the number has.
    for check in table.get("checks", ()):
        if "values" in check:
            put(check["place"], check["values"][said.session % len(check["values"])])
    if "kind" in table:
        put(table["kind"], table["data"][0] if said.kind is None else said.kind)
    if "count" in table:
        put(table["count"], said.count)
    put(table["sequence"], said.number)
    if "length" in table:
        put(table["length"], len(payload) - table.get("length_adds", 0))
    if "part" in table:
        put(table["part"], len(payload))
    return bytes(payload)


def udp_frame(payload: bytes, flow: int = 0) -> bytes:
    """Return Ethernet, IPv4 and UDP around a payload; flows 0 and 1 are two lines, those above have other sources."""
    source = bytes([192, 0, 2, 1]) if flow < 2 else struct.pack("!I", 0xC612_0000 + (flow >> 1))
    group = bytes([233, 252, 0, 1 + flow % 2])
    udp = struct.pack("!HHHH", 30_000, 30_001 + flow % 2, 8 + len(payload), 0)
    network = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 8, 17, 0) + source + group
    return bytes.fromhex("01005e7c00010200000000010800") + network + udp + payload


@dataclass(frozen=True)
class Sent:
    """One datagram: on which flow, when, and what its packets say (several only where a table knows parts)."""

    flow: int
    at_ns: int
    said: tuple[Said, ...]

    def frame(self, table: Table) -> bytes:
        return udp_frame(b"".join(packet_of(table, one) for one in self.said), self.flow)


def datagrams(choices: Choices, table: Table, most: int, *, flows: int = 1, sessions: int = 1) -> list[Sent]:
    """Return datagrams of several flows that take turns; flows 0 and 1 mostly bring the same, as two lines do."""
    left = [numbers_said(choices, table, most, sessions) for _ in range(max(1, (flows + 1) // 2))]
    at_ns = START_NS
    sent: list[Sent] = []
    while len(sent) < most:
        line = choices.integer(0, len(left) - 1) if len(left) > 1 else 0
        said = list(_some(left[line], choices.pick([1, 1, 2, 3]) if "part" in table else 1))
        if not said:
            break
        for flow in (2 * line, 2 * line + 1)[: 2 if flows > 1 else 1]:
            if flows > 1 and choices.integer(0, 9) == 0:
                continue
            at_ns += choices.pick([0, 1, 700, 13_000])
            sent.append(Sent(flow, at_ns, tuple(said)))
    return sent[:most]


def _some(said: Iterator[Said], many: int) -> Iterator[Said]:
    for _, one in zip(range(many), said, strict=False):
        yield one


def capture_of(frames: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a pcap of ns of timestamped frames."""
    records = [pcap_record(*divmod(at_ns, 10**9), frame) for at_ns, frame in frames]
    return b"".join([pcap_header("<", 0xA1B2_3C4D), *records])


def hostile_segments(choices: Choices, most: int) -> list[Segment]:
    """Return segments of one or two connections whose sequence numbers jump, restart and overlap at will."""
    edges = edges_of(32) + [(1 << 30) + by for by in (-1, 0, 1)]
    at = {(connection, side): choices.pick(edges) for connection in (0, 1) for side in (False, True)}
    sent: list[Segment] = []
    now = START_NS
    for _ in range(most):
        now += choices.pick([0, 1, 700, 13_000])
        end = choices.integer(0, 1), choices.pick([False, True])
        move = choices.pick(
            ["data"] * 10 + ["ack", "ack", "syn", "fin", "rst", "lose", "back", "jump", "edge", "again"]
        )
        length = choices.pick([1, 1, 10, 60])
        first = at[end]
        if move == "again" and sent:
            sent.append(choices.pick(sent[-10:]))
            continue
        if move == "lose":
            first += choices.pick([1, 10, 1_000])
        elif move == "back":
            first -= choices.pick([1, 1, 10, 1_000])
        elif move == "jump":
            first += choices.pick([1 << 30, 1 << 31, 3 << 30]) + choices.pick([-1, 0, 1])
        elif move == "edge":
            first = choices.pick(edges)
        flags = {"syn": SYN, "fin": FIN | ACK, "rst": RST | ACK}.get(move, ACK)
        payload = b"" if move in ("ack", "syn", "rst") else b"x" * length
        acknowledgment = at[end[0], not end[1]] + choices.pick([0, 0, 0, 1 << 31, -5])
        sent.append(Segment(now, end[0], end[1], first % 2**32, payload, flags, acknowledgment=acknowledgment))
        at[end] = (first + len(payload) + bool(flags & (SYN | FIN))) % 2**32
    return sent


FIX_NUMBERS = [0, 1, 2, 1_000, 1_001, 2**31, 2**32, 2**53, 10**18 - 1, 10**18 - 2, 10**18, 2**63 - 1, 2**64 - 1]


def hostile_fix(choices: Choices, most: int) -> list[bytes]:
    """Return what one end of a FIX session says with numbers from everywhere."""
    number = choices.pick([1, *FIX_NUMBERS])
    messages = []
    for _ in range(most):
        move = choices.pick(["next"] * 6 + ["resent", "fill", "reset", "logon", "logout", "jump", "back", "other"])
        fields: list[tuple[int, str]] = []
        kind = {"fill": "4", "reset": "4", "logon": "A", "logout": "5"}.get(move, "D")
        if move == "jump":
            number = choices.pick(FIX_NUMBERS)
        elif move == "back":
            number = max(0, number - choices.pick([1, 2, 70, 1_001]))
        elif move == "resent":
            fields = [(43, "Y")]
        elif move == "fill":
            fields = [(123, "Y"), (36, str(choices.pick([number + 1, number + 5, 0, *FIX_NUMBERS])))]
        elif move == "reset":
            fields = [(36, str(choices.pick([1, number + 1, *FIX_NUMBERS])))]
        elif move == "logon":
            fields = choices.pick([[], [(141, "Y")]])
        sender = choices.pick(["A", "A", "A", "B", None]) if move == "other" else "A"
        messages.append(fix_of(kind, number, *fields, sender=sender))
        if move != "resent":
            number += 1
    return messages


def hostile_soup(choices: Choices, most: int) -> list[bytes]:
    """Return what a SoupBinTCP server says, with logins that announce numbers from everywhere."""
    messages = []
    for _ in range(most):
        kind = choices.pick([b"S"] * 6 + [b"A", b"H", b"Z", b"U"])
        if kind == b"A":
            session = choices.pick([b"ONE", b"TWO", b""]).rjust(10)
            number = choices.pick([1, 1, 2, 1_000, 2**31, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1, 10**20 - 1])
            messages.append(soup(b"A", session + b"%20d" % number))
        else:
            messages.append(soup(kind, b"" if kind in b"HZ" else b"x" * choices.pick([1, 30])))
    return messages
