"""What holds for header columns whatever the frame: both paths agree, cuts lose no more than they must, memory ends."""

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
from support.header_frames import (
    SOUND_FRAMES,
    TCP4,
    TUNNEL_FRAMES,
    UDP4,
    batch_of,
    decoded_row,
    ethernet,
    geneve,
    ipv4,
    mpls,
    rows_of,
    tcp,
    udp,
    vlan,
    vxlan,
)
from support.shared_captures import CAPTURES, manifest, needs_captures

from uspcap._core.columns import HeaderColumns
from uspcap._core.headers import decode
from uspcap.protocols.headers import Layer
from uspcap.protocols.link_types import DECODED_LINK_TYPES

LINK_TYPES = tuple(sorted(DECODED_LINK_TYPES))
TESTS = Path(__file__).parents[1]

ports = st.integers(0, 65535)
payloads = st.binary(max_size=40)
VXLAN_BODY = vxlan(ethernet(0x0800, UDP4))[8:]
GENEVE_BODY = geneve(0x0800, TCP4)[8:]


def test_link_types_that_are_decoded_are_those_that_are_said_to_be():
    frames = {link_type: rows_of(batch_of([bytes(200)], link_type))[0] for link_type in range(400)}
    assert {link_type for link_type, row in frames.items() if row["payload_offset"] >= 0} == DECODED_LINK_TYPES


# The plain path and the general one.


@st.composite
def ipv4_packets(draw):
    """Packets that the plain path takes, or just about does not."""
    if draw(st.booleans()):
        length = draw(st.none() | st.integers(0, 70))
        payload = draw(payloads | st.sampled_from([VXLAN_BODY, GENEVE_BODY]))
        segment = 17, udp(payload, draw(ports), draw(st.sampled_from((53, 4789, 6081))), length)
    else:
        options = bytes(4 * draw(st.integers(0, 10)))
        segment = 6, tcp(draw(payloads), draw(ports), draw(ports), options=options, flags=draw(st.integers(0, 4095)))
    total = draw(st.none() | st.integers(0, 100))
    packet = bytearray(ipv4(*segment, draw(st.ip_addresses(v=4)), draw(st.ip_addresses(v=4)), total=total))
    if draw(st.booleans()):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))])


def moved(row, by):
    """Return a row as if `by` bytes had been put before its network header."""
    offsets = ("network_offset", "transport_offset", "payload_offset")
    return row | {name: row[name] + by if row[name] >= 0 else -1 for name in offsets}


def check_both_paths(packet, wire, tunnels):
    """A tagged frame never takes the plain path; its hash has no part of the tag."""
    plain = decoded_row(ethernet(0x0800, packet), tunnels=tunnels, wire_length=14 + wire)
    general = decoded_row(ethernet(0x8100, vlan(3, 0x0800, packet)), tunnels=tunnels, wire_length=18 + wire)
    # The tag shows in `layers` even where an inner Ethernet frame, of VXLAN or GENEVE, has set the other columns again.
    assert general["layers"] & Layer.VLAN
    of_tag = {"vlan_id": 0, "vlan_depth": 0}
    assert moved(plain, 4) | of_tag | {"layers": plain["layers"] | Layer.VLAN} == general | of_tag


@given(ipv4_packets(), st.integers(0, 20), st.booleans())
def test_the_plain_path_and_the_general_one_say_the_same(packet, uncaptured, tunnels):
    assume(packet)
    check_both_paths(packet, len(packet) + uncaptured, tunnels)


@pytest.mark.parametrize("tunnels", [False, True])
def test_both_paths_say_the_same_wherever_a_packet_is_cut(tunnels):
    for packet in (UDP4, TCP4, ipv4(17, udp(VXLAN_BODY, 9, 4789)), ipv4(17, udp(GENEVE_BODY, 9, 6081))):
        for length in range(1, len(packet) + 1):
            check_both_paths(packet[:length], len(packet), tunnels)


def test_rows_of_both_paths_keep_nothing_of_the_batch_before():
    frames = [frame for _, _, frame in SOUND_FRAMES] + [frame for _, frame in TUNNEL_FRAMES] + [b""]
    used = HeaderColumns(len(frames))
    for link_type in (*LINK_TYPES, 147):
        decode(batch_of([ethernet(0x0800, TCP4)] * len(frames)), used, False)
        batch = batch_of(frames, link_type, tunnels=True)
        decode(batch, used, True)
        for name in rows_of(batch)[0]:
            np.testing.assert_array_equal(used.column(name), batch.headers.column(name), name)


# Depth and bounds.


def test_any_number_of_tags_is_gone_through():
    for depth in (9, 20, 300):
        row = decoded_row(ethernet(0x8100, vlan(9, 0x8100, b"") * (depth - 1) + vlan(2, 0x0800, UDP4)))
        assert (row["vlan_id"], row["vlan_depth"]) == (9, min(depth, 255))
        assert (row["network_offset"], row["destination_port"]) == (14 + 4 * depth, 4002)


def test_any_number_of_labels_is_gone_through():
    row = decoded_row(ethernet(0x8847, mpls(range(40), UDP4)))
    assert (row["network_offset"], row["destination_port"]) == (14 + 4 * 40, 4002)


def test_any_number_of_tunnels_is_gone_through():
    packet = UDP4
    for _ in range(100):
        packet = ipv4(4, packet, "192.0.2.1", "192.0.2.2")
    row = decoded_row(ethernet(0x0800, packet), tunnels=True)
    assert moved(decoded_row(ethernet(0x0800, UDP4)), 2000) == row | {"layers": 0}
    assert row["layers"] == Layer.IP_IN_IP


@pytest.mark.parametrize("frame", [bytes([2, 0, 9, 0]) + UDP4, bytes([0, 9, 0, 2]) + UDP4])
def test_null_families_are_small_in_all_four_bytes(frame):
    assert decoded_row(frame, 0)["ip_version"] == 0


def test_the_family_of_loop_is_big_endian_only():
    assert decoded_row(bytes([0, 0, 0, 2]) + UDP4, 108)["ip_version"] == 4
    assert decoded_row(bytes([2, 0, 0, 0]) + UDP4, 108)["ip_version"] == 0


@pytest.mark.parametrize("offset", [1, 2**31, 2**63 - 1, -(2**63)])
def test_extreme_offsets_leave_a_row_undecoded(offset):
    """The sum of an offset and a length may overflow; the frame is still outside."""
    batch = batch_of([ethernet(0x0800, UDP4)])
    batch.storage("offset")[0] = offset
    assert rows_of(batch)[0]["payload_offset"] == -1


def test_wire_lengths_beyond_int32_do_not_turn_offsets_negative():
    row = decoded_row(ethernet(0x0806, bytes(28)), wire_length=2**32 - 1)
    assert (row["payload_offset"], row["payload_length"]) == (14, 2**31 - 1 - 14)


# Cut frames.


def bytes_needed(whole):
    """Return, by column, how many bytes of a frame say its value."""
    network, transport, protocol = whole["network_offset"], whole["transport_offset"], whole["protocol"]
    fixed = network + (20 if whole["ip_version"] == 4 else 40)
    after = fixed if whole["ip_version"] == 4 else max(fixed, transport)
    needed = dict.fromkeys(("ip_version", "ttl", "source_address", "destination_address", "network_offset"), fixed)
    needed |= dict.fromkeys(("ip_id", "protocol", "transport_offset"), after)
    # Raw IP says in its first byte which it is.
    needed |= dict.fromkeys(("vlan_id", "vlan_depth", "ethertype"), max(network, 1))
    if protocol in (6, 17, 132, 136):
        needed |= dict.fromkeys(("source_port", "destination_port"), transport + 4)
    else:
        needed |= dict.fromkeys(("icmp_type", "icmp_code"), transport + 2)
    if protocol == 6:
        needed |= {"tcp_sequence": transport + 8, "tcp_acknowledgment": transport + 12, "tcp_window": transport + 16}
        needed |= dict.fromkeys(("tcp_flags", "payload_offset", "payload_length"), transport + 14)
    if protocol == 17:
        needed |= {"payload_offset": transport, "payload_length": transport + 6}
    return needed


@pytest.mark.parametrize(("link_type", "frame"), [f[1:] for f in SOUND_FRAMES], ids=[f[0] for f in SOUND_FRAMES])
def test_cut_frames_decode_as_far_as_their_bytes_go(link_type, frame):
    whole = decoded_row(frame, link_type)
    needed = bytes_needed(whole)
    assert whole["transport_offset"] > 0
    for length in range(len(frame)):
        cut = decoded_row(frame[:length], link_type, wire_length=len(frame))
        known = [name for name, count in needed.items() if count <= length]
        assert {name: cut[name] for name in known} == {name: whole[name] for name in known}, length
        if len(known) < len(needed):
            assert cut["layers"] & Layer.CUT, length


# Memory.


def run_guarded(frames, *arguments):
    """Decode frames that end where memory ends, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "support.guarded_page", *arguments],
        input=json.dumps([(link_type, frame.hex()) for link_type, frame in frames]),
        capture_output=True,
        text=True,
        cwd=TESTS,
        check=False,
    )


@pytest.mark.thorough
def test_the_guard_page_catches_a_read_of_one_byte_too_many():
    assert run_guarded([], "--trespass").returncode == -signal.SIGSEGV


def test_no_byte_is_read_behind_sound_damaged_and_random_frames():
    chance = random.Random(20)
    sound = [(link_type, frame) for _, link_type, frame in SOUND_FRAMES] + TUNNEL_FRAMES
    frames = list(sound)
    for _ in range(300):
        link_type, frame = chance.choice(sound)
        damaged = bytearray(frame)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        frames.append((link_type, bytes(damaged)))
        frames.append((chance.choice(LINK_TYPES), chance.randbytes(chance.randrange(80))))
    done = run_guarded(frames)
    # Two wire lengths, with tunnels and without, at every captured length.
    decoded = sum(4 * (len(frame) + 1) for _, frame in frames)
    assert (done.returncode, done.stdout.strip()) == (0, str(decoded)), done.stderr


# The flow hash.


def test_each_bit_of_a_key_turns_half_of_the_hash():
    packet = ethernet(0x0800, ipv4(17, udp(b"", 40000, 14310), "192.0.2.77", "233.54.12.111"))
    frames = [packet]
    for bit in range(8 * 26, 8 * 38):
        turned = bytearray(packet)
        turned[bit // 8] ^= 1 << bit % 8
        frames.append(bytes(turned))
    hashes = [int(value) for value in batch_of(frames).headers.column("flow_hash")]
    changes = [(hashes[0] ^ value).bit_count() for value in hashes[1:]]
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
    if not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
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
    if isinstance(segment, dpkt.tcp.TCP | dpkt.udp.UDP | dpkt.sctp.SCTP):
        columns |= {"source_port": segment.sport, "destination_port": segment.dport}
    if isinstance(segment, dpkt.tcp.TCP):
        columns |= {"tcp_sequence": segment.seq, "tcp_acknowledgment": segment.ack, "tcp_window": segment.win}
        # Its `flags` leave out the three reserved bits.
        columns["tcp_flags"] = segment._off_flags & 0xFFF
    return columns


@pytest.mark.oracle
@needs_captures
def test_dpkt_sees_the_same_in_all_ethernet_captures():
    """The frames are read by dpkt too, so that nothing here hangs on the project's own readers."""
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
