"""Frames built by hand, one header at a time, and their decoding into plain values."""

import struct
from ipaddress import ip_address

import numpy as np

from uspcap._native.columns import HEADER_FIELDS
from uspcap.frames import FrameBatch, Interface
from uspcap.protocols.headers import NO_PROTOCOL, UNTAGGED

ETHERNET_LINK = 1
DESTINATION_MAC = bytes.fromhex("01005e000102")
SOURCE_MAC = bytes.fromhex("02a0b0c0d0e0")

COLUMNS = tuple(name for name, _ in HEADER_FIELDS if name != "flow")

DEFAULTS = {
    **dict.fromkeys(COLUMNS, 0),
    "vlan_id": UNTAGGED,
    "protocol": NO_PROTOCOL,
    "source_address": bytes(16),
    "destination_address": bytes(16),
    "network_offset": -1,
    "transport_offset": -1,
    "payload_offset": -1,
}


def ethernet(ethertype, payload):
    return DESTINATION_MAC + SOURCE_MAC + struct.pack("!H", ethertype) + payload


def vlan(identifier, ethertype, payload, priority=5):
    """Return what follows a tag's EtherType."""
    return struct.pack("!HH", priority << 13 | identifier, ethertype) + payload


def llc(payload, ssap=0xAA, control=b"\x03"):
    return bytes([ssap, ssap]) + control + payload


def snap(ethertype, payload, organisation=b"\0\0\0"):
    return llc(organisation + struct.pack("!H", ethertype) + payload)


def mpls(labels, payload):
    entries = [
        struct.pack("!I", label << 12 | (number == len(labels)) << 8 | 64) for number, label in enumerate(labels, 1)
    ]
    return b"".join(entries) + payload


def pppoe(protocol, payload, code=0):
    body = struct.pack("!H", protocol) + payload
    return struct.pack("!BBHH", 0x11, code, 7, len(body)) + body


def ipv4(protocol, payload, source="10.1.2.3", destination="239.4.5.6", *, options=b"", fragment=0, total=None):
    """`fragment` is the field of 16 bits: flags and the offset in units of 8 bytes."""
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


def ipv6_fragment(following, payload, offset=0, more=True, identification=0xCAFEF00D):
    return struct.pack("!BBHI", following, 0, offset | more, identification) + payload


def authentication(following, payload, words=4):
    return struct.pack("!BBHII", following, words, 0, 1, 2) + bytes(4 * (words - 1)) + payload


def udp(payload, source=4001, destination=4002, length=None):
    return struct.pack("!HHHH", source, destination, 8 + len(payload) if length is None else length, 0) + payload


def tcp(payload, source=4003, destination=4004, *, options=b"", flags=0x118):
    offset_and_flags = (5 + len(options) // 4) << 12 | flags
    return struct.pack(
        "!HHIIHHHH", source, destination, 0x89ABCDEF, 0xFEDCBA98, offset_and_flags, 0xF00F, 0, 0
    ) + options + payload  # fmt: skip


def sctp(payload):
    return struct.pack("!HHII", 4005, 4006, 1, 2) + payload


def dccp(payload):
    return struct.pack("!HHBBHI", 4007, 4008, 3, 0, 0, 0) + payload


def gre(ethertype, payload, *, checksum=False, key=False, sequence=False, version=0):
    flags = checksum << 15 | key << 13 | sequence << 12 | version
    return struct.pack("!HH", flags, ethertype) + bytes(4 * (checksum + key + sequence)) + payload


def vxlan(payload):
    return struct.pack("!II", 0x08000000, 77 << 8) + payload


def geneve(ethertype, payload, options=b""):
    return struct.pack("!BBHI", len(options) // 4, 0, ethertype, 99 << 8) + options + payload


def sll(ethertype, payload, hardware_length=6):
    return struct.pack("!HHH6s2sH", 0, 1, hardware_length, SOURCE_MAC, b"\0\0", ethertype) + payload


def sll2(ethertype, payload, hardware_length=6):
    return struct.pack("!HHIHBB6s2s", ethertype, 0, 3, 1, 0, hardware_length, SOURCE_MAC, b"\0\0") + payload


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


def decode(frame, link_type=ETHERNET_LINK, *, tunnels=False, wire_length=None, **options):
    wire_lengths = None if wire_length is None else [wire_length]
    return rows_of(batch_of([frame], link_type, tunnels=tunnels, wire_lengths=wire_lengths, **options))[0]


def mapped(address):
    """Return an IP address as the address columns hold it."""
    packed = ip_address(address).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed
