"""Every real capture of market data: its protocol has a table, and its numbers are what other code reads out of it.

Nearly all of them are a single packet; what can be shown is that numbers, counts and sessions are found where each
protocol keeps them, and that other tables do not take them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dpkt
import pytest
from support.shared_captures import CAPTURES, needs_captures
from support.slow_numbers import Arrival, SlowNumbers

from uspcap.analysis.sequence.analysis import Sequence
from uspcap.analysis.sequence.detection import candidates, detect
from uspcap.errors import UspcapError
from uspcap.formats import open_capture
from uspcap.protocols.feeds import find_protocol

pytestmark = pytest.mark.oracle

MARKET_DATA = CAPTURES / "market-data"


@dataclass(frozen=True)
class Numbered:
    """What a payload says: whose stream, from which number on, how many; None is a packet that touches no stream."""

    stream: bytes
    number: int
    count: int


Read = Callable[[bytes], Numbered | None]


def mold(data: bytes) -> Numbered:
    session, number, count = struct.unpack_from(">10sQH", data)
    return Numbered(session, number, count)


def little_mold(data: bytes) -> Numbered:
    session, number, count = struct.unpack_from("<10sQH", data)
    return Numbered(session, number, count)


def cboe(data: bytes) -> Numbered | None:
    length, count, unit, number = struct.unpack_from("<HBBI", data)
    assert length == len(data)
    return Numbered(bytes([unit]), number, count) if number else None


def pillar(data: bytes) -> Numbered | None:
    length, flag, count, number = struct.unpack_from("<HBBI", data)
    assert length == len(data)
    return {11: Numbered(b"", number, count), 1: Numbered(b"", number, 0), 12: Numbered(b"", number, 0)}.get(flag)


def iex(data: bytes) -> Numbered:
    channel, session, length, count, _, number = struct.unpack_from("<4s4sHHQQ", data, 4)
    assert length == len(data) - 40
    return Numbered(channel + session, number, count)


def memoir(data: bytes) -> Numbered | None:
    kind, _, session, number, count = struct.unpack_from(">BB8sQH", data)
    return Numbered(session, number, count) if kind == 2 else None


def impact(data: bytes) -> Numbered:
    session, number, count = struct.unpack_from(">2sIH", data)
    return Numbered(session, number, count)


def cta(data: bytes) -> Numbered:
    length, feed, _, number, count = struct.unpack_from(">HccIB", data, 1)
    assert length == len(data)
    return Numbered(feed, number, count)


def opra(data: bytes) -> Numbered:
    length, feed, _, session, number, count = struct.unpack_from(">HcccIB", data, 1)
    assert length == len(data)
    return Numbered(feed + session, number, count)


def mdp3(data: bytes) -> Numbered:
    return Numbered(b"", struct.unpack_from("<I", data)[0], 1)


def eobi(data: bytes) -> Numbered:
    _, template, _, number, segment, partition = struct.unpack_from("<HHII4sc", data)
    assert template in (13002, 13004)
    return Numbered(segment + partition, number, 1)


def mach(data: bytes) -> Numbered | None:
    number, length, kind, session = struct.unpack_from("<QHBc", data)
    assert length == len(data)
    return Numbered(session, number, 1) if kind == 3 else None


def b3(data: bytes) -> Numbered:
    channel, _, version, number = struct.unpack_from("<cc2sI", data)
    return Numbered(channel + version, number, 1)


FAMILIES: dict[str, tuple[str, Read]] = {
    r"Asx__Ntp\.Itch|Jnx__.*Itch|Nasdaq__.*(Itch|Combo|Uqdf)": ("moldudp64", mold),
    r"Imperative__": ("intelligentcross-mdf", little_mold),
    r"Cboe__.*Pitch": ("cboe-pitch", cboe),
    r"Nyse__(?!Nyse\.Equities\.OpenBook)": ("nyse-pillar", pillar),
    r"Iex__|go-iex": ("iex-tp", iex),
    r"Memx__": ("memx-memoir", memoir),
    r"Ice__": ("ice-impact", impact),
    r"Siac__C[qt]s": ("cta", cta),
    r"Siac__Opra": ("opra", opra),
    r"Cme__Mdp3(?!.*v1\.12)": ("cme-mdp3", mdp3),
    # MOEX numbers its packets where CME does.
    r"simba": ("cme-mdp3", mdp3),
    r"Eurex__Eobi": ("eurex-eobi", eobi),
    r"Miax__(?!PearlEquities\.Meo)": ("miax-mach", mach),
    r"B3__BinaryUmdf": ("b3", b3),
}

WITHOUT = {
    r"Entry|Boe|iLink3|OrderApi|Eti\.T7|Ouch|\.Meo\.": "order entry over TCP",
    r"Cme__Mdp3.*v1\.12": "MDP 3.0 over TCP, as its replay service has it",
    r"Cboe__Options\.TopOfMarket\.Csm": "no table: CSM of C2",
    r"Coinbase__MarketDataApi": "no table",
    r"Otc__": "no table",
    r"Tmx__": "no table: HSVF, numbers are text",
    r"Nyse__Nyse\.Equities\.OpenBook\.Ultra": "no table: XDP before 2012, in big-endian",
}


def paths() -> list[Path]:
    return sorted(MARKET_DATA.iterdir()) if MARKET_DATA.is_dir() else []


def family_of(path: Path) -> tuple[str, Read]:
    ((_, family),) = [(pattern, family) for pattern, family in FAMILIES.items() if re.search(pattern, path.name)]
    return family


def payloads(path: Path) -> list[tuple[int, tuple[bytes, int], bytes]]:
    """Return the UDP payloads with their frame numbers and destinations, as dpkt reads them."""
    found = []
    with path.open("rb") as file:
        for number, (_, data) in enumerate(dpkt.pcap.UniversalReader(file), 1):
            network = dpkt.ethernet.Ethernet(data).data
            if isinstance(network, dpkt.ip.IP) and isinstance(network.data, dpkt.udp.UDP):
                found.append((number, (network.dst, network.data.dport), bytes(network.data.data)))
    return found


KNOWN = [path for path in paths() if not any(re.search(pattern, path.name) for pattern in WITHOUT)]


@needs_captures
def test_every_capture_has_a_protocol_or_a_reason_why_it_has_none() -> None:
    assert len(paths()) == 136
    assert len(KNOWN) == 96
    for path in KNOWN:
        assert family_of(path)


@needs_captures
@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.stem[-60:])
def test_numbers_are_where_other_code_finds_them(path: Path) -> None:
    name, read = family_of(path)
    analysis = Sequence(find_protocol(name, unverified=True))
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    result = analysis.result().as_dict()
    arrivals: dict[tuple[object, bytes], list[Arrival]] = {}
    excluded = 0
    for frame, destination, payload in payloads(path):
        said = read(payload)
        if said is None:
            excluded += 1
        else:
            kind, after = "data" if said.count else "next", said.number + said.count
            arrivals.setdefault((destination, said.stream), []).append(Arrival(kind, said.number, after, frame, 0))
    assert (result["foreign"], result["excluded"]) == (0, excluded)
    slow = [SlowNumbers.of(of_stream) for of_stream in arrivals.values()]
    streams = [stream for stream in result["streams"] if stream["joined_at"] is not None]
    # These captures have one sender to each destination.
    assert len(slow) == len(streams)
    for what in ("joined_at", "late", "duplicate", "overlap", "resets", "before_joined"):
        assert sorted(stream[what] for stream in streams) == sorted(getattr(one, what) for one in slow), what
    assert sorted(stream["lost"] for stream in streams) == sorted(one.missing for one in slow)


@needs_captures
@pytest.mark.parametrize(
    ("name", "protocol"),
    [("go-iex__DEEP10_rec1-12236", "iex-tp"), ("go-iex__TOPS16_rec1-7162", "iex-tp")],
)
def test_protocol_of_long_captures_is_detected(name: str, protocol: str) -> None:
    best, second, *_ = candidates([str(MARKET_DATA / f"{name}.pcap")], "", unverified=True)
    assert (best.protocol.name, best.share, second.explained) == (protocol, 1.0, 0)


DETECTED = {
    "cxx-pcap-simba-decoder__simba-100_rec1-60.pcap": "cme-mdp3",
    "go-iex__DEEP10_rec1-12236.pcap": "iex-tp",
    "go-iex__TOPS16_rec1-7162.pcap": "iex-tp",
    "nDPI__rtp.pcapng": "rtp",
    "arkime__gtp-iphone.pcap": "rtp",  # in GTP-U
    "nDPI__stun_google_meet.pcapng": "rtp",
    "nDPI__FAX-Call-t38-CA-TDM-SIP-FB-1.pcap": "rtp",
    "nDPI__stun_classic.pcap": "rtp",
    "nDPI__stun_wa_call.pcapng": "rtp",
    "wireshark-notes__webrtc-freeswitch.pcapng": "rtp",
}


@needs_captures
def test_no_protocol_is_detected_in_captures_that_hold_none() -> None:
    detected = {}
    for path in (path for path in CAPTURES.glob("*/*") if path.is_file()):
        try:
            detected[path.name] = detect([str(path)], "", unverified=False).protocol.name
        except UspcapError:
            continue
    assert detected == DETECTED


@needs_captures
def test_layouts_of_eobi_take_their_own_packets_only() -> None:
    for path in (path for path in KNOWN if "Eobi" in path.name):
        analysis = Sequence(find_protocol("eurex-eobi-wide", unverified=True))
        with open_capture(str(path)) as reader:
            for batch in reader.batches():
                analysis.update(batch)
        result = analysis.result().as_dict()
        assert (result["foreign"], result["streams"]) == (1, [])
