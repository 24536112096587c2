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
    "eth.src", "eth.dst", "eth.type", "vlan.id", "vlan.etype", "ieee8021ad.id", "sll.etype", "llc.type",
    "chdlc.protocol", "gre.proto", "geneve.proto_type",
    "ip.src", "ip.dst", "ip.proto", "ip.id", "ip.ttl", "ip.frag_offset", "ip.len", "ip.hdr_len", "ipv6.plen",
    "ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.hlim",
    "ipv6.hopopts.nxt", "ipv6.dstopts.nxt", "ipv6.routing.nxt", "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.ident", "ipv6.fraghdr.offset", "ah.next_header",
    "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value", "tcp.len",
    "udp.srcport", "udp.dstport", "udp.length", "sctp.srcport", "sctp.dstport", "dccp.srcport", "dccp.dstport",
    "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code",
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
ERSPAN_TYPES = (0x88BE, 0x22EB)


# Headers between the link's and the first IP header, and inside tunnels again.
LINK_LAYERS = frozenset({
    "eth", "ethertype", "vlan", "ieee8021ad", "sll", "null", "raw", "llc", "mpls", "pppoes", "ppp",
    "chdlc",
})  # fmt: skip

TRANSPORTS = frozenset({"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6"})

NO_TRANSPORT = {
    "protocol": 255, "source_port": 0, "destination_port": 0, "icmp_type": 0, "icmp_code": 0, "tcp_sequence": 0,
    "tcp_acknowledgment": 0, "tcp_flags": 0, "tcp_window": 0, "ip_id": 0, "fragment_offset": 0,
}  # fmt: skip

NOTHING = {"vlan_id": 0xFFFF, "ip_version": 0, "ethertype": 0, "ttl": 0, **NO_TRANSPORT}

Columns = dict[str, int | str | None]


def expected_columns(row: Row, tunnels: bool) -> Columns:
    """Return the header columns that tshark's fields stand for; None where it says nothing about one.

    Without `tunnels` the way ends at the first transport header, with them at the innermost. `payload_length` is there
    for TCP and UDP only, and may reach beyond the frame for UDP.
    """
    return _Way(row, tunnels).columns


class _Way:
    """Goes along the protocols of one frame and takes the fields of each in order."""

    def __init__(self, row: Row, tunnels: bool) -> None:
        self._row = row
        self._used: Counter[str] = Counter()
        self._tunnels = tunnels
        self._protocols = row.get("frame.protocols", [""])[0].split(":")
        self._network_payload = 0xFFFF
        self.columns: Columns = dict(NOTHING)
        for index, name in enumerate(self._protocols):
            if not self._enter(index, name):
                break

    def _text(self, field: str) -> str | None:
        values = self._row.get(field, [])
        index = self._used[field]
        self._used[field] += 1
        return values[index] if index < len(values) else None

    def _number(self, field: str) -> int | None:
        text = self._text(field)
        return None if text is None else int(text, 0)

    def _enter(self, index: int, name: str) -> bool:
        """Take the fields of one header; False where nothing after it counts."""
        following = self._protocols[index + 1] if index + 1 < len(self._protocols) else ""
        inside = self.columns["ip_version"] != 0
        if name in ("ip", "ipv6") and (self._tunnels or not inside):
            return self._network(name, index)
        if name in EXTENSION_HEADERS:
            self._extension(name)
            return True
        if name in TRANSPORTS and inside:
            self._transport(name)
            return self._tunnels and following in ("vxlan", "geneve", "gtp")
        if name == "gtp":
            # Only a user's packet is entered.
            return self._tunnels and following in ("ip", "ipv6")
        if name in ("gre", "geneve", "vxlan", "erspan", "pwethheuristic", "pwethcw"):
            return self._tunnels and self._tunnel(name)
        if name in LINK_LAYERS and (self._tunnels or not inside):
            self._link(name, following, index)
            return True
        return False

    def _link(self, name: str, following: str, index: int) -> None:
        columns = self.columns
        if name == "eth":
            columns |= NOTHING
            columns |= {"source_address": self._text("eth.src"), "destination_address": self._text("eth.dst")}
            ethertype = self._number("eth.type")
            columns["ethertype"] = ethertype if following == "ethertype" else 0
        elif name in ("vlan", "ieee8021ad"):
            tag = self._number(f"{name}.id")
            if columns["vlan_id"] == 0xFFFF:
                columns["vlan_id"] = tag
            ethertype = self._number("vlan.etype") if name == "vlan" else None
            columns["ethertype"] = ethertype if following == "ethertype" else 0
        elif name == "llc":
            columns["ethertype"] = self._number("llc.type") or 0
        elif name == "chdlc":
            columns["ethertype"] = self._number("chdlc.protocol") or 0
        elif name == "sll":
            columns["ethertype"] = self._number("sll.etype") or 0
        elif name == "mpls" and "ppp" in self._protocols[:index]:
            columns["ethertype"] = 0x8847

    def _tunnel(self, name: str) -> bool:
        if name not in ("gre", "geneve"):
            return True
        ethertype = self._number("gre.proto" if name == "gre" else "geneve.proto_type")
        if ethertype in ENTERED:
            self.columns["ethertype"] = ethertype
        return ethertype in ENTERED or ethertype in ERSPAN_TYPES

    def _network(self, name: str, index: int) -> bool:
        source, destination = self._text(f"{name}.src"), self._text(f"{name}.dst")
        if source is None:
            return False  # tshark does not take the header
        columns = self.columns
        columns |= NO_TRANSPORT
        columns |= {"source_address": source, "destination_address": destination}
        first = self._protocols[0] in ("raw", "null") and not columns["ip_version"]
        if index == 0 or self._protocols[index - 1] == "gtp" or first:
            columns["ethertype"] = 0x0800 if name == "ip" else 0x86DD
        if name == "ip":
            offset = self._number("ip.frag_offset")
            columns |= {
                "ip_version": 4,
                "protocol": self._number("ip.proto"),
                "ip_id": self._number("ip.id"),
                "ttl": self._number("ip.ttl"),
                "fragment_offset": None if offset is None else 8 * offset,
            }
            total, header = self._number("ip.len"), self._number("ip.hdr_len")
            self._network_payload = total - header if total and header else 0xFFFF
        else:
            columns |= {"ip_version": 6, "protocol": self._number("ipv6.nxt"), "ttl": self._number("ipv6.hlim")}
            self._network_payload = self._number("ipv6.plen") or 0xFFFF
        return True

    def _extension(self, name: str) -> None:
        self.columns["protocol"] = self._number(EXTENSION_HEADERS[name])
        if name == "ipv6.fraghdr":
            offset = self._number("ipv6.fraghdr.offset")
            self.columns["ip_id"] = self._number("ipv6.fraghdr.ident")
            self.columns["fragment_offset"] = None if offset is None else 8 * offset

    def _transport(self, name: str) -> None:
        columns = self.columns
        if name in ("icmp", "icmpv6"):
            columns |= {"icmp_type": self._number(f"{name}.type"), "icmp_code": self._number(f"{name}.code")}
            return
        # UDP-Lite has tshark's UDP fields.
        fields = "udp" if name == "udplite" else name
        columns |= {
            "source_port": self._number(f"{fields}.srcport"),
            "destination_port": self._number(f"{fields}.dstport"),
        }
        if name == "tcp":
            columns |= {
                "tcp_sequence": self._number("tcp.seq_raw"),
                "tcp_acknowledgment": self._number("tcp.ack_raw"),
                "tcp_flags": self._number("tcp.flags"),
                "tcp_window": self._number("tcp.window_size_value"),
                "payload_length": self._number("tcp.len"),
            }
        elif name == "udp":
            length = self._number("udp.length")
            # The IP header bounds what the UDP header claims: a first fragment holds less than the datagram.
            columns["payload_length"] = min(length, self._network_payload) - 8 if length and length >= 8 else None
