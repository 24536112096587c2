"""Filters on batches against what `tcpdump -r FILE EXPRESSION` keeps."""

import shutil
import struct

import numpy as np
import pytest
from support.tcpdump_oracle import CAPTURES, Refused, read_with_tcpdump

from uspcap.bpf import libpcap
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import FilterError
from uspcap.frames import FrameBatch, Interface

needs_libpcap = pytest.mark.skipif(
    libpcap.cypcap_compiler() is None and libpcap.system_compiler() is None,
    reason="no libpcap to compile filters with",
)

SHARED_CAPTURES = [
    "fix-orders/tcpreplay__test.pcap",
    "encap/arkime__mpls-basic.pcap",
    "encap/zeek__mixed-vlan-mpls.pcap",
    "encap/tcpdump__various_gre.pcap",
    "encap/zeek__pppoe-over-qinq.pcap",
    "encap/suricata-verify__vxlan-decoder-03__vxlan.pcap",
    "encap/suricata-verify__decode-teredo-01__input.pcap",
    "encap/zeek__cisco-fabric-path.pcap",
    "encap/arkime__gtp-iphone.pcap",
    "corrupt/tcpdump__arp-oobr.pcap",
    "corrupt/tcpdump__babel_update_oobr.pcap",
    "snaplen-cut/nDPI__badpackets.pcap",
    "snaplen-cut/nDPI__ja3_lots_of_cipher_suites_2_anon.pcap",
    "snaplen-cut/zeek__timestamp.pcap",
    "linktypes/PcapPlusPlus__sll.pcap",
    "linktypes/zeek__linux_dlt_sll2.pcap",
    "linktypes/PcapPlusPlus__four_ipv6_http_streams.pcap",
    "time-edge/nDPI__gaijin_mobile_mixed.pcap",
    "corrupt/nDPI__ossfuzz_seed_fake_traces_1.pcapng",
    "linktypes/tcpdump__icmpv6_nodeinfo_queryipv4.pcap",
    "linktypes/zeek__pop3-starttls.pcap",
    "linktypes/tcpdump__mpls-traceroute.pcap",
    "linktypes/libpcap__arcnet-rfc1051-arp-icmp-http.pcap",
    "linktypes/tcpdump__OSPFv3_multipoint_adjacencies.pcap",
    "linktypes/zeek__radiotap.pcap",
    "linktypes/zeek__wlanmon.pcap",
    "linktypes/libpcap__ISIS_p2p_adjacency.pcap",
    "linktypes/libpcap__isup_load_generator.pcap",
    "linktypes/wireshark__nfs.pcap",
]

EXPRESSIONS = [
    # Nothing, and both ways to ask for a length.
    "",
    "less 80",
    "greater 200",
    "len > 100 and len <= 600",
    "len = 60 or len = 64",
    # Protocols.
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "igmp",
    "sctp",
    "ip proto 47",
    "ip proto \\tcp",
    "ip6 proto 17",
    "ip6 proto 58",
    "proto 17",
    "ether proto 0x0800",
    "ether proto \\ip6",
    "ether proto 0x88cc",
    "esp or ah or pim or vrrp",
    "llc",
    "stp",
    "iso",
    "isis",
    "atalk or ipx or decnet",
    # Hosts and networks.
    "host 192.168.0.1",
    "src host 10.0.0.1 or dst host 10.0.0.1",
    "src net 10.0.0.0/8",
    "dst net 192.168.0.0 mask 255.255.0.0",
    "net 172.16.0.0/12 or net 127",
    "not net 10",
    "ip6 host fe80::1 or net 2000::/3",
    "src net 2001::/16 and dst net 0::/0",
    "ip host 239.255.0.1 or arp host 192.168.1.1",
    "ether host ff:ff:ff:ff:ff:ff",
    "ether src 00:00:00:00:00:01 or ether dst 01:80:c2:00:00:00",
    # Broadcast and multicast.
    "broadcast",
    "multicast",
    "ether broadcast",
    "ether multicast",
    "ip broadcast",
    "ip multicast",
    "ip6 multicast",
    # Ports.
    "port 53",
    "port 80",
    "src port 443",
    "dst port 443 or dst port 8080",
    "udp port 5000",
    "tcp dst port 23",
    "udp src port 123",
    "portrange 0-1023",
    "dst portrange 1024-65535 and udp",
    "tcp src portrange 80-443",
    "port http or port domain",
    # Tags and tunnels.
    "vlan",
    "vlan 123",
    "vlan and ip",
    "vlan and vlan and tcp",
    "not vlan and udp",
    "mpls",
    "mpls 100000 and mpls 1024",
    "mpls and ip",
    "vlan and mpls and host 66.59.109.137",
    "pppoed",
    "pppoes",
    "pppoes and ip and tcp",
    "vlan and vlan and pppoes and tcp port 443",
    "geneve",
    # Bytes and arithmetic.
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[tcpflags] = tcp-ack",
    "tcp[13] & 4 != 0",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff != 0",
    "ip[8] < 64 and ip[2:2] > 576",
    "ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) > 0",
    "ip6[6] = 17 or ip6[7] = 255",
    "ether[0] & 1 = 0 and ether[12:2] > 1500",
    "ether[1000000] = 0",
    "link[0] = 0 or link[1:2] = 0",
    "icmp[icmptype] = icmp-echo or icmp[icmptype] = icmp-unreach",
    "icmp6[icmp6type] != icmp6-routeradvert",
    "udp[4:2] = 8 + 12 or udp[4:2] * 2 > 200",
    "udp[4:2] % 4 = 0 and udp[4:2] / 8 > 3",
    "(ip[12:4] ^ ip[16:4]) & 0xff000000 = 0",
    "1 << (ip[9] - 6) = 1",
    "ip[ip[0] & 0xf] != 0",
    "ip[2:2] / (ip[8] - 64) > 1",
    "-ip[8] + 64 = 0",
    "tcp[4:4] > tcp[8:4]",
    # Nesting.
    "not (tcp or udp)",
    "!(tcp port 80 || udp port 53) && ip",
    "ip and (tcp or (udp and not (port 53 or port 67)))",
    "not not ip and not (not tcp and not icmp)",
    "(tcp and dst port 80) or (udp and (src port 53 or dst port 53)) or (icmp and less 200) or arp",
    "host 10.0.0.1 and not port 22 and not arp or ip6 and greater 100",
    # Wireless and telephony, which most link types refuse.
    "type mgt subtype beacon",
    "wlan type data or wlan type ctl",
    "wlan addr1 ff:ff:ff:ff:ff:ff",
    "dir nods",
    "mtp2 and fisu or msu",
    "inbound",
    "outbound",
    # Wrong everywhere.
    "udp prt 53",
    "port 70000",
    "host 1.2.3.400",
    "(tcp",
    "vlan 5000",
    "ip[0] << 40 = 0",
    "tcp and udp",
]


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump to compare with")
@pytest.mark.skipif(libpcap.system_compiler() is None, reason="no system libpcap, which tcpdump uses")
@pytest.mark.parametrize("name", SHARED_CAPTURES)
def test_keeps_the_frames_that_tcpdump_keeps_and_refuses_what_it_refuses(name, monkeypatch):
    # The libpcap that tcpdump uses: what `ip multicast` means changed between 1.10.3 and 1.10.6.
    monkeypatch.setattr(libpcap, "find_compiler", libpcap.system_compiler)
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no shared capture {name}")
    whole = read_with_tcpdump(path)
    assert whole.frames
    kept = refused = partly = 0
    for expression in EXPRESSIONS:
        try:
            expected = read_with_tcpdump(path, expression).frames
        except Refused as reason:
            refused += 1
            with pytest.raises(FilterError):
                filtered(whole, expression)
                pytest.fail(f"{expression}: tcpdump says {reason}")
            continue
        batch = filtered(whole, expression)
        assert batch.frames_read == len(whole.frames)
        assert [whole.frames[number - 1] for number in batch.frame_number.tolist()] == expected, expression
        assert [batch.frame_bytes(row) for row in range(len(batch))] == [frame.data for frame in expected]
        kept += bool(expected)
        partly += 0 < len(expected) < len(whole.frames)
    assert kept >= 1
    assert refused >= 6
    if len(whole.frames) > 20:
        assert partly >= 3


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump to read captures with")
@pytest.mark.skipif(
    libpcap.cypcap_compiler() is None or libpcap.system_compiler() is None,
    reason="needs both cypcap and the system's libpcap",
)
@pytest.mark.parametrize("name", SHARED_CAPTURES)
def test_both_compilers_keep_the_same_frames(name, monkeypatch):
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no shared capture {name}")
    whole = read_with_tcpdump(path)
    for expression in EXPRESSIONS:
        if expression == "ip multicast":
            continue  # libpcap before 1.10.6 counts 240.0.0.0/4 as multicast, 255.255.255.255 among it
        outcomes = []
        for compiler in (libpcap.cypcap_compiler, libpcap.system_compiler):
            monkeypatch.setattr(libpcap, "find_compiler", compiler)
            try:
                outcomes.append(filtered(whole, expression).frame_number.tolist())
            except FilterError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], expression


def filtered(capture, expression):
    batch = capture.batch()
    FrameFilter(expression).apply(batch)
    return batch


@needs_libpcap
def test_many_hosts_need_jumps_of_more_than_255_instructions():
    addresses = [f"10.{index // 250}.{index % 250}.1" for index in range(400)]
    frames = [ipv4_frame(17, address) for address in ("10.0.0.1", "10.1.149.1", "10.1.150.1", "10.0.0.2")]
    batch = FrameBatch.from_frames(frames, range(4))
    FrameFilter(" or ".join(f"dst host {address}" for address in addresses)).apply(batch)
    assert batch.frame_number.tolist() == [1, 2]


@pytest.mark.parametrize("expression", ["", "  \t"])
def test_an_empty_expression_keeps_everything(expression):
    batch = FrameBatch.from_frames([b"", b"x"], range(2), interfaces=(Interface(link_type=147),))
    FrameFilter(expression).apply(batch)
    assert len(batch) == 2


@needs_libpcap
def test_an_expression_that_compiles_for_no_link_type_is_refused_every_time():
    batch = FrameBatch.from_frames([b"x"], [0], interfaces=(Interface(link_type=101),))
    chosen = FrameFilter("ether host 00:00:00:00:00:01")
    for _ in range(2):
        with pytest.raises(FilterError, match="link type 101: ethernet addresses supported only on"):
            chosen.apply(batch)
    assert len(batch) == 1


@needs_libpcap
@pytest.mark.parametrize("order", [(1, 101), (101, 1)])
def test_frames_of_a_link_type_that_an_expression_makes_no_sense_for_are_taken_out(order):
    frames = [ipv4_frame(17, "10.0.0.1")] * 4
    batch = FrameBatch.from_frames(frames, range(4), interfaces=[Interface(one) for one in order])
    batch.storage("interface")[:4] = [0, 1, 0, 1]
    chosen = FrameFilter("ether src 00:00:00:00:00:01")
    chosen.apply(batch)
    assert [order[interface] for interface in batch.interface] == [1, 1]
    assert list(chosen.refused) == [101]
    assert "ethernet addresses" in chosen.refused[101]


@needs_libpcap
def test_each_link_type_gets_its_own_program():
    ethernet, raw = ipv4_frame(17, "10.0.0.1"), ipv4_frame(17, "10.0.0.1")[14:]
    tcp = ipv4_frame(6, "10.0.0.1")
    interfaces = (Interface(1), Interface(101), Interface(228))
    frames = [ethernet, raw, raw, tcp, tcp[14:], tcp[14:], raw]
    batch = FrameBatch.from_frames(frames, range(7), interfaces=interfaces)
    batch.storage("interface")[:7] = [0, 1, 2, 0, 1, 2, 0]
    chosen = FrameFilter("udp")
    chosen.apply(batch)
    assert batch.frame_number.tolist() == [1, 2, 3]
    assert chosen.refused == {}


@needs_libpcap
def test_interfaces_that_appear_later_are_compiled_for_and_earlier_ones_remembered():
    chosen = FrameFilter("udp")
    frame = ipv4_frame(17, "10.0.0.1")
    for link_type, data, expected in ((1, frame, 1), (101, frame[14:], 1), (1, frame[14:], 0), (1, frame, 1)):
        batch = FrameBatch.from_frames([data], [0], interfaces=(Interface(link_type),))
        chosen.apply(batch)
        assert len(batch) == expected


@needs_libpcap
def test_batches_of_every_size_reuse_one_filter():
    chosen = FrameFilter("udp")
    udp, tcp = ipv4_frame(17, "10.0.0.1"), ipv4_frame(6, "10.0.0.1")
    for count in (3, 100, 1, 0, 50):
        batch = FrameBatch.from_frames([udp, tcp] * count, np.arange(2 * count))
        chosen.apply(batch)
        assert batch.frame_number.tolist() == list(range(1, 2 * count, 2))


@needs_libpcap
def test_header_columns_stay_where_nothing_is_taken_out():
    batch = FrameBatch.from_frames([ipv4_frame(17, "10.0.0.1")], [0])
    batch._headers_current = True
    FrameFilter("udp").apply(batch)
    assert batch._headers_current
    FrameFilter("tcp").apply(batch)
    assert not batch._headers_current


@needs_libpcap
def test_direction_is_refused_where_only_the_kernel_knows_it():
    batch = FrameBatch.from_frames([b"x"], [0])
    with pytest.raises(FilterError, match="not supported on Ethernet when reading savefiles"):
        FrameFilter("inbound").apply(batch)


@needs_libpcap
def test_bsd_loopback_headers_are_read_in_the_byte_order_of_the_file():
    families = [struct.pack(order + "I", family) for order in "<>" for family in (2, 24, 28, 30)]
    packet = bytes([0x60]) + bytes(39)
    chosen = FrameFilter("ip6")
    for big_endian, expected in ((False, [2, 3, 4]), (True, [6, 7, 8]), (False, [2, 3, 4])):
        batch = FrameBatch.from_frames(
            [family + packet for family in families], range(8), interfaces=(Interface(link_type=0),)
        )
        batch.big_endian_options = big_endian
        chosen.apply(batch)
        assert batch.frame_number.tolist() == expected


@needs_libpcap
def test_a_refused_link_type_stays_only_taken_out_in_a_file_of_the_other_byte_order():
    chosen = FrameFilter("ether src 00:00:00:00:00:01")
    frame = ipv4_frame(17, "10.0.0.1")
    both = FrameBatch.from_frames([frame], [0], interfaces=(Interface(1), Interface(101)))
    chosen.apply(both)
    raw = FrameBatch.from_frames([frame[14:]], [0], interfaces=(Interface(101),))
    raw.big_endian_options = True
    chosen.apply(raw)
    assert (len(both), len(raw)) == (1, 0)


def ipv4_frame(protocol: int, destination: str) -> bytes:
    """An Ethernet frame from 00:00:00:00:00:01 with an empty IPv4 packet."""
    address = bytes(map(int, destination.split(".")))
    header = bytes((0x45, 0, 0, 20, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 9, 9, 9)) + address
    return bytes(11) + b"\1\x08\0" + header
