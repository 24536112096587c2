"""Decoded lines: against tshark on captures by others, and on any bytes at all."""

from __future__ import annotations

import functools
import ipaddress
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import dpkt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.capture_files import interface, option, packet, section
from support.shared_captures import CAPTURES, WELL_FORMED, fields_of, needs_captures
from support.tshark import dissect, expected_columns

from uspcap.errors import UspcapError
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.report.decode import comments, decode_line, decoded_lines, hex_lines
from uspcap.stages.reading import PlannedInput

SAMPLES = Path(__file__).parents[2] / "sample_captures"

COMPARED = (
    *WELL_FORMED,
    "encap/zeek__http-qinq-0.pcap",
    "encap/suricata-verify__bug-4810__pppoe-session-http.pcap",
    "ipv6-frag/nDPI__http_ipv6.pcap",
)
LINE = re.compile(r"(?P<number>\d+) (?P<time>\S+Z)( \S+)? (?P<length>[0-9/]+) B (?P<rest>.*)")
FLOW = re.compile(r"(?P<name>[\w-]+) (?P<source>\S+) > (?P<destination>\S+) ?(?P<detail>.*)")
TCP = re.compile(r"\[(?P<flags>[A-Z ]+|none)\] seq (?P<sequence>\d+)( ack (?P<ack>\d+))? win (?P<window>\d+) len \d+")
FLAG_BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128, "AE": 256}
PROTOCOLS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPV6": 58}
WITH_PORTS = ("TCP", "UDP")

LINK_TYPES = (0, 1, 9, 12, 14, 50, 51, 101, 108, 113, 105, 127, 147, 189, 228, 229, 276, 65535)


def lines_of(path: Path) -> list[str]:
    with open_capture(str(path)) as reader:
        return [decode_line(batch, row) for batch in reader.batches() for row in range(len(batch))]


def line_of(frame: bytes, link_type: int = 1, *, wire_length: int | None = None, tunnels: bool = False) -> str:
    batch = FrameBatch.from_frames(
        [frame],
        [1_700_000_000_000_000_001],
        wire_lengths=None if wire_length is None else [wire_length],
        interfaces=(Interface(link_type),),
    )
    batch.decode_tunnels = tunnels
    return decode_line(batch, 0)


def endpoint(text: str, version: object, with_port: bool) -> tuple[str, int]:
    """Part an address from its port, and give the address the form that tshark gives it."""
    port = "0"
    if with_port and version == 6 and text.startswith("["):
        text, _, port = text[1:].partition("]:")
    elif with_port and version == 4 and ":" in text:
        text, _, port = text.partition(":")
    return (str(ipaddress.ip_address(text)) if version else text), int(port)


@pytest.fixture(scope="module")
def dissected() -> dict[Path, list[dict[str, list[str]]]]:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark to compare with: install it")
    return dissect([CAPTURES / name for name in COMPARED])


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize("name", COMPARED)
def test_lines_say_what_tshark_says(name: str, dissected: dict[Path, list[dict[str, list[str]]]]) -> None:
    path = CAPTURES / name
    rows, lines = dissected[path], lines_of(path)
    assert len(lines) == len(rows) > 0
    compared = 0
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        expected = expected_columns(row, False)
        said = LINE.fullmatch(line)
        assert said, line
        assert int(said["number"]) == number
        version, protocol = expected["ip_version"], expected["protocol"]
        flow = FLOW.search(said["rest"])
        if version and protocol not in PROTOCOLS.values():
            continue
        if flow is None:
            assert not version, line
            continue
        source, source_port = endpoint(flow["source"], version, flow["name"] in WITH_PORTS)
        destination, destination_port = endpoint(flow["destination"], version, flow["name"] in WITH_PORTS)
        assert (source, destination) == (expected["source_address"], expected["destination_address"]), line
        if not version:
            continue
        assert PROTOCOLS[flow["name"]] == protocol, line
        assert (source_port, destination_port) == (expected["source_port"], expected["destination_port"]), line
        tag = re.search(r"\bvlan (\d+) ", said["rest"])
        assert (int(tag[1]) if tag else 0xFFFF) == expected["vlan_id"], line
        compared += 1
        if flow["name"] != "TCP" or not row.get("tcp.flags"):
            continue
        tcp = TCP.match(flow["detail"])
        assert tcp, line
        flags = int(str(expected["tcp_flags"]))
        assert set(tcp["flags"].split()) - {"none"} == {flag for flag, bit in FLAG_BITS.items() if flags & bit}, line
        assert int(tcp["sequence"]) == expected["tcp_sequence"]
        assert tcp["ack"] == (str(expected["tcp_acknowledgment"]) if flags & FLAG_BITS["ACK"] else None)
        assert int(tcp["window"]) == expected["tcp_window"]
    assert compared or name.endswith("arp-oobr.pcap")


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark to compare with: install it")
@pytest.mark.parametrize("name", ["snaplen-cut/zeek__timestamp.pcap", "udp-rr/pcaps__dns.cap"])
def test_numbers_times_and_lengths_are_those_of_tshark(name: str) -> None:
    rows = fields_of(CAPTURES / name, "frame.number", "frame.time_epoch", "frame.cap_len", "frame.len")
    for line, (number, epoch, captured, wire) in zip(lines_of(CAPTURES / name), rows, strict=True):
        said = LINE.fullmatch(line)
        assert said
        assert said["number"] == number
        assert said["length"] == (wire if captured == wire else f"{captured}/{wire}")
        assert said["time"] == (epoch if "T" in epoch else iso_time(epoch))


def iso_time(epoch: str) -> str:
    """Return seconds since the epoch as date(1) writes them, with nine decimals."""
    seconds, _, fraction = epoch.partition(".")
    return f"{date(seconds)}.{fraction:0<9}Z"


@functools.cache
def date(seconds: str) -> str:
    command = ["date", "-u", "-d", f"@{seconds}", "+%Y-%m-%dT%H:%M:%S"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark to compare with: install it")
def test_dns_questions_are_those_of_tshark() -> None:
    path = CAPTURES / "udp-rr/pcaps__dns.cap"
    rows = fields_of(path, "dns.qry.name", "dns.qry.type", "dns.flags.response", "dns.count.answers", "udp.port")
    compared = 0
    for line, (name, kind, response, answers, _) in zip(lines_of(path), rows, strict=True):
        if not name:
            continue
        compared += 1
        if response in ("1", "True"):
            assert f"DNS response {name} type {kind} ({answers} answers" in line
        else:
            assert line.endswith(f"DNS query {name} type {kind}")
    assert compared > 10


def test_arp_is_decoded_in_words() -> None:
    arp = dpkt.arp.ARP(op=1, sha=b"\x02\0\0\0\0\1", spa=b"\x0a\0\0\1", tha=bytes(6), tpa=b"\x0a\0\0\2")
    ethernet = dpkt.ethernet.Ethernet(src=b"\x02\0\0\0\0\1", dst=b"\xff" * 6, type=0x806, data=arp)
    assert line_of(bytes(ethernet)).endswith(
        "42 B ARP 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff who has 10.0.0.2, tell 10.0.0.1"
    )
    arp.op = 2
    assert line_of(bytes(ethernet)).endswith("10.0.0.1 is at 02:00:00:00:00:01")


def _udp_to_dns(payload: bytes) -> bytes:
    udp = dpkt.udp.UDP(sport=1234, dport=53, ulen=8 + len(payload), data=payload)
    ip = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, data=udp)
    ip.len = 28 + len(payload)
    return bytes(dpkt.ethernet.Ethernet(type=0x800, data=ip))


QUERY = bytes(dpkt.dns.DNS(id=1, qd=[dpkt.dns.DNS.Q(name="example.org", type=1)]))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Noise, also behind headers that lead to the decoders of payloads, and messages with some bytes changed."""
    noise = draw(st.binary(max_size=120))
    kind = draw(st.sampled_from(["noise", "arp", "dns", "ethertype", "ip", "changed"]))
    if kind == "arp":
        return bytes(12) + b"\x08\x06" + noise
    if kind == "dns":
        return _udp_to_dns(noise)
    if kind == "ethertype":
        return bytes(12) + draw(st.sampled_from([b"\x81\0", b"\x88\x47", b"\x88\x64", b"\x86\xdd", b"\x08\0"])) + noise
    if kind == "ip":
        return bytes(12) + draw(st.sampled_from([b"\x08\0\x45", b"\x86\xdd\x60"])) + noise
    if kind == "changed":
        message = bytearray(_udp_to_dns(QUERY))
        for _ in range(draw(st.integers(1, 6))):
            message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
        return bytes(message[: draw(st.integers(0, len(message)))])
    return noise


@settings(max_examples=400)
@given(frames(), st.sampled_from(LINK_TYPES), st.booleans(), st.integers(0, 2000))
@example(b"", 1, False, 0)
@example(_udp_to_dns(QUERY.replace(b"example", b"ex\x1b[31m")), 1, False, 0)
@example(_udp_to_dns(QUERY.replace(b"example", b"ex\r\nple")), 1, True, 0)
def test_any_bytes_of_any_link_type_give_one_line_without_control_characters(
    frame: bytes, link_type: int, tunnels: bool, cut: int
) -> None:
    line = line_of(frame, link_type, wire_length=len(frame) + cut, tunnels=tunnels)
    assert len(line.splitlines()) == 1
    assert not [char for char in line if unicodedata.category(char)[0] == "C"]
    length = f"{len(frame)}/{len(frame) + cut}" if cut else f"{len(frame)}"
    assert line.startswith(f"1 2023-11-14T22:13:20.000000001Z {length} B ")
    line.encode()


@pytest.mark.oracle
@needs_captures
def test_every_frame_of_every_capture_gives_one_line() -> None:
    paths = sorted(
        path for kind in ("corrupt", "linktypes", "encap", "pcapng-blocks") for path in CAPTURES.glob(f"{kind}/*")
    )
    assert len(paths) > 200
    for path in paths:
        for line in _first_lines(path, 50):
            assert len(line.splitlines()) == 1, path
            assert not [char for char in line if unicodedata.category(char)[0] == "C"], path


def _first_lines(path: Path, most: int) -> list[str]:
    try:
        with open_capture(str(path)) as reader:
            batch = next(reader.batches(), None)
            return [] if batch is None else [decode_line(batch, row) for row in range(min(most, len(batch)))]
    except UspcapError:
        return []  # no capture


def test_timestamps_name_their_source_and_a_missing_one_is_said() -> None:
    def said(source: TimestampSource) -> str:
        return decode_line(FrameBatch.from_frames([b"x"], [0], timestamp_source=source), 0)

    assert said(TimestampSource.HARDWARE).startswith("1 1970-01-01T00:00:00.000000000Z HARDWARE 1 B ")
    assert said(TimestampSource.FILE).startswith("1 1970-01-01T00:00:00.000000000Z 1 B ")
    assert said(TimestampSource.NONE).startswith("1 no timestamp 1 B ")


COMMENTS = (b"plain", b"\x1b[31mred\r\n", "‮backward é".encode(), b"no \xff UTF-8", b"")
SHOWN = ('"plain"', '"\\x1b[31mred\\x0d\\x0a"', '"\\u202ebackward é"', '"no � UTF-8"', '""')


@pytest.mark.parametrize("order", ["<", ">"])
def test_comments_of_a_frame_are_shown_escaped(order: str, tmp_path: Path) -> None:
    options = b"".join(option(1, text, order) for text in COMMENTS) + option(2, b"\0\0\0\0", order)
    content = section(order) + interface(order) + packet(1, b"abc", order=order, options=options)
    path = tmp_path / "comments.pcapng"
    path.write_bytes(content + packet(2, b"abc", order=order))
    with_comments, without = lines_of(path)
    assert with_comments.endswith(" " + " ".join(SHOWN))
    assert '"' not in without
    with open_capture(str(path)) as reader:
        batch = next(reader.batches())
        assert list(comments(batch, 0)) == [text.decode("utf-8", "replace") for text in COMMENTS]
        assert list(comments(batch, 1)) == []


def test_interfaces_are_named_where_there_are_several_and_escaped(tmp_path: Path) -> None:
    path = tmp_path / "interfaces.pcapng"
    named = interface(options=option(2, b"eth\x1b0"))
    path.write_bytes(section() + named + interface() + packet(1, b"abc", 0) + packet(2, b"abc", 1))
    first, second = lines_of(path)
    assert "Z eth\\x1b0 3 B " in first
    assert "Z if1 3 B " in second


@given(st.binary(max_size=300))
@example(bytes(range(256)))
def test_hexadecimal_lines_are_those_of_a_plain_reference(data: bytes) -> None:
    lines = list(hex_lines(data))
    assert len(lines) == -(-len(data) // 16)
    for index, line in enumerate(lines):
        part = data[16 * index : 16 * index + 16]
        assert line[:10] == f"    {16 * index:04x}  "
        assert bytes.fromhex(line[10:57]) == part
        assert line[57:59] == "  "
        assert line[59:] == "".join(chr(byte) if chr(byte) in _VISIBLE else "." for byte in part)


_VISIBLE = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"


@pytest.mark.skipif(shutil.which("xxd") is None, reason="no xxd to compare with: install it")
def test_hexadecimal_lines_are_those_of_xxd() -> None:
    data = bytes(range(256)) + b"odd end"
    listed = subprocess.run(["xxd", "-g1"], input=data, check=True, capture_output=True).stdout.decode()
    ours = [line.strip() for line in hex_lines(data)]
    assert ours == [line[4:].replace(": ", "  ", 1) for line in listed.splitlines()]


def ip_frame(protocol: int, data: bytes, total: int | None = None) -> bytes:
    """Ethernet and IPv4 in front of some bytes; `total` is what IP claims as its length."""
    ip = bytearray(bytes(dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=protocol, data=data)))
    ip[2:4] = (20 + len(data) if total is None else total).to_bytes(2, "big")  # dpkt writes the true one
    return bytes(dpkt.ethernet.Ethernet(src=b"\2" * 6, dst=b"\4" * 6, type=0x800, data=bytes(ip)))


def ipv6_frame(protocol: int, data: bytes) -> bytes:
    ip = dpkt.ip6.IP6(src=bytes(15) + b"\1", dst=bytes(15) + b"\2", nxt=protocol, plen=len(data), data=data)
    return bytes(dpkt.ethernet.Ethernet(src=b"\2" * 6, dst=b"\4" * 6, type=0x86DD, data=bytes(ip)))


TCP_SEGMENT = bytes(dpkt.tcp.TCP(sport=1, dport=2, seq=7, ack=9, flags=0x18, win=55)) + b"hello"
TCP_FIELDS = ((4, ":1 "), (8, "seq 7"), (14, "[PSH ACK]"), (14, "ack 9"), (14, " len "), (16, "win 55"))
"""Bytes of the header that must be there, and what is then said of it (RFC 9293, 3.1)."""


@pytest.mark.parametrize("kept", range(len(TCP_SEGMENT) + 1))
@pytest.mark.parametrize("cut_by", ["snaplen", "IP length"])
def test_of_a_cut_tcp_header_only_what_is_there_is_said(kept: int, cut_by: str) -> None:
    whole = ip_frame(6, TCP_SEGMENT, 20 + kept if cut_by == "IP length" else None)
    line = line_of(whole[: 34 + kept], wire_length=len(whole)) if cut_by == "snaplen" else line_of(whole)
    for needed, words in TCP_FIELDS:
        assert (words in line) == (kept >= needed), line
    assert "none" not in line
    assert "seq 0" not in line
    assert "win 0" not in line


@pytest.mark.parametrize("framed", [ip_frame, ipv6_frame])
@pytest.mark.parametrize("kept", range(9))
def test_of_a_cut_icmp_header_no_type_is_made_up(framed: Callable[[int, bytes], bytes], kept: int) -> None:
    protocol, reply = (1, 0) if framed is ip_frame else (58, 129)
    message = bytes([reply, 0, 0, 0, 0, 1, 0, 2])
    whole = framed(protocol, message)
    line = line_of(whole[: len(whole) - 8 + kept], wire_length=len(whole))
    assert ("echo reply, code 0" in line) == (kept >= 2), line
    assert ("code" in line) == (kept >= 2), line
    assert ("[CUT]" in line) == (kept < 8)


def test_what_stands_behind_the_ip_packet_is_no_transport_header() -> None:
    echo_request = b"\x08\0" + bytes(18)
    assert line_of(ip_frame(1, b"", 20) + echo_request).endswith("ICMP 10.0.0.1 > 10.0.0.2 len 0 [MALFORMED]")
    assert line_of(ip_frame(6, b"", 20) + TCP_SEGMENT).endswith("TCP 10.0.0.1 > 10.0.0.2 [MALFORMED]")


CUT_FIELDS = {
    "tcp.srcport": r"TCP (?:[\d.]+|\[\S+\]):(\d+) >",
    "tcp.seq_raw": r"\bseq (\d+)",
    "tcp.ack_raw": r"\back (\d+)",
    "tcp.flags": r"\[((?:[A-Z]{2,3} ?)+|none)\] seq",
    "tcp.window_size_value": r"\bwin (\d+)",
    "tcp.len": r"TCP .*\blen (\d+)",
    "udp.srcport": r"UDP (?:[\d.]+|\[\S+\]):(\d+) >",
    "icmp.code": r", code (\d+),",
}
"""tshark's fields, and where a line shows them."""


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(
    not (shutil.which("tshark") and shutil.which("editcap")), reason="no tshark and editcap to compare with: install it"
)
@pytest.mark.parametrize("name", ["tcp/packets__http_espn.pcapng", "fix-orders/tcpreplay__test.pcap"])
def test_of_a_cut_frame_nothing_is_said_that_is_not_true_of_the_whole(name: str, tmp_path: Path) -> None:
    snaplens = range(34, 60)
    paths = [tmp_path / f"{snaplen}.pcap" for snaplen in snaplens]
    for path in paths:
        subprocess.run(["editcap", "-F", "pcap", "-s", path.stem, CAPTURES / name, path], check=True)
    dissected = dissect([CAPTURES / name, *paths])
    whole = dissected.pop(CAPTURES / name)
    shown, hidden = set(), set()
    for path, rows in dissected.items():
        for line, row, true in zip(lines_of(path), rows, whole, strict=True):
            for field, words in CUT_FIELDS.items():
                said = re.search(words, line)
                (shown if said else hidden).add(field)
                if said and field == "tcp.flags":
                    flags = sum(FLAG_BITS[flag] for flag in said[1].split() if flag != "none")
                    assert flags == int(true[field][0], 0), (path.name, line)
                elif said:
                    assert said[1] == true[field][0], (path.name, field, line)
                elif field != "tcp.ack_raw":  # without the flag a line has none
                    assert field not in row, (path.name, field, line)
    assert {"tcp.seq_raw", "tcp.flags", "tcp.len"} <= shown & hidden


def test_padding_is_no_dns_message() -> None:
    assert line_of(_udp_to_dns(b"") + bytes(18)).endswith("10.0.0.1:1234 > 10.0.0.2:53 len 0")
    assert line_of(_udp_to_dns(QUERY) + bytes(18)).endswith("DNS query example.org type 1")
    assert line_of(_udp_to_dns(QUERY[:-3])).endswith(f":53 len {len(QUERY) - 3}")


@pytest.mark.parametrize("port", [5353, 5355])
def test_multicast_names_are_shown_as_dns_has_them(port: int) -> None:
    udp = dpkt.udp.UDP(sport=port, dport=port, ulen=8 + len(QUERY), data=QUERY)
    assert line_of(ip_frame(17, bytes(udp))).endswith("DNS query example.org type 1")


def test_addresses_of_frames_without_ip_are_only_those_that_the_frame_has() -> None:
    assert line_of(b"").endswith(" 0 B ETHERNET [MALFORMED]")
    assert line_of(b"abcdefgh", wire_length=60).endswith(" B ETHERNET 61 62 63 64 65 66 67 68 [CUT]")
    assert line_of(b"\x30\x31", 101).endswith(" B RAW 30 31")
    cooked = bytes.fromhex("0000 0001 0006 020304050607 0000 88cc 0102")
    assert line_of(cooked, 113).endswith(" B LLDP from 02:03:04:05:06:07 01 02")
    # Zeros that are on the wire are addresses, as on the loopback device.
    assert line_of(bytes(12) + b"\x90\0\1").endswith(" B LOOPBACK 00:00:00:00:00:00 > 00:00:00:00:00:00 01")


def test_logical_link_control_is_named() -> None:
    addresses = b"\4" * 6 + b"\2" * 6
    spanning_tree = addresses + b"\0\7\x42\x42\3" + bytes(4)
    assert " B LLC 02:02:02:02:02:02 > 04:04:04:04:04:04 00 00 00 00" in line_of(spanning_tree)
    discovery = addresses + b"\0\x0a\xaa\xaa\3\0\0\x0c\x20\0\1\2"
    assert " B SNAP 02:02:02:02:02:02 > 04:04:04:04:04:04 " in line_of(discovery)


def test_arp_of_other_hardware_or_protocols_is_not_read_as_that_of_ipv4() -> None:
    sizes_differ = b"\xff" * 6 + b"\2" * 6 + b"\x08\x06" + b"\0\7\x08\0\2\4\0\1" + bytes(range(20))
    assert line_of(sizes_differ).endswith("00 07 08 00 02 04 00 01 00 01 02 03 04 05 06 07 …")


@pytest.mark.parametrize("kept", range(17))
def test_of_a_cut_dccp_header_no_payload_length_is_guessed(kept: int) -> None:
    # RFC 4340, 5.1: ports, then the header's length in words, here of 16 bytes.
    header = b"\x04\xd2\x16\x2e\x04\0\0\0\0\x01" + bytes(6)
    whole = ip_frame(33, header + b"abc")
    line = line_of(whole[: 34 + kept], wire_length=len(whole))
    assert ("DCCP 10.0.0.1:1234 > 10.0.0.2:5678" in line) == (kept >= 4), line
    assert (" len 3" in line) == (" len " in line) == (kept >= 5), line


FRAGMENT = re.compile(r"frag id (0x[0-9a-f]+) at (\d+)(\+?)")


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark to compare with: install it")
@pytest.mark.parametrize("name", ["packets__ipv6_fragments.pcapng", "PcapPlusPlus__ipv6-frag.pcap"])
def test_ipv6_fragments_are_those_of_tshark(name: str) -> None:
    path = CAPTURES / "ipv6-frag" / name
    rows = fields_of(path, "ipv6.fraghdr.ident", "ipv6.fraghdr.offset", "ipv6.fraghdr.more")
    compared = 0
    for line, (identification, eights, more) in zip(lines_of(path), rows, strict=True):
        said = FRAGMENT.search(line)
        assert (said is not None) == bool(identification), line
        if said:
            compared += 1
            # RFC 8200, 4.5: the offset is in units of 8 bytes.
            assert (int(said[1], 16), int(said[2])) == (int(identification, 16), 8 * int(eights)), line
            assert (said[3] == "+") == (more in ("1", "True")), line
    assert compared > 3


@pytest.mark.parametrize(
    ("flags_and_offset", "said"),
    [
        (0x4000, None),  # do not fragment
        (0x2000, "frag id 0xbeef at 0+"),
        (0x2001, "frag id 0xbeef at 8+"),
        (0x1FFF, "frag id 0xbeef at 65528"),
    ],
)
def test_ipv4_fragments_are_decoded_with_their_offset_in_bytes(flags_and_offset: int, said: str | None) -> None:
    ip = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, id=0xBEEF, data=bytes(24))
    header = bytearray(bytes(ip))
    header[6:8] = flags_and_offset.to_bytes(2, "big")
    line = line_of(bytes(12) + b"\x08\0" + bytes(header))
    found = FRAGMENT.search(line)
    assert (found and found[0]) == said, line


@pytest.mark.parametrize(
    ("framed", "kind", "name"),
    [
        (ip_frame, dpkt.icmp.ICMP_ECHOREPLY, "echo reply"),
        (ip_frame, dpkt.icmp.ICMP_UNREACH, "unreachable"),
        (ip_frame, dpkt.icmp.ICMP_REDIRECT, "redirect"),
        (ip_frame, dpkt.icmp.ICMP_ECHO, "echo request"),
        (ip_frame, dpkt.icmp.ICMP_TIMEXCEED, "time exceeded"),
        (ip_frame, dpkt.icmp.ICMP_TSTAMP, "type 13"),
        (ipv6_frame, dpkt.icmp6.ICMP6_DST_UNREACH, "unreachable"),
        (ipv6_frame, dpkt.icmp6.ICMP6_PACKET_TOO_BIG, "packet too big"),
        (ipv6_frame, dpkt.icmp6.ICMP6_TIME_EXCEEDED, "time exceeded"),
        (ipv6_frame, dpkt.icmp6.ICMP6_ECHO_REQUEST, "echo request"),
        (ipv6_frame, dpkt.icmp6.ICMP6_ECHO_REPLY, "echo reply"),
        (ipv6_frame, dpkt.icmp6.ND_ROUTER_SOLICIT, "router solicitation"),
        (ipv6_frame, dpkt.icmp6.ND_ROUTER_ADVERT, "router advertisement"),
        (ipv6_frame, dpkt.icmp6.ND_NEIGHBOR_SOLICIT, "neighbour solicitation"),
        (ipv6_frame, dpkt.icmp6.ND_NEIGHBOR_ADVERT, "neighbour advertisement"),
        (ipv6_frame, dpkt.icmp6.MLD_LISTENER_QUERY, "type 130"),
    ],
)
def test_icmp_types_have_the_names_that_dpkt_gives_their_numbers(
    framed: Callable[[int, bytes], bytes], kind: int, name: str
) -> None:
    protocol = 1 if framed is ip_frame else 58
    line = line_of(framed(protocol, bytes([kind, 3]) + bytes(6)))
    assert f" {name}, code 3, len " in line, line


def test_what_has_no_name_is_shown_by_its_number() -> None:
    # An EtherType that nobody was given, and a protocol number for experiments (RFC 3692).
    assert line_of(bytes(12) + b"\xab\xcd\1\2").endswith(" B 0xabcd 00:00:00:00:00:00 > 00:00:00:00:00:00 01 02")
    assert line_of(ip_frame(253, b"abc")).endswith(" B ip-253 10.0.0.1 > 10.0.0.2 len 3")


def test_other_operations_of_arp_are_shown_by_their_number() -> None:
    reverse_request = dpkt.arp.ARP(op=3, sha=b"\2" * 6, spa=bytes(4), tha=b"\2" * 6, tpa=bytes(4))
    assert line_of(b"\xff" * 6 + b"\2" * 6 + b"\x08\x06" + bytes(reverse_request)).endswith(" op 3")


def test_lines_of_some_frames_of_several_files_are_those_of_all_of_them() -> None:
    paths = [str(SAMPLES / name) for name in ("request-response.pcapng", "microburst.pcap", "request-response.pcapng")]
    whole: list[str] = []
    for path in paths:
        with open_capture(path) as reader:
            for batch in reader.batches():
                whole += [decode_line(batch, row, number=len(whole) + 1 + row) for row in range(batch.count)]
    numbers = {1, 2, len(whole) // 2, len(whole) - 1, len(whole)}
    inputs = [PlannedInput(path) for path in paths]
    assert decoded_lines(inputs, [*numbers, 0, len(whole) + 1]) == {at: whole[at - 1] for at in numbers}
    assert decoded_lines([PlannedInput("not there")], []) == {}
