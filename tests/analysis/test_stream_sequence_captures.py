"""Numbers of real sessions against those that tshark reads: FIX over TCP, and RTP."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.shared_captures import CAPTURES, needs_captures

from uspcap.analysis.sequence.streams import sequence_of
from uspcap.formats import open_capture
from uspcap.protocols.feeds import find_protocol

pytestmark = pytest.mark.oracle

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def sequence_in(path: Path, protocol: str) -> dict[str, Any]:
    analysis = sequence_of(find_protocol(protocol))
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    return analysis.result().as_dict()


def tshark(path: Path, *words: str) -> list[str]:
    command = ["tshark", "-n", "-r", str(path), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@needs_captures
@needs_tshark
def test_numbers_of_real_fix_sessions_are_those_that_tshark_reads() -> None:
    path = CAPTURES / "fix-orders" / "nDPI__fix2.pcap"
    fields = ["ip.src", "tcp.srcport", "tcp.seq_raw", "fix.SenderCompID", "fix.MsgType", "fix.MsgSeqNum"]
    lines = tshark(path, "-Y", "fix", "-T", "fields", *(word for name in fields for word in ("-e", name)))
    arrivals: dict[tuple[str, str], list[tuple[str, int]]] = {}
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        address, port, sequence, _, kinds, numbers = line.split("\t")
        # A retransmitted segment holds what is known.
        if (address, port, sequence) not in seen:
            seen.add((address, port, sequence))
            messages = zip(kinds.split(","), map(int, numbers.split(",")), strict=True)
            arrivals.setdefault((address, port), []).extend(messages)
    streams = sequence_in(path, "fix")["streams"]
    found = {tuple(re.findall(r"TCP (\S+):(\d+) >", stream["flow"])[0]): stream for stream in streams}
    assert set(found) == set(arrivals)
    for end, messages in arrivals.items():
        stream = found[end]
        logons = sum(message == ("A", 1) for message in messages)
        assert (stream["packets"], stream["resets"]) == (len(messages), logons - 1)
        assert (stream["first"], stream["last"]) == (messages[0][1], messages[-1][1])
        steps = [after - before for (_, before), (kind, after) in pairwise(messages) if (kind, after) != ("A", 1)]
        # This generator of messages gives each second test request the number of the first.
        assert set(steps) == {0, 1}
        assert stream["duplicate"] == steps.count(0)
        assert (stream["lost"], stream["undetermined"], stream["missing_bytes"]) == (0, 0, 0)


@needs_captures
@needs_tshark
@pytest.mark.parametrize(
    "name",
    [
        "nDPI__FAX-Call-t38-CA-TDM-SIP-FB-1.pcap",
        "nDPI__sip.pcap",
        "nDPI__stun_classic.pcap",
        "wireshark-notes__webrtc-freeswitch.pcapng",
    ],
)
def test_lost_packets_of_real_rtp_are_as_many_as_tshark_says(name: str) -> None:
    path = CAPTURES / "rtp-mcast" / name
    lines = tshark(path, "-o", "rtp.heuristic_rtp:TRUE", "-q", "-z", "rtp,streams")
    listed = [re.search(r"0x([0-9A-F]{8})\s.*?\s(\d+)\s+(\d+) \([\d.]+%\)", line) for line in lines]
    printed = {one[1].lower(): (int(one[2]), int(one[3])) for one in listed if one is not None}
    found = {stream["key"]: stream for stream in sequence_in(path, "rtp")["streams"]}
    assert printed
    for key, (packets, lost) in printed.items():
        # tshark takes payloads that signalling says are no RTP out of a stream: it may have fewer packets.
        assert found[key]["packets"] >= packets
        assert found[key]["lost"] == lost
        assert found[key]["late"] == found[key]["duplicate"] == 0


@needs_captures
def test_login_of_a_real_soupbintcp_session_shows_the_next_number() -> None:
    name = "omi-data-packets__Jnx__JnxEquities.Pts.Ouch.v1.11__LoginAcceptedPacket.pcap"
    path = CAPTURES / "market-data" / name
    (stream,) = sequence_in(path, "soupbintcp")["streams"]
    accepted = re.search(rb"A([ \d]{10})([ \d]{20})", path.read_bytes())
    assert accepted is not None
    assert (stream["key"], stream["joined_at"]) == (accepted[1].decode().strip(), int(accepted[2]))
