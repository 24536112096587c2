"""Header columns of frames made by hand, of random bytes, and next to memory that must not be touched."""

import ctypes
import ipaddress
import mmap
import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shared_captures import CAPTURES, needs_captures

from uspcap._core.columns import HEADER_FIELDS, HeaderColumns
from uspcap._core.headers import decode
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.protocols.headers import NO_PROTOCOL, UNTAGGED, Layer, address_text
from uspcap.protocols.link_types import DECODED_LINK_TYPES

LINK_TYPES = sorted(DECODED_LINK_TYPES)
COLUMNS = [name for name, _ in HEADER_FIELDS if name != "flow"]

NOTHING = {
    "ethertype": 0, "vlan_id": UNTAGGED, "vlan_depth": 0, "layers": 0, "ip_version": 0, "protocol": NO_PROTOCOL,
    "source_address": "00:00:00:00:00:00", "destination_address": "00:00:00:00:00:00", "source_port": 0,
    "destination_port": 0, "icmp_type": 0, "icmp_code": 0, "ttl": 0, "ip_id": 0, "fragment_offset": 0,
    "network_offset": -1, "transport_offset": -1, "payload_offset": -1, "payload_length": 0, "tcp_sequence": 0,
    "tcp_acknowledgment": 0, "tcp_flags": 0, "tcp_window": 0, "tap": 0,
}  # fmt: skip

PAYLOAD = b"payload!"
MACS = bytes.fromhex("0200000000bb 0200000000aa")
OF_MACS = {"source_address": "02:00:00:00:00:aa", "destination_address": "02:00:00:00:00:bb"}
OF_IPV4 = {
    "ip_version": 4, "source_address": "10.0.0.1", "destination_address": "10.0.0.2", "ttl": 61, "ip_id": 0x1234,
}  # fmt: skip
OF_IPV6 = {"ip_version": 6, "source_address": "2001:db8::1", "destination_address": "2001:db8::2", "ttl": 62}
OF_UDP = {"protocol": 17, "source_port": 1000, "destination_port": 2000}
OF_TCP = {
    "protocol": 6, "source_port": 1000, "destination_port": 2000, "tcp_sequence": 0x89ABCDEF,
    "tcp_acknowledgment": 0x01234567, "tcp_flags": 0x1D2, "tcp_window": 0xFEDC,
}  # fmt: skip


def ethernet(ethertype, payload):
    return MACS + struct.pack(">H", ethertype) + payload


def tag(vlan, ethertype, payload):
    return struct.pack(">HH", 0xE000 | vlan, ethertype) + payload


def ipv4(protocol, payload, *, total=None, options=b"", fragment=0, source="10.0.0.1", destination="10.0.0.2"):
    header = 20 + len(options)
    total = header + len(payload) if total is None else total
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    fields = struct.pack(">BBHHHBBH", 0x40 | header // 4, 0, total, 0x1234, fragment, 61, protocol, 0)
    return fields + addresses + options + payload


def ipv6(following, payload, *, length=None):
    length = len(payload) if length is None else length
    addresses = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed
    return struct.pack(">IHBB", 6 << 28, length, following, 62) + addresses + payload


def extension(following, length=8):
    return bytes([following, length // 8 - 1]) + bytes(length - 2)


def fragment_header(following, offset, more):
    return struct.pack(">BBHI", following, 0, offset | more, 0x89ABCDEF)


def authentication(following, length=24):
    return struct.pack(">BBHII", following, length // 4 - 2, 0, 1, 2) + bytes(length - 12)


def udp(payload=PAYLOAD, *, length=None, destination=2000):
    return struct.pack(">HHHH", 1000, destination, 8 + len(payload) if length is None else length, 0) + payload


def tcp(payload=PAYLOAD, *, data_offset=5, options=b""):
    flags = data_offset << 12 | 0x1D2
    return struct.pack(">HHIIHHHH", 1000, 2000, 0x89ABCDEF, 0x01234567, flags, 0xFEDC, 0, 0) + options + payload


def vxlan(payload, flags=0x08):
    return struct.pack(">B3xI", flags, 7 << 8) + payload


def geneve(ethertype, payload, options=b""):
    return struct.pack(">BBHI", len(options) // 4, 0, ethertype, 7 << 8) + options + payload


def gre(ethertype, payload, flags=0, fields=b""):
    return struct.pack(">HH", flags, ethertype) + fields + payload


def label(value, bottom, payload):
    return struct.pack(">I", value << 12 | bottom << 8 | 63) + payload


def decode_batch(frames, *, tunnels=False, link_type=1, wire_lengths=None):
    batch = FrameBatch.from_frames(
        frames, range(len(frames)), wire_lengths=wire_lengths, interfaces=(Interface(link_type),)
    )
    batch.decode_tunnels = tunnels
    return batch.headers


def row_of(headers, index=0):
    row = {name: headers.column(name)[index] for name in COLUMNS}
    version = int(row["ip_version"])
    return {name: address_text(value.tobytes(), version) if value.ndim else int(value) for name, value in row.items()}


def decoded(frame, *, tunnels=False, link_type=1, wire_length=None):
    """Return the columns of one frame, those with their defaults and the hash left out."""
    wire_lengths = None if wire_length is None else [wire_length]
    row = row_of(decode_batch([frame], tunnels=tunnels, link_type=link_type, wire_lengths=wire_lengths))
    del row["flow_hash"]
    return {name: value for name, value in row.items() if value != NOTHING[name]}


def at(network, transport, payload, length=8, **more):
    offsets = {"network_offset": network, "transport_offset": transport, "payload_offset": payload}
    offsets = {name: value for name, value in offsets.items() if value is not None}
    return offsets | ({"payload_length": length} if length else {}) | more


UDP4 = ipv4(17, udp())
TCP4 = ipv4(6, tcp())
UDP6 = ipv6(17, udp())
INNER_UDP4 = ipv4(17, udp(), source="192.168.0.1", destination="192.168.0.2")
OF_INNER4 = OF_IPV4 | OF_UDP | {"source_address": "192.168.0.1", "destination_address": "192.168.0.2"}
ETHER4 = {"ethertype": 0x0800}
ETHER6 = {"ethertype": 0x86DD}

# Name, link type, tunnels, frame, columns that differ from their defaults.
FRAMES = [
    ("udp over ipv4", 1, False, ethernet(0x0800, UDP4), ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42)),
    ("tcp over ipv4", 1, False, ethernet(0x0800, TCP4), ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 54)),
    ("udp over ipv6", 1, False, ethernet(0x86DD, UDP6), ETHER6 | OF_IPV6 | OF_UDP | at(14, 54, 62)),
    (
        "tcp options", 1, False, ethernet(0x0800, ipv4(6, tcp(data_offset=8, options=bytes(12)))),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 66),
    ),
    ("arp", 1, False, ethernet(0x0806, bytes(28)), OF_MACS | at(None, None, 14, 28, ethertype=0x0806)),
    (
        "one tag", 1, False, ethernet(0x8100, tag(5, 0x0800, UDP4)),
        ETHER4 | OF_IPV4 | OF_UDP | at(18, 38, 46, vlan_id=5, vlan_depth=1, layers=Layer.VLAN),
    ),
    (
        "two tags", 1, False, ethernet(0x88A8, tag(0, 0x8100, tag(5, 0x86DD, UDP6))),
        ETHER6 | OF_IPV6 | OF_UDP | at(22, 62, 70, vlan_id=0, vlan_depth=2, layers=Layer.VLAN | Layer.QINQ),
    ),
    (
        "three tags of old EtherTypes", 1, False,
        ethernet(0x9100, tag(7, 0x9200, tag(8, 0x8100, tag(9, 0x0806, bytes(28))))),
        OF_MACS | at(None, None, 26, 28, vlan_id=7, vlan_depth=3, layers=Layer.VLAN | Layer.QINQ, ethertype=0x0806),
    ),
    (
        "802.3 length and LLC, then padding", 1, False, ethernet(11, b"\x42\x42\x03" + PAYLOAD + bytes(35)),
        OF_MACS | at(None, None, 17, layers=Layer.LLC),
    ),
    (
        "LLC information frame", 1, False, ethernet(12, b"\x42\x42\x00\x00" + PAYLOAD),
        OF_MACS | at(None, None, 18, layers=Layer.LLC),
    ),
    (
        "SNAP", 1, False, ethernet(8 + len(UDP4), bytes.fromhex("aaaa03 000000 0800") + UDP4),
        ETHER4 | OF_IPV4 | OF_UDP | at(22, 42, 50, layers=Layer.LLC | Layer.SNAP),
    ),
    (
        "SNAP of 802.1H", 1, False, ethernet(8 + 28, bytes.fromhex("aaaa03 0000f8 0806") + bytes(28)),
        OF_MACS | at(None, None, 22, 28, layers=Layer.LLC | Layer.SNAP, ethertype=0x0806),
    ),
    (
        "SNAP of another organisation has no EtherType", 1, False,
        ethernet(8 + len(PAYLOAD), bytes.fromhex("aaaa03 00000c 0800") + PAYLOAD),
        OF_MACS | at(None, None, 22, layers=Layer.LLC | Layer.SNAP),
    ),
    (
        "LLC with IP", 1, False, ethernet(3 + len(UDP4), b"\x06\x06\x03" + UDP4),
        OF_IPV4 | OF_UDP | at(17, 37, 45, layers=Layer.LLC),
    ),
    (
        "802.3 length beyond the frame", 1, False, ethernet(1500, b"\x42\x42\x03" + PAYLOAD),
        OF_MACS | at(None, None, 17, layers=Layer.LLC | Layer.MALFORMED),
    ),
    (
        "a tag without what follows it", 1, False, ethernet(0x8100, b"\0"),
        OF_MACS | at(None, None, 14, 1, layers=Layer.MALFORMED),
    ),
    (
        "MPLS with IPv4", 1, False, ethernet(0x8847, label(1000, 0, label(16, 1, UDP4))),
        OF_IPV4 | OF_UDP | at(22, 42, 50, layers=Layer.MPLS, ethertype=0x8847),
    ),
    (
        "multicast MPLS with IPv6", 1, False, ethernet(0x8848, label(16, 1, UDP6)),
        OF_IPV6 | OF_UDP | at(18, 58, 66, layers=Layer.MPLS, ethertype=0x8848),
    ),
    (
        "MPLS with Ethernet, shut", 1, False, ethernet(0x8847, label(16, 1, bytes(4) + ethernet(0x0800, INNER_UDP4))),
        OF_MACS | at(None, None, 18, 4 + 14 + len(INNER_UDP4), layers=Layer.MPLS, ethertype=0x8847),
    ),
    (
        "MPLS with Ethernet", 1, True, ethernet(0x8847, label(16, 1, bytes(4) + ethernet(0x0800, INNER_UDP4))),
        ETHER4 | OF_INNER4 | at(36, 56, 64, layers=Layer.MPLS),
    ),
    (
        "MPLS without a bottom", 1, False, ethernet(0x8847, label(16, 0, b"")),
        OF_MACS | at(None, None, 18, 0, layers=Layer.MPLS | Layer.MALFORMED, ethertype=0x8847),
    ),
    (
        "PPPoE session", 1, False,
        ethernet(0x8864, struct.pack(">BBHH", 0x11, 0, 1, 2 + len(UDP4)) + b"\0\x21" + UDP4 + bytes(6)),
        OF_IPV4 | OF_UDP | at(22, 42, 50, layers=Layer.PPPOE | Layer.PPP, ethertype=0x8864),
    ),
    (
        "PPPoE session, IPv6, compressed protocol", 1, False,
        ethernet(0x8864, struct.pack(">BBHH", 0x11, 0, 1, 1 + len(UDP6)) + b"\x57" + UDP6),
        OF_IPV6 | OF_UDP | at(21, 61, 69, layers=Layer.PPPOE | Layer.PPP, ethertype=0x8864),
    ),
    (
        "PPPoE length bounds what is not IP", 1, False,
        ethernet(0x8864, struct.pack(">BBHH", 0x11, 0, 1, 2 + 8) + b"\xc0\x21" + PAYLOAD + bytes(30)),
        OF_MACS | at(None, None, 22, layers=Layer.PPPOE | Layer.PPP, ethertype=0x8864),
    ),
    (
        "PPPoE discovery has no PPP", 1, False,
        ethernet(0x8864, struct.pack(">BBHH", 0x11, 0xA7, 1, 8) + PAYLOAD),
        OF_MACS | at(None, None, 20, layers=Layer.PPPOE, ethertype=0x8864),
    ),
    (
        "IPv4 options", 1, False, ethernet(0x0800, ipv4(17, udp(), options=bytes(8))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 42, 50),
    ),
    (
        "IPv4 total length 0 of segmentation offload", 1, False, ethernet(0x0800, ipv4(6, tcp(), total=0)),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 54),
    ),
    (
        "IPv4 total length less than the header", 1, False, ethernet(0x0800, ipv4(6, tcp(), total=19)),
        ETHER4 | OF_IPV4 | at(14, None, 34, 28, protocol=6, layers=Layer.MALFORMED),
    ),
    (
        "IPv4 total length beyond the frame", 1, False, ethernet(0x0800, ipv4(17, udp(), total=100)),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, layers=Layer.MALFORMED),
    ),
    (
        "IPv4 header length of less than 20", 1, False, ethernet(0x0800, b"\x44" + UDP4[1:]),
        OF_MACS | ETHER4 | at(None, None, 14, len(UDP4), layers=Layer.MALFORMED),
    ),
    (
        "IPv6 where IPv4 was promised", 1, False, ethernet(0x0800, UDP6),
        OF_MACS | ETHER4 | at(None, None, 14, len(UDP6), layers=Layer.MALFORMED),
    ),
    (
        "Ethernet padding is no payload", 1, False, ethernet(0x0800, ipv4(17, udp(b"x")) + bytes(17)),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, 1),
    ),
    (
        "Ethernet padding after a bare ACK", 1, False, ethernet(0x0800, ipv4(6, tcp(b"")) + bytes(6)),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 54, 0),
    ),
    (
        "first fragment", 1, False, ethernet(0x0800, ipv4(17, udp(length=3000), fragment=0x2000)),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, layers=Layer.FRAGMENT | Layer.MORE_FRAGMENTS),
    ),
    (
        "last fragment", 1, False, ethernet(0x0800, ipv4(17, udp(), fragment=185)),
        ETHER4 | OF_IPV4 | at(14, None, 34, 16, protocol=17, fragment_offset=1480, layers=Layer.FRAGMENT),
    ),
    (
        "IPv6 extension headers", 1, False,
        ethernet(0x86DD, ipv6(0, extension(43) + extension(60, 24) + extension(6, 16) + tcp())),
        ETHER6 | OF_IPV6 | OF_TCP | at(14, 102, 122),
    ),
    (
        "a hundred IPv6 extension headers", 1, False,
        ethernet(0x86DD, ipv6(60, extension(60) * 99 + extension(17) + udp())),
        ETHER6 | OF_IPV6 | OF_UDP | at(14, 854, 862),
    ),
    (
        "IPv6 extension header beyond the payload length", 1, False,
        ethernet(0x86DD, ipv6(60, extension(17, 64), length=16)),
        ETHER6 | OF_IPV6 | at(14, None, 70, 0, protocol=17, layers=Layer.MALFORMED),
    ),
    (
        "IPv6 first fragment", 1, False, ethernet(0x86DD, ipv6(44, fragment_header(17, 0, 1) + udp(length=3000))),
        ETHER6 | OF_IPV6 | OF_UDP
        | at(14, 62, 70, ip_id=0x89ABCDEF, layers=Layer.FRAGMENT | Layer.MORE_FRAGMENTS),
    ),
    (
        "IPv6 later fragment", 1, False, ethernet(0x86DD, ipv6(44, fragment_header(17, 1448, 0) + udp())),
        ETHER6 | OF_IPV6
        | at(14, None, 62, 16, ip_id=0x89ABCDEF, protocol=17, fragment_offset=1448, layers=Layer.FRAGMENT),
    ),
    (
        "IPv6 payload length 0 of a jumbogram", 1, False, ethernet(0x86DD, ipv6(17, udp(), length=0)),
        ETHER6 | OF_IPV6 | OF_UDP | at(14, 54, 62),
    ),
    ("no next header", 1, False, ethernet(0x86DD, ipv6(59, b"")), ETHER6 | OF_IPV6 | at(14, 54, 54, 0, protocol=59)),
    (
        "AH in IPv4", 1, False, ethernet(0x0800, ipv4(51, authentication(6) + tcp())),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 58, 78),
    ),
    (
        "AH in IPv6, options behind it", 1, False,
        ethernet(0x86DD, ipv6(0, extension(51) + authentication(60) + extension(17) + udp())),
        ETHER6 | OF_IPV6 | OF_UDP | at(14, 94, 102),
    ),
    (
        "ESP", 1, False, ethernet(0x0800, ipv4(50, PAYLOAD)),
        ETHER4 | OF_IPV4 | at(14, 34, 34, protocol=50),
    ),
    (
        "ICMP", 1, False, ethernet(0x0800, ipv4(1, b"\x03\x04" + bytes(6) + PAYLOAD)),
        ETHER4 | OF_IPV4 | at(14, 34, 42, protocol=1, icmp_type=3, icmp_code=4),
    ),
    (
        "ICMPv6", 1, False, ethernet(0x86DD, ipv6(58, b"\x87\x01" + bytes(6) + PAYLOAD)),
        ETHER6 | OF_IPV6 | at(14, 54, 62, protocol=58, icmp_type=135, icmp_code=1),
    ),
    (
        "SCTP", 1, False, ethernet(0x0800, ipv4(132, struct.pack(">HHII", 1000, 2000, 1, 2) + PAYLOAD)),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 46, protocol=132),
    ),
    (
        "DCCP", 1, False, ethernet(0x0800, ipv4(33, struct.pack(">HHB11x", 1000, 2000, 4) + PAYLOAD)),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 50, protocol=33),
    ),
    (
        "UDP-Lite: the third field is not a length", 1, False, ethernet(0x0800, ipv4(136, udp(length=8))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, protocol=136),
    ),
    (
        "UDP length 0", 1, False, ethernet(0x86DD, ipv6(17, udp(length=0))),
        ETHER6 | OF_IPV6 | OF_UDP | at(14, 54, 62),
    ),
    (
        "UDP length of less than a header", 1, False, ethernet(0x0800, ipv4(17, udp(length=7))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, layers=Layer.MALFORMED),
    ),
    (
        "UDP length less than the datagram", 1, False, ethernet(0x0800, ipv4(17, udp(length=12))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, 4),
    ),
    (
        "UDP length beyond the datagram", 1, False, ethernet(0x0800, ipv4(17, udp(length=100))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, layers=Layer.MALFORMED),
    ),
    (
        "TCP data offset of less than 5", 1, False, ethernet(0x0800, ipv4(6, tcp(data_offset=4))),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 54, layers=Layer.MALFORMED),
    ),
    (
        "TCP data offset beyond the segment", 1, False, ethernet(0x0800, ipv4(6, tcp(data_offset=15))),
        ETHER4 | OF_IPV4 | OF_TCP | at(14, 34, 62, 0, layers=Layer.MALFORMED),
    ),
    (
        "VXLAN, shut", 1, False, ethernet(0x0800, ipv4(17, udp(vxlan(ethernet(0x0800, INNER_UDP4)), destination=4789))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, 8 + 14 + len(INNER_UDP4), destination_port=4789),
    ),
    (
        "VXLAN", 1, True, ethernet(0x0800, ipv4(17, udp(vxlan(ethernet(0x0800, INNER_UDP4)), destination=4789))),
        ETHER4 | OF_INNER4 | at(64, 84, 92, layers=Layer.VXLAN),
    ),
    (
        "VXLAN in a tagged frame, a tagged frame in it", 1, True,
        ethernet(
            0x8100,
            tag(5, 0x86DD, ipv6(17, udp(vxlan(ethernet(0x8100, tag(6, 0x0800, INNER_UDP4))), destination=4789))),
        ),
        ETHER4 | OF_INNER4 | at(92, 112, 120, vlan_id=6, vlan_depth=1, layers=Layer.VLAN | Layer.VXLAN),
    ),
    (
        "ARP in VXLAN: nothing is left of the outer headers", 1, True,
        ethernet(0x8100, tag(5, 0x0800, ipv4(17, udp(vxlan(ethernet(0x0806, bytes(28))), destination=4789)))),
        OF_MACS | at(None, None, 68, 28, ethertype=0x0806, layers=Layer.VLAN | Layer.VXLAN),
    ),
    (
        "VXLAN without its flag is UDP", 1, True, ethernet(0x0800, ipv4(17, udp(vxlan(b"", 0), destination=4789))),
        ETHER4 | OF_IPV4 | OF_UDP | at(14, 34, 42, 8, destination_port=4789),
    ),
    (
        "GENEVE with options", 1, True,
        ethernet(0x86DD, ipv6(17, udp(geneve(0x6558, ethernet(0x0800, INNER_UDP4), bytes(12)), destination=6081))),
        ETHER4 | OF_INNER4 | at(96, 116, 124, layers=Layer.GENEVE),
    ),
    (
        "GENEVE with IPv6", 1, True, ethernet(0x0800, ipv4(17, udp(geneve(0x86DD, UDP6), destination=6081))),
        ETHER6 | OF_IPV6 | OF_UDP | at(50, 90, 98, layers=Layer.GENEVE),
    ),
    (
        "GRE, shut", 1, False, ethernet(0x0800, ipv4(47, gre(0x0800, INNER_UDP4))),
        ETHER4 | OF_IPV4 | at(14, 34, 34, 4 + len(INNER_UDP4), protocol=47),
    ),
    (
        "GRE with checksum, key and sequence number", 1, True,
        ethernet(0x0800, ipv4(47, gre(0x0800, INNER_UDP4, 0xB000, bytes(12)))),
        ETHER4 | OF_INNER4 | at(50, 70, 78, layers=Layer.GRE),
    ),
    (
        "GRE with Ethernet", 1, True, ethernet(0x0800, ipv4(47, gre(0x6558, ethernet(0x86DD, UDP6)))),
        ETHER6 | OF_IPV6 | OF_UDP | at(52, 92, 100, layers=Layer.GRE),
    ),
    (
        "GRE with what is not decoded", 1, True, ethernet(0x0800, ipv4(47, gre(0x88BE, PAYLOAD))),
        ETHER4 | OF_IPV4 | at(14, 34, 38, protocol=47, layers=Layer.GRE),
    ),
    (
        "GRE version 1 of PPTP", 1, True, ethernet(0x0800, ipv4(47, gre(0x880B, PAYLOAD, 0x2001, bytes(4)))),
        ETHER4 | OF_IPV4 | at(14, 34, 34, 16, protocol=47),
    ),
    (
        "IPv4 in IPv4", 1, True, ethernet(0x0800, ipv4(4, INNER_UDP4)),
        ETHER4 | OF_INNER4 | at(34, 54, 62, layers=Layer.IP_IN_IP),
    ),
    (
        "IPv6 in IPv4", 1, True, ethernet(0x0800, ipv4(41, UDP6)),
        ETHER4 | OF_IPV6 | OF_UDP | at(34, 74, 82, layers=Layer.IP_IN_IP),
    ),
    (
        "IPv4 in IPv6 in IPv4", 1, True, ethernet(0x0800, ipv4(41, ipv6(4, INNER_UDP4))),
        ETHER4 | OF_INNER4 | at(74, 94, 102, layers=Layer.IP_IN_IP),
    ),
    (
        "padding is no inner header", 1, True, ethernet(0x0800, ipv4(4, b"") + INNER_UDP4),
        ETHER4 | OF_IPV4 | at(14, 34, 34, 0, protocol=4, layers=Layer.IP_IN_IP | Layer.MALFORMED),
    ),
    ("a frame too short for Ethernet", 1, False, MACS, at(None, None, 0, 12, layers=Layer.MALFORMED)),
    ("an empty frame", 1, False, b"", at(None, None, 0, 0, layers=Layer.MALFORMED)),
    ("raw IPv4", 101, False, UDP4, ETHER4 | OF_IPV4 | OF_UDP | at(0, 20, 28)),
    ("raw IPv6", 12, False, UDP6, ETHER6 | OF_IPV6 | OF_UDP | at(0, 40, 48)),
    ("raw neither", 14, False, b"\x20" + PAYLOAD, at(None, None, 0, 9)),
    ("IPv4 by link type", 228, False, UDP4, ETHER4 | OF_IPV4 | OF_UDP | at(0, 20, 28)),
    ("IPv6 by link type", 229, False, UDP6, ETHER6 | OF_IPV6 | OF_UDP | at(0, 40, 48)),
    ("null, little-endian", 0, False, struct.pack("<I", 2) + UDP4, ETHER4 | OF_IPV4 | OF_UDP | at(4, 24, 32)),
    ("null, big-endian", 0, False, struct.pack(">I", 2) + UDP4, ETHER4 | OF_IPV4 | OF_UDP | at(4, 24, 32)),
    *[
        (f"null, {family}", 0, False, struct.pack("<I", family) + UDP6, ETHER6 | OF_IPV6 | OF_UDP | at(4, 44, 52))
        for family in (10, 24, 28, 30)
    ],
    ("null, another family", 0, False, struct.pack("<I", 7) + PAYLOAD, at(None, None, 4)),
    ("loop", 108, False, struct.pack(">I", 24) + UDP6, ETHER6 | OF_IPV6 | OF_UDP | at(4, 44, 52)),
    (
        "Linux cooked", 113, False, bytes.fromhex("0000 0001 0006 0200000000aa0000 0800") + UDP4,
        ETHER4 | OF_IPV4 | OF_UDP | at(16, 36, 44),
    ),
    (
        "Linux cooked, tagged ARP", 113, False,
        bytes.fromhex("0000 0001 0006 0200000000aa0000 8100") + tag(5, 0x0806, bytes(28)),
        at(
            None, None, 20, 28,
            source_address="02:00:00:00:00:aa", vlan_id=5, vlan_depth=1, layers=Layer.VLAN, ethertype=0x0806,
        ),
    ),
    (
        "Linux cooked, LLC", 113, False, bytes.fromhex("0000 0001 0006 0200000000aa0000 0004 424203") + PAYLOAD,
        at(None, None, 19, source_address="02:00:00:00:00:aa", layers=Layer.LLC),
    ),
    (
        "Linux cooked, netlink family", 113, False, bytes.fromhex("0004 0338 0000 0000000000000000 0010") + PAYLOAD,
        at(None, None, 16),
    ),
    (
        "Linux cooked 2", 276, False, bytes.fromhex("86dd 0000 00000002 0001 00 06 0200000000aa0000") + UDP6,
        ETHER6 | OF_IPV6 | OF_UDP | at(20, 60, 68),
    ),
    (
        "Linux cooked 2, ARP", 276, False,
        bytes.fromhex("0806 0000 00000002 0001 04 06 0200000000aa0000") + bytes(28),
        at(None, None, 20, 28, source_address="02:00:00:00:00:aa", ethertype=0x0806),
    ),
    ("PPP", 9, False, b"\xff\x03\x00\x21" + UDP4, OF_IPV4 | OF_UDP | at(4, 24, 32, layers=Layer.PPP)),
    ("PPP, compressed", 9, False, b"\x57" + UDP6, OF_IPV6 | OF_UDP | at(1, 41, 49, layers=Layer.PPP)),
    (
        "PPP with MPLS", 50, False, b"\xff\x03\x02\x81" + label(16, 1, UDP4),
        OF_IPV4 | OF_UDP | at(8, 28, 36, layers=Layer.PPP | Layer.MPLS, ethertype=0x8847),
    ),
    (
        "Cisco HDLC", 50, False, b"\x0f\x00\x08\x00" + UDP4,
        ETHER4 | OF_IPV4 | OF_UDP | at(4, 24, 32, layers=Layer.PPP),
    ),
    (
        "PPPoE by link type", 51, False, struct.pack(">BBHH", 0x11, 0, 1, 2 + len(UDP4)) + b"\0\x21" + UDP4,
        OF_IPV4 | OF_UDP | at(8, 28, 36, layers=Layer.PPPOE | Layer.PPP),
    ),
    ("a link type that is not decoded", 105, False, ethernet(0x0800, UDP4), {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("link_type", "tunnels", "frame", "expected"), [f[1:] for f in FRAMES], ids=[f[0] for f in FRAMES]
)
def test_frame_has_these_columns(link_type, tunnels, frame, expected):
    assert decoded(frame, link_type=link_type, tunnels=tunnels) == expected


def test_expected_columns_are_real_columns():
    assert set(NOTHING) == set(COLUMNS) - {"flow_hash"}
    assert set().union(*(frame[4] for frame in FRAMES)) <= set(NOTHING)


ALL_FRAMES = st.sampled_from([(link_type, tunnels, frame) for _, link_type, tunnels, frame, _ in FRAMES])
NUMBERS = [name for name in NOTHING if name not in ("source_address", "destination_address")]


def check_bounds(headers, wire_lengths):
    for name in ("network_offset", "transport_offset", "payload_offset"):
        offsets = headers.column(name)
        assert (offsets >= -1).all()
        assert (offsets <= wire_lengths).all()
    start = headers.column("payload_offset").astype(np.int64)
    end = start + headers.column("payload_length")
    assert ((start >= 0) | (headers.column("payload_length") == 0)).all()
    assert (end <= wire_lengths).all()


@given(
    link_type=st.sampled_from([*LINK_TYPES, 105, 147]),
    tunnels=st.booleans(),
    frames=st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 2000)), min_size=1, max_size=20),
)
def test_any_bytes_stay_within_the_frame(link_type, tunnels, frames):
    wire_lengths = np.array([len(data) + beyond for data, beyond in frames])
    headers = decode_batch(
        [data for data, _ in frames], tunnels=tunnels, link_type=link_type, wire_lengths=wire_lengths.tolist()
    )
    check_bounds(headers, wire_lengths)


@given(known=ALL_FRAMES, flips=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4))
def test_flipped_bytes_stay_within_the_frame(known, flips):
    link_type, tunnels, frame = known
    damaged = bytearray(frame)
    for position, value in flips:
        if position < len(damaged):
            damaged[position] = value
    headers = decode_batch([bytes(damaged)], tunnels=tunnels, link_type=link_type)
    check_bounds(headers, np.array([len(frame)]))


def check_cuts(frame, link_type, tunnels):
    """Cut a frame at each length: what is decoded of it is what the whole frame says, as far as it goes."""
    frames = [frame[:length] for length in range(len(frame) + 1)]
    headers = decode_batch(frames, tunnels=tunnels, link_type=link_type, wire_lengths=[len(frame)] * len(frames))
    check_bounds(headers, np.array([len(frame)] * len(frames)))
    whole = row_of(headers, len(frame))
    assert not whole["layers"] & Layer.CUT
    for length in range(len(frame)):
        row = row_of(headers, length)
        if not row["layers"] & Layer.CUT:
            assert row == whole, f"cut at {length}"
        elif not whole["layers"] & TUNNELS or not tunnels:
            # What the captured bytes say is in place, the rest at its default.
            for name in FIXED:
                assert row[name] in (whole[name], NOTHING[name]), f"{name}, cut at {length}"
            if row["ip_version"]:
                assert [row[name] for name in ADDRESSES] == [whole[name] for name in ADDRESSES]
            assert row["vlan_depth"] <= whole["vlan_depth"]
            assert row["layers"] | whole["layers"] == whole["layers"] | Layer.CUT


ADDRESSES = ("source_address", "destination_address")
TUNNELS = Layer.GRE | Layer.VXLAN | Layer.GENEVE | Layer.IP_IN_IP | Layer.MPLS
GROWING = {"layers", "vlan_depth", "payload_offset", "payload_length", "protocol", *ADDRESSES}
FIXED = sorted(set(NOTHING) - GROWING)


@pytest.mark.parametrize(("link_type", "tunnels", "frame"), [f[1:4] for f in FRAMES], ids=[f[0] for f in FRAMES])
def test_cut_frames_say_so_or_agree_with_the_whole(link_type, tunnels, frame):
    check_cuts(frame, link_type, tunnels)


@given(st.sampled_from(LINK_TYPES), st.booleans(), st.binary(max_size=120))
def test_cut_random_frames_say_so_or_agree_with_the_whole(link_type, tunnels, frame):
    check_cuts(frame, link_type, tunnels)


@given(known=ALL_FRAMES, flips=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=3))
def test_cut_damaged_frames_say_so_or_agree_with_the_whole(known, flips):
    link_type, tunnels, frame = known
    damaged = bytearray(frame)
    for position, value in flips:
        if position < len(damaged):
            damaged[position] = value
    check_cuts(bytes(damaged), link_type, tunnels)


@pytest.mark.parametrize("link_type", LINK_TYPES)
@pytest.mark.parametrize("tunnels", [False, True])
def test_nothing_is_read_beyond_the_captured_bytes(link_type, tunnels):
    """Lay each cut of each frame against a page that cannot be read: one byte too far ends the process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    everything = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    address = everything.ctypes.data + page
    assert libc.mprotect(address, page, 0) == 0, ctypes.get_errno()
    try:
        readable = everything[:page]
        batch = FrameBatch(1)
        batch.set_interfaces((Interface(link_type),))
        batch.set_data(readable)
        columns = HeaderColumns(1)
        batch.count = 1
        for _, frame_link_type, _, frame, _ in FRAMES:
            if frame_link_type != link_type or len(frame) > page:
                continue
            for length in range(len(frame) + 1):
                readable[page - length :] = np.frombuffer(frame[:length], np.uint8)
                for name, value in (
                    ("offset", page - length),
                    ("captured_length", length),
                    ("wire_length", len(frame)),
                ):
                    batch.storage(name)[0] = value
                decode(batch, columns, tunnels)
                assert columns.column("payload_offset")[0] <= len(frame)
    finally:
        assert libc.mprotect(address, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_rows_outside_the_data_are_left_undecoded():
    batch = FrameBatch.from_frames([ethernet(0x0800, UDP4)] * 4, range(4))
    batch.storage("offset")[0] = -1
    batch.storage("offset")[1] = len(batch.data) - 10
    batch.storage("captured_length")[2] = 0xFFFFFFFF
    batch.storage("interface")[3] = 1
    for row in range(4):
        columns = row_of(batch.headers, row)
        del columns["flow_hash"]
        assert columns == NOTHING


def test_columns_that_hold_too_few_rows_are_refused():
    batch = FrameBatch.from_frames([b""] * 3, range(3))
    with pytest.raises(ValueError, match="hold 2 rows"):
        decode(batch, HeaderColumns(2), False)


def test_decoding_again_leaves_nothing_of_the_batch_before():
    columns = HeaderColumns(2)
    for frames in ([frame for _, link_type, _, frame, _ in FRAMES if link_type == 1], [b"", ethernet(0x0806, b"")]):
        for first in range(0, len(frames), 2):
            batch = FrameBatch.from_frames(frames[first : first + 2], range(len(frames[first : first + 2])))
            decode(batch, columns, True)
            fresh = HeaderColumns(2)
            decode(batch, fresh, True)
            for name in COLUMNS:
                np.testing.assert_array_equal(columns.column(name), fresh.column(name))


# The flow hash.


def hash_of(frame, link_type=1, **options):
    return row_of(decode_batch([frame], link_type=link_type, **options))["flow_hash"]


def test_flow_hash_is_the_same_however_the_headers_were_found():
    ways = [
        (ethernet(0x0800, UDP4), 1),
        (ethernet(0x0800, UDP4 + bytes(5)), 1),
        (ethernet(0x0800, ipv4(17, udp(b"another"), options=bytes(4))), 1),
        (ethernet(0x8100, tag(5, 0x0800, UDP4)), 1),
        (ethernet(0x8847, label(16, 1, UDP4)), 1),
        (UDP4, 101),
        (struct.pack("<I", 2) + UDP4, 0),
        (b"\xff\x03\x00\x21" + UDP4, 9),
    ]
    assert len({hash_of(*way) for way in ways}) == 1
    inner = hash_of(ethernet(0x0800, INNER_UDP4))
    assert hash_of(ethernet(0x0800, ipv4(4, INNER_UDP4)), tunnels=True) == inner != hash_of(*ways[0])


def test_flow_hash_differs_with_each_part_of_the_key():
    def swapped(frame):
        return frame[:26] + frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36] + frame[38:]

    plain = ethernet(0x0800, UDP4)
    frames = [plain, swapped(plain), ethernet(0x0800, TCP4), ethernet(0x86DD, UDP6), ethernet(0x0806, b"")]
    frames += [plain[:index] + bytes([plain[index] ^ 1]) + plain[index + 1 :] for index in (*range(26, 34), 35, 37)]
    frames += [ethernet(0x88F7, b""), MACS[:11] + b"\xab" + b"\x08\x06"]
    hashes = decode_batch(frames).column("flow_hash")
    assert len(set(hashes.tolist())) == len(frames)
    batch = FrameBatch.from_frames([plain], [0], timestamp_source=TimestampSource.HARDWARE)
    assert int(batch.headers.column("flow_hash")[0]) not in hashes


def keys(kind):
    """Return 65536 frames whose keys differ as those of real traffic do: in few bits, one after the other."""
    template = bytearray(ethernet(0x0800, UDP4))
    frames = []
    for index in range(65536):
        if kind == "ports":
            struct.pack_into(">H", template, 34, index)
        elif kind == "addresses":
            struct.pack_into(">H", template, 28, index)
        elif kind == "groups and ports":
            struct.pack_into(">B", template, 33, index >> 8)
            struct.pack_into(">H", template, 36, 10000 + (index & 0xFF))
        elif kind == "both ends":
            struct.pack_into(">B", template, 29, index >> 8)
            struct.pack_into(">B", template, 33, index & 0xFF)
        frames.append(bytes(template))
    return frames


@pytest.mark.parametrize("kind", ["ports", "addresses", "groups and ports", "both ends"])
def test_flow_hash_spreads_over_low_and_high_bits(kind):
    hashes = decode_batch(keys(kind)).column("flow_hash")
    assert len(np.unique(hashes)) == 65536
    for shift in (0, 8, 24, 40, 54):
        counts = np.bincount((hashes >> np.uint64(shift) & np.uint64(0x3FF)).astype(np.int64), minlength=1024)
        # 1023 degrees of freedom: a random spread lies within 1023 +- 45 (one standard deviation).
        chi_squared = ((counts - 64.0) ** 2 / 64.0).sum()
        assert chi_squared < 1023 + 10 * 45, f"bits from {shift}"


# dpkt as a second opinion.


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize(
    "file",
    [
        "fix-orders/nDPI__fix2.pcap",
        "tcp/packets__http_espn.pcapng",
        "rtp-mcast/nDPI__telegram.pcap",
        "ipv6-frag/PcapPlusPlus__ipv6-frag.pcap",
        "snaplen-cut/zeek__timestamp.pcap",
        "encap/zeek__mixed-vlan-mpls.pcap",
    ],
)
def test_offsets_and_fields_are_where_dpkt_finds_them(file):
    compared = 0
    with open_capture(str(CAPTURES / file)) as reader:
        for batch in reader.batches():
            for index in range(len(batch)):
                compared += agrees_with_dpkt(batch.frame_bytes(index), row_of(batch.headers, index))
    assert compared >= 3


def agrees_with_dpkt(frame, row):
    """Compare TCP and UDP directly over IP where dpkt decodes it; return whether there was something to compare."""
    try:
        link = dpkt.ethernet.Ethernet(frame)
    except dpkt.UnpackError:
        return False
    network = link.data
    if not isinstance(network, dpkt.ip.IP | dpkt.ip6.IP6) or not isinstance(network.data, dpkt.tcp.TCP | dpkt.udp.UDP):
        return False
    if row["layers"] & Layer.CUT:
        return False
    transport = network.data
    version = 4 if isinstance(network, dpkt.ip.IP) else 6
    assert row["ip_version"] == version
    assert [row["source_address"], row["destination_address"]] == [
        str(ipaddress.ip_address(address)) for address in (network.src, network.dst)
    ]
    assert row["ttl"] == (network.ttl if version == 4 else network.hlim)
    assert [row["source_port"], row["destination_port"]] == [transport.sport, transport.dport]
    assert frame[row["network_offset"]] >> 4 == version
    assert frame[row["transport_offset"] :].startswith(struct.pack(">HH", transport.sport, transport.dport))
    if isinstance(transport, dpkt.tcp.TCP):
        assert [row["tcp_sequence"], row["tcp_acknowledgment"]] == [transport.seq, transport.ack]
        assert [row["tcp_flags"] & 0xFF, row["tcp_window"]] == [transport.flags & 0xFF, transport.win]
    payload = frame[row["payload_offset"] : row["payload_offset"] + row["payload_length"]]
    assert payload == bytes(transport.data)[: len(payload)]
    return True
