"""Capture files of extremes, each made of a seed: what a byte flipper hardly ever comes to.

How to call it:

    content = hostile_capture(seed)             # the bytes of a whole file, pcap or pcapng, by random.Random(seed)
    settings = hostile_settings(seed)           # uspcap.analysis.suite.Settings for it: all analyses, small bounds
    frames_of_extremes(random, count)           # only the frames: [(ns before any clamping, bytes, wire length)]
    python -m support.hostile_captures DIRECTORY FIRST COUNT      # write the files of so many seeds (PYTHONPATH=tests)

The same seed gives the same bytes. Timestamps are at and beyond both ends of int64, at the bounds that uspcap clamps
to, at 0, equal, backwards and ordinary; pcapng files have every if_tsresol and if_tsoffset at which arithmetic turns
over, one interface or hundreds, sections in both byte orders, simple and obsolete packet blocks, statistics; lengths
are 0, 1, just below and above each header, and what a field of 32 bits can claim. Mostly a file has one to three
frames, one in fifty has thousands. Frames hold what each analysis looks for: flows, requests, orders, TCP with
timestamps, feeds, trailers, tags and tunnels.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.capture_files import block, interface, option, packet, pcap_header, pcap_record, section
from support.feeds import frame_of
from support.header_frames import SOUND_FRAMES, TUNNEL_FRAMES
from support.order_sessions import fix, ouch, soup
from support.request_frames import udp
from support.trailer_frames import arp, plain, timestamped, vss

from uspcap.analysis import registry
from uspcap.analysis.protocol_options import ORDER_PROTOCOLS
from uspcap.analysis.sequence.settings import SequenceSettings
from uspcap.analysis.suite import Settings
from uspcap.formats.pcap import MICROSECOND_MAGIC, MODIFIED_MAGIC, NANOSECOND_MAGIC
from uspcap.protocols.feeds import find_protocol
from uspcap.protocols.line_pairs import parse_pairs
from uspcap.protocols.rules import Key, Rule, RulePair
from uspcap.timestamps.trailers import FORMATS, TrailerChoice

INT64 = 1 << 63
CLAMPED = (1 << 62) - 1
NOW_NS = 1_700_000_000_000_000_000

MOMENTS_NS = (
    *(-INT64, -INT64 + 1, -INT64 + 1000, 1 - (1 << 62), -(1 << 62), -(1 << 62) - 1, -(10**18), -(10**9), -1000, -1),
    *(0, 1, 999, 10**9 - 1, 10**9, (1 << 52) - 1, 1 << 52, 1 << 53, NOW_NS, NOW_NS + 1, 10**9 * (1 << 32) - 1),
    *(CLAMPED - 1, CLAMPED, CLAMPED + 1, CLAMPED + 2, INT64 - 1000, INT64 - 2, INT64 - 1, INT64, 2 * INT64 - 1),
)
"""Nanoseconds since the epoch at which arithmetic turns over, some of them beyond int64."""

STEPS_NS = (
    *(0, 1, 2, 31, 32, 999, 1000, 1001, 125_000, 10**6, 10**9 - 1, 10**9, 10**9 + 1, 35 * 10**9, 37 * 10**9),
    *(1 << 40, 1 << 43, 1 << 44, 1 << 52, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63),
)
"""How far a frame may be from the one before, either way."""

RESOLUTIONS = (
    *(0, 1, 3, 5, 6, 8, 9, 9, 9, 10, 12, 15, 18, 19, 27, 28, 29, 126, 127),
    *(0x80, 0x81, 0x80 | 9, 0x80 | 20, 0x80 | 29, 0x80 | 30, 0x80 | 32, 0x80 | 34, 0x80 | 62, 0x80 | 63, 0x80 | 64),
    *(0x80 | 93, 0x80 | 94, 0xFE, 0xFF),
)
"""if_tsresol."""

OFFSETS_S = (
    *(0, 0, 0, 1, -1, 1_700_000_000, 1 << 31, -(1 << 31), 1 << 32, 4_611_686_018, -4_611_686_018, 4_611_686_019),
    *(9_223_372_036, 9_223_372_037, -9_223_372_036, -9_223_372_037, INT64 - 1, -INT64),
)
"""if_tsoffset."""

LENGTHS = (
    *(0, 1, 13, 14, 15, 33, 34, 41, 42, 53, 54, 60, 64, 65, 127, 128, 1514, 9000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
)
"""Wire lengths that a record may claim."""

Frame = tuple[int, bytes, int]
"""Nanoseconds since the epoch, any number; captured bytes; wire length."""


def _tcp(chance: random.Random, payload: bytes, *, flags: int | None = None, options: bytes | None = None) -> bytes:
    """Return Ethernet, IPv4 and TCP, mostly of few connections and with numbers near where they wrap."""
    port = chance.choice((40_000, 40_001, 24_001))
    ends = (b"\xc0\0\2\x14", port), (b"\xc0\0\2\xc8", 24_001)
    (source, source_port), (destination, destination_port) = ends if chance.random() < 0.5 else ends[::-1]
    near = chance.choice((0, 1, 1000, 1 << 31, (1 << 32) - 1, chance.randrange(1 << 32)))
    sequence, acknowledgment = (near + chance.randrange(-2, 64) & 0xFFFFFFFF for _ in range(2))
    flags = chance.choice((0x02, 0x12, 0x10, 0x18, 0x18, 0x11, 0x04, 0)) if flags is None else flags
    if options is None:
        timestamps = struct.pack("!BBBBII", 1, 1, 8, 10, chance.choice((0, 1, near)), chance.choice((0, near)))
        options = chance.choice(
            (b"", b"", timestamps, timestamps[:3] + b"\1", b"\x08\x0a\0\0", b"\0" * 4, b"\x03\x00\1\1")
        )
    header = struct.pack(
        "!HHIIBBHHH", source_port, destination_port, sequence, acknowledgment, (20 + len(options)) // 4 << 4, flags,
        chance.choice((0, 1, 500, 0xFFFF)), 0, 0,
    )  # fmt: skip
    total = 20 + len(header) + len(options) + len(payload)
    network = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total & 0xFFFF, 1, 0, 64, 6, 0, source, destination)
    return bytes.fromhex("0200000000020200000000010800") + network + header + options + payload


def _request(chance: random.Random) -> bytes:
    number = chance.choice((0, 1, 2, 0xFFFF))
    answer = chance.random() < 0.5
    dns = struct.pack("!HHHHHH", number, 0x8000 if answer else 0, 1, 0, 0, 0)
    moment = struct.pack("!Q", chance.choice((0, 1, 1 << 63, (1 << 64) - 1, 0xE8000000_00000000)))
    ntp = bytes([0x24 if answer else 0x23]) + bytes(23) + moment * 3
    ends = ("10.0.0.2", "10.0.0.1") if answer else ("10.0.0.1", "10.0.0.2")
    if chance.random() < 0.5:
        return udp(*((53, 5353) if answer else (5353, 53)), dns, *ends)
    return udp(*((123, 1123) if answer else (1123, 123)), ntp, *ends)


def _echo(chance: random.Random) -> bytes:
    kind = chance.choice((0, 8))
    network = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 1, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    return bytes.fromhex("0200000000020200000000010800") + network + struct.pack("!BBHI", kind, 0, 0, 7)


def _feed(chance: random.Random) -> bytes:
    number = chance.choice((0, 1, 2, 1000, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
    count = chance.choice((0, 1, 2, 0xFFFE, 0xFFFF))
    return frame_of(struct.pack("!10sQH", b"SESSION001", number, count) + b"\0\1x", chance.choice((0, 1)))


def _rtp(chance: random.Random) -> bytes:
    number = chance.choice((0, 1, 100, 32767, 32768, 65534, 65535))
    return udp(5004, 5004, struct.pack("!BBHII", 0x80, 96, number, chance.choice((0, (1 << 32) - 1)), 7) + bytes(8))


def _order(chance: random.Random) -> bytes:
    moment = chance.choice((0, 1, NOW_NS % 86_400_000_000_000, CLAMPED, INT64 - 1, INT64, 2 * INT64 - 1))
    protocol = chance.choice(ORDER_PROTOCOLS)
    if protocol == "fix":
        kind = chance.choice("DFG8938")
        return _tcp(chance, fix(kind, chance.choice((1, 2, 10**17)), (11, "A"), (150, "0"), (39, "0")), flags=0x18)
    kind = chance.choice("OUXaucej")
    try:
        message = ouch(protocol, kind, chance.choice((1, 2, 0xFFFFFFFF)), moment & (2 * INT64 - 1))
    except (struct.error, KeyError, ValueError, OverflowError):
        message = soup(chance.choice((b"U", b"S", b"H", b"+", b"Z")), bytes(chance.choice((0, 1, 9))))
    return _tcp(chance, message, flags=0x18)


def _trailer(chance: random.Random) -> bytes:
    kind = chance.choice(sorted(FORMATS))
    second = chance.choice((3601, 1_700_000_000, (1 << 32) - 1, 1 << 31))
    moment = second * 10**9 + chance.choice((0, 999_999_999))
    if kind == "vss":
        return plain(chance.choice((3, 30))) + vss(moment)
    return timestamped(kind, chance.choice((plain(3), plain(30, vlans=1), arp())), moment).captured


def _named(chance: random.Random) -> bytes:
    return chance.choice((*SOUND_FRAMES, *TUNNEL_FRAMES))[-1]


def _flow(chance: random.Random) -> bytes:
    return udp(1000 + chance.randrange(8), 9, bytes(chance.choice((0, 1, 18, 100))))


def _data(chance: random.Random) -> bytes:
    return _tcp(chance, bytes(chance.choice((0, 0, 1, 100))))


def _zeros(chance: random.Random) -> bytes:
    return bytes(chance.choice((0, 1, 60)))


_MAKERS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_flow, _flow, _request, _echo, _feed, _rtp, _order, _trailer, _data, _data, _zeros),
)


def _moments(chance: random.Random, count: int) -> list[int]:
    """Return times in one of several manners: all extremes, a walk with extreme steps, ordinary with a lone extreme."""
    manner = chance.randrange(5)
    now = chance.choice(MOMENTS_NS)
    moments = []
    for at in range(count):
        if manner == 0:
            now = chance.choice(MOMENTS_NS)
        elif manner == 1:
            now += chance.choice(STEPS_NS) * chance.choice((1, 1, 1, -1))
        elif manner == 2:
            now = NOW_NS + at * 125_000 if chance.random() < 0.98 else chance.choice(MOMENTS_NS)
        elif manner == 3:
            now += chance.choice((0, 1, 999, 1000, 10**6, -1))
        else:
            now = chance.choice((MOMENTS_NS[0], MOMENTS_NS[-2]))
        now = max(-2 * INT64, min(2 * INT64 - 1, now))
        moments.append(now)
    return moments


def frames_of_extremes(chance: random.Random, count: int) -> list[Frame]:
    """Return so many frames with times and lengths of extremes."""
    makers = chance.sample(_MAKERS, chance.randrange(1, 4))
    frames = []
    for moment in _moments(chance, count):
        data = chance.choice(makers)(chance) if chance.random() < 0.97 else _named(chance)
        wire = len(data)
        if chance.random() < 0.1:
            data = data[: chance.choice((0, 1, 13, 14, 33, 41, 53, len(data)))]
        if chance.random() < 0.05:
            wire = chance.choice(LENGTHS)
        frames.append((moment, data, wire))
    return frames


def _count(chance: random.Random) -> int:
    if chance.random() < 0.02:
        return chance.choice((1500, 4097))
    return chance.choice((0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 5, 17, 64, 200))


def hostile_pcap(chance: random.Random) -> bytes:
    """Return a pcap file, whose times are whatever two words of 32 bits hold."""
    order = chance.choice("<>")
    magic = chance.choice((MICROSECOND_MAGIC, NANOSECOND_MAGIC, MODIFIED_MAGIC))
    unit = 1000 if magic != NANOSECOND_MAGIC else 1
    extra = bytes(8) if magic == MODIFIED_MAGIC else b""
    records = [pcap_header(order, magic, (2, chance.choice((2, 3, 4, 4, 4))), link_type=chance.choice((1, 1, 1, 113)))]
    for moment, data, wire in frames_of_extremes(chance, _count(chance)):
        second, fraction = divmod(moment, 10**9)
        words = second & 0xFFFFFFFF, fraction // unit
        if chance.random() < 0.1:
            words = (chance.choice((0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)), chance.choice((0, 10**9, 0xFFFFFFFF)))
        records.append(pcap_record(*words, data, wire, order=order, extra=extra))
    return _perhaps_cut(chance, b"".join(records))


def _interface(chance: random.Random, order: str) -> tuple[bytes, int, int]:
    """Return an interface description, its if_tsresol and if_tsoffset; either may be unsaid (6 and 0)."""
    resolution, offset_s, options = 6, 0, option(2, b"eth0", order)
    if chance.random() < 0.85:
        resolution = chance.choice(RESOLUTIONS)
        options += option(9, bytes([resolution]), order)
    if chance.random() < 0.4:
        offset_s = chance.choice(OFFSETS_S)
        options += option(14, struct.pack(order + "q", offset_s), order)
    described = interface(order, chance.choice((1, 1, 1, 101, 113)), chance.choice((0, 0, 1, 64)), options=options)
    return described, resolution, offset_s


def _ticks(moment: int, resolution: int, offset_s: int) -> int:
    """Return the ticks of an interface that come nearest to a time, of those that 64 bits hold."""
    per_second = 1 << (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    return max(0, min((1 << 64) - 1, (moment - offset_s * 10**9) * per_second // 10**9))


def hostile_pcapng(chance: random.Random) -> bytes:
    """Return a pcapng file of one or more sections."""
    parts = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        order = chance.choice("<>")
        interfaces = [
            _interface(chance, order) for _ in range(300 if chance.random() < 0.01 else chance.choice((1, 1, 1, 2, 3)))
        ]
        parts += [section(order), *(described for described, _, _ in interfaces)]
        for moment, data, wire in frames_of_extremes(chance, _count(chance)):
            number = chance.randrange(len(interfaces))
            _, resolution, offset_s = interfaces[number]
            ticks = _ticks(moment, resolution, offset_s)
            if chance.random() < 0.2:
                ticks = chance.choice((0, 1, moment % (1 << 64), 1 << 63, (1 << 63) - 1, (1 << 64) - 1))
            parts.append(_packet(chance, order, ticks, data, wire, number))
            if chance.random() < 0.02:
                parts.append(block(5, bytes(12) + option(5, struct.pack(order + "Q", (1 << 64) - 1), order), order))
    return _perhaps_cut(chance, b"".join(parts))


def _packet(chance: random.Random, order: str, ticks: int, data: bytes, wire: int, number: int) -> bytes:
    kind = chance.random()
    if kind < 0.03:
        return block(3, struct.pack(order + "I", wire) + data, order)
    if kind < 0.08:
        words = number & 0xFFFF, chance.choice((0, 1, 0xFFFF)), ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire
        return block(2, struct.pack(order + "HHIIII", *words) + data + bytes(-len(data) % 4), order)
    options = b""
    if chance.random() < 0.1:
        lost = chance.choice((0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
        options = option(4, struct.pack(order + "Q", lost), order) + option(2, struct.pack(order + "I", 1), order)
    return packet(ticks, data, number, wire, order, options)


def _perhaps_cut(chance: random.Random, content: bytes) -> bytes:
    return content if chance.random() < 0.95 else content[: chance.randrange(len(content) + 1)]


def hostile_capture(seed: int) -> bytes:
    """Return the capture file of a seed."""
    chance = random.Random(seed)
    return hostile_pcap(chance) if chance.random() < 0.2 else hostile_pcapng(chance)


BY_PAYLOAD = RulePair(
    "ports",
    Rule("", "udp src port 1001 or udp src port 1003", Key("payload", 0, 2)),
    Rule("", "udp src port 1002", Key("payload", 2, 4)),
    "key",
)
NEAREST = RulePair("ports", Rule("", "udp src port 1001"), Rule("", "udp src port 1002 or udp src port 1003"), "key")


_PAIRS = parse_pairs(["A=233.252.0.1:30001,B=233.252.0.2:30002"])


def hostile_settings(seed: int, names: Sequence[str] = registry.names(live=False)) -> Settings:
    """Return what to ask of a hostile capture: all of `names`, with bounds that are mostly small."""
    chance = random.Random(seed)
    return Settings(
        names=tuple(names),
        maximum_flows=chance.choice((1, 2, 3, 5, 64, 65_536)),
        tunnels=chance.random() < 0.3,
        arguments=_hostile_arguments(chance),
        trailer=TrailerChoice(FORMATS[chance.choice(sorted(FORMATS))]) if chance.random() < 0.3 else None,
    )


def _hostile_arguments(chance: random.Random) -> dict[str, dict[str, Any]]:
    shown = {"shown": chance.choice((1, 10, 1000))}
    numbers = SequenceSettings(find_protocol(chance.choice(("moldudp64", "rtp"))), pairs=_PAIRS)
    waiting = {"timeout_ns": chance.choice((1, 1000, 5 * 10**9, 1 << 60)), **shown}
    return {
        "inter_arrival": shown,
        "gaps": {"threshold_ns": chance.choice((None, None, 0, 1, 10**6, CLAMPED)), **shown},
        "bursts": {"line_rate_bps": chance.choice((None, 1, 10**10))},
        "overhead": {"framing": chance.random() < 0.5},
        "sequence": {"settings": numbers},
        "arbitration": {"settings": numbers},
        "orders": {"protocol": chance.choice((None, *ORDER_PROTOCOLS)), **shown},
        "requests": {"pairs": (BY_PAYLOAD,), "quorum": chance.choice((None, 1, "majority")), **waiting},
        "tick_to_trade": {"pair": NEAREST, **waiting},
        "tcp": shown,
    }


def main(directory: str, first: str, count: str) -> None:
    """Write the files of seeds `first`, `first` + 1, …"""
    for seed in range(int(first), int(first) + int(count)):
        content = hostile_capture(seed)
        kind = "pcapng" if content[:4] == b"\x0a\x0d\x0d\x0a" else "pcap"
        Path(directory, f"hostile-{seed}.{kind}").write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
