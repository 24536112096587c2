"""Traffic of every kind that analyses look for, made by hypothesis, in order of time and with distinct timestamps."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from support import feeds, fragments, header_frames, lines, order_sessions, tcp_segments, trailer_frames
from support.request_frames import udp

from uspcap.analysis import registry

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Sent:
    """A frame: when it was captured, what there is of it, how long it was on the wire; of which line, to which side."""

    ns: int
    data: bytes
    wire_length: int = 0
    line: int = 0
    back: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire_length", max(self.wire_length, len(self.data)))


@dataclass(frozen=True)
class Asked:
    """A capture, in order, and what is asked of it."""

    frames: list[Sent]
    only: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{len(self.frames)} frames, {self.only}, {self.options}"


def in_order(*streams: Iterable[Sent]) -> list[Sent]:
    """Merge streams by time; frames of one time are moved apart by a ns."""
    frames: list[Sent] = []
    for one in sorted((one for stream in streams for one in stream), key=lambda one: one.ns):
        frames.append(replace(one, ns=max(one.ns, frames[-1].ns + 1) if frames else one.ns))
    return frames


def numbered(frames: Sequence[Sent]) -> list[Sent]:
    """Give IPv4 packets directly in Ethernet that are no fragments an identification each, as hosts do."""
    found = []
    for number, one in enumerate(frames, 1):
        data = one.data
        if data[12:15] == b"\x08\0\x45" and not struct.unpack_from("!H", data, 20)[0] & 0x3FFF:
            data = data[:18] + struct.pack("!H", number & 0xFFFF) + data[20:]
        found.append(replace(one, data=data))
    return found


def rising(made: random.Random, count: int, most_ns: int) -> list[int]:
    """Return times that rise, by up to so much, now and then by far more."""
    now, times = START_NS, []
    for _ in range(count):
        now += made.randint(1, most_ns) * made.choice([1] * 19 + [300])
        times.append(now)
    return times


RANDOMS = st.integers(0, 1 << 32).map(random.Random)
STEPS_NS = st.sampled_from([5_000, 1_000_000, 40_000_000])


@st.composite
def flows(draw: st.DrawFn) -> list[Sent]:
    """UDP of some flows, tagged or not, ARP, in sizes of all kinds."""
    made = draw(RANDOMS)
    frames = []
    for number, ns in enumerate(rising(made, draw(st.integers(1, 120)), draw(STEPS_NS))):
        flow = made.randrange(4)
        payload = struct.pack("!Q", number).ljust(made.choice([8, 18, 200, 1400]), b"x")
        back = made.random() < 0.5
        data = udp(7000 + flow, 7100, payload, "10.0.0.1", "10.0.0.2")
        if back:
            data = udp(7100, 7000 + flow, payload, "10.0.0.2", "10.0.0.1")
        if made.random() < 0.2:
            data = data[:12] + struct.pack("!HH", 0x8100, 5) + data[12:]
        if made.random() < 0.05:
            arp = struct.pack("!HHBBHQ", 1, 0x0800, 6, 4, 1, number)
            data = header_frames.ethernet(0x0806, arp.ljust(40, b"\0"))
        frames.append(Sent(ns, data, line=flow, back=back))
    return frames


@st.composite
def connections(draw: st.DrawFn) -> list[Sent]:
    """TCP with all that befalls it: loss, retransmission, reordering, beginnings that were not seen."""
    segments = draw(tcp_segments.captures(connection_count=3))
    return [Sent(one.timestamp_ns, one.wire(), line=one.connection, back=one.from_responder) for one in segments]


def in_fragments(
    payload: bytes, identification: int, size: int, ports: tuple[int, int], ends: tuple[str, str]
) -> list[bytes]:
    """Return a UDP datagram as frames of IPv4 fragments of so many bytes, a multiple of 8, but for the last."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    found = []
    for at in range(0, len(datagram), size):
        more = at + size < len(datagram)
        packet = header_frames.ipv4(17, datagram[at : at + size], *ends, fragment=at // 8 | (0x2000 if more else 0))
        found.append(header_frames.ethernet(0x0800, packet[:4] + struct.pack("!H", identification) + packet[6:]))
    return found


@st.composite
def questions(draw: st.DrawFn) -> list[Sent]:
    """DNS, echoes, requests of UDP ports 1001 and 1002: lost, repeated, unsolicited, answered late, in fragments."""
    made = draw(RANDOMS)
    frames: list[Sent] = []
    for number, ns in enumerate(rising(made, draw(st.integers(1, 40)), draw(STEPS_NS))):
        kind = made.choice(["dns", "dns", "echo", "rule", "rule"])
        client, server = f"10.1.0.{1 + number % 3}", "10.1.1.1"
        key = struct.pack("!H", made.choice([number, number % 5]))
        for back in (False, True):
            ends = (server, client) if back else (client, server)
            at_ns = ns + (made.choice([20_000, 3_000_000, 900_000_000]) + made.randrange(10_000)) * back
            if made.random() < 0.15:
                continue
            if kind == "dns":
                payload = key + (b"\x84\0" if back else b"\x01\0") + bytes(made.choice([30, 2000 * back + 30]))
                ports = (53, 2000 + number % 3) if back else (2000 + number % 3, 53)
            elif kind == "rule":
                payload = (b"AB" if back else b"") + key + bytes(20)
                ports = (1002, 1001) if back else (1001, 1002)
            else:
                echo = struct.pack("!BBHHH", 0 if back else 8, 0, 0, 7, number) + bytes(24)
                datas = [header_frames.ethernet(0x0800, header_frames.ipv4(1, echo, *ends))]
            if kind != "echo":
                datas = [udp(*ports, payload, *ends)]
                if len(payload) > 1400:
                    datas = in_fragments(payload, 1000 + number, 1400, ports, ends)
                    made.shuffle(datas)
                    if made.random() < 0.2:
                        datas.pop()
            for data in datas * made.choice([1, 1, 1, 2]):
                frames.append(Sent(at_ns, data, line=number % 3, back=back))
                at_ns += made.randint(1, 100_000)
    return frames


@st.composite
def feed_lines(draw: st.DrawFn) -> list[Sent]:
    """Two lines of a MoldUDP64 feed, with losses, some packets in fragments."""
    made = draw(RANDOMS)
    sends, restart = draw(st.integers(1, 60)), draw(st.sampled_from([0, 0.02]))
    packets = lines.two_lines(made.randrange(1 << 32), sends, loss=0.05, restart=restart)
    frames = []
    for number, one in enumerate(packets):
        payload = one.mold()
        pieces = [feeds.frame_of(payload, one.line)]
        if one.count > 1 and made.random() < 0.2:
            pieces = [piece.frame() for piece in fragments.fragments_of(payload, 5000 + number, 16, line=one.line)]
            made.shuffle(pieces)
        frames += [Sent(one.at_ns + 10 * at, piece, line=one.line) for at, piece in enumerate(pieces)]
    return frames


@st.composite
def media(draw: st.DrawFn) -> list[Sent]:
    """RTP streams with losses and reordering, and RTCP beside them."""
    made = draw(RANDOMS)
    frames, number = [], made.choice([100, 65_530])
    held: list[bytes] = []
    for at, ns in enumerate(rising(made, draw(st.integers(1, 80)), 20_000_000)):
        number += made.choice([1] * 15 + [2, 4])
        payload = struct.pack("!BBHII", 0x80, 96, number & 0xFFFF, 160 * at, 0xABCD) + bytes(60)
        if made.random() < 0.05:
            payload = struct.pack("!BBHI", 0x80, 200, 6, 0xABCD) + bytes(20)
        held.append(udp(5004, 5004, payload, "10.2.0.1", "10.2.0.2"))
        if made.random() < 0.9:
            frames += [Sent(ns + nth, data) for nth, data in enumerate(held[::-1])]
            held = []
    return frames


@st.composite
def sessions(draw: st.DrawFn) -> tuple[str, list[Sent]]:
    """Order entry over TCP, with losses and frames that were cut."""
    session = draw(order_sessions.sessions(losses=True))
    return session.protocol, [
        Sent(one.timestamp_ns, one.captured(), len(one.wire()), one.connection, one.from_venue)
        for one in session.segments
    ]


@st.composite
def timestamped(draw: st.DrawFn) -> list[Sent]:
    """Frames with timestamps of a tap behind them, now and then without."""
    made = draw(RANDOMS)
    frames = []
    for number, ns in enumerate(rising(made, draw(st.integers(30, 80)), draw(STEPS_NS))):
        frame = trailer_frames.plain(made.choice([20, 30, 200]), fill=number & 0xFF)
        one = trailer_frames.timestamped("metamako", frame, ns - made.choice([200, 3_000, 40_000]))
        frames.append(Sent(ns, frame if made.random() < 0.05 else one.captured, line=number % 2))
    return frames


def tunnelled(frames: Iterable[Sent], made: random.Random, share: float) -> list[Sent]:
    """Put some of the packets into VXLAN or GRE."""
    found = []
    for one in frames:
        data, outer = one.data, ("10.9.0.2", "10.9.0.1") if one.back else ("10.9.0.1", "10.9.0.2")
        if made.random() < share:
            if made.random() < 0.5:
                data = udp(40_000 + one.line, 4789, b"\x08\0\0\0\0\0\x07\0" + data, *outer)
            else:
                gre = struct.pack("!HH", 0, 0x6558) + data
                data = header_frames.ethernet(0x0800, header_frames.ipv4(47, gre, *outer))
        found.append(replace(one, data=data, wire_length=one.wire_length + len(data) - len(one.data)))
    return found


KEY = "key=payload[{}:{}]"
RULES = {
    "requests": [f"udp src port 1001; {KEY.format(0, 2)}"],
    "responses": [f"udp src port 1002; {KEY.format(2, 4)}"],
}


def _alone(only: tuple[str, ...], **options: Any) -> st.SearchStrategy[Asked]:
    """What needs nothing to be said runs over traffic of all kinds, in tunnels or not."""

    @st.composite
    def made(draw: st.DrawFn) -> Asked:
        streams = [draw(one()) for one in (flows, connections, questions) if draw(st.booleans())]
        frames = numbered(in_order(*streams, draw(flows())))
        share = draw(st.sampled_from([0, 0, 0.3, 1]))
        return Asked(tunnelled(frames, draw(RANDOMS), share), only, options)

    return made()


def _of_protocol(
    analysis: str, protocol: str, kind: Callable[[], st.SearchStrategy[list[Sent]]], **options: Any
) -> st.SearchStrategy[Asked]:
    @st.composite
    def made(draw: st.DrawFn) -> Asked:
        frames = in_order(draw(kind()), draw(flows()) if draw(st.booleans()) else [])
        return Asked(numbered(frames), (analysis,), {"protocol": protocol, **options})

    return made()


@st.composite
def _of_sessions(draw: st.DrawFn, analysis: str) -> Asked:
    protocol, frames = draw(sessions())
    if analysis == "sequence" and protocol != "fix":
        protocol = "soupbintcp"
    beside = draw(flows()) if draw(st.booleans()) else []
    return Asked(numbered(in_order(frames, beside)), (analysis,), {"protocol": protocol})


@st.composite
def _of_trailers(draw: st.DrawFn) -> Asked:
    return Asked(in_order(draw(timestamped())), ("trailer", "inter_arrival"), {"timestamps": "trailer:metamako"})


KNOWN: dict[str, dict[str, st.SearchStrategy[Asked]]] = {
    "requests": {
        "rules": _alone(("requests",), request=RULES["requests"], response=RULES["responses"], timeout="1s"),
        "rounds": _alone(
            ("requests",), request=RULES["requests"], response=RULES["responses"], match="key", quorum="majority"
        ),
    },
    "tick_to_trade": {
        "by key": _alone(("tick_to_trade",), trigger=RULES["requests"][0], response=RULES["responses"]),
        "nearest": _alone(("tick_to_trade",), trigger="udp port 7100", response=["udp src port 1001"]),
    },
    "sequence": {
        "moldudp64": _of_protocol("sequence", "moldudp64", feed_lines),
        "rtp": _of_protocol("sequence", "rtp", media),
        "auto": _of_protocol("sequence", "auto", feed_lines),
        "tcp": _of_protocol("sequence", "tcp", connections),
        "in TCP": _of_sessions("sequence"),
    },
    "arbitration": {
        "moldudp64": _of_protocol(
            "arbitration", "moldudp64", feed_lines, pair=["A=233.252.0.1:30001,B=233.252.0.2:30002"]
        )
    },
    "orders": {"sessions": _of_sessions("orders")},
    "trailer": {"metamako": _of_trailers()},
}
"""By analysis that needs options, ways to call it."""


def ways_to_ask() -> dict[str, st.SearchStrategy[Asked]]:
    """Return ways to ask all registered analyses that files may be asked, other people's too."""
    found = {}
    for name in registry.names(live=False):
        for way, asked in KNOWN.get(name, {"": _alone((name,))}).items():
            found[f"{name} {way}".strip()] = asked
    return found
