"""Header columns against frames built by hand, dpkt, and laws that hold for any bytes."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.header_cases import CASES, TCP4, UDP4
from support.header_frames import (
    DEFAULTS,
    batch_of,
    decode,
    ethernet,
    ipv4,
    ipv6,
    mpls,
    pppoe,
    rows_of,
    sll,
    snap,
    tcp,
    udp,
    vlan,
)
from support.shared_captures import CAPTURES, manifest, needs_captures

from uspcap._native.columns import HeaderColumns
from uspcap._native.headers import decode as decode_columns
from uspcap.frames import Interface, TimestampSource
from uspcap.protocols.headers import Layer, address_text

LINK_TYPES = (0, 1, 9, 12, 14, 50, 51, 101, 108, 113, 228, 229, 276)
SUPPORT = Path(__file__).parents[1] / "support"


def without(row, *columns):
    return {name: value for name, value in row.items() if name not in columns}


# Frames built by hand.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_column_of_frames_built_by_hand(case):
    row = decode(case.frame, case.link_type, tunnels=case.tunnels, wire_length=case.wire_length)
    assert without(row, "flow_hash") == without({**DEFAULTS, **case.expected}, "flow_hash")


def test_one_batch_decodes_frames_as_each_alone():
    frames = [case.frame for case in CASES if case.link_type == 1 and case.wire_length is None]
    for tunnels in (False, True):
        assert rows_of(batch_of(frames, tunnels=tunnels)) == [decode(frame, tunnels=tunnels) for frame in frames]


def test_columns_keep_nothing_of_the_batch_before():
    headers = HeaderColumns(len(CASES))
    tcp_frames = batch_of([ethernet(0x0800, TCP4)] * len(CASES))
    for link_type in LINK_TYPES:
        batch = batch_of([case.frame for case in CASES], link_type)
        fresh = rows_of(batch)
        decode_columns(tcp_frames, headers, False)
        decode_columns(batch, headers, False)
        for name in fresh[0]:
            values = [v.tobytes() if isinstance(v, np.ndarray) else int(v) for v in headers.column(name)]
            assert values == [row[name] for row in fresh], name


def test_each_interface_has_its_own_link_type():
    batch = batch_of([ethernet(0x0800, UDP4), UDP4, UDP4])
    batch.set_interfaces([Interface(link_type=1), Interface(link_type=101), Interface(link_type=147)])
    batch.storage("interface")[:] = 0, 1, 2
    assert batch.headers.column("network_offset").tolist() == [14, 0, -1]


def test_headers_remember_count_and_tunnels():
    batch = batch_of([UDP4], 101, tunnels=True)
    assert (batch.headers.count, batch.headers.tunnels) == (1, True)


def test_too_small_header_columns_are_refused():
    with pytest.raises(ValueError, match="hold 1 rows, the batch has 2"):
        decode_columns(batch_of([UDP4, UDP4]), HeaderColumns(1), False)


@pytest.mark.parametrize("offset", [-1, 1, 2**31, 2**63 - 1, -(2**63)])
def test_rows_outside_the_data_stay_at_defaults(offset):
    batch = batch_of([ethernet(0x0800, UDP4)])
    batch.storage("offset")[0] = offset
    assert without(rows_of(batch)[0], "flow_hash") == without(DEFAULTS, "flow_hash")


def test_rows_of_an_interface_that_is_not_there_stay_at_defaults():
    batch = batch_of([ethernet(0x0800, UDP4)])
    batch.storage("interface")[0] = 65535
    assert without(rows_of(batch)[0], "flow_hash") == without(DEFAULTS, "flow_hash")


def test_wire_lengths_beyond_int32_do_not_turn_offsets_negative():
    row = decode(ethernet(0x0806, bytes(28)), wire_length=2**32 - 1)
    assert (row["payload_offset"], row["payload_length"]) == (14, 2**31 - 1 - 14)


def test_addresses_as_text():
    row = decode(ethernet(0x0800, UDP4))
    assert address_text(row["source_address"], 4) == "10.1.2.3"
    row = decode(ethernet(0x86DD, ipv6(17, udp(b""))))
    assert address_text(row["destination_address"], 6) == "ff02::fb"
    row = decode(ethernet(0x0806, bytes(28)))
    assert address_text(row["source_address"], 0) == "02:a0:b0:c0:d0:e0"


# Memory.


def run_guarded(frames, *arguments):
    """Decode frames that end where memory ends, in a process of its own."""
    text = json.dumps([(link_type, frame.hex()) for link_type, frame in frames])
    return subprocess.run(
        [sys.executable, "-m", "support.guarded_page", *arguments],
        input=text, capture_output=True, text=True, cwd=SUPPORT.parent, check=False,
    )  # fmt: skip


def guarded_count(frames):
    """How often `support.guarded_page` decodes: two wire lengths, with tunnels and without, at every length."""
    return sum(4 * (len(frame) + 1) for _, frame in frames)


def test_the_guard_page_catches_a_read_of_one_byte_too_many():
    assert run_guarded([], "--trespass").returncode == -signal.SIGSEGV


def test_no_byte_is_read_behind_frames_built_by_hand():
    frames = [(case.link_type, case.frame) for case in CASES]
    done = run_guarded(frames)
    assert (done.returncode, done.stdout.strip()) == (0, str(guarded_count(frames))), done.stderr


def test_no_byte_is_read_behind_random_and_damaged_frames():
    chance = random.Random(20)
    frames = []
    for _ in range(400):
        case = chance.choice(CASES)
        damaged = bytearray(case.frame[:200])
        for _ in range(chance.randrange(1, 6)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        frames.append((case.link_type, bytes(damaged)))
        frames.append((chance.choice(LINK_TYPES), chance.randbytes(chance.randrange(80))))
    done = run_guarded(frames)
    assert (done.returncode, done.stdout.strip()) == (0, str(guarded_count(frames))), done.stderr


# Laws.


@st.composite
def frames_of_any_kind(draw):
    """Link type and bytes: random, or a frame built by hand with some bytes changed, cut or appended."""
    if draw(st.booleans()):
        return draw(st.sampled_from((*LINK_TYPES, 105, 147))), draw(st.binary(max_size=120))
    case = draw(st.sampled_from(CASES))
    frame = bytearray(case.frame[:300])
    for _ in range(draw(st.integers(0, 4))):
        if frame:
            frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return case.link_type, bytes(frame) + draw(st.binary(max_size=8))


@given(frames_of_any_kind(), st.integers(0, 100), st.booleans())
def test_columns_of_any_bytes_keep_to_the_frame(kind, uncaptured, tunnels):
    link_type, frame = kind
    wire = len(frame) + uncaptured
    row = decode(frame, link_type, tunnels=tunnels, wire_length=wire)
    network, transport, payload = (row[f"{name}_offset"] for name in ("network", "transport", "payload"))
    assert -1 <= network <= transport or transport == -1
    assert max(network, transport, payload) <= wire
    if payload >= 0:
        assert payload + row["payload_length"] <= wire
        assert max(network, transport) <= payload
    else:
        assert row == {**DEFAULTS, "flow_hash": row["flow_hash"]}
    if max(network, transport, payload) > len(frame):
        assert row["layers"] & Layer.CUT
    if not uncaptured:
        assert not row["layers"] & Layer.CUT
    assert (row["ip_version"], network >= 0) in {(0, False), (4, True), (6, True)}
    if not row["ip_version"]:
        assert (row["protocol"], row["ttl"], transport) == (255, 0, -1)
    if transport == -1:
        assert row["source_port"] == row["destination_port"] == row["tcp_flags"] == row["icmp_type"] == 0
    assert (row["vlan_id"] == 0xFFFF) == (row["vlan_depth"] == 0)
    assert row["vlan_id"] < 4096 or row["vlan_id"] == 0xFFFF
    assert row["tcp_flags"] < 4096
    if row["fragment_offset"] or row["layers"] & Layer.MORE_FRAGMENTS:
        assert row["layers"] & Layer.FRAGMENT


@given(frames_of_any_kind(), st.data())
def test_what_is_not_captured_changes_nothing(kind, data):
    """The columns of a cut frame are the same whatever the bytes behind it in the buffer."""
    link_type, frame = kind
    length = data.draw(st.integers(0, len(frame)))
    tunnels = data.draw(st.booleans())
    batch = batch_of([frame], link_type, tunnels=tunnels)
    batch.storage("captured_length")[0] = length
    batch.storage("wire_length")[0] = len(frame)
    assert rows_of(batch)[0] == decode(frame[:length], link_type, tunnels=tunnels, wire_length=len(frame))


def needed_bytes(whole):
    """Return, by column, how many bytes of a frame must be captured for its value to be known."""
    network, transport = whole["network_offset"], whole["transport_offset"]
    fixed = network + (20 if whole["ip_version"] == 4 else 40)
    needed = dict.fromkeys(("ip_version", "ttl", "source_address", "destination_address", "network_offset"), fixed)
    # Raw IP says in its first byte which it is.
    needed |= dict.fromkeys(("vlan_id", "vlan_depth", "ethertype"), max(network, 1))
    if whole["ip_version"] == 4:
        needed |= dict.fromkeys(("ip_id", "protocol", "fragment_offset", "transport_offset"), fixed)
    else:
        needed |= dict.fromkeys(("ip_id", "protocol", "fragment_offset", "transport_offset"), max(fixed, transport))
    if whole["protocol"] in (6, 17, 33, 132, 136):
        needed |= dict.fromkeys(("source_port", "destination_port"), transport + 4)
    if whole["protocol"] in (1, 58):
        needed |= dict.fromkeys(("icmp_type", "icmp_code"), transport + 2)
    if whole["protocol"] == 6:
        needed |= {"tcp_sequence": transport + 8, "tcp_acknowledgment": transport + 12, "tcp_flags": transport + 14,
                   "tcp_window": transport + 16, "payload_offset": transport + 14,
                   "payload_length": transport + 14}  # fmt: skip
    if whole["protocol"] in (17, 136):
        needed |= {"payload_offset": transport, "payload_length": transport + 6}
    return needed


SOUND = [
    case
    for case in CASES
    if case.expected.get("transport_offset", -1) >= 0
    and not case.tunnels
    and case.wire_length is None
    and not case.expected.get("layers", 0) & Layer.MALFORMED
    and case.link_type in LINK_TYPES
    and case.name != "authentication"
]


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.name)
def test_cut_frames_decode_as_far_as_their_bytes_go(case):
    whole = decode(case.frame, case.link_type)
    needed = needed_bytes(whole)
    for length in range(len(case.frame)):
        cut = decode(case.frame[:length], case.link_type, wire_length=len(case.frame))
        known = {name: cut[name] for name, count in needed.items() if count <= length}
        assert known == {name: whole[name] for name in known}, length
        assert not cut["layers"] & ~(whole["layers"] | Layer.CUT), length
        if length < max(needed.values()):
            assert cut["layers"] & Layer.CUT, length
        for name in ("tcp_sequence", "tcp_flags", "source_port", "icmp_type", "ttl"):
            assert cut[name] in (0, whole[name])


ports = st.integers(0, 65535)
payloads = st.binary(max_size=40)


@st.composite
def ipv4_packets(draw):
    """Packets that the plain path takes, or just about does not."""
    if draw(st.booleans()):
        length = draw(st.none() | st.integers(0, 70))
        segment = 17, udp(draw(payloads), draw(ports), draw(st.sampled_from((53, 4789, 6081))), length)
    else:
        segment = 6, tcp(draw(payloads), draw(ports), draw(ports), flags=draw(st.integers(0, 4095)))
    packet = bytearray(ipv4(*segment, draw(st.ip_addresses(v=4)), draw(st.ip_addresses(v=4)),
                            total=draw(st.none() | st.integers(0, 100))))  # fmt: skip
    if draw(st.booleans()):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))])


@given(ipv4_packets(), st.integers(0, 20), st.booleans())
def test_plain_path_and_general_path_say_the_same(packet, uncaptured, tunnels):
    """Ethernet may take the plain path; a tagged frame never does."""
    assume(packet)
    wire = len(packet) + uncaptured
    plain = decode(ethernet(0x0800, packet), tunnels=tunnels, wire_length=14 + wire)
    general = decode(ethernet(0x8100, vlan(3, 0x0800, packet)), tunnels=tunnels, wire_length=18 + wire)
    for name in ("network_offset", "transport_offset", "payload_offset"):
        plain[name] += 4 * (plain[name] >= 0)
    if plain["vlan_depth"] == 0 and general["vlan_depth"] == 1:
        general |= {"vlan_id": plain["vlan_id"], "vlan_depth": 0, "layers": general["layers"] & ~Layer.VLAN}
    assert plain == general


# Flow hashes.

WAYS = [
    (1, lambda packet: ethernet(0x0800, packet)),
    (1, lambda packet: ethernet(0x8100, vlan(7, 0x0800, packet))),
    (1, lambda packet: ethernet(0x88A8, vlan(8, 0x8100, vlan(7, 0x0800, packet)))),
    (1, lambda packet: ethernet(8 + len(packet), snap(0x0800, packet))),
    (1, lambda packet: ethernet(0x8847, mpls([5], packet))),
    (1, lambda packet: ethernet(0x8864, pppoe(0x21, packet))),
    (101, lambda packet: packet),
    (113, lambda packet: sll(0x0800, packet)),
    (0, lambda packet: bytes([2, 0, 0, 0]) + packet),
]


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports, st.booleans())
def test_a_flow_hashes_the_same_whichever_way_it_was_decoded(source, destination, source_port, port, is_tcp):
    protocol, segment = (6, tcp) if is_tcp else (17, udp)
    packets = [
        ipv4(protocol, segment(b"one", source_port, port), source, destination),
        ipv4(protocol, segment(b"another", source_port, port), source, destination, options=bytes(8)),
    ]
    hashes = {decode(wrap(packet), link)["flow_hash"] for link, wrap in WAYS for packet in packets}
    assert len(hashes) == 1


def test_a_flow_hash_depends_on_every_part_of_the_key():
    base = ipv4(17, udp(b"", 1, 2), "10.0.0.1", "10.0.0.2")
    others = [
        ipv4(17, udp(b"", 2, 1), "10.0.0.1", "10.0.0.2"),
        ipv4(17, udp(b"", 1, 2), "10.0.0.2", "10.0.0.1"),
        ipv4(17, udp(b"", 3, 2), "10.0.0.1", "10.0.0.2"),
        ipv4(17, udp(b"", 1, 3), "10.0.0.1", "10.0.0.2"),
        ipv4(17, udp(b"", 1, 2), "10.0.0.3", "10.0.0.2"),
        ipv4(17, udp(b"", 1, 2), "10.0.0.1", "10.0.0.3"),
        ipv4(136, udp(b"", 1, 2), "10.0.0.1", "10.0.0.2"),
        ipv6(17, udp(b"", 1, 2), "::ffff:10.0.0.1", "::ffff:10.0.0.2"),
    ]
    hashes = [decode(packet, 101)["flow_hash"] for packet in (base, *others)]
    hashes += [decode(base, 101, timestamp_source=source)["flow_hash"] for source in TimestampSource if source != 5]
    hashes += [decode(ethernet(ethertype, bytes(46)))["flow_hash"] for ethertype in (0x0806, 0x88F7)]
    assert len(set(hashes)) == len(hashes)


def hashes_of_keys(count):
    """Return the hashes of flows that differ as real ones do: by a few bits of a port and an address."""
    frames = [
        ethernet(0x0800, ipv4(17, udp(b"", 30000 + number % 128, 14310), "10.0.0.1", f"233.54.12.{number >> 7}"))
        for number in range(count)
    ]
    return batch_of(frames).headers.column("flow_hash").copy()


def test_hashes_of_neighbouring_flows_fill_low_and_high_bits_alike():
    count = 1 << 14
    hashes = hashes_of_keys(count)
    assert len(np.unique(hashes)) == count
    for shift in (0, 17, 34, 52):
        load = np.bincount((hashes >> np.uint64(shift) & np.uint64(4095)).astype(np.int64), minlength=4096)
        # Chi-square of 4096 cells: 4095 on average, standard deviation 90; seven of them is beyond chance.
        chi_square = ((load - count / 4096) ** 2).sum() / (count / 4096)
        assert abs(chi_square - 4095) < 7 * 90, shift


def test_each_bit_of_a_key_turns_half_of_the_hash():
    packet = ethernet(0x0800, ipv4(17, udp(b"", 40000, 14310), "192.0.2.77", "233.54.12.111"))
    bits = [8 * byte + bit for byte in range(26, 38) for bit in range(8)]
    frames = [packet]
    for bit in bits:
        turned = bytearray(packet)
        turned[bit // 8] ^= 1 << bit % 8
        frames.append(bytes(turned))
    hashes = [int(value) for value in batch_of(frames).headers.column("flow_hash")]
    changes = [bin(hashes[0] ^ value).count("1") for value in hashes[1:]]
    # 64 fair coins: 32 on average, standard deviation 4.
    assert min(changes) >= 12
    assert 30 < np.mean(changes) < 34


# dpkt, over real captures.

ETHERNET_CAPTURES = [
    entry["file"]
    for entry in manifest()
    if entry["linktype_header_values"] == [1]
    and entry["format"] == "pcap"
    and not entry["compressed"]
    and entry["status"] in ("ok", "tcpdump-rejects")
    and entry["packets"]
]


def by_dpkt(frame):
    """Return the columns that dpkt knows of a frame with IP right behind Ethernet, tags and labels; else None."""
    try:
        layer = dpkt.ethernet.Ethernet(frame)
    except dpkt.Error:
        return None
    packet = layer.data
    if not isinstance(packet, (dpkt.ip.IP, dpkt.ip6.IP6)):
        return None
    tags = getattr(layer, "vlan_tags", [])
    columns = {"ethertype": tags[-1].type if tags else layer.type}
    if isinstance(packet, dpkt.ip.IP):
        before, version = bytes(10) + b"\xff\xff", 4
        columns |= {"protocol": packet.p, "ttl": packet.ttl, "ip_id": packet.id, "fragment_offset": 8 * packet.offset}
    else:
        before, version = b"", 6
        columns["ttl"] = packet.hlim
    # It does not look at the version.
    if packet.v != version:
        return None
    columns |= {
        "ip_version": version,
        "source_address": before + packet.src,
        "destination_address": before + packet.dst,
    }
    segment = packet.data
    if isinstance(segment, (dpkt.tcp.TCP, dpkt.udp.UDP, dpkt.sctp.SCTP)):
        columns |= {"source_port": segment.sport, "destination_port": segment.dport}
    if isinstance(segment, dpkt.tcp.TCP):
        columns |= {"tcp_sequence": segment.seq, "tcp_acknowledgment": segment.ack, "tcp_window": segment.win}
        # It leaves out the three reserved bits.
        columns["tcp_flags"] = segment._off_flags & 0xFFF
    return columns


@needs_captures
def test_dpkt_sees_the_same_in_real_captures():
    compared, differing = 0, {}
    for file in ETHERNET_CAPTURES:
        with (CAPTURES / file).open("rb") as stream:
            frames = [frame for _, frame in dpkt.pcap.Reader(stream)]
        for number, (frame, row) in enumerate(zip(frames, rows_of(batch_of(frames)), strict=True), 1):
            if expected := by_dpkt(frame):
                compared += 1
                found = {name: (value, row[name]) for name, value in expected.items() if value != row[name]}
                if found:
                    differing[file, number] = found
    assert compared > 10_000
    assert not differing
