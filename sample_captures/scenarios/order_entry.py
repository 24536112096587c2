"""An order entry session: SoupBinTCP and OUCH 4.2 over one TCP connection."""

from __future__ import annotations

import struct
from typing import Any

import dpkt

from scenarios.wire import (
    MICROSECOND,
    MIDNIGHT_NS,
    MILLISECOND,
    OPEN_NS,
    SECOND,
    Capture,
    Frame,
    Host,
    Truth,
    ethernet,
    pcap,
)

CLIENT = Host("02:00:00:00:0c:01", "192.0.2.20")
VENUE = Host("02:00:00:00:0d:01", "192.0.2.200")
CLIENT_PORT, VENUE_PORT = 49152, 24001
SESSION = b"SAMPLE0001"
ORDER_SPACING_NS = 5 * MILLISECOND
RETRANSMISSION_TIMEOUT_NS = 200 * MILLISECOND
ACKNOWLEDGED_NS = 4_000
"""How long the client's host takes to acknowledge a segment."""
IDLE_BEFORE_ORDER = 13
IDLE_NS = 2_100 * MILLISECOND
"""Both ends send a heartbeat each second meanwhile."""

ORDERS = (
    # what becomes of it, order to first answer in ns, then to the end (execution, or cancel to canceled) in ns
    ("executed", 28_410, 61_200),
    ("canceled", 27_950, 25_300),
    ("accepted", 28_020, 0),
    ("executed", 29_870, 1_402_000),
    ("canceled", 28_300, 24_910),
    ("rejected", 19_660, 0),
    ("executed", 31_150, 88_000),
    ("accepted, split", 44_730, 0),  # the order spans two segments; its time runs from the last
    ("canceled", 28_240, 25_780),
    ("executed, coalesced", 52_600, 0),  # accepted and executed arrive in one segment
    ("accepted", 27_890, 0),
    ("canceled", 30_010, 26_050),
    ("accepted", 95_400, 0),  # the first after a while
    ("executed", 29_030, 70_350),
    ("accepted, retransmitted", 33_500, 0),  # the first copy is lost after the tap; its time runs from the second
    ("executed", 28_770, 3_120_000),
    ("canceled", 28_510, 25_140),
    ("accepted", 2_486_000, 0),  # the venue stalls
    ("rejected", 20_140, 0),
    ("executed", 28_930, 64_800),
    ("canceled", 28_060, 25_010),
    ("accepted", 28_350, 0),
    ("executed", 27_980, 59_900),
    ("canceled", 28_620, 25_470),
)


def soup(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a SoupBinTCP packet: U and S carry what is sent and what is sequenced."""
    return struct.pack("!Hc", 1 + len(payload), kind) + payload


def ouch(kind: bytes, at_ns: int, token: bytes, order: int) -> bytes:
    """Return an OUCH 4.2 message: O and X are the client's, S, A, E, C and J the venue's (with its time)."""
    timestamp = struct.pack("!Q", at_ns - MIDNIGHT_NS)
    shares, stock, price = 100 * (1 + order % 5), b"SAMPLE1 ", 1_002_500 + 100 * order
    terms = struct.pack("!cI8sII4sc", b"BS"[order % 2 :][:1], shares, stock, price, 99_998, b"USPC", b"Y")
    return (
        kind
        + {
            b"O": token + terms + struct.pack("!ccIcc", b"P", b"N", 0, b"N", b" "),
            b"X": token + struct.pack("!I", 0),
            b"S": timestamp + (b"S" if order == 0 else b"E"),
            b"A": timestamp + token + terms + struct.pack("!QccIccc", 1_000 + order, b"P", b"N", 0, b"N", b"L", b" "),
            b"E": timestamp + token + struct.pack("!IIcQ", shares, price, b"R", 5_000 + order),
            b"C": timestamp + token + struct.pack("!Ic", shares, b"U"),
            b"J": timestamp + token + b"O",
        }[kind]
    )


class Connection:
    """The client's TCP connection as a tap beside the client sees it: sequence numbers of both ends."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._sent = {CLIENT: 1_000_000_000, VENUE: 3_000_000_000}
        self._received = {CLIENT: 0, VENUE: 0}
        self._identification = {CLIENT: 100, VENUE: 7_000}

    def send(self, at_ns: int, source: Host, payload: bytes = b"", flags: int = 0, *, arrives: bool = True) -> Frame:
        """Capture a segment; one that does not arrive is seen, but its sender must send it again."""
        other = VENUE if source is CLIENT else CLIENT
        syn = bool(flags & dpkt.tcp.TH_SYN)
        options = bytes.fromhex("020405b4 01 030307 01 01 0402") if syn else b""
        segment = dpkt.tcp.TCP(
            sport=CLIENT_PORT if source is CLIENT else VENUE_PORT,
            dport=VENUE_PORT if source is CLIENT else CLIENT_PORT,
            seq=self._sent[source],
            ack=self._received[source],
            flags=flags | (dpkt.tcp.TH_ACK if self._received[source] else 0) | (dpkt.tcp.TH_PUSH if payload else 0),
            off=5 + len(options) // 4,
            win=64_240 if syn else 502,
            opts=options,
            data=payload,
        )
        self._identification[source] += 1
        if arrives:
            self._sent[source] += len(payload) + bool(flags & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_FIN))
            self._received[other] = self._sent[source]
        return self._capture.add(at_ns, ethernet(source, other, segment, self._identification[source]))

    def answer(self, at_ns: int, payload: bytes) -> Frame:
        """Capture a segment of the venue's, and the client's acknowledgement."""
        frame = self.send(at_ns, VENUE, payload)
        self.send(at_ns + ACKNOWLEDGED_NS, CLIENT)
        return frame


def order_session() -> tuple[bytes, Truth]:
    """Play one connection: handshake, login, orders, an idle time with heartbeats, logout."""
    capture, now = Capture(), OPEN_NS
    connection = Connection(capture)
    syn = connection.send(now, CLIENT, flags=dpkt.tcp.TH_SYN)
    syn_ack = connection.send(now + 38_200, VENUE, flags=dpkt.tcp.TH_SYN)
    connection.send(now + 41_000, CLIENT)
    now += 190 * MICROSECOND
    login = connection.send(
        now, CLIENT, soup(b"L", b"uspcap".ljust(6) + b"example".ljust(10) + b" " * 10 + b"1".rjust(20))
    )
    accepted = connection.answer(now + 312_400, soup(b"A", SESSION + b"1".rjust(20)))
    connection.answer(now + 330_000, soup(b"S", ouch(b"S", now, b"", 0)))

    orders: list[dict[str, Any]] = []
    retransmissions: list[tuple[Frame, Frame]] = []
    heartbeats: list[Frame] = []
    for order, (fate, answer_ns, end_ns) in enumerate(ORDERS, 1):
        if order == IDLE_BEFORE_ORDER:
            for second in (1, 2):
                heartbeats.append(connection.send(now + second * SECOND, CLIENT, soup(b"R")))
                heartbeats.append(connection.answer(now + second * SECOND + 60_000, soup(b"H")))
            now += IDLE_NS
        now += ORDER_SPACING_NS
        token = b"ORDER%09d" % order
        request = soup(b"U", ouch(b"O", now, token, order))
        sent = []
        if "split" in fate:
            sent.append(connection.send(now, CLIENT, request[:20]))
            now += 11_900
            request = request[20:]
        elif "retransmitted" in fate:
            sent.append(connection.send(now, CLIENT, request, arrives=False))
            now += RETRANSMISSION_TIMEOUT_NS
        sent.append(connection.send(now, CLIENT, request))
        if "retransmitted" in fate:
            retransmissions.append((sent[1], sent[0]))
        answer = b"J" if fate == "rejected" else b"A"
        answers = soup(b"S", ouch(answer, now + answer_ns // 2, token, order))
        if "coalesced" in fate:
            answers += soup(b"S", ouch(b"E", now + answer_ns // 2, token, order))
        one: dict[str, Any] = {"token": token, "fate": fate, "sent": sent, "answer_ns": answer_ns}
        one["answer"] = connection.answer(now + answer_ns, answers)
        now += answer_ns
        if fate == "executed":
            now += end_ns
            one["execution"] = connection.answer(now, soup(b"S", ouch(b"E", now - 14_000, token, order)))
        elif fate == "canceled":
            now += MILLISECOND
            one["cancel"] = connection.send(now, CLIENT, soup(b"U", ouch(b"X", now, token, order)))
            now += end_ns
            one["canceled"] = connection.answer(now, soup(b"S", ouch(b"C", now - 12_000, token, order)))
        orders.append(one)

    now += 3 * MILLISECOND
    connection.send(now, CLIENT, soup(b"O"))
    connection.answer(now + 40_100, soup(b"S", ouch(b"S", now, b"", 1)))
    connection.answer(now + 52_300, soup(b"Z"))
    connection.send(now + 60_000, VENUE, flags=dpkt.tcp.TH_FIN)
    connection.send(now + 71_000, CLIENT, flags=dpkt.tcp.TH_FIN)
    connection.send(now + 109_000, VENUE)
    capture.order()

    fates = [one["fate"].partition(",")[0] for one in orders]
    return pcap(capture), {
        "frames": len(capture.frames),
        "client": f"{CLIENT.ip}:{CLIENT_PORT}",
        "venue": f"{VENUE.ip}:{VENUE_PORT}",
        "handshake_ns": syn_ack.timestamp_ns - syn.timestamp_ns,
        "login_ns": accepted.timestamp_ns - login.timestamp_ns,
        "counts": {
            "entered": len(orders),
            "accepted": len(orders) - fates.count("rejected"),
            "rejected": fates.count("rejected"),
            "executed": fates.count("executed"),
            "canceled": fates.count("canceled"),
            "heartbeats": len(heartbeats),
        },
        "orders": [_order_truth(one) for one in orders],
        "retransmissions": [{"frame": again.number, "of_frame": first.number} for again, first in retransmissions],
        "heartbeat_frames": [frame.number for frame in heartbeats],
    }


def _order_truth(one: dict[str, Any]) -> Truth:
    truth = {
        "token": one["token"].decode(),
        "fate": one["fate"],
        "frames": [frame.number for frame in one["sent"]],
        "answer_frame": one["answer"].number,
        "answer_ns": one["answer_ns"],
    }
    if "execution" in one:
        truth["execution_frame"] = one["execution"].number
        truth["execution_ns"] = one["execution"].timestamp_ns - one["answer"].timestamp_ns
    if "cancel" in one:
        truth["cancel_frame"] = one["cancel"].number
        truth["canceled_frame"] = one["canceled"].number
        truth["cancel_ns"] = one["canceled"].timestamp_ns - one["cancel"].timestamp_ns
    return truth
