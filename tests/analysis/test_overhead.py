"""Overhead against plain loops over headers, and against tshark's payload lengths in real captures."""

import shutil
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shared_captures import CAPTURES, WELL_FORMED, fields_of, needs_captures
from support.streams import START_NS, Frame, feed, seeded_stream, streams

from uspcap.analysis.overhead.analysis import FIELDS, Overhead
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch

LAYERS = FIELDS[2:]


def layers_of(wire, length):
    """Bytes of each layer of one of the streams' frames: Ethernet with IPv4 and UDP, or with neither."""
    if wire[12:14] != b"\x08\x00":
        return {"link_bytes": 14, "payload_bytes": length - 14}
    total = int.from_bytes(wire[16:18], "big")
    return {
        "link_bytes": 14,
        "network_bytes": 20,
        "transport_bytes": 8,
        "payload_bytes": total - 28,
        "trailer_bytes": length - 14 - total,
    }


def check_sums(result):
    """Whatever was decoded: layers add up to the row, rows to the total."""
    for row in [result["total"], *result["protocols"], *result["sizes"]]:
        assert sum(row[field] for field in LAYERS) == row["bytes_on_wire"]
        decoded = row["bytes_on_wire"] - row["undecoded_bytes"] + row["framing_bytes"]
        assert row["framing_bytes"] == (24 * row["packets"] if result["framing_included"] else 0)
        assert row["payload_share"] == (round(row["payload_bytes"] / decoded, 6) if decoded else None)
    for field in (*FIELDS, "framing_bytes"):
        for rows in (result["protocols"], result["sizes"]):
            assert sum(row[field] for row in rows) == result["total"][field]


def check(analysis, frames):
    result = analysis.result().as_dict()
    check_sums(result)
    expected = defaultdict(lambda: dict.fromkeys(FIELDS, 0))
    for frame in frames:
        row = expected["IPv4/UDP" if frame.flow else "ARP"]
        row["packets"] += 1
        row["bytes_on_wire"] += frame.length
        for field, size in layers_of(frame.wire(), frame.length).items():
            row[field] += size
    assert {row["protocol"]: {field: row[field] for field in FIELDS} for row in result["protocols"]} == expected


@settings(max_examples=150)
@given(frames=streams(), framing=st.booleans())
def test_short_streams_equal_the_plain_loops(frames, framing):
    check(feed(Overhead(framing=framing), frames, 7), frames)


def test_long_streams_equal_the_plain_loops():
    frames = seeded_stream(60, 30_000)
    check(feed(Overhead(), frames, 4096), frames)


@given(
    payloads=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30), st.integers(0, 200)), min_size=1, max_size=20)
)
def test_trailers_and_cut_frames(payloads):
    wires, lengths, expected = [], [], dict.fromkeys(FIELDS, 0)
    for payload, trailer, cut in payloads:
        whole = Frame(START_NS, 42 + payload, 1).wire() + bytes(trailer)
        wires.append(whole[: max(len(whole) - cut, 42)])
        lengths.append(len(whole))
        expected["packets"] += 1
        expected["bytes_on_wire"] += len(whole)
        for field, size in layers_of(whole, len(whole)).items():
            expected[field] += size
    analysis = Overhead()
    analysis.update(FrameBatch.from_frames(wires, [START_NS] * len(wires), wire_lengths=lengths))
    result = analysis.result().as_dict()
    check_sums(result)
    assert {field: result["total"][field] for field in FIELDS} == expected


@given(frames=st.lists(st.binary(min_size=0, max_size=120), min_size=1, max_size=20))
def test_whatever_bytes_come_the_layers_add_up(frames):
    analysis = Overhead(framing=True)
    analysis.update(FrameBatch.from_frames(frames, [START_NS] * len(frames)))
    check_sums(analysis.result().as_dict())
    assert analysis.result().as_dict()["total"]["bytes_on_wire"] == sum(map(len, frames))


def test_the_tables_hold_the_rows_of_the_result():
    analysis = feed(Overhead(), seeded_stream(61, 1000), 4096)
    tables, result = analysis.tables(), analysis.result().as_dict()
    for name in ("protocols", "sizes"):
        rows = [dict(zip(tables[name], row, strict=True)) for row in zip(*tables[name].values(), strict=True)]
        assert rows == result[name]


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("name", WELL_FORMED)
def test_payloads_of_real_captures_are_those_of_tshark(name):
    analysis = Overhead()
    with open_capture(str(CAPTURES / name)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    result = analysis.result().as_dict()
    check_sums(result)
    rows = fields_of(
        CAPTURES / name, "frame.len", "ip.proto", "udp.length", "tcp.len", "ip.hdr_len", "tcp.hdr_len", "ip.len"
    )
    expected = {kind: dict.fromkeys(FIELDS, 0) for kind in ("UDP", "TCP")}
    for length, protocol, udp_length, tcp_length, ip_header, tcp_header, ip_length in rows:
        if protocol == "17" and udp_length:
            row, transport, payload = expected["UDP"], 8, int(udp_length) - 8
        elif protocol == "6" and tcp_length:
            row, transport, payload = expected["TCP"], int(tcp_header), int(tcp_length)
        else:
            continue
        row["packets"] += 1
        row["bytes_on_wire"] += int(length)
        row["link_bytes"] += 14
        row["network_bytes"] += int(ip_header)
        row["transport_bytes"] += transport
        row["payload_bytes"] += payload
        row["trailer_bytes"] += int(length) - 14 - int(ip_length)
    found = {row["protocol"]: {field: row[field] for field in FIELDS} for row in result["protocols"]}
    for kind, row in expected.items():
        assert found.get(f"IPv4/{kind}", dict.fromkeys(FIELDS, 0)) == row
