"""Requests and responses: DNS over UDP, and ICMP echo."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import dpkt

from scenarios.wire import MILLISECOND, OPEN_NS, Capture, Frame, Host, Truth, ethernet, pcapng, skewed, udp

CLIENT = Host("02:00:00:00:0c:01", "192.0.2.20")
RESOLVER = Host("02:00:00:00:0e:01", "192.0.2.53")
DNS_REQUESTS, DNS_SPACING_NS = 200, 7 * MILLISECOND
ECHO_REQUESTS, ECHO_SPACING_NS = 70, 20 * MILLISECOND
DNS_FASTEST_NS, DNS_JITTER_NS = 180_000, 420_000
ECHO_FASTEST_NS, ECHO_JITTER_NS = 96_000, 30_000
DNS_UNANSWERED, DNS_SLOW = 64, (131, 38_512_345)
ECHO_UNANSWERED, ECHO_SLOW = 22, (51, 12_345_678)
"""Which request (counted from 1), and how long the slow ones take in ns."""


def dns(identification: int, name: str, address: bytes | None = None) -> bytes:
    """Return a DNS query for an A record, or the response with an address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", 1, 1)
    if address is None:
        return struct.pack("!HHHHHH", identification, 0x0100, 1, 0, 0, 0) + question
    answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 300, len(address)) + address
    return struct.pack("!HHHHHH", identification, 0x8180, 1, 1, 0, 0) + question + answer


def echo(kind: int, sequence: int) -> Any:
    """Return an ICMP echo request or reply, as of ping: 56 bytes of data."""
    return dpkt.icmp.ICMP(type=kind, data=dpkt.icmp.ICMP.Echo(id=0x5350, seq=sequence, data=bytes(range(56))))


def request_response() -> tuple[bytes, Truth]:
    """Ask a resolver for names and for echoes; one of each is never answered and one late."""
    random, capture = Random(2), Capture()
    asked: dict[str, list[tuple[Frame, Frame | None]]] = {"dns": [], "icmp_echo": []}

    def ask(kind: str, at_ns: int, request: Any, response: Any, latency_ns: int, unanswered: bool) -> None:
        number = len(asked[kind]) + 1
        frame = capture.add(at_ns, ethernet(CLIENT, RESOLVER, request, number))
        wire = ethernet(RESOLVER, CLIENT, response, 20_000 + number)
        asked[kind].append((frame, None if unanswered else capture.add(at_ns + latency_ns, wire)))

    for number in range(1, DNS_REQUESTS + 1):
        latency_ns = DNS_FASTEST_NS + skewed(random, DNS_JITTER_NS)
        name, port = f"host{number}.example.com", 50_000 + number
        ask(
            "dns",
            OPEN_NS + number * DNS_SPACING_NS + skewed(random, 2 * MILLISECOND),
            udp(port, 53, dns(1_000 + number, name)),
            udp(53, port, dns(1_000 + number, name, bytes([203, 0, 113, number]))),
            DNS_SLOW[1] if number == DNS_SLOW[0] else latency_ns,
            number == DNS_UNANSWERED,
        )
    for number in range(1, ECHO_REQUESTS + 1):
        latency_ns = ECHO_FASTEST_NS + skewed(random, ECHO_JITTER_NS)
        ask(
            "icmp_echo",
            OPEN_NS + number * ECHO_SPACING_NS,
            echo(dpkt.icmp.ICMP_ECHO, number),
            echo(dpkt.icmp.ICMP_ECHOREPLY, number),
            ECHO_SLOW[1] if number == ECHO_SLOW[0] else latency_ns,
            number == ECHO_UNANSWERED,
        )
    capture.order()
    truth: Truth = {"frames": len(capture.frames)}
    slow = {"dns": DNS_SLOW, "icmp_echo": ECHO_SLOW}
    for kind, pairs in asked.items():
        place, latency_ns = slow[kind]
        truth[kind] = {
            "requests": len(pairs),
            "responses": sum(response is not None for _, response in pairs),
            "unanswered": [{"frame": request.number} for request, response in pairs if response is None],
            "slow": [{"frame": pairs[place - 1][0].number, "latency_ns": latency_ns}],
            "answered": [
                {
                    "frame": request.number,
                    "response_frame": response.number,
                    "latency_ns": response.timestamp_ns - request.timestamp_ns,
                }
                for request, response in pairs
                if response is not None
            ],
        }
    return b"".join(pcapng(capture)), truth
