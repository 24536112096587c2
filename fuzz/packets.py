"""Frames of every kind that an analysis looks into, with numbers from the edges of their fields."""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Callable
from functools import cache
from importlib import resources
from random import Random
from typing import Any

from support import header_frames as layers
from support import trailer_frames as trailers
from support.order_sessions import fix, message, ouch, soup
from values import number

LINK_TYPES = (1, 0, 9, 12, 50, 101, 104, 108, 109, 113, 127, 192, 228, 229, 276, 105, 147, 65535)
PORTS = (1001, 1002, 1003, 53, 123, 5353, 443, 24001, 30001, 30002, 40000, 4789, 6081, 5060)
ORDER_KINDS = "OUXMaucejipms"


def network(random: Random, protocol: int, payload: bytes) -> bytes:
    """Return an Ethernet frame with IPv4, or IPv6, perhaps tagged, labelled or in a tunnel, around a payload."""
    if random.random() < 0.8:
        source, destination = random.choice((("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")))
        if random.random() < 0.2:
            destination = random.choice(("233.252.0.1", "233.252.0.2", "255.255.255.255"))
        fragment = random.choice((0,) * 12 + (0x2000, 0x4000, 0x00B9, 0x3FFF))
        ethertype = 0x0800
        packet = layers.ipv4(protocol, payload, source, destination, fragment=fragment)
    else:
        ethertype, packet = 0x86DD, layers.ipv6(protocol, payload)
        if random.random() < 0.2:
            packet = layers.ipv6(0, layers.ipv6_options(protocol, payload, random.randrange(3)))
    kind = random.random()
    if kind < 0.7:
        return layers.ethernet(ethertype, packet)
    if kind < 0.8:
        return layers.ethernet(random.choice((0x8100, 0x88A8, 0x9100)), layers.vlan(7, ethertype, packet))
    if kind < 0.85:
        return layers.ethernet(0x8847, layers.mpls([16, 17], packet))
    inner = layers.ethernet(ethertype, packet)
    outer = random.choice(
        (
            layers.vxlan(inner),
            layers.geneve(ethertype, packet),
            layers.udp(packet),
        )
    )
    if random.random() < 0.3:
        return layers.ethernet(0x0800, layers.ipv4(47, layers.gre(ethertype, packet)))
    return layers.ethernet(0x0800, layers.ipv4(17, outer))


def datagram(random: Random, payload: bytes, *, source: int | None = None, destination: int | None = None) -> bytes:
    """Return a UDP datagram of a frame."""
    source = random.choice(PORTS) if source is None else source
    destination = random.choice(PORTS) if destination is None else destination
    length = None if random.random() < 0.95 else number(random, 16)
    return network(random, 17, layers.udp(payload, source, destination, length))


def in_fragments(random: Random, frame: bytes) -> list[bytes]:
    """Return an IPv4 frame in fragments, some perhaps missing, double, overlapping or out of order, or as it is."""
    if frame[12:14] != b"\x08\0" or len(frame) < 50:
        return [frame]
    head, packet = frame[:14], frame[14:]
    length = 4 * (packet[0] & 15)
    if not 20 <= length <= len(packet):
        return [frame]
    payload, size = packet[length:], 8 * random.choice((1, 2, 3, random.randrange(1, 40)))
    identification = random.randrange(3).to_bytes(2, "big")
    pieces = []
    for at in range(0, len(payload), size):
        piece = payload[at : at + size + random.choice((0, 0, 0, 0, 8))]
        more = 0x2000 if at + size < len(payload) else 0
        header = bytearray(packet[:length])
        header[2:8] = (length + len(piece)).to_bytes(2, "big") + identification + (at // 8 | more).to_bytes(2, "big")
        pieces.append(head + bytes(header) + piece)
    if random.random() < 0.3:
        random.shuffle(pieces)
    if random.random() < 0.3:
        pieces.pop(random.randrange(len(pieces)))
    if pieces and random.random() < 0.2:
        pieces.append(random.choice(pieces))
    return pieces


def plain(random: Random, state: dict[str, Any]) -> bytes:
    """Return a frame of a few flows and sizes, ARP and what is no protocol among them."""
    size = random.choice((0, 1, 18, 22, 86, 458, 982, 1472, random.randrange(200)))
    kind = random.random()
    if kind < 0.7:
        return datagram(random, bytes(size))
    if kind < 0.8:
        return layers.ethernet(0x0806, bytes(28)).ljust(60, b"\0")
    if kind < 0.9:
        return segment(random, state)
    if kind < 0.95:
        return layers.ethernet(random.choice((0, 0x05DC, 0x0600, 0x88F7, 0xFFFF)), random.randbytes(size))
    return random.randbytes(random.randrange(120))


def walk(random: Random, state: dict[str, Any], name: str, bits: int) -> int:
    """Return the next of a stream's numbers: one more, lost, late, again, far away, near half of what they wrap at."""
    modulus = 1 << bits
    if name not in state:
        state[name] = number(random, bits)
    kind = random.random()
    if kind < 0.55:
        step = 1
    elif kind < 0.65:
        # One that was passed over comes late; the stream goes on where it was.
        return state.get(f"{name} passed", state[name])
    elif kind < 0.8:
        step = random.randrange(-4, 8)
    elif kind < 0.93:
        step = random.choice((modulus // 2, -modulus // 2, modulus - 1, modulus // 4, 1000)) + random.randrange(-3, 4)
    else:
        state[name] = number(random, bits)
        step = 0
    if step > 1:
        state[f"{name} passed"] = (state[name] + 1) % modulus
    state[name] = (state[name] + step) % modulus
    return state[name]


@cache
def feed_tables() -> dict[str, Any]:
    """Return the tables of the feeds that are shipped and numbered in UDP packets."""
    text = (resources.files("uspcap.protocols") / "feeds.toml").read_text(encoding="utf-8")
    return {name: table for name, table in tomllib.loads(text).items() if table.get("framing", "udp") == "udp"}


def feed_payload(random: Random, table: dict[str, Any], state: dict[str, Any]) -> bytes:
    """Return a packet as a table of feeds describes it."""
    order = table.get("endian", "big")
    payload = bytearray(table["header"])

    def put(place: list[int], value: int) -> None:
        offset, size = place
        payload[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, order)

    for check in table.get("checks", ()):
        put(check["place"], random.choice(check.get("values") or [number(random, 8)]))
    for offset, size in table.get("key", ()):
        payload[offset : offset + size] = random.choice((b"SESSION0001", b"\0" * 11, b"\xff" * 11))[:size]
    if "kind" in table:
        kinds = [one for name in ("data", "heartbeats", "ends", "resets") for one in table.get(name, ())]
        put(table["kind"], random.choice(kinds or [0]))
    put(table["sequence"], walk(random, state, "sequence", 8 * table["sequence"][1]))
    count = random.choice((1, 1, 1, 0, 2, 3))
    if "count" in table:
        put(table["count"], count if random.random() < 0.9 else number(random, 8 * table["count"][1]))
    for name in ("length", "part"):
        if name in table:
            put(table[name], len(payload) if random.random() < 0.9 else number(random, 8 * table[name][1]))
    return bytes(payload) * random.choice((1, 1, 1, 2)) + b"\0\1x" * count


def feed(name: str) -> Callable[[Random, dict[str, Any]], bytes]:
    """Return what makes frames of a feed."""
    table = feed_tables()[name]

    def make(random: Random, state: dict[str, Any]) -> bytes:
        line = random.randrange(2)
        packet = layers.udp(feed_payload(random, table, state), 30000, (table.get("ports") or [30001])[0])
        if random.random() < 0.1:
            return plain(random, state)
        return layers.ethernet(0x0800, layers.ipv4(17, packet, "192.0.2.1", ("233.252.0.1", "233.252.0.2")[line]))

    return make


def segment(random: Random, state: dict[str, Any], payload: bytes | None = None, *, side: int | None = None) -> bytes:
    """Return a TCP segment of one of two connections, whose numbers go on, wrap, and jump."""
    connection = random.randrange(2)
    side = random.randrange(2) if side is None else side
    name = f"tcp {connection} {side}"
    if payload is None:
        payload = bytes(random.choice((0, 0, 1, 100, 1460)))
    flags = random.choice((0x10,) * 6 + (0x18, 0x02, 0x12, 0x11, 0x04, 0x14, 0, 0xFF))
    if name not in state or random.random() < 0.05:
        state[name] = number(random, 32)
    sequence = state[name] + random.choice((0,) * 12 + (-1, 1, -1000, 1460, 1 << 31, -(1 << 31)))
    if sequence == state[name]:
        state[name] = (sequence + len(payload) + (flags & 3 != 0)) & 0xFFFFFFFF
    acknowledgment = state.get(f"tcp {connection} {1 - side}", 0) + random.choice((0,) * 6 + (1, -1, 1 << 31, 5000))
    options = b""
    if random.random() < 0.3:
        options = b"\x01\x01\x08\x0a" + struct.pack(
            "!II", walk(random, state, name + " timestamp", 32), number(random, 32)
        )
    elif random.random() < 0.1:
        options = random.choice(
            (b"\x02\x04\x05\xb4", b"\x03\x03\x0e\x00", b"\x05\x0a" + bytes(10), b"\x08\x00\xff\xff")
        )
    ports = (40_000 + connection, 24_001)
    header = struct.pack(
        "!HHIIHHHH",
        *(ports[::-1] if side else ports),
        sequence & 0xFFFFFFFF,
        acknowledgment & 0xFFFFFFFF,
        (5 + len(options) // 4) << 12 | flags,
        random.choice((500, 0, 65535)),
        0,
        0,
    )
    ends = ("192.0.2.20", "192.0.2.200")
    source, destination = ends[::-1] if side else ends
    if random.random() < 0.1:
        return network(random, 6, header + options + payload)
    return layers.ethernet(0x0800, layers.ipv4(6, header + options + payload, source, destination))


def orders(protocol: str) -> Callable[[Random, dict[str, Any]], bytes]:
    """Return what makes segments with messages of order entry, whole and cut anywhere."""

    def make(random: Random, state: dict[str, Any]) -> bytes:
        messages = b""
        side = random.randrange(2)
        for _ in range(random.choice((1, 1, 2, 4))):
            kind = random.choice(ORDER_KINDS)
            order = random.choice((1, 2, 3, 1 + number(random, 29)))
            venue_ns = random.choice((0, 34_200_000_000_000, number(random, 64)))
            choice = random.random()
            if protocol == "fix" and choice < 0.3:
                fields = [(random.choice((11, 36, 41, 43, 52, 123, 141)), str(number(random, 64))) for _ in range(2)]
                kind = random.choice("0123458ADFGZ")
                messages += fix(kind, walk(random, state, f"fix {side}", random.choice((16, 63, 64))), *fields)
            elif protocol != "fix" and choice < 0.4:
                login = b"SESSION1".rjust(10) + str(number(random, 64)).encode().rjust(20)
                body = random.choice((b"", b"x", bytes(40), random.randbytes(20)))
                packet = random.choice((b"A", b"S", b"U", b"H", b"R", b"Z", b"L", b"+"))
                messages += soup(packet, login if packet == b"A" else body)
            elif protocol == "fix":
                messages += message("fix", kind, order, venue_ns)
            else:
                messages += ouch(protocol, kind, order, venue_ns)
        if random.random() < 0.3:
            pending = state.pop("pending", b"")
            at = random.randrange(len(messages) + 1)
            state["pending"], messages = messages[at:], pending + messages[:at]
        return segment(random, state, messages, side=side)

    return make


def request(random: Random, state: dict[str, Any]) -> bytes:
    """Return a request or a response of a protocol that is known, or of a rule."""
    key = random.choice((0, 1, 2, 0xFFFF, random.getrandbits(16)))
    kind = random.randrange(6)
    if kind == 0:
        dns = struct.pack("!HHHHHH", key, random.choice((0x0100, 0x8180)), 1, 0, 0, 0) + b"\1a\0\0\1\0\1"
        ports = random.choice(((53, 1001), (1001, 53)))
        return datagram(random, dns, source=ports[0], destination=ports[1])
    if kind == 1:
        return network(random, 1, struct.pack("!BBHHH", random.choice((8, 0)), 0, 0, 7, key))
    if kind == 2:
        return network(random, 58, struct.pack("!BBHHH", random.choice((128, 129)), 0, 0, 7, key))
    if kind == 3:
        times = [number(random, 64) for _ in range(4)]
        ntp = struct.pack("!B39s", random.choice((0x23, 0x24, 0x1B)), bytes(39)) + struct.pack("!Q", times[key % 4])
        return datagram(random, ntp.ljust(48, b"\0"), source=123, destination=123)
    payload = struct.pack("!HH", key, random.choice((key, 0))) + bytes(random.randrange(8))
    if kind == 4:
        return segment(random, state, b"8=FIX.4.4\x0111=%d\x01" % key)
    source, destination = random.choice(((1001, 1002), (1002, 1001), (1003, 1002)))
    return datagram(random, payload, source=source, destination=destination)


def timestamped(kind: str) -> Callable[[Random, dict[str, Any]], bytes]:
    """Return what makes frames with a timestamp of a tap or switch."""

    def make(random: Random, state: dict[str, Any]) -> bytes:
        frame = random.choice(
            (
                trailers.plain(random.randrange(60), vlans=random.randrange(3), version=random.choice((4, 6))),
                trailers.arp(),
                plain(random, state),
            )
        )
        second = random.choice((trailers.SECOND, 0, 1, 0xFFFFFFFF, number(random, 32)))
        fraction = random.choice((0, 1, 999_999_999, number(random, 32) & 0x3FFFFFFF))
        fcs = random.random() < 0.7
        if kind == "arista":
            version = random.choice((0x0110, 0x0111, 0x0120, 0x0210, number(random, 16)))
            return trailers.with_arista(frame, second, fraction, version, tags=random.randrange(2))
        if kind == "expcap":
            flags, dropped = number(random, 8), number(random, 16)
            return frame + trailers.expcap(second, number(random, 40), flags=flags, dropped=dropped)
        if kind == "exablaze":
            return frame + trailers.exablaze(second, number(random, 40), fcs=fcs)
        ns = second * 10**9 + min(fraction, 10**9 - 1)
        if kind == "vss":
            return frame + trailers.vss(ns, port=random.choice((b"\x09", b"\0\x09", b"")), fcs=fcs)
        tlvs = b""
        if random.random() < 0.4:
            tlvs = random.choice(
                (
                    trailers.tlv(random.randrange(31), random.randbytes(3)) + trailers.tlv(2, bytes(11), last=True),
                    trailers.long_tlv(0x20, random.randbytes(8), last=True),
                    random.randbytes(random.randrange(20)),
                )
            )
        return frame + trailers.metamako(ns, flags=number(random, 8), tlvs=tlvs, fcs=fcs)

    return make


def layered(random: Random) -> tuple[int, bytes]:
    """Return a link type and a frame for it: any sound one, a tunnel, or headers on headers."""
    kind = random.random()
    if kind < 0.35:
        _, link_type, frame = random.choice(layers.SOUND_FRAMES)
    elif kind < 0.55:
        link_type, frame = random.choice(layers.TUNNEL_FRAMES)
    elif kind < 0.9:
        link_type, frame = 1, _nested(random)
    else:
        link_type, frame = random.choice(LINK_TYPES), _nested(random)
    if random.random() < 0.05:
        link_type = random.choice(LINK_TYPES)
    if random.random() < 0.3:
        frame = frame[: random.randrange(len(frame) + 1)]
    return link_type, frame


def _nested(random: Random) -> bytes:
    """Return an Ethernet frame of headers in headers, each of which may lie about its length."""
    depth = random.randrange(1, 7)
    ethertype, packet = 0x0800, layers.ipv4(17, layers.udp())
    for _ in range(depth):
        kind = random.randrange(11)
        if kind == 0:
            ethertype, packet = random.choice((0x8100, 0x88A8, 0x9100)), layers.vlan(1, ethertype, packet)
        elif kind == 1:
            ethertype, packet = 0x8847, layers.mpls([number(random, 20) for _ in range(random.randrange(1, 5))], packet)
        elif kind == 2:
            ethertype, packet = 0x0800, layers.ipv4(47, layers.gre(ethertype, packet))
        elif kind == 3:
            ethertype, packet = 0x0800, layers.ipv4(17, layers.vxlan(layers.ethernet(ethertype, packet)))
        elif kind == 4:
            ethertype, packet = 0x0800, layers.ipv4(17, layers.geneve(ethertype, packet))
        elif kind == 5:
            ethertype, packet = 0x0800, layers.ipv4(4 if ethertype == 0x0800 else 41, packet)
        elif kind == 6:
            ethertype, packet = 0x86DD, layers.ipv6(41 if ethertype == 0x86DD else 4, packet)
        elif kind == 7:
            extension = random.choice((0, 43, 60, 44, 51, 135, 139, 140))
            ethertype, packet = 0x86DD, layers.ipv6(extension, layers.ipv6_options(17, packet, number(random, 8) % 6))
        elif kind == 8:
            ethertype, packet = 0x8864, layers.pppoe(0x21 if ethertype == 0x0800 else 0x57, packet)
        elif kind == 9:
            total = number(random, 16)
            ethertype, packet = 0x0800, layers.ipv4(random.choice((6, 17, 1, 132, 136)), packet, total=total)
        else:
            options = random.randbytes(4 * random.randrange(11))
            packet = layers.ipv4(6, layers.tcp(options=options, flags=number(random, 12)), options=options[:40])
            ethertype = 0x0800
    return layers.ethernet(ethertype, packet[:65535])
