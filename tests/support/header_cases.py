"""One frame by hand for each link type, header and tunnel, with what its columns must be.

`expected` names the columns that differ from what `EXPECTED_BY_TRANSPORT` and the case's addresses already say.
"""

from dataclasses import dataclass, field
from typing import Any

from support.header_frames import (
    DESTINATION_MAC,
    SOURCE_MAC,
    authentication,
    dccp,
    ethernet,
    geneve,
    gre,
    ipv4,
    ipv6,
    ipv6_fragment,
    ipv6_options,
    llc,
    mapped,
    mpls,
    pppoe,
    sctp,
    sll,
    sll2,
    snap,
    tcp,
    udp,
    vlan,
    vxlan,
)

from uspcap.protocols.headers import Layer

PAYLOAD = b"market data"
SIZE = len(PAYLOAD)


@dataclass(frozen=True)
class Case:
    name: str
    frame: bytes
    expected: dict[str, Any] = field(default_factory=dict)
    link_type: int = 1
    tunnels: bool = False
    wire_length: int | None = None


UDP4 = ipv4(17, udp(PAYLOAD))
TCP4 = ipv4(6, tcp(PAYLOAD))
UDP6 = ipv6(17, udp(PAYLOAD))
INNER4 = ipv4(17, udp(PAYLOAD, 71, 72), "192.0.2.1", "192.0.2.2")
INNER6 = ipv6(6, tcp(PAYLOAD), "2001:db8::a", "2001:db8::b")
INNER_FRAME = ethernet(0x8100, vlan(9, 0x0800, INNER4))
INNER_FRAME_6 = ethernet(0x86DD, INNER6)
SOURCE_EUI = bytes(10) + SOURCE_MAC
DESTINATION_EUI = bytes(10) + DESTINATION_MAC

IS_4 = {
    "ethertype": 0x0800, "ip_version": 4, "ttl": 61, "ip_id": 0xBEEF,
    "source_address": mapped("10.1.2.3"), "destination_address": mapped("239.4.5.6"),
}  # fmt: skip
IS_6 = {
    "ethertype": 0x86DD, "ip_version": 6, "ttl": 62,
    "source_address": mapped("2001:db8::1"), "destination_address": mapped("ff02::fb"),
}  # fmt: skip
IS_UDP = {"protocol": 17, "source_port": 4001, "destination_port": 4002, "payload_length": SIZE}
IS_TCP = {
    "protocol": 6, "source_port": 4003, "destination_port": 4004, "payload_length": SIZE,
    "tcp_sequence": 0x89ABCDEF, "tcp_acknowledgment": 0xFEDCBA98, "tcp_flags": 0x118, "tcp_window": 0xF00F,
}  # fmt: skip
IS_INNER4 = {
    **IS_4, **IS_UDP, "source_port": 71, "destination_port": 72,
    "source_address": mapped("192.0.2.1"), "destination_address": mapped("192.0.2.2"),
}  # fmt: skip
IS_INNER6 = {
    **IS_6, **IS_TCP, "source_address": mapped("2001:db8::a"), "destination_address": mapped("2001:db8::b"),
}  # fmt: skip
IS_MAC = {"source_address": SOURCE_EUI, "destination_address": DESTINATION_EUI}


def at(network, transport=None, payload=None):
    """Offsets; a header of 20 bytes and then one of 8 where not said otherwise."""
    transport = network + 20 if transport is None else transport
    return {
        "network_offset": network,
        "transport_offset": transport,
        "payload_offset": transport + 8 if payload is None else payload,
    }


def udp4_over(name, link_type, frame, layers=0, **expected):
    start = len(frame) - len(UDP4)
    return Case(name, frame, {**IS_4, **IS_UDP, **at(start), "layers": int(layers), **expected}, link_type)


LINK_TYPES = [
    udp4_over("ethernet", 1, ethernet(0x0800, UDP4)),
    *(udp4_over(f"raw {link_type}", link_type, UDP4) for link_type in (12, 14, 101, 228)),
    *(
        Case(f"raw {link_type} IPv6", UDP6, {**IS_6, **IS_UDP, **at(0, 40)}, link_type)
        for link_type in (12, 14, 101, 229)
    ),
    udp4_over("sll", 113, sll(0x0800, UDP4)),
    udp4_over("sll VLAN", 113, sll(0x8100, vlan(5, 0x0800, UDP4)), Layer.VLAN, vlan_id=5, vlan_depth=1),
    udp4_over("sll 802.2", 113, sll(4, snap(0x0800, UDP4)), Layer.LLC | Layer.SNAP),
    Case("sll ARP", sll(0x0806, bytes(28)),
         {"ethertype": 0x0806, "source_address": SOURCE_EUI, "payload_offset": 16, "payload_length": 28}, 113),
    Case("sll without address", sll(0x0806, bytes(28), hardware_length=0),
         {"ethertype": 0x0806, "payload_offset": 16, "payload_length": 28}, 113),
    udp4_over("sll2", 276, sll2(0x0800, UDP4)),
    Case("sll2 ARP", sll2(0x0806, bytes(28)),
         {"ethertype": 0x0806, "source_address": SOURCE_EUI, "payload_offset": 20, "payload_length": 28}, 276),
    udp4_over("null little-endian", 0, bytes([2, 0, 0, 0]) + UDP4),
    udp4_over("null big-endian", 0, bytes([0, 0, 0, 2]) + UDP4),
    *(
        Case(f"null IPv6, family {family}", family.to_bytes(4, order) + UDP6, {**IS_6, **IS_UDP, **at(4, 44)}, 0)
        for family in (10, 24, 28, 30)
        for order in ("little", "big")
    ),
    Case("null with bytes above the family", bytes([2, 0, 9, 0]) + UDP4,
         {"payload_offset": 4, "payload_length": len(UDP4)}, 0),
    udp4_over("loop", 108, bytes([0, 0, 0, 2]) + UDP4),
    Case("loop little-endian", bytes([2, 0, 0, 0]) + UDP4, {"payload_offset": 4, "payload_length": len(UDP4)}, 108),
    udp4_over("ppp", 9, b"\x00\x21" + UDP4, Layer.PPP, ethertype=0),
    udp4_over("ppp compressed", 9, b"\x21" + UDP4, Layer.PPP, ethertype=0),
    udp4_over("ppp hdlc", 50, b"\xff\x03\x00\x21" + UDP4, Layer.PPP, ethertype=0),
    udp4_over("cisco hdlc", 50, b"\x0f\x00\x08\x00" + UDP4, Layer.PPP),
    Case("ppp IPv6", b"\xff\x03\x00\x57" + UDP6,
         {**IS_6, **IS_UDP, **at(4, 44), "layers": Layer.PPP, "ethertype": 0}, 9),
    Case("ppp LCP", b"\xff\x03\xc0\x21" + bytes(8),
         {"payload_offset": 4, "payload_length": 8, "layers": Layer.PPP}, 9),
    udp4_over("pppoe", 51, pppoe(0x0021, UDP4), Layer.PPPOE | Layer.PPP, ethertype=0),
    Case("unknown link type", ethernet(0x0800, UDP4), {}, 147),
    Case("802.11", ethernet(0x0800, UDP4), {}, 105),
]  # fmt: skip

LINK_HEADERS = [
    *(
        udp4_over(f"tag {tag:04x}", 1, ethernet(tag, vlan(100, 0x0800, UDP4)), Layer.VLAN, vlan_id=100, vlan_depth=1)
        for tag in (0x8100, 0x88A8, 0x9100, 0x9200)
    ),
    udp4_over("QinQ", 1, ethernet(0x88A8, vlan(1000, 0x8100, vlan(7, 0x0800, UDP4))),
              Layer.VLAN | Layer.QINQ, vlan_id=1000, vlan_depth=2),
    udp4_over("20 tags", 1, ethernet(0x8100, vlan(1, 0x8100, b"") * 19 + vlan(2, 0x0800, UDP4)),
              Layer.VLAN | Layer.QINQ, vlan_id=1, vlan_depth=20),
    udp4_over("300 tags", 1, ethernet(0x8100, vlan(1, 0x8100, b"") * 299 + vlan(2, 0x0800, UDP4)),
              Layer.VLAN | Layer.QINQ, vlan_id=1, vlan_depth=255),
    udp4_over("snap", 1, ethernet(8 + len(UDP4), snap(0x0800, UDP4)), Layer.LLC | Layer.SNAP),
    udp4_over("snap of 802.1H", 1, ethernet(8 + len(UDP4), snap(0x0800, UDP4, b"\0\0\xf8")), Layer.LLC | Layer.SNAP),
    Case("snap of another organisation", ethernet(8 + 30, snap(0x0800, bytes(30), b"\0\0\x0c")),
         {**IS_MAC, "payload_offset": 22, "payload_length": 30, "layers": Layer.LLC | Layer.SNAP}),
    Case("spanning tree", ethernet(38, llc(bytes(35), 0x42)) + bytes(8),
         {**IS_MAC, "payload_offset": 17, "payload_length": 35, "layers": Layer.LLC}),
    Case("llc with two bytes of control", ethernet(38, llc(bytes(34), 0x42, b"\0\0")) + bytes(8),
         {**IS_MAC, "payload_offset": 18, "payload_length": 34, "layers": Layer.LLC}),
    Case("arp", ethernet(0x0806, bytes(46)),
         {**IS_MAC, "ethertype": 0x0806, "payload_offset": 14, "payload_length": 46}),
    udp4_over("mpls", 1, ethernet(0x8847, mpls([16], UDP4)), Layer.MPLS, ethertype=0x8847),
    udp4_over("mpls multicast", 1, ethernet(0x8848, mpls([16, 17, 18], UDP4)), Layer.MPLS, ethertype=0x8848),
    udp4_over("40 labels", 1, ethernet(0x8847, mpls(range(40), UDP4)), Layer.MPLS, ethertype=0x8847),
    Case("mpls IPv6", ethernet(0x8847, mpls([2], UDP6)),
         {**IS_6, **IS_UDP, **at(18, 58), "layers": Layer.MPLS, "ethertype": 0x8847}),
    udp4_over("pppoe session", 1, ethernet(0x8864, pppoe(0x0021, UDP4)), Layer.PPPOE | Layer.PPP, ethertype=0x8864),
    Case("pppoe session IPv6", ethernet(0x8864, pppoe(0x0057, UDP6)),
         {**IS_6, **IS_UDP, **at(22, 62), "layers": Layer.PPPOE | Layer.PPP, "ethertype": 0x8864}),
    Case("pppoe discovery code", ethernet(0x8864, pppoe(0x0021, UDP4, code=9)),
         {**IS_MAC, "ethertype": 0x8864, "payload_offset": 20, "payload_length": 2 + len(UDP4),
          "layers": Layer.PPPOE}),
]  # fmt: skip


def over4(name, payload, expected, **ip):
    return Case(name, ethernet(0x0800, ipv4(payload[0], payload[1], **ip)), {**IS_4, "network_offset": 14, **expected})


def over6(name, payload, expected):
    return Case(name, ethernet(0x86DD, ipv6(*payload)), {**IS_6, "network_offset": 14, **expected})


NETWORK_AND_TRANSPORT = [
    over4("udp", (17, udp(PAYLOAD)), {**IS_UDP, **at(14)}),
    over4("tcp", (6, tcp(PAYLOAD)), {**IS_TCP, **at(14, 34, 54)}),
    over4("tcp with options", (6, tcp(PAYLOAD, options=bytes(12))), {**IS_TCP, **at(14, 34, 66)}),
    over4("tcp with all flags", (6, tcp(PAYLOAD, flags=0xFFF)), {**IS_TCP, **at(14, 34, 54), "tcp_flags": 0xFFF}),
    over4("udp-lite", (136, udp(PAYLOAD)), {**IS_UDP, **at(14), "protocol": 136}),
    over4("sctp", (132, sctp(PAYLOAD)),
          {**at(14, 34, 46), "protocol": 132, "source_port": 4005, "destination_port": 4006, "payload_length": SIZE}),
    over4("dccp", (33, dccp(PAYLOAD)),
          {**at(14, 34, 46), "protocol": 33, "source_port": 4007, "destination_port": 4008, "payload_length": SIZE}),
    over4("icmp", (1, bytes([8, 3]) + bytes(6) + PAYLOAD),
          {**at(14), "protocol": 1, "icmp_type": 8, "icmp_code": 3, "payload_length": SIZE}),
    over6("icmpv6", (58, bytes([135, 1]) + bytes(6) + PAYLOAD),
          {**at(14, 54), "protocol": 58, "icmp_type": 135, "icmp_code": 1, "payload_length": SIZE}),
    over4("another protocol", (89, PAYLOAD), {**at(14, 34, 34), "protocol": 89, "payload_length": SIZE}),
    over4("esp", (50, PAYLOAD), {**at(14, 34, 34), "protocol": 50, "payload_length": SIZE}),
    over4("IPv4 options", (17, udp(PAYLOAD)), {**IS_UDP, **at(14, 54)}, options=bytes(20)),
    over4("don't fragment", (17, udp(PAYLOAD)), {**IS_UDP, **at(14)}, fragment=0x4000),
    over4("first fragment", (17, udp(PAYLOAD, length=8 + 2000)),
          {**IS_UDP, **at(14), "layers": Layer.FRAGMENT | Layer.MORE_FRAGMENTS}, fragment=0x2000),
    over4("middle fragment", (17, PAYLOAD),
          {"protocol": 17, "payload_offset": 34, "payload_length": SIZE, "fragment_offset": 1480,
           "layers": Layer.FRAGMENT | Layer.MORE_FRAGMENTS}, fragment=0x2000 | 185),
    over4("last fragment", (6, PAYLOAD),
          {"protocol": 6, "payload_offset": 34, "payload_length": SIZE, "fragment_offset": 65528,
           "layers": Layer.FRAGMENT}, fragment=0x1FFF),
    over4("total length 0", (6, tcp(PAYLOAD)), {**IS_TCP, **at(14, 34, 54)}, total=0),
    over4("authentication", (51, authentication(17, udp(PAYLOAD))), {**IS_UDP, **at(14, 58)}),
    over4("udp with length 0", (17, udp(PAYLOAD, length=0)), {**IS_UDP, **at(14)}),
    over4("udp shorter than the IP payload", (17, udp(PAYLOAD, length=12)),
          {**IS_UDP, **at(14), "payload_length": 4}),
    over6("udp over IPv6", (17, udp(PAYLOAD)), {**IS_UDP, **at(14, 54)}),
    over6("tcp over IPv6", (6, tcp(PAYLOAD)), {**IS_TCP, **at(14, 54, 74)}),
    over6("all extension headers",
          (0, ipv6_options(43, ipv6_options(60, ipv6_options(51, authentication(17, udp(PAYLOAD))), 3))),
          {**IS_UDP, **at(14, 14 + 40 + 8 + 8 + 32 + 24)}),
    over6("twelve extension headers", (60, ipv6_options(60, b"") * 11 + ipv6_options(17, udp(PAYLOAD))),
          {**IS_UDP, **at(14, 14 + 40 + 12 * 8)}),
    over6("first IPv6 fragment", (44, ipv6_fragment(17, udp(PAYLOAD))),
          {**IS_UDP, **at(14, 62), "ip_id": 0xCAFEF00D, "layers": Layer.FRAGMENT | Layer.MORE_FRAGMENTS}),
    over6("last IPv6 fragment", (44, ipv6_fragment(17, PAYLOAD, 1448, False)),
          {"protocol": 17, "ip_id": 0xCAFEF00D, "fragment_offset": 1448, "payload_offset": 62, "payload_length": SIZE,
           "layers": Layer.FRAGMENT}),
    over6("esp over IPv6", (50, PAYLOAD), {**at(14, 54, 54), "protocol": 50, "payload_length": SIZE}),
    over6("no next header", (59, b""), {**at(14, 54, 54), "protocol": 59}),
    Case("padding is no payload", ethernet(0x0800, ipv4(17, udp(b"abc"))) + bytes(15),
         {**IS_4, **IS_UDP, **at(14), "payload_length": 3}),
    Case("cut behind the headers", ethernet(0x0800, UDP4)[:42], {**IS_4, **IS_UDP, **at(14)},
         wire_length=14 + len(UDP4)),
    Case("cut in the ports", ethernet(0x0800, TCP4)[:38],
         {**IS_4, **IS_TCP, **at(14, 34, 54), "layers": Layer.CUT, "tcp_sequence": 0, "tcp_acknowledgment": 0,
          "tcp_flags": 0, "tcp_window": 0},
         wire_length=14 + len(TCP4)),
    Case("TCP header longer than the packet", ethernet(0x0800, ipv4(6, tcp(b"", options=bytes(4))[:20])),
         {**IS_4, **IS_TCP, **at(14, 34, 54), "payload_length": 0, "layers": Layer.MALFORMED}),
    Case("empty frame", b"", {"payload_offset": 0, "layers": Layer.MALFORMED}),
]  # fmt: skip


def tunnel(name, outer, frame, inner, layers, network, payload=None):
    """Two cases: the outer headers alone, and through to the inner ones."""
    transport = network + (20 if inner["ip_version"] == 4 else 40)
    offsets = at(network, transport, transport + 20 if inner["protocol"] == 6 else None)
    return [
        Case(f"{name}, outermost", frame, outer),
        Case(f"{name}, innermost", frame, {**inner, **offsets, "layers": layers}, tunnels=True),
    ]


def outer4(protocol, payload_offset, payload_length, **more):
    return {**IS_4, "network_offset": 14, "transport_offset": 34, "protocol": protocol,
            "payload_offset": payload_offset, "payload_length": payload_length, **more}  # fmt: skip


def tunnelled(protocol, payload):
    return ethernet(0x0800, ipv4(protocol, payload))


UDP_PORTS = {"source_port": 4001}

TUNNELS = [
    *tunnel("IP in IP", outer4(4, 34, len(INNER4)), tunnelled(4, INNER4), IS_INNER4, Layer.IP_IN_IP, 34),
    *tunnel("IPv6 in IP", outer4(41, 34, len(INNER6)), tunnelled(41, INNER6), {**IS_INNER6, "ethertype": 0x0800},
            Layer.IP_IN_IP, 34),
    *(
        case
        for checksum in (False, True)
        for key in (False, True)
        for sequence in (False, True)
        for case in tunnel(
            f"GRE {checksum:d}{key:d}{sequence:d}",
            outer4(47, 34, 4 + 4 * (checksum + key + sequence) + len(INNER4)),
            tunnelled(47, gre(0x0800, INNER4, checksum=checksum, key=key, sequence=sequence)),
            IS_INNER4, Layer.GRE, 38 + 4 * (checksum + key + sequence),
        )
    ),
    *tunnel("GRE bridging", outer4(47, 34, 4 + len(INNER_FRAME)), tunnelled(47, gre(0x6558, INNER_FRAME)),
            {**IS_INNER4, "vlan_id": 9, "vlan_depth": 1}, Layer.GRE | Layer.VLAN, 38 + 18),
    *tunnel("VXLAN", outer4(17, 42, 8 + len(INNER_FRAME_6), **UDP_PORTS, destination_port=4789),
            tunnelled(17, udp(vxlan(INNER_FRAME_6), destination=4789)), IS_INNER6, Layer.VXLAN, 42 + 8 + 14),
    *tunnel("GENEVE", outer4(17, 42, 8 + len(INNER_FRAME), **UDP_PORTS, destination_port=6081),
            tunnelled(17, udp(geneve(0x6558, INNER_FRAME), destination=6081)),
            {**IS_INNER4, "vlan_id": 9, "vlan_depth": 1}, Layer.GENEVE | Layer.VLAN, 42 + 8 + 18),
    *tunnel("GENEVE with options", outer4(17, 42, 20 + len(INNER6), **UDP_PORTS, destination_port=6081),
            tunnelled(17, udp(geneve(0x86DD, INNER6, bytes(12)), destination=6081)), IS_INNER6, Layer.GENEVE, 42 + 20),
    *tunnel("IP in GRE in IP in VXLAN", outer4(17, 42, 8 + 14 + 20 + 4 + len(INNER4), **UDP_PORTS,
                                               destination_port=4789),
            tunnelled(17, udp(vxlan(tunnelled(47, gre(0x0800, INNER4))), destination=4789)), IS_INNER4,
            Layer.VXLAN | Layer.GRE, 42 + 8 + 14 + 20 + 4),
    *tunnel("forty IP headers", outer4(4, 34, 39 * 20 + len(INNER4)),
            tunnelled(4, b"".join(ipv4(4, b"", total=(39 - depth) * 20 + len(INNER4)) for depth in range(39)) + INNER4),
            IS_INNER4, Layer.IP_IN_IP, 14 + 40 * 20),
    *tunnel("Ethernet in MPLS",
            {**IS_MAC, "ethertype": 0x8847, "payload_offset": 18, "payload_length": 4 + len(INNER_FRAME),
             "layers": Layer.MPLS},
            ethernet(0x8847, mpls([16], bytes(4) + INNER_FRAME)), {**IS_INNER4, "vlan_id": 9, "vlan_depth": 1},
            Layer.MPLS | Layer.VLAN, 14 + 4 + 4 + 18),
    Case("ARP in VXLAN", tunnelled(17, udp(vxlan(ethernet(0x0806, bytes(28))), destination=4789)),
         {**IS_MAC, "ethertype": 0x0806, "payload_offset": 64, "payload_length": 28, "layers": Layer.VXLAN},
         tunnels=True),
    Case("GRE version 1 stays shut", tunnelled(47, gre(0x880B, PAYLOAD, version=1)),
         outer4(47, 34, 4 + SIZE), tunnels=True),
    Case("IP in IP cut before the inner header", tunnelled(4, INNER4)[:34],
         outer4(4, 34, len(INNER4), layers=Layer.IP_IN_IP | Layer.CUT), tunnels=True,
         wire_length=34 + len(INNER4)),
]  # fmt: skip

CASES = LINK_TYPES + LINK_HEADERS + NETWORK_AND_TRANSPORT + TUNNELS
