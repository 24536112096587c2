"""Decoded lines: one frame as text, through dpkt where it can and from the header columns where it cannot."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import dpkt

from uspcap.formats.pcapng import options_of
from uspcap.frames import UNTRUSTED, FrameBatch, TimestampSource
from uspcap.protocols.headers import ETHERTYPE_NAMES, PROTOCOL_NAMES, UNTAGGED, Layer, address_text
from uspcap.protocols.link_types import link_type_name
from uspcap.report.format import safe_text, timestamp
from uspcap.stages.reading import PlannedInput

HEX_PREFIX_BYTES = 16

_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
"""Names of the flag bits from the lowest on (RFC 9293; AE: RFC 9768)."""

_TUNNELS = (
    Layer.GRE, Layer.ERSPAN, Layer.VXLAN, Layer.GENEVE, Layer.GTP, Layer.IP_IN_IP, Layer.MPLS, Layer.PPPOE,
)  # fmt: skip

_ICMP_TYPES = {
    (4, 0): "echo reply", (4, 3): "unreachable", (4, 5): "redirect", (4, 8): "echo request", (4, 11): "time exceeded",
    (6, 1): "unreachable", (6, 2): "packet too big", (6, 3): "time exceeded", (6, 128): "echo request",
    (6, 129): "echo reply", (6, 133): "router solicitation", (6, 134): "router advertisement",
    (6, 135): "neighbour solicitation", (6, 136): "neighbour advertisement",
}  # fmt: skip

_PORT_PROTOCOLS = ("TCP", "UDP", "UDP-LITE", "SCTP", "DCCP")

_DNS_PORTS = frozenset({53, 5353, 5355})
"""DNS, and what has its form: multicast DNS (RFC 6762) and LLMNR (RFC 4795)."""

_ETHERNET = 1


def decoded_lines(inputs: Sequence[PlannedInput], numbers: Iterable[int], *, tunnels: bool = False) -> dict[int, str]:
    """Return the decoded lines of some frames of files, which are read as far as needed.

    Parameters
    ----------
    inputs : sequence of PlannedInput
        They can be read again.
    numbers : iterable of int
        Counted from 1 over all inputs as they are read; those that there are not are left out.
    tunnels : bool
        Decode the innermost headers.

    Raises
    ------
    CaptureFileError
        A file cannot be opened.
    """
    lines: dict[int, str] = {}
    wanted = sorted(set(numbers), reverse=True)
    before = 0
    for one in inputs:
        if not wanted:
            break
        with one.open() as reader:
            read = 0
            for batch in reader.batches():
                batch.decode_tunnels = tunnels
                first = before + batch.frames_before + 1
                while wanted and wanted[-1] < first + batch.count:
                    number = wanted.pop()
                    if number >= first:
                        lines[number] = decode_line(batch, number - first, number=number)
                if not wanted:
                    return lines
                read += batch.frames_read
            before += read
    return lines


def decode_line(batch: FrameBatch, row: int, *, number: int | None = None) -> str:
    """Return one line that describes a frame.

    Parameters
    ----------
    batch : FrameBatch
    row : int
        0 to `batch.count` - 1.
    number : int, optional
        Frame number to show; by default the batch's own.

    Notes
    -----
    Any bytes give a line. What comes from the frame or the file is escaped, so that it cannot steer a terminal.
    """
    headers = {name: batch.headers.column(name)[row] for name in _COLUMNS}
    layers = Layer(int(headers["layers"]))
    parts = [str(int(batch.frame_number[row]) if number is None else number), _time(batch, row)]
    if len(batch.interfaces) > 1:
        parts.append(_interface(batch, row))
    parts.append(_length(batch, row))
    if headers["vlan_id"] != UNTAGGED:
        parts.append(f"vlan {headers['vlan_id']}")
    parts += [str(layer.name).lower().replace("_", "-") for layer in _TUNNELS if layers & layer]
    parts.append(_content(batch, row, headers))
    if layers & Layer.FRAGMENT:
        more = "+" if layers & Layer.MORE_FRAGMENTS else ""
        parts.append(f"frag id {headers['ip_id']:#x} at {headers['fragment_offset']}{more}")
    parts += [f"[{layer.name}]" for layer in (Layer.CUT, Layer.MALFORMED) if layers & layer]
    parts += [f'"{safe_text(comment)}"' for comment in comments(batch, row)]
    return " ".join(part for part in parts if part)


_COLUMNS = (
    "ethertype",
    "vlan_id",
    "layers",
    "ip_version",
    "protocol",
    "source_address",
    "destination_address",
    "source_port",
    "destination_port",
    "icmp_type",
    "icmp_code",
    "ip_id",
    "fragment_offset",
    "transport_offset",
    "payload_offset",
    "payload_length",
    "tcp_sequence",
    "tcp_acknowledgment",
    "tcp_flags",
    "tcp_window",
)


def _time(batch: FrameBatch, row: int) -> str:
    untrusted = int(batch.timestamp_source[row]) & UNTRUSTED
    source = TimestampSource(int(batch.timestamp_source[row]) & ~UNTRUSTED)
    if source is TimestampSource.NONE:
        return "no timestamp"
    named = "" if source is TimestampSource.FILE else f" {source.name}"
    return f"{timestamp(int(batch.timestamp_ns[row]))}{named}{' (outlier)' if untrusted else ''}"


def _interface(batch: FrameBatch, row: int) -> str:
    index = int(batch.interface[row])
    return safe_text(batch.interfaces[index].name) or f"if{index}"


def _length(batch: FrameBatch, row: int) -> str:
    captured, wire = int(batch.captured_length[row]), int(batch.wire_length[row])
    return f"{wire} B" if captured == wire else f"{captured}/{wire} B"


def _content(batch: FrameBatch, row: int, headers: dict[str, Any]) -> str:
    """Describe the frame's content, from the innermost known header.

    A column whose bytes were not captured holds 0 like one that says 0, so a field is shown only where its bytes are.
    """
    version = int(headers["ip_version"])
    if not version:
        return _without_ip(batch, row, headers)
    source = address_text(bytes(headers["source_address"]), version)
    destination = address_text(bytes(headers["destination_address"]), version)
    protocol = int(headers["protocol"])
    name = PROTOCOL_NAMES.get(protocol, f"ip-{protocol}")
    there = _transport_bytes(batch, row, headers)
    if name in _PORT_PROTOCOLS and there >= 4:
        wrap = "[{}]:{}" if version == 6 else "{}:{}"
        source = wrap.format(source, headers["source_port"])
        destination = wrap.format(destination, headers["destination_port"])
    detail = f"len {headers['payload_length']}"
    if name == "TCP" and headers["transport_offset"] >= 0:
        detail = " ".join(_tcp(headers, there))
    elif name == "DCCP" and headers["transport_offset"] >= 0 and there < 5:
        detail = ""  # the header's own length was not captured
    elif name in ("ICMP", "ICMPV6") and there >= 2:
        kind, code = int(headers["icmp_type"]), int(headers["icmp_code"])
        detail = f"{_ICMP_TYPES.get((version, kind), f'type {kind}')}, code {code}, {detail}"
    elif name == "UDP" and not _DNS_PORTS.isdisjoint((int(headers["source_port"]), int(headers["destination_port"]))):
        detail = f"{detail} {_quietly(_dns, _payload(batch, row, headers))}".rstrip()
    return f"{name} {source} > {destination} {detail}".rstrip()


def _transport_bytes(batch: FrameBatch, row: int, headers: dict[str, Any]) -> int:
    """Return how many captured bytes there are from the transport header to the end that the headers claim."""
    start = int(headers["transport_offset"])
    if start < 0:
        return 0
    end = int(headers["payload_offset"]) + int(headers["payload_length"])
    return max(min(int(batch.captured_length[row]), end) - start, 0)


def _payload(batch: FrameBatch, row: int, headers: dict[str, Any]) -> bytes:
    """Return the captured payload, without the padding after it."""
    start = int(headers["payload_offset"])
    return batch.frame_bytes(row)[start : start + int(headers["payload_length"])]


def _tcp(headers: dict[str, Any], there: int) -> Iterator[str]:
    """Yield the fields of a TCP header of which so many bytes are there (RFC 9293)."""
    flags = [name for bit, name in enumerate(_TCP_FLAGS) if headers["tcp_flags"] >> bit & 1]
    if there >= 14:
        yield f"[{' '.join(flags) or 'none'}]"
    if there >= 8:
        yield f"seq {headers['tcp_sequence']}"
    if "ACK" in flags:
        yield f"ack {headers['tcp_acknowledgment']}"
    if there >= 16:
        yield f"win {headers['tcp_window']}"
    if there >= 14:
        # The header's own length is in there; without it the payload's is a guess.
        yield f"len {headers['payload_length']}"


def _without_ip(batch: FrameBatch, row: int, headers: dict[str, Any]) -> str:
    link_type = batch.interfaces[int(batch.interface[row])].link_type
    if headers["payload_offset"] < 0:
        return f"{link_type_name(link_type)} {_hex_prefix(batch.frame_bytes(row))}".rstrip()
    ethertype, layers = int(headers["ethertype"]), Layer(int(headers["layers"]))
    if ethertype:
        name = ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}")
    elif layers & Layer.LLC:
        name = "SNAP" if layers & Layer.SNAP else "LLC"
    else:
        name = link_type_name(link_type)
    payload = batch.frame_bytes(row)[int(headers["payload_offset"]) :]
    said = _quietly(_arp, payload) if name == "ARP" else ""
    parts = (name, _link_addresses(batch, row, headers, link_type), said or _hex_prefix(payload))
    return " ".join(part for part in parts if part)


def _link_addresses(batch: FrameBatch, row: int, headers: dict[str, Any], link_type: int) -> str:
    """Return the MAC addresses that the frame has: not every link type has both, nor every piece of a frame."""
    source, destination = (bytes(headers[name]) for name in ("source_address", "destination_address"))
    if (any(source) and any(destination)) or (link_type == _ETHERNET and batch.captured_length[row] >= 12):
        return f"{address_text(source, 0)} > {address_text(destination, 0)}"
    if any(source):
        return f"from {address_text(source, 0)}"
    return f"to {address_text(destination, 0)}" if any(destination) else ""


def _hex_prefix(data: bytes) -> str:
    return data[:HEX_PREFIX_BYTES].hex(" ") + (" …" if len(data) > HEX_PREFIX_BYTES else "")


def _quietly(decode: Callable[[bytes], str], data: bytes) -> str:
    """Return a decoder's result, or nothing where it fails."""
    try:
        return safe_text(decode(data))
    except (dpkt.UnpackError, struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError):
        # dpkt reports damaged input by any of these.
        return ""


def _arp(data: bytes) -> str:
    arp = dpkt.arp.ARP(data)
    if (arp.pro, arp.hln, arp.pln) != (dpkt.arp.ARP_PRO_IP, 6, 4):
        return ""  # dpkt takes every ARP for that of IPv4 on Ethernet.
    sender, target = (".".join(map(str, address)) for address in (arp.spa, arp.tpa))
    if arp.op == dpkt.arp.ARP_OP_REQUEST:
        return f"who has {target}, tell {sender}"
    return f"{sender} is at {arp.sha.hex(':')}" if arp.op == dpkt.arp.ARP_OP_REPLY else f"op {arp.op}"


def _dns(data: bytes) -> str:
    message = dpkt.dns.DNS(data)
    kind = "response" if message.qr else "query"
    questions = ", ".join(f"{question.name} type {question.type}" for question in message.qd)
    answers = f" ({len(message.an)} answers, code {message.rcode})" if message.qr else ""
    return f"DNS {kind} {questions}{answers}"


def comments(batch: FrameBatch, row: int) -> Iterator[str]:
    """Yield the pcapng comments (opt_comment) of a frame."""
    length = int(batch.column("options_length")[row])
    if length:
        start = int(batch.column("options_offset")[row])
        options = batch.data[start : start + length].tobytes()
        for code, value in options_of(options, ">" if batch.big_endian_options else "<"):
            if code == 1:
                yield value.decode("utf-8", "replace")


def hex_lines(frame: bytes) -> Iterator[str]:
    """Yield a frame's bytes as offset, hexadecimal and ASCII, sixteen a line."""
    for start in range(0, len(frame), 16):
        line = frame[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        yield f"    {start:04x}  {line.hex(' '):<47}  {text}"
