"""Real captures' TCP segments as tshark reads them, with what its own analysis says of each."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path

from support.tcp_segments import Segment

HEADER = (
    "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.flags", "tcp.window_size_value",
)  # fmt: skip
FIELDS = (
    "frame.time_epoch", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", *HEADER,
    "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr",
    "tcp.analysis.ack_rtt", "tcp.analysis.initial_rtt", "tcp.stream",
)  # fmt: skip
MARKS = (
    "retransmission", "fast_retransmission", "out_of_order", "duplicate_ack", "zero_window", "keep_alive",
    "zero_window_probe",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One TCP segment of a capture.

    Attributes
    ----------
    segment : Segment
    marks : frozenset of str
        What tshark's analysis calls it, of MARKS and `reset`.
    ack_rtt_ns, initial_rtt_ns : int or None
        The second where it is the first of its stream.
    """

    segment: Segment
    marks: frozenset[str]
    ack_rtt_ns: int | None
    initial_rtt_ns: int | None


def _nanoseconds(text: str) -> int:
    return int(Decimal(text) * 10**9)


def tcp_rows(path: Path) -> list[Row] | None:
    """Return the segments of a capture; None where tshark sees some without a whole header, or none at all."""
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", "-E", "occurrence=f", "-E", "separator=|"]
    for preference in ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"):
        command += ["-o", preference]
    marks = [f"tcp.analysis.{mark}" for mark in MARKS]
    for field in (*FIELDS, *marks):
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    connections: dict[frozenset[tuple[str, str]], int] = {}
    streams: set[str] = set()
    rows = []
    for line in done.stdout.splitlines():
        found = dict(zip((*FIELDS, *marks), line.split("|"), strict=True))
        if any(not found[field] for field in HEADER):
            return None
        source = (found["ip.src"] or found["ipv6.src"], found["tcp.srcport"])
        destination = (found["ip.dst"] or found["ipv6.dst"], found["tcp.dstport"])
        low, high = sorted((source, destination), key=lambda end: (ip_address(end[0]).packed, int(end[1])))
        # As the analysis guesses: the lower port, the higher end where they are the same.
        responder = low if int(low[1]) < int(high[1]) else high
        number = connections.setdefault(frozenset((source, destination)), len(connections))
        timestamps = found["tcp.options.timestamp.tsval"], found["tcp.options.timestamp.tsecr"]
        segment = Segment(
            timestamp_ns=_nanoseconds(found["frame.time_epoch"]),
            from_responder=source == responder,
            sequence=int(found["tcp.seq_raw"]),
            acknowledgment=int(found["tcp.ack_raw"]),
            length=int(found["tcp.len"]),
            flags=int(found["tcp.flags"], 16),
            window=int(found["tcp.window_size_value"]),
            timestamps=(int(timestamps[0]), int(timestamps[1])) if all(timestamps) else None,
            connection=number,
        )
        named = {mark for mark in MARKS if found[f"tcp.analysis.{mark}"]}
        if segment.flags & 0x04:
            named.add("reset")
        first = found["tcp.analysis.initial_rtt"] if found["tcp.stream"] not in streams else ""
        if first:
            streams.add(found["tcp.stream"])
        rows.append(
            Row(
                segment,
                frozenset(named),
                _nanoseconds(found["tcp.analysis.ack_rtt"]) if found["tcp.analysis.ack_rtt"] else None,
                _nanoseconds(first) if first else None,
            )
        )
    return rows or None
