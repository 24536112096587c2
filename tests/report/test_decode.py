"""Decoded lines: against tshark on captures by others, and on any bytes at all."""

from __future__ import annotations

import functools
import ipaddress
import re
import shutil
import subprocess
import unicodedata
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
from uspcap.report.decode import comments, decode_line, hex_lines

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


def test_arp_is_told_in_words() -> None:
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


def test_stamps_name_their_source_and_a_missing_one_is_said() -> None:
    def said(source: TimestampSource) -> str:
        return decode_line(FrameBatch.from_frames([b"x"], [0], timestamp_source=source), 0)

    assert said(TimestampSource.HARDWARE).startswith("1 1970-01-01T00:00:00.000000000Z HARDWARE 1 B ")
    assert said(TimestampSource.FILE).startswith("1 1970-01-01T00:00:00.000000000Z 1 B ")
    assert said(TimestampSource.NONE).startswith("1 no stamp 1 B ")


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
