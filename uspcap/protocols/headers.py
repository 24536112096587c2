"""Header columns: their meaning, and the names of protocols.

Columns of `FrameBatch.headers` (one row a frame; `HeaderColumns.column(name)` gives a view)
---------------------------------------------------------------------------------------
ethertype : uint16
    EtherType after all VLAN tags and through SNAP (of RFC 1042 and 802.1H); 0 where there is none. Raw IP and
    null/loop link types give 0x0800 or 0x86dd. A tunnel's counts where its payload is decoded.
vlan_id : uint16
    VID of the outermost tag, `UNTAGGED` where there is none.
vlan_depth : uint8
    Number of tags.
layers : uint32
    A `Layer` bit set: all that was gone through, outer and inner.
ip_version : uint8
    4, 6, or 0 where no IP header was decoded.
protocol : uint8
    IANA protocol number after IPv6 extension headers and AH, the last that is known where one of those is cut;
    `NO_PROTOCOL` where there is none.
source_address, destination_address : uint8, 16 a row
    Network byte order; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2); of frames without IP the MAC addresses in
    the last six bytes; else zeros.
source_port, destination_port : uint16
    TCP, UDP, UDP-Lite, SCTP and DCCP; 0 elsewhere and in fragments after the first.
icmp_type, icmp_code : uint8
    ICMP and ICMPv6.
ttl : uint8
    TTL or hop limit.
ip_id : uint32
    IPv4 identification, or that of the IPv6 fragment header; 0 elsewhere.
fragment_offset : uint32
    Bytes.
network_offset, transport_offset, payload_offset : int32
    From the frame's first byte, -1 where there is no such thing; at most the wire length, and beyond the captured
    length where the frame was cut there (`Layer.CUT`).
payload_length : uint32
    Bytes after the transport header as the shortest claim of the headers before says (802.3, PPPoE, IP, UDP),
    never beyond the wire length; after the network header where the transport is not known; after the link
    header where there is no IP.
tcp_sequence, tcp_acknowledgment : uint32
tcp_flags : uint16
    Twelve bits, RFC 9293 and RFC 3540: reserved, AE, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
tcp_window : uint16
tap : uint16
    Where the frame was seen, as `uspcap.stages.taps` numbers it; 0 where there is one tap only.
flow_hash : uint64
    Mix of what makes a flow, of the tap and the timestamp source; the same whichever way the frame was decoded.
flow : int32
    Id in the flow table that filled it (`uspcap.protocols.flows`).

Outer headers are decoded, unless tunnels are asked for: the innermost headers then win every column, those of an
inner Ethernet frame without IP too. Tunnels are GRE (version 0), ERSPAN of types I, II and III in it, VXLAN (port
4789) and its generic protocol extension (4790), GENEVE (6081), GTP-U (2152), IP in IP (protocols 4, 41), each
with IP or Ethernet inside, and Ethernet in MPLS behind a control word.

A header is decoded as far as it is captured; what is derived from bytes that are not there keeps its default. An IPv4
header whose total length is less than itself ends the decoding, as in every stack.
"""

from __future__ import annotations

import ipaddress
from enum import IntFlag

UNTAGGED = 0xFFFF
NO_PROTOCOL = 255


class Layer(IntFlag):
    """What a frame's headers were found in, and what was wrong with them."""

    VLAN = 1 << 0
    QINQ = 1 << 1
    MPLS = 1 << 2
    LLC = 1 << 3
    SNAP = 1 << 4
    PPPOE = 1 << 5
    PPP = 1 << 6
    GRE = 1 << 7
    VXLAN = 1 << 8
    GENEVE = 1 << 9
    IP_IN_IP = 1 << 10
    FRAGMENT = 1 << 11
    MORE_FRAGMENTS = 1 << 12
    CUT = 1 << 13
    """Headers reach beyond the captured bytes."""
    MALFORMED = 1 << 14
    """A length field contradicts itself or the frame, or the frame is too short for its headers."""
    GTP = 1 << 15
    ERSPAN = 1 << 16


# IANA protocol numbers.
PROTOCOL_NAMES = {
    0: "HOPOPT", 1: "ICMP", 2: "IGMP", 4: "IPIP", 6: "TCP", 8: "EGP", 9: "IGP", 17: "UDP", 33: "DCCP", 41: "IPV6",
    46: "RSVP", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMPV6", 59: "NO-NEXT", 88: "EIGRP", 89: "OSPF", 94: "IPIP-94",
    97: "ETHERIP", 103: "PIM", 108: "IPCOMP", 112: "VRRP", 115: "L2TP", 132: "SCTP", 135: "MOBILITY",
    136: "UDP-LITE", 137: "MPLS-IN-IP", 143: "ETHERNET", 255: "none",
}  # fmt: skip

# IEEE 802 numbers of IANA.
ETHERTYPE_NAMES = {
    0x0800: "IPv4", 0x0806: "ARP", 0x0842: "WOL", 0x6003: "DECNET", 0x6558: "TEB", 0x8035: "RARP",
    0x809B: "APPLETALK", 0x80F3: "AARP", 0x8137: "IPX", 0x86DD: "IPv6", 0x8808: "PAUSE", 0x8809: "SLOW",
    0x8847: "MPLS", 0x8848: "MPLS-MULTICAST", 0x8863: "PPPOE-DISCOVERY", 0x8864: "PPPOE", 0x888E: "EAPOL",
    0x88A4: "ETHERCAT", 0x88B5: "LOCAL-EXPERIMENTAL-1", 0x88BA: "SAMPLED-VALUES", 0x88B8: "GOOSE",
    0x88CC: "LLDP", 0x88E5: "MACSEC", 0x88F7: "PTP", 0x8902: "CFM", 0x893A: "IEEE-1905", 0x894F: "NSH",
    0x9000: "LOOPBACK", 0xD28B: "ARISTA-TIMESTAMP",
}  # fmt: skip


def address_text(address: bytes, ip_version: int) -> str:
    """Return one row of an address column as text: an IP address, or a MAC where `ip_version` is 0."""
    if ip_version == 4:
        return str(ipaddress.IPv4Address(address[12:]))
    if ip_version == 6:
        return str(ipaddress.IPv6Address(address))
    return address[10:].hex(":")
