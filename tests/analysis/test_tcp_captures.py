"""TCP connections of captures made by others: against the reference, and frame by frame against tshark's analysis.

tshark's heuristics differ from the definitions here. What a definition explains is given by a rule below; the rest is
listed by file. Both must be met exactly: a difference that is not explained fails, and so does an explanation that no
difference needs.
"""

from __future__ import annotations

import functools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.shared_captures import CAPTURES, needs_captures
from support.tcp_captures import Row, tcp_rows
from support.tcp_reference import Found, assert_as_reference, reference
from support.tcp_segments import FIN, SYN

from uspcap.analysis.suite import Settings, analyze_files
from uspcap.analysis.tcp.analysis import Tcp
from uspcap.errors import UspcapError
from uspcap.stages.reading import Reading

pytestmark = [
    pytest.mark.oracle,
    needs_captures,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark to compare with"),
]

NOT_ALIKE = {
    "corrupt/nDPI__tls_invalid_reads.pcap": "tshark takes frames for TCP whose IP header is cut",
    "corrupt/tcpdump__heapoverflow-tcp_print.pcap": "both ends are one: the way of a segment has no meaning",
    "time-edge/suricata-verify__tcp-session-decode-malformed-ipv4__input.pcap": "tshark refuses a malformed IP header",
}
"""Captures whose segments tshark and uspcap do not see alike."""

RETRANSMISSIONS = {
    "rtp-mcast/nDPI__rtsp.pcap": "a SYN with the same number after the connection was refused begins another",
    "tcp/arkime__tcp_handshake_synthetic.pcap": "a SYN after the handshake began, and one overtaken by its answer",
    "tcp/suricata-verify__tcp-split-handshake-01-4whs__split-handshake-4whs.pcap": "a SYN from each end, no copy",
    "time-edge/arkime__tcp-reassembly-synthetic.pcap": "a SYN with the same number after FIN begins another connection",
}
"""Retransmissions, segments out of order, and those before the join: of all that is behind, who calls what so."""

DISTINGUISHED = {
    "encap/zeek__pppoe-over-qinq.pcap": "bytes that had been captured come again within 3 ms",
    "fix-orders/nDPI__fix2.pcap": "a SYN-ACK that had been captured comes again within 3 ms",
    "pcapng-blocks/pcap-parser__err-buffertoosmall.pcapng": "an overtaken FIN, acknowledged before it was captured",
    "tcp/packets__tcp_dupack.pcapng": "a hole is filled that was lost before the capture point",
    "tcp/suricata-verify__bug-4376__syn_retransmit_with_ts.pcap": "bytes that had been captured come again within 3 ms",
    "tcp/suricata-verify__http-pipeline-files-with-gap__input.pcap": "holes are filled long after they opened",
    "time-edge/arkime__tcp-reassembly-synthetic.pcap": "a hole is filled by a timestamp 10 ms back in time",
}
"""tshark distinguishes retransmissions from reordering by time; here bytes captured before make the difference."""

FAST = {
    "fix-orders/nDPI__fix2.pcap": "tshark takes two duplicate acks for enough, within 20 ms",
    "rtp-mcast/nDPI__rtsp.pcap": "every frame is duplicated, so that every ack is a duplicate to tshark",
}

HANDSHAKES = {
    "encap/zeek__mixed-vlan-mpls.pcap": "of one end no segment was captured",
    "ipv6-frag/suricata-verify__tcp-session-ipv6-decode-malformed__input.pcap": "0 ns, which tshark does not show",
    "large-packets/suricata-verify__bug-8629-async-oneside__input.pcap": "of one end no segment was captured",
    "linktypes/zeek__ml-dsa-44-cert.pcap": "0 ns, which tshark does not show",
    "pcap-variants/tcpdump__pptp.pcap": "the SYN-ACK is a duplicate",
    "pcapng-blocks/wireshark-notes__http2-16-ssl.pcapng": "refused",
    "pcapng-blocks/wireshark-notes__mysql-ssl.pcapng": "the SYN-ACK is timestamped years later",
    "pcapng-blocks/wireshark-notes__pop-ssl.pcapng": "the SYN-ACK is timestamped years later",
    "pcapng-blocks/wireshark-notes__smtp2525-ssl.pcapng": "the SYN-ACK is timestamped years later",
    "pcapng-blocks/wireshark-notes__sslv2.pcapng": "the SYN-ACK is timestamped years later",
    "rtp-mcast/nDPI__rtsp.pcap": "every frame is duplicated",
    "tcp/PcapPlusPlus__one_tcp_rst.pcap": "refused",
    "tcp/arkime__tcp_handshake_synthetic.pcap": "made-up handshakes: refused, of one end, with numbers that do not fit",
    "tcp/nDPI__tcp_scan.pcapng": "refused",
    "tcp/packets__tcp_refuseconnection.pcapng": "refused",
    "tcp/suricata-verify__bug-2491-01__simple_http_download.onesided.pcap": "of one end no segment was captured",
    "tcp/suricata-verify__bug-4376__syn_retransmit_with_ts.pcap": "the SYN was retransmitted",
    "tcp/suricata-verify__tcp-fastopen-07__tcp_fastopen_segmentation.pcap": "tshark ends it with the responder's data",
    "time-edge/suricata-verify__dnp3-too-long-reassembly-request__input.pcap": "the SYN-ACK is timestamped before "
    "the SYN",
    "time-edge/suricata-verify__smtp-extract-url-schemes__input.pcap": "the SYN-ACK is timestamped before the SYN",
}

TIMES = {
    "rtp-mcast/nDPI__rtsp.pcap": "every SYN and SYN-ACK is duplicated",
    "tcp/suricata-verify__bug-4376__syn_retransmit_with_ts.pcap": "the SYN was retransmitted",
    "tcp/suricata-verify__tcp-split-handshake-01-4whs__split-handshake-4whs.pcap": "the first SYN is left unanswered",
}


@functools.cache
def captures() -> list[tuple[str, list[Row], Tcp, Found]]:
    """The captures with TCP whose headers are whole, with what each of the three says of them."""
    analyses = {path: analyzed(path) for path in sorted(CAPTURES.glob("*/*")) if _name(path) not in NOT_ALIKE}
    with_tcp = {
        path: analysis
        for path, analysis in analyses.items()
        if analysis is not None
        and analysis.result().as_dict()["segments"]
        and not analysis.result().as_dict()["undecoded"]
    }
    with ThreadPoolExecutor(max_workers=2) as pool:
        read = zip(with_tcp.items(), pool.map(tcp_rows, with_tcp), strict=True)
        return [
            (_name(path), rows, analysis, reference([row.segment for row in rows]))
            for (path, analysis), rows in read
            if rows is not None
        ]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def analyzed(path: Path) -> Tcp | None:
    """What the analysis says of a file, None where that is no capture."""
    try:
        outcome = analyze_files(
            [str(path)], Settings(names=("tcp",), tunnels=False, reading=Reading(sorting="off")), jobs=1
        )
    except UspcapError:
        return None
    analysis = outcome.suite.analyses["tcp"]
    assert isinstance(analysis, Tcp)
    return analysis


def ours(found: Found, *events: str) -> set[int]:
    return {frame for frame, event in found.events if event in events}


def theirs(rows: list[Row], *marks: str) -> set[int]:
    return {frame for frame, row in enumerate(rows) if row.marks & set(marks)}


def test_enough_captures_are_compared() -> None:
    assert len(captures()) >= 190
    assert sum(len(rows) for _, rows, _, _ in captures()) > 10_000


def test_counts_and_times_are_those_of_the_reference() -> None:
    for name, rows, analysis, found in captures():
        assert analysis.result().as_dict()["segments"] == len(rows), name
        assert_as_reference(analysis, found)


@pytest.mark.parametrize(
    ("event", "mark"), [("resets", "reset"), ("zero_windows", "zero_window"), ("keep_alives", "keep_alive")]
)
def test_marks_of_single_segments_are_tsharks(event: str, mark: str) -> None:
    compared = 0
    for name, rows, _, found in captures():
        assert ours(found, event) == theirs(rows, mark), name
        compared += len(theirs(rows, mark))
    assert compared


def test_what_is_behind_is_so_for_tshark_too() -> None:
    differing = set()
    for name, rows, _, found in captures():
        behind = ours(found, "retransmissions", "out_of_order", "before_join")
        if behind != theirs(rows, "retransmission", "out_of_order"):
            differing.add(name)
    assert differing == set(RETRANSMISSIONS)


def test_retransmissions_are_distinguished_from_reordering_by_what_was_captured() -> None:
    differing = set()
    for name, rows, _, found in captures():
        known = ours(found, "retransmissions", "out_of_order")
        if ours(found, "retransmissions") != theirs(rows, "retransmission") & known:
            differing.add(name)
    assert differing == set(DISTINGUISHED)


def test_fast_retransmissions_are_tsharks() -> None:
    differing = set()
    for name, rows, _, found in captures():
        assert ours(found, "fast_retransmissions") <= theirs(rows, "fast_retransmission"), name
        if ours(found, "fast_retransmissions") != theirs(rows, "fast_retransmission"):
            differing.add(name)
    assert differing == set(FAST)


def test_duplicate_acks_are_tsharks_where_data_are_outstanding() -> None:
    agreed = 0
    for name, rows, _, found in captures():
        mine, other = ours(found, "duplicate_acks"), theirs(rows, "duplicate_ack")
        agreed += len(mine & other)
        # RFC 5681 calls an ack a duplicate only while data are outstanding, and only of the highest one.
        assert other - mine <= ours(found, "nothing_new", "old"), name
        # tshark compares with the segment before, RFC 5681 with the highest acknowledgment.
        assert all(_differs_from_the_one_before(rows, frame) for frame in mine - other), name
    assert agreed > 500


def _differs_from_the_one_before(rows: list[Row], frame: int) -> bool:
    """Whether the sender's segment before has another acknowledgment or window, or it has sent data beyond this one."""
    segment = rows[frame].segment
    before = [
        row.segment
        for row in rows[:frame]
        if (row.segment.connection, row.segment.from_responder) == (segment.connection, segment.from_responder)
    ]
    beyond = any(
        0 < (one.sequence + one.length + bool(one.flags & (FIN | SYN)) - segment.sequence) % 2**32 < 2**31
        for one in before
    )
    return beyond or (before[-1].acknowledgment, before[-1].window) != (segment.acknowledgment, segment.window)


def test_round_trips_of_data_are_tsharks() -> None:
    agreed, differing = 0, set()
    for name, rows, _, found in captures():
        mine = {(at, time) for (at, event), time in found.times_ns.items() if event in ("data_ack", "handshake")}
        other = {(at, row.ack_rtt_ns) for at, row in enumerate(rows) if row.ack_rtt_ns is not None}
        agreed += len(mine & other)
        # Karn's rule, timestamps that go backward, answers to keep-alives and copies, and resets give no time here.
        without = ours(found, "ambiguous", "negative", "nothing_new", "resets")
        left = {at for at, _ in other - mine} - without
        # tshark shows no time of 0, and none for an acknowledgment that ends within a segment.
        left |= {at for at, time in mine - other if time and not _ends_within_a_segment(rows, at)}
        if left:
            differing.add(name)
    assert differing == set(TIMES)
    assert agreed > 4_000


def _ends_within_a_segment(rows: list[Row], frame: int) -> bool:
    """Whether a segment acknowledges a part of another, or, as the first after a SYN-ACK, other bytes with that."""
    segment = rows[frame].segment
    return any(
        row.segment.connection == segment.connection
        and row.segment.from_responder != segment.from_responder
        and 0
        < (segment.acknowledgment - row.segment.sequence) % 2**32
        < row.segment.length + bool(row.segment.flags & FIN) + bool(row.segment.flags & SYN)
        for row in rows[:frame]
    )


def test_handshakes_are_tsharks() -> None:
    agreed, differing = 0, set()
    for name, rows, _, found in captures():
        mine = {(at, time) for (at, event), time in found.times_ns.items() if event == "whole"}
        other = {(at, row.initial_rtt_ns) for at, row in enumerate(rows) if row.initial_rtt_ns is not None}
        agreed += len(mine & other)
        if mine != other:
            differing.add(name)
    assert differing == set(HANDSHAKES)
    assert agreed > 200
