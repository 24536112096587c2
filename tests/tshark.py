"""tshark as the second opinion on header columns.

All captures go through one run of mergecap and one of tshark. Which of tshark's fields belong to the headers that
uspcap decodes is found by going along tshark's own list of the protocols in a frame.
"""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

FIELDS = (
    "frame.protocols",
    "eth.src", "eth.dst", "eth.type", "vlan.id", "vlan.etype", "ieee8021ad.id", "sll.etype", "llc.type", "gre.proto",
    "geneve.proto_type",
    "ip.src", "ip.dst", "ip.proto", "ip.id", "ip.ttl", "ip.frag_offset", "ip.flags.mf", "ip.len", "ip.hdr_len", "ipv6.plen",
    "ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.hlim",
    "ipv6.hopopts.nxt", "ipv6.dstopts.nxt", "ipv6.routing.nxt", "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.ident", "ipv6.fraghdr.offset", "ah.next_header",
    "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value", "tcp.len",
    "udp.srcport", "udp.dstport", "udp.length", "sctp.srcport", "sctp.dstport", "dccp.srcport", "dccp.dstport",
    "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code",
    "_ws.malformed", "_ws.short",
)  # fmt: skip

PREFERENCES = (
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "tcp.relative_sequence_numbers:FALSE",
    "tcp.analyze_sequence_numbers:FALSE",
)

EXTENSION_HEADERS = {
    "ipv6.hopopts": "ipv6.hopopts.nxt",
    "ipv6.dstopts": "ipv6.dstopts.nxt",
    "ipv6.routing": "ipv6.routing.nxt",
    "ipv6.fraghdr": "ipv6.fraghdr.nxt",
    "ah": "ah.next_header",
}

Row = dict[str, list[str]]


def dissect(files: Sequence[Path]) -> dict[Path, list[Row]]:
    """Return tshark's fields for each frame of each file: what is absent has no key, what is there all occurrences."""
    with tempfile.TemporaryDirectory() as directory:
        merged = Path(directory, "merged.pcapng")
        subprocess.run(["mergecap", "-a", "-w", merged, *files], check=True, capture_output=True)
        command = ["tshark", "-n", "-r", str(merged), "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a"]
        for field in FIELDS:
            command += ["-e", field]
        for preference in PREFERENCES:
            command += ["-o", preference]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        listing = subprocess.run(
            ["capinfos", "-T", "-r", "-m", "-c", *files], check=True, capture_output=True, text=True
        ).stdout
        counts = [int(line.rsplit(",", 1)[1].strip('"')) for line in listing.splitlines()]
    rows = [
        {field: value.split(",") for field, value in zip(FIELDS, line.split("\t"), strict=True) if value}
        for line in text.splitlines()
    ]
    assert len(rows) == sum(counts), f"tshark lists {len(rows)} frames, capinfos {sum(counts)} in {len(counts)} files"
    dissected, position = {}, 0
    for path, count in zip(files, counts, strict=True):
        dissected[path] = rows[position : position + count]
        position += count
    return dissected


# EtherTypes that are followed into a tunnel.
ENTERED = (0x0800, 0x86DD, 0x6558, 0x8847, 0x8848)


class _Taken:
    """Hands out the occurrences of each field in order."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._used: Counter[str] = Counter()

    def next(self, field: str) -> str | None:
        values = self._row.get(field, [])
        index = self._used[field]
        self._used[field] += 1
        return values[index] if index < len(values) else None

    def number(self, field: str) -> int | None:
        text = self.next(field)
        return None if text is None else {"True": 1, "False": 0}.get(text) or int(text, 0)


NO_TRANSPORT = {
    "source_port": 0, "destination_port": 0, "icmp_type": 0, "icmp_code": 0, "tcp_sequence": 0,
    "tcp_acknowledgment": 0, "tcp_flags": 0, "tcp_window": 0, "ip_id": 0, "fragment_offset": 0,
}  # fmt: skip

# What a frame may start with, and what may stand between there and the first IP header.
LINK_LAYERS = {
    "eth", "ethertype", "vlan", "ieee8021ad", "sll", "null", "raw", "llc", "mpls", "pppoes", "ppp", "frame",
}  # fmt: skip


def expected_columns(row: Row, tunnels: bool) -> dict[str, int | str | None]:
    """Return the header columns that tshark's fields stand for; None where it says nothing about one.

    Without `tunnels` the way ends at the first transport header, with them at the innermost.
    """
    taken = _Taken(row)
    protocols = row.get("frame.protocols", [""])[0].split(":")
    columns: dict[str, int | str | None] = {"vlan_id": 0xFFFF, "ip_version": 0, "protocol": 255, "ethertype": 0}
    columns |= {"ttl": 0, **NO_TRANSPORT}
    entered_ip = False
    for index, name in enumerate(protocols):
        following = protocols[index + 1] if index + 1 < len(protocols) else ""
        if name in ("ip", "ipv6"):
            if entered_ip and not tunnels:
                break
            entered_ip = True
            columns |= NO_TRANSPORT
            header = _ipv4(taken) if name == "ip" else _ipv6(taken)
            if header["source_address"] is None:
                break  # tshark refused it
            columns |= header
        elif name in EXTENSION_HEADERS:
            columns["protocol"] = taken.number(EXTENSION_HEADERS[name])
            if name == "ipv6.fraghdr":
                columns["ip_id"] = taken.number("ipv6.fraghdr.ident")
                columns["fragment_offset"] = 8 * (taken.number("ipv6.fraghdr.offset") or 0)
        elif entered_ip and name in ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6"):
            columns |= _transport(taken, name)
            if not tunnels or following not in ("vxlan", "geneve"):
                break
        elif name == "eth":
            if entered_ip:
                if not tunnels:
                    break
                columns |= {"vlan_id": 0xFFFF, "ip_version": 0, "protocol": 255, "ttl": 0, **NO_TRANSPORT}
            columns |= {"source_address": taken.next("eth.src"), "destination_address": taken.next("eth.dst")}
            columns["ethertype"] = taken.number("eth.type") or 0 if following == "ethertype" else 0
        elif name in ("vlan", "ieee8021ad"):
            tag = taken.number(f"{name}.id")
            if columns["vlan_id"] == 0xFFFF:
                columns["vlan_id"] = tag
            if name == "vlan":
                columns["ethertype"] = taken.number("vlan.etype") or 0
            if following != "ethertype":
                columns["ethertype"] = 0
        elif name == "llc":
            columns["ethertype"] = taken.number("llc.type") or 0
        elif name == "sll":
            columns["ethertype"] = taken.number("sll.etype") or 0
        elif name in ("gre", "geneve") and tunnels:
            ethertype = taken.number(f"{name}.proto" if name == "gre" else "geneve.proto_type")
            if ethertype in ENTERED:
                columns["ethertype"] = ethertype
        elif name == "vxlan" and tunnels or (name in LINK_LAYERS and not entered_ip) or (tunnels and name in LINK_LAYERS):
            continue
        else:
            break
    return columns


def _ipv4(taken: _Taken) -> dict[str, int | str | None]:
    offset = taken.number("ip.frag_offset")
    return {
        "ip_version": 4,
        "source_address": taken.next("ip.src"),
        "destination_address": taken.next("ip.dst"),
        "protocol": taken.number("ip.proto"),
        "ip_id": taken.number("ip.id"),
        "ttl": taken.number("ip.ttl"),
        "fragment_offset": None if offset is None else 8 * offset,
    }


def _ipv6(taken: _Taken) -> dict[str, int | str | None]:
    return {
        "ip_version": 6,
        "source_address": taken.next("ipv6.src"),
        "destination_address": taken.next("ipv6.dst"),
        "protocol": taken.number("ipv6.nxt"),
        "ttl": taken.number("ipv6.hlim"),
    }


def _transport(taken: _Taken, name: str) -> dict[str, int | str | None]:
    if name in ("icmp", "icmpv6"):
        return {"icmp_type": taken.number(f"{name}.type"), "icmp_code": taken.number(f"{name}.code")}
    # UDP-Lite has tshark's UDP fields.
    fields = "udp" if name == "udplite" else name
    columns: dict[str, int | str | None] = {
        "source_port": taken.number(f"{fields}.srcport"),
        "destination_port": taken.number(f"{fields}.dstport"),
    }
    if name == "tcp":
        columns |= {
            "tcp_sequence": taken.number("tcp.seq_raw"),
            "tcp_acknowledgment": taken.number("tcp.ack_raw"),
            "tcp_flags": taken.number("tcp.flags"),
            "tcp_window": taken.number("tcp.window_size_value"),
            "payload_length": taken.number("tcp.len"),
        }
    elif name == "udp":
        length = taken.number("udp.length")
        columns["udp_length"] = length
    return columns
