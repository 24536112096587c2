"""Sound frames built by hand, one header at a time, and their decoding into plain values."""

import struct
from ipaddress import ip_address

import numpy as np

from uspcap._core.columns import HEADER_FIELDS
from uspcap.frames import FrameBatch, Interface

ETHERNET_LINK = 1
MACS = bytes.fromhex("01005e000102 02a0b0c0d0e0")
PAYLOAD = b"market data"

COLUMNS = tuple(name for name, _ in HEADER_FIELDS if name != "flow")


def ethernet(ethertype, payload):
    return MACS + struct.pack("!H", ethertype) + payload


def vlan(identifier, ethertype, payload):
    """Return what follows a tag's EtherType."""
    return struct.pack("!HH", 5 << 13 | identifier, ethertype) + payload


def snap(ethertype, payload):
    return b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", ethertype) + payload


def mpls(labels, payload):
    bottom = len(labels) - 1
    return b"".join(struct.pack("!I", name << 12 | (i == bottom) << 8 | 64) for i, name in enumerate(labels)) + payload


def pppoe(protocol, payload):
    return struct.pack("!BBHHH", 0x11, 0, 7, 2 + len(payload), protocol) + payload


def ipv4(protocol, payload, source="10.1.2.3", destination="239.4.5.6", *, options=b"", fragment=0, total=None):
    """`fragment` is the field of 16 bits: flags, and the offset in units of 8 bytes."""
    length = 20 + len(options)
    return struct.pack(
        "!BBHHHBBH4s4s", 0x40 | length // 4, 0, length + len(payload) if total is None else total, 0xBEEF, fragment, 61,
        protocol, 0, ip_address(source).packed, ip_address(destination).packed,
    ) + options + payload  # fmt: skip


def ipv6(protocol, payload, source="2001:db8::1", destination="ff02::fb"):
    head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 62)
    return head + ip_address(source).packed + ip_address(destination).packed + payload


def ipv6_options(following, payload, units=0):
    return bytes([following, units]) + bytes(6 + 8 * units) + payload


def ipv6_fragment(following, payload):
    return struct.pack("!BBHI", following, 0, 1, 0xCAFEF00D) + payload


def udp(payload=PAYLOAD, source=4001, destination=4002, length=None):
    return struct.pack("!HHHH", source, destination, 8 + len(payload) if length is None else length, 0) + payload


def tcp(payload=PAYLOAD, source=4003, destination=4004, *, options=b"", flags=0x118):
    offset_and_flags = (5 + len(options) // 4) << 12 | flags
    return struct.pack(
        "!HHIIHHHH", source, destination, 0x89ABCDEF, 0xFEDCBA98, offset_and_flags, 0xF00F, 0, 0
    ) + options + payload  # fmt: skip


def sll(ethertype, payload):
    return struct.pack("!HHH8sH", 0, 1, 6, MACS[6:], ethertype) + payload


def gre(ethertype, payload):
    return struct.pack("!HHI", 1 << 13, ethertype, 7) + payload


def vxlan(payload):
    return udp(struct.pack("!II", 0x08000000, 77 << 8) + payload, destination=4789)


def geneve(ethertype, payload):
    return udp(struct.pack("!BBHI4x", 1, 0, ethertype, 99 << 8) + payload, destination=6081)


UDP4 = ipv4(17, udp())
TCP4 = ipv4(6, tcp(options=bytes(12)))
UDP6 = ipv6(17, udp())

# Name, link type, frame: all with IP and a transport header.
SOUND_FRAMES = [
    ("udp", 1, ethernet(0x0800, UDP4)),
    ("tcp", 1, ethernet(0x0800, TCP4)),
    ("udp over IPv6", 1, ethernet(0x86DD, UDP6)),
    ("udp-lite", 1, ethernet(0x0800, ipv4(136, udp()))),
    ("sctp", 1, ethernet(0x0800, ipv4(132, struct.pack("!HHII", 4005, 4006, 1, 2) + PAYLOAD))),
    ("icmp", 1, ethernet(0x0800, ipv4(1, bytes([8, 3, 0, 0, 0, 0, 0, 0]) + PAYLOAD))),
    ("icmpv6", 1, ethernet(0x86DD, ipv6(58, bytes([135, 1, 0, 0, 0, 0, 0, 0]) + PAYLOAD))),
    ("IPv4 options", 1, ethernet(0x0800, ipv4(6, tcp(), options=bytes(20)))),
    ("extension headers", 1, ethernet(0x86DD, ipv6(0, ipv6_options(60, ipv6_options(6, tcp(), 3))))),
    ("first fragment", 1, ethernet(0x86DD, ipv6(44, ipv6_fragment(17, udp())))),
    ("two tags", 1, ethernet(0x88A8, vlan(1000, 0x8100, vlan(7, 0x0800, TCP4)))),
    ("snap", 1, ethernet(8 + len(UDP4), snap(0x0800, UDP4))),
    ("labels", 1, ethernet(0x8847, mpls([16, 17], UDP4))),
    ("pppoe", 1, ethernet(0x8864, pppoe(0x0021, TCP4))),
    ("raw IPv4", 228, TCP4),
    ("raw IPv6", 101, UDP6),
    ("cooked", 113, sll(0x0800, TCP4)),
    ("null", 0, bytes([2, 0, 0, 0]) + UDP4),
    ("loop", 108, bytes([0, 0, 0, 24]) + UDP6),
    ("ppp", 9, b"\xff\x03\x00\x21" + TCP4),
    ("Cisco HDLC", 50, b"\x0f\x00\x08\x00" + UDP4),
    ("Cisco HDLC of its own link type", 104, b"\x0f\x00\x08\x00" + UDP4),
]

# Link type, frame.
TUNNEL_FRAMES = [
    (1, ethernet(0x0800, ipv4(4, TCP4))),
    (1, ethernet(0x86DD, ipv6(41, UDP6))),
    (1, ethernet(0x0800, ipv4(47, gre(0x6558, ethernet(0x0800, UDP4))))),
    (1, ethernet(0x0800, ipv4(17, vxlan(ethernet(0x8100, vlan(2, 0x86DD, UDP6)))))),
    (1, ethernet(0x86DD, ipv6(17, geneve(0x86DD, UDP6)))),
    (1, ethernet(0x8847, mpls([16], bytes(4) + ethernet(0x0800, TCP4)))),
]


def batch_of(frames, link_type=ETHERNET_LINK, *, tunnels=False, **options):
    batch = FrameBatch.from_frames(frames, [0] * len(frames), interfaces=(Interface(link_type=link_type),), **options)
    batch.decode_tunnels = tunnels
    return batch


def rows_of(batch):
    """Return one dict a frame: column name to int, or to bytes for addresses."""
    columns = {name: batch.headers.column(name) for name in COLUMNS}
    return [
        {
            name: column[row].tobytes() if isinstance(column[row], np.ndarray) else int(column[row])
            for name, column in columns.items()
        }
        for row in range(len(batch))
    ]


def decoded_row(frame, link_type=ETHERNET_LINK, *, tunnels=False, wire_length=None):
    wire_lengths = None if wire_length is None else [wire_length]
    return rows_of(batch_of([frame], link_type, tunnels=tunnels, wire_lengths=wire_lengths))[0]
