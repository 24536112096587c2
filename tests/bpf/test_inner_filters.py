"""Filters on innermost packets: whatever carries them, and against tshark's display filters."""

import shutil
import struct
import subprocess
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.header_frames import (
    MACS,
    batch_of,
    ethernet,
    gre,
    ipv4,
    ipv6,
    ipv6_fragment,
    ipv6_options,
    mpls,
    pppoe,
    sll,
    tcp,
    udp,
    vlan,
)
from support.shared_captures import CAPTURES, manifest, needs_captures

from uspcap.bpf import libpcap
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.classic_bpf import ClassicProgram, run, run_inside
from uspcap.bpf.expressions import NotTakenApart, take_apart
from uspcap.bpf.filters import FrameFilter, filter_of_files
from uspcap.bpf.terms import ETHERNET, RAW, joined_program
from uspcap.errors import FilterError
from uspcap.formats import open_capture

pytestmark = pytest.mark.skipif(
    libpcap.cypcap_compiler() is None and libpcap.system_compiler() is None,
    reason="no libpcap to compile filters with",
)


def icmp(kind, version=4):
    return bytes([kind, 0, 0, 0, 0, 1, 0, 2]) + b"ping" if version == 4 else bytes([kind, 0]) + bytes(10)


def authenticated(following, payload):
    return bytes([following, 4]) + bytes(22) + payload


PACKETS = [
    ipv4(17, udp(bytes(range(64)), 5000, 53)),
    ipv4(17, udp(b"", 53, 5000), "10.0.0.1", "10.0.0.2"),
    ipv4(6, tcp(b"GET / HTTP/1.1", 40000, 80, flags=0x18), "10.0.0.1", "192.168.1.1"),
    ipv4(6, tcp(b"", 80, 40000, options=bytes(8), flags=0x12), options=bytes(4)),
    ipv4(1, icmp(8)),
    ipv4(17, bytes(24), fragment=5),
    ipv4(17, udp(bytes(8), 53, 53), fragment=0x2000),
    ipv4(51, authenticated(6, tcp(b"x", 80, 443, flags=2))),
    ipv4(2, bytes(8), "10.0.0.9", "224.0.0.1"),
    ipv6(17, udp(bytes(range(64)), 5000, 53)),
    ipv6(6, tcp(b"GET / HTTP/1.1", 40000, 80, flags=0x02), "fe80::1", "fe80::2"),
    ipv6(0, ipv6_options(60, ipv6_options(17, udp(bytes(range(16)), 53, 53), 1))),
    ipv6(60, ipv6_options(6, tcp(b"", 443, 80, flags=0x11))),
    ipv6(58, icmp(128, 6)),
    ipv6(0, ipv6_options(58, icmp(135, 6))),
    ipv6(44, ipv6_fragment(17, udp(bytes(8), 53, 53))),
    ipv6(44, struct.pack("!BBHI", 6, 0, 80, 7) + bytes(16)),
    ipv6(0, ipv6_options(44, struct.pack("!BBHI", 17, 0, 80, 7) + bytes(16))),
]

ARP = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, MACS[6:], bytes([10, 0, 0, 1]), bytes(6), bytes([10, 0, 0, 2]))

INNER_TERMS = [
    "udp", "tcp", "ip", "ip6", "icmp", "icmp6", "arp", "igmp", "sctp", "port 53", "udp port 53", "tcp dst port 80",
    "src port 5000", "portrange 50-60", "host 10.0.0.1", "dst host 192.168.1.1", "net 10.0.0.0/8", "net fe80::/10",
    "ip6 host fe80::1", "arp host 10.0.0.2", "udp[8] = 0", "udp[9] = 1", "udp[4:2] > 16", "tcp[13] & 2 != 0",
    "tcp[tcpflags] & tcp-push != 0", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "icmp[0] = 8", "icmp6[0] = 128",
    "icmp6[0] = 135", "ip[8] = 61", "ip6[7] = 62", "ip6[6] = 17", "ip proto 17", "ip6 proto 6", "proto 17",
    "ip6 proto 44", "ip[6:2] & 0x1fff != 0", "ip multicast", "ip6 multicast", "arp[6:2] = 1", "udp[2:2] = udp[0:2]",
]  # fmt: skip

EXPRESSIONS = st.recursive(
    st.sampled_from(INNER_TERMS),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
    ),
    max_leaves=4,
)


def ethertype_of(packet):
    return 0x0806 if packet is ARP else 0x0800 if packet[0] >> 4 == 4 else 0x86DD


def outer_ip(protocol, payload, version):
    return ipv4(protocol, payload, "172.16.0.1", "172.16.0.2") if version == 4 else ipv6(protocol, payload, "fd00::1")


def vxlan(frame):
    return struct.pack("!II", 0x08000000, 77 << 8) + frame


def geneve(ethertype, content):
    return struct.pack("!BBHI4x", 1, 0, ethertype, 99 << 8) + content


def gtp(packet):
    return struct.pack("!BBHIHBB", 0x32, 0xFF, 4 + len(packet), 7, 1, 0, 0) + packet


def erspan(kind, frame):
    if kind == 1:
        return struct.pack("!HH", 0, 0x88BE) + frame
    if kind == 2:
        return struct.pack("!HHI", 0x1000, 0x88BE, 1) + struct.pack("!HHI", 0x1000, 5, 0) + frame
    flags = 0x01 if kind == 4 else 0
    head = struct.pack("!HHIHBB", 0x2000, 5, 1000, 0, 0x80, flags)
    return struct.pack("!HHI", 0x1000, 0x22EB, 1) + head + (bytes(8) if kind == 4 else b"") + frame


@st.composite
def wrapped(draw, packet):
    """Return an Ethernet frame around a packet, in up to three things that carry it."""
    kind, content = ethertype_of(packet), packet
    for _ in range(draw(st.integers(0, 3))):
        is_ip = kind in (0x0800, 0x86DD)
        version = draw(st.sampled_from([4, 6]))
        whole = ethernet(kind, content)
        means = ["vlan", "qinq", "vxlan", "gpe", "geneve", "gre-frame", "erspan1", "erspan2", "erspan3", "erspan4"]
        means += ["mpls", "pppoe", "gre", "geneve-ip", "gtp", "ip-in-ip", "gpe-ip"] if is_ip else []
        mean = draw(st.sampled_from(means))
        inner_udp = {
            "vxlan": (4789, vxlan(whole)),
            "gpe": (4790, struct.pack("!BHBI", 0x0C, 0, 3, 7 << 8) + whole),
            "gpe-ip": (4790, struct.pack("!BHBI", 0x0C, 0, 1 if kind == 0x0800 else 2, 7 << 8) + content),
            "geneve": (6081, geneve(0x6558, whole)),
            "geneve-ip": (6081, geneve(kind, content)),
            "gtp": (2152, gtp(content)),
        }
        if mean == "vlan":
            kind, content = 0x8100, vlan(7, kind, content)
        elif mean == "qinq":
            kind, content = 0x88A8, vlan(8, 0x8100, vlan(9, kind, content))
        elif mean == "mpls":
            kind, content = 0x8847, mpls([17, 18], content)
        elif mean == "pppoe":
            kind, content = 0x8864, pppoe(0x0021 if kind == 0x0800 else 0x0057, content)
        else:
            protocol = 47
            if mean in inner_udp:
                port, payload = inner_udp[mean]
                protocol, content = 17, udp(payload, 50000, port)
            elif mean == "gre":
                content = gre(kind, content)
            elif mean == "gre-frame":
                content = gre(0x6558, whole)
            elif mean == "ip-in-ip":
                protocol = 4 if kind == 0x0800 else 41
            else:
                content = erspan(int(mean[-1]), whole)
            kind, content = (0x0800 if version == 4 else 0x86DD), outer_ip(protocol, content, version)
    return ethernet(kind, content)


def kept(expression, frames, *, link_type=1, tunnels=True, outer=False):
    batch = batch_of(frames, link_type, tunnels=tunnels)
    mask, count = filter_of_files(expression, outer=outer).matches(batch)
    assert count == np.count_nonzero(mask)
    return [bool(one) for one in mask]


def kept_or_refused(expression, frames, **options):
    try:
        return kept(expression, frames, **options)
    except FilterError:
        return None


@given(st.data(), st.sampled_from([*PACKETS, ARP]), EXPRESSIONS)
def test_a_packet_matches_whatever_carries_it(data, packet, expression):
    bare = ethernet(ethertype_of(packet), packet)
    # Padded: where a term asks for bytes that are not there, libpcap's optimiser may have left it out.
    frames = [frame + bytes(64) for frame in (bare, *(data.draw(wrapped(packet)) for _ in range(4)))]
    found = kept_or_refused(expression, frames)
    assert found is None or found == [found[0]] * len(frames), expression


@given(st.sampled_from([one for one in PACKETS if one[0] >> 4 == 4 and one[9] != 51] + [ARP]), EXPRESSIONS)
def test_a_bare_packet_of_ipv4_matches_as_it_does_in_tcpdump(packet, expression):
    frame = ethernet(ethertype_of(packet), packet)
    assert kept_or_refused(expression, [frame]) == kept_or_refused(expression, [frame], outer=True)


@given(st.sampled_from(PACKETS), EXPRESSIONS)
def test_other_link_types_show_the_same_packets(packet, expression):
    kind = ethertype_of(packet)
    expected = kept_or_refused(expression, [ethernet(kind, packet) + bytes(64)])
    packet += bytes(64)
    for link_type, frame in ((113, sll(kind, packet)), (113, sll(0x8100, vlan(5, kind, packet))), (101, packet)):
        found = kept_or_refused(expression, [frame], link_type=link_type)
        # A link type without a frame that could match refuses.
        assert found in (expected, None)


@pytest.mark.parametrize(
    ("expression", "packet", "expected"),
    [
        ("udp[8] = 7", ipv6(17, udp(b"\7", 1, 2)), True),
        ("udp[8] = 7", ipv6(0, ipv6_options(17, udp(b"\7", 1, 2))), True),
        ("udp[8] = 7", ipv6(17, udp(b"\5", 1, 2)), False),
        ("tcp[13] = 2", ipv6(6, tcp(flags=2)), True),
        ("tcp[13] = 2", ipv6(44, ipv6_fragment(6, tcp(flags=2))), True),
        ("tcp[13] = 2", ipv6(17, udp(bytes(20))), False),
        ("not tcp[13] = 2", ipv6(17, udp(bytes(20))), True),
        ("udp port 53", ipv6(60, ipv6_options(17, udp(b"", 53, 1))), True),
        ("udp port 54", ipv6(60, ipv6_options(17, udp(b"", 53, 1))), False),
        ("icmp6[0] = 135", ipv6(0, ipv6_options(58, icmp(135, 6))), True),
        ("tcp port 80", ipv4(51, authenticated(6, tcp(b"", 80, 1))), True),
        ("ip6 proto 0", ipv6(0, ipv6_options(17, udp())), True),
        ("ip6 proto 17", ipv6(0, ipv6_options(17, udp())), True),
        ("ip6[6] = 17", ipv6(0, ipv6_options(17, udp())), False),
        ("sctp", ipv6(0, ipv6_options(17, udp())), False),
    ],
)
def test_transports_are_found_over_ipv6_and_behind_extension_headers(expression, packet, expected):
    kind = ethertype_of(packet)
    assert kept(expression, [ethernet(kind, packet), ethernet(0x8100, vlan(5, kind, packet))]) == [expected] * 2


def test_terms_about_frames_and_lengths_are_about_the_frame_beside_inner_ones():
    packet = ipv4(17, udp(bytes(10), 1, 53))
    frame = ethernet(0x8100, vlan(5, 0x0800, outer_ip(17, udp(vxlan(b"\2" * 12 + b"\x08\0" + packet), 9, 4789), 4)))
    here, inside = ":".join(f"{one:02x}" for one in MACS[:6]), "02:02:02:02:02:02"
    for expression, expected in [
        (f"udp port 53 and len = {len(frame)}", True),
        (f"udp port 53 and ether dst {here}", True),
        (f"udp port 53 and ether dst {inside}", False),
        (f"udp port 53 and not ether dst {inside}", True),
        ("udp port 53 and ether[12:2] = 0x0800", False),
        (f"not (udp port 53 and greater {len(frame) + 1})", True),
        ("udp port 4789", False),  # as tcpdump: the tag is in the way
        ("vlan and udp port 4789", True),
        ("vlan and udp port 53", False),
        ("udp port 9", False),
    ]:
        assert kept(expression, [frame]) == [expected], expression


def test_without_tunnels_the_innermost_decoded_packet_counts():
    inside = ethernet(0x0800, ipv4(17, udp(bytes(10), 1, 53)))
    frame = ethernet(0x8100, vlan(5, 0x0800, outer_ip(17, udp(vxlan(inside), 9, 4789), 4)))
    assert kept("udp port 53", [frame], tunnels=False) == [False]
    assert kept("udp port 9", [frame], tunnels=False) == [True]


def test_the_outer_reading_is_tcpdumps():
    tagged = ethernet(0x8100, vlan(5, 0x0800, PACKETS[0]))
    assert kept("udp port 53", [tagged]) == [True]
    assert kept("udp port 53", [tagged], outer=True) == [False]
    assert kept("not udp port 53", [tagged]) == [False]
    assert kept("not udp port 53", [tagged], outer=True) == [True]
    assert FrameFilter("udp port 53").reading.name == "outer"


def test_bytes_that_were_not_captured_reject_a_frame_behind_not_too():
    cut = ethernet(0x8100, vlan(5, 0x0800, PACKETS[0]))[:50]
    assert kept("udp[40] = 1", [cut]) == [False]
    assert kept("not udp[40] = 1", [cut]) == [False]
    assert kept("udp or udp[40] = 1", [cut]) == [True]


@given(st.data(), st.sampled_from([*PACKETS, ARP]), EXPRESSIONS)
def test_frames_that_are_cut_anywhere_are_looked_at_within_their_bytes(data, packet, expression):
    frame = data.draw(wrapped(packet))
    kept_or_refused(expression, [frame[: data.draw(st.integers(0, len(frame)))]])


@needs_captures
@pytest.mark.parametrize(
    "name",
    ["udp-rr/pcaps__dns.cap", "tcp/packets__http_espn.pcapng", "corrupt/tcpdump__arp-oobr.pcap"],
)
def test_terms_joined_are_what_libpcap_makes_of_the_whole(name):
    """Where nothing carries anything, both programs see the same bytes."""
    compared = 0
    for expression in (*INNER_TERMS, "not udp port 53", "tcp and not port 80 or ip[8] < 60", "greater 100 and not tcp"):
        try:
            node = take_apart(expression)
            whole = compile_filter(expression, 1, netmask=0, file_byte_order="little")
        except (NotTakenApart, FilterError):
            continue
        plain = ClassicProgram(whole.instructions)
        joined = [joined_program(node, 1, link_type, "little") for link_type in (RAW, ETHERNET)]
        with open_capture(str(CAPTURES / name)) as reader:
            for batch in reader.batches():
                is_ipv4 = (batch.headers.column("ip_version") != 6).astype(np.uint8)
                expected, found = np.zeros(batch.count, np.uint8), np.zeros(batch.count, np.uint8)
                run(plain, batch, expected, 1)
                run_inside(plain, *joined, batch, batch.headers, found, np.ones(batch.count, np.uint8), 1)
                assert np.array_equal(expected * is_ipv4, found * is_ipv4), expression
                compared += 1
    assert compared > 30


NOT_DECODED = {
    "encap/zeek__cisco-fabric-path.pcap": "tshark takes locally administered MAC addresses for FabricPath",
    "encap/nDPI__teredo.pcap": "Teredo",
    "encap/suricata-verify__decode-teredo-01__input.pcap": "Teredo",
    "encap/suricata-verify__decode-vntag-01__input.pcap": "VN-Tag",
    "encap/tcpdump__mpls-over-udp.pcap": "MPLS over UDP",
    "encap/tcpdump__various_gre.pcap": "GRE with Cisco's metadata",
    "encap/nDPI__gre.pcapng": "GRE of version 1",
    "encap/tcpdump__nsh.pcap": "NSH",
    "encap/suricata-verify__decode-nsh-type1__input.pcap": "NSH",
    "encap/tcpdump__macsec-short-longer.pcap": "MACsec",
    "encap/tcpdump__macsec-short-shorter.pcap": "MACsec",
    "ipv6-frag/tcpdump__ipv6-bad-version.pcap": "an IPv6 header that says it is of another version",
}
"""What tshark goes into and uspcap does not, or the other way round."""

# tshark's filters are about any packet in a frame, also those that errors quote.
NO_ERROR = "!icmp && !icmpv6"
DNS = f"udp.port == 53 && {NO_ERROR}"

AGAINST_TSHARK = [
    ("udp port 53", DNS),
    ("udp dst port 53", f"udp.dstport == 53 && {NO_ERROR}"),
    ("udp src port 53", f"udp.srcport == 53 && {NO_ERROR}"),
    ("udp src port 123", "udp.srcport == 123"),
    ("tcp port 80", "tcp.port == 80"),
    ("tcp src port 80", "tcp.srcport == 80"),
    ("tcp dst port 443", f"tcp.dstport == 443 && {NO_ERROR}"),
    ("tcp port 443", f"tcp.port == 443 && {NO_ERROR}"),
    ("port 22", "tcp.port == 22 || udp.port == 22"),
    ("port 53 or port 80", f"({DNS}) || tcp.port == 53 || tcp.port == 80 || udp.port == 80"),
    ("port (53 or 123) and not tcp", f"({DNS}) || udp.port == 123"),
    ("not port 80", "!(tcp.port == 80 || udp.port == 80)"),
    ("not udp src port 123", "!(udp.srcport == 123)"),
    ("tcp port 80 and not src port 80", "tcp.port == 80 && !(tcp.srcport == 80)"),
    ("not (tcp port 80 or tcp port 22) and tcp port 443", f"tcp.port == 443 && {NO_ERROR} && !(tcp.port == 22)"),
    (
        "portrange 1-1023 and tcp",
        f"tcp && {NO_ERROR} && (tcp.srcport in {{1..1023}} || tcp.dstport in {{1..1023}})",
    ),
    ("tcp[13] & 2 != 0", "tcp.flags.syn == 1"),
    ("tcp port 80 and tcp[13] & 2 != 0", "tcp.port == 80 && tcp.flags.syn == 1"),
    ("tcp[tcpflags] & (tcp-syn|tcp-ack) = (tcp-syn|tcp-ack)", "tcp.flags.syn == 1 && tcp.flags.ack == 1"),
    ("tcp[tcpflags] & tcp-fin != 0", "tcp.flags.fin == 1"),
    ("tcp[tcpflags] & tcp-push != 0 and tcp port 80", "tcp.flags.push == 1 && tcp.port == 80"),
    ("tcp[13] & 4 != 0", "tcp.flags.reset == 1"),
    ("tcp[2:2] = 80", "tcp.dstport == 80"),
    ("tcp[0:2] = 80 or tcp[2:2] = 22", "tcp.srcport == 80 || tcp.dstport == 22"),
    ("tcp[14:2] > 60000", "tcp.window_size_value > 60000"),
    ("tcp[12] & 0xf0 > 0x50", f"tcp.hdr_len > 20 && {NO_ERROR}"),
    ("tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "tcp.payload[0:4] == 47:45:54:20"),
    ("udp port 53 and udp[10] & 0x80 != 0", f"{DNS} && dns.flags.response == 1"),
    ("udp port 53 and not udp[10] & 0x80 != 0", f"{DNS} && dns.flags.response == 0"),
    ("udp port 53 and udp[12:2] = 1", f"{DNS} && dns.count.queries == 1"),
    ("icmp", "icmp"),
    ("icmp[icmptype] = icmp-echo", "icmp.type == 8"),
    ("icmp[0] = 0", "icmp.type == 0"),
    ("icmp[4:2] = 1", "icmp.ident == 1"),
    ("icmp[0] = 8 or icmp[0] = 0", "icmp.type == 8 || icmp.type == 0"),
    ("icmp6[icmp6type] = icmp6-echoreply", "icmpv6.type == 129"),
    ("icmp6[0] = 134", "icmpv6.type == 134"),
    ("icmp6[0] = 135 and ip6", "icmpv6.type == 135"),
    ("arp", "arp"),
    ("not arp", "!arp"),
    ("arp[6:2] = 1", "arp.opcode == 1"),
    ("arp or icmp", "arp || icmp"),
    ("tcp port 80 and greater 1000", "tcp.port == 80 && frame.len >= 1000"),
    ("udp port 53 and less 90", f"{DNS} && frame.len <= 90"),
    ("tcp port 22 and len > 200", "tcp.port == 22 && frame.len > 200"),
    ("udp src port 123 or tcp dst port 22", "udp.srcport == 123 || tcp.dstport == 22"),
    ("dst net 192.168.0.0/16 and tcp port 80", "ip.dst == 192.168.0.0/16 && tcp.port == 80"),
    ("not src net 10.0.0.0/8 and tcp port 22", "!(ip.src == 10.0.0.0/8) && tcp.port == 22"),
    ("ip6 and tcp port 80", "ipv6 && tcp.port == 80 && !(ip.dst && !ipv6)"),
]


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Return one file with all captures, and the numbers of its frames that are compared."""
    entries = [
        entry
        for entry in manifest()
        if entry["file"].split("/")[0] in ("encap", "ipv6-frag", "udp-rr")
        and entry["status"] in ("ok", "tcpdump-rejects")
        and entry["packets"]
    ]
    files = [CAPTURES / entry["file"] for entry in entries]
    path = tmp_path_factory.mktemp("tshark") / "merged.pcapng"
    subprocess.run(["mergecap", "-a", "-w", path, *files], check=True, capture_output=True)
    listing = subprocess.run(["capinfos", "-T", "-r", "-m", "-c", *files], check=True, capture_output=True, text=True)
    counts = [int(line.rsplit(",", 1)[1].strip('"')) for line in listing.stdout.splitlines()]
    compared, first = set(), 1
    for entry, count in zip(entries, counts, strict=True):
        if entry["file"] not in NOT_DECODED:
            compared.update(range(first, first + count))
        first += count
    return path, compared


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("tshark", "mergecap", "capinfos")),
    reason="tshark, mergecap and capinfos (Wireshark's tools) are not installed",
)
@pytest.mark.parametrize(("expression", "displayed"), AGAINST_TSHARK)
def test_filters_keep_the_frames_that_tsharks_display_filters_keep(expression, displayed, merged):
    path, compared = merged
    command = ["tshark", "-n", "-r", str(path), "-Y", displayed, "-T", "fields", "-e", "frame.number"]
    for preference in ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"):
        command += ["-o", preference]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = {int(number) for number in said.split()} & compared
    chosen = filter_of_files(expression)
    found = set()
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            batch.decode_tunnels = True
            chosen.apply(batch)
            found.update(batch.frame_number.tolist())
    assert chosen.reading.name == "inner"
    assert expected
    assert found & compared == expected


def test_many_hosts_reach_their_ends_over_long_jumps():
    addresses = [f"10.{index // 250}.{index % 250}.1" for index in range(300)]
    expression = " or ".join(f"dst host {address}" for address in addresses)
    frames = [
        ethernet(0x8100, vlan(3, 0x0800, ipv4(17, udp(), "1.1.1.1", str(ip_address(address)))))
        for address in ("10.0.0.1", "10.1.49.1", "10.1.50.1")
    ]
    assert kept(expression, frames) == [True, True, False]


def counts_of(expression, frames, *, outer=False):
    chosen = filter_of_files(expression, outer=outer)
    for frame in frames:
        chosen.apply(batch_of([frame], tunnels=True))
    return chosen.counts


TAGGED_DNS = ethernet(0x8100, vlan(5, 0x0800, PACKETS[0]))
IN_VXLAN = ethernet(0x0800, outer_ip(17, udp(vxlan(ethernet(0x0800, PACKETS[0])), 9, 4789), 4))


@pytest.mark.parametrize(
    ("expression", "outer", "frames", "hint"),
    [
        (
            "udp port 9",
            False,
            [IN_VXLAN] * 3,
            "matches no innermost packet, but the outer headers of 3 frames: --",
        ),
        ("not ip", False, [TAGGED_DNS], "matches no innermost packet, but the outer headers of 1 frame: --outer"),
        ("udp port 53", True, [TAGGED_DNS] * 2, "matches no outer frame, but the innermost packet of 2 frames: leave"),
        ("not tcp and udp port 53", True, [IN_VXLAN], "matches no outer frame, but the innermost packet of 1 frame"),
        ("not port 4789", False, [IN_VXLAN], "because port 4789 names an encapsulation; leave that out"),
        ("not udp port 9", False, [TAGGED_DNS], ""),
        ("udp port 53", False, [TAGGED_DNS, IN_VXLAN], ""),
        ("udp port 54", False, [TAGGED_DNS, IN_VXLAN], ""),
        ("udp port 9", False, [IN_VXLAN, ethernet(0x0800, ipv4(17, udp(b"", 9, 9)))], ""),
        ("vlan 6", False, [TAGGED_DNS], ""),
        ("greater 9000", False, [TAGGED_DNS], ""),
        ("", False, [], ""),
    ],
)
def test_what_matches_nothing_under_one_reading_gets_a_hint(expression, outer, frames, hint):
    found = counts_of(expression, frames, outer=outer).hint
    assert hint in found
    assert bool(found) == bool(hint)


@given(st.lists(st.sampled_from([TAGGED_DNS, IN_VXLAN, ethernet(0x0800, PACKETS[2])])), st.integers(0, 5), EXPRESSIONS)
def test_counts_of_parts_add_up_to_the_same_hint(frames, cut, expression):
    try:
        whole, first = counts_of(expression, frames), counts_of(expression, frames[:cut])
        first.append(counts_of(expression, frames[cut:]))
    except FilterError:
        return
    assert first.matched == whole.matched
    if frames[:cut] and frames[cut:]:
        assert first.hint == whole.hint
