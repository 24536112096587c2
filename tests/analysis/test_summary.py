"""The summary against plain loops, and against what Wireshark's tools say of real captures."""

import shutil
from collections import Counter
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shared_captures import CAPTURES, WELL_FORMED, fields_of, manifest, needs_captures
from support.streams import START_NS, feed, seeded_stream, streams

from uspcap.analysis.summary.analysis import SIZE_NAMES, Summary, protocol_class_name
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch, Interface, TimestampSource


def size_class(length):
    for name in SIZE_NAMES:
        if name[0] == "<":
            inside = length < int(name[1:])
        elif name[0] == ">":
            inside = length > int(name[1:])
        else:
            low, _, high = name.partition("-")
            inside = int(low) <= length <= int(high or low)
        if inside:
            return name
    raise AssertionError(length)


def by_class(lengths_and_classes):
    """Frames and bytes of each class."""
    frames, size = Counter(), Counter()
    for length, name in lengths_and_classes:
        frames[name] += 1
        size[name] += length
    return {name: (frames[name], size[name]) for name in frames}


def table(rows, first):
    return {row[first]: (row["packets"], row["bytes_on_wire"]) for row in rows if row["packets"]}


def check(summary, frames):
    result = summary.result().as_dict()
    lengths = [frame.length for frame in frames]
    timestamped = [frame for frame in frames if frame.source != TimestampSource.NONE]
    timestamps = [frame.timestamp_ns for frame in timestamped]
    timestamped_bytes = sum(frame.length for frame in timestamped)
    facts = summary.facts
    assert (facts["timestamped_packets"], facts["timestamped_bytes_on_wire"]) == (len(timestamps), timestamped_bytes)
    forward_ns = sum(max(later - earlier, 0) for earlier, later in pairwise(timestamps))
    assert facts["forward_ns"] == (min(forward_ns, 2**63 - 1) if timestamps else None)
    duration = max(timestamps) - min(timestamps) if timestamps else None
    expected = {
        "packets": len(frames),
        "bytes_on_wire": sum(lengths),
        "bytes_captured": sum(lengths),
        "cut_packets": 0,
        "first_timestamp_ns": timestamps[0] if timestamps else None,
        "last_timestamp_ns": timestamps[-1] if timestamps else None,
        "earliest_timestamp_ns": min(timestamps, default=None),
        "latest_timestamp_ns": max(timestamps, default=None),
        "duration_ns": duration,
        "packets_per_second": round(len(timestamps) * 10**9 / duration, 3) if duration else None,
        "bits_per_second": round(timestamped_bytes * 8 * 10**9 / duration, 3) if duration else None,
        "shortest_packet_bytes": min(lengths, default=None),
        "longest_packet_bytes": max(lengths, default=None),
        "mean_packet_bytes": round(sum(lengths) / len(lengths), 3) if lengths else None,
    }
    assert {name: result[name] for name in expected} == expected
    assert [row["bytes"] for row in result["sizes"]] == list(SIZE_NAMES)
    assert table(result["sizes"], "bytes") == by_class((length, size_class(length)) for length in lengths)
    assert table(result["protocols"], "protocol") == by_class(
        (frame.length, "IPv4/UDP" if frame.flow else "ARP") for frame in frames
    )
    assert [row["bytes_on_wire"] for row in result["protocols"]] == sorted(
        (row["bytes_on_wire"] for row in result["protocols"]), reverse=True
    )
    assert summary.facts["timestamp_sources"] == {
        TimestampSource(source).name: count for source, count in Counter(frame.source for frame in frames).items()
    }


@settings(max_examples=200)
@given(frames=streams())
def test_short_streams_equal_the_plain_loops(frames):
    check(feed(Summary(), frames, 7), frames)


@pytest.mark.parametrize("sources", [(TimestampSource.FILE,), (TimestampSource.XDP, TimestampSource.NONE)])
def test_long_streams_equal_the_plain_loops(sources):
    frames = seeded_stream(50, 30_000, sources=sources)
    check(feed(Summary(), frames, 4096), frames)


@given(lengths=st.lists(st.one_of(st.integers(1, 10_000), st.sampled_from([63, 64, 65, 1518, 1519])), min_size=1))
def test_every_wire_length_has_its_class_and_cut_frames_are_counted(lengths):
    frames = [bytes(min(length, 96)) for length in lengths]
    summary = Summary()
    summary.update(FrameBatch.from_frames(frames, [START_NS] * len(frames), wire_lengths=lengths))
    result = summary.result().as_dict()
    assert table(result["sizes"], "bytes") == by_class((length, size_class(length)) for length in lengths)
    assert result["bytes_captured"] == sum(map(len, frames))
    assert result["cut_packets"] == sum(length > 96 for length in lengths)
    assert result["interfaces"][0]["cut"] == result["cut_packets"]


ETH0, ETH1 = Interface(link_type=1, name="eth0"), Interface(link_type=1, name="eth1")


def of_interfaces(interfaces, counts):
    """A summary of `counts[i]` frames of interface i."""
    frames = sum(counts)
    batch = FrameBatch.from_frames([bytes(60)] * frames, [START_NS] * frames, interfaces=interfaces)
    batch.storage("interface")[:frames] = np.repeat(np.arange(len(counts)), counts)
    summary = Summary()
    summary.update(batch)
    return summary


@pytest.mark.parametrize("together_first", [False, True])
def test_interfaces_of_parts_are_matched_one_by_one(together_first):
    parts = [
        of_interfaces([ETH0], [1]),
        of_interfaces([ETH1, ETH1], [2, 3]),
        of_interfaces([ETH1, ETH1, ETH0], [4, 5, 6]),
        of_interfaces([ETH0, ETH1], [7, 8]),
    ]
    if together_first:
        parts[2].merge(parts[3])
        parts[1].merge(parts[2])
        parts[0].merge(parts[1])
    else:
        for part in parts[1:]:
            parts[0].merge(part)
    found = [(row["name"], row["packets"]) for row in parts[0].result().as_dict()["interfaces"]]
    assert found == [("eth0", 1 + 6 + 7), ("eth1", 2 + 4 + 8), ("eth1", 3 + 5)]


@pytest.mark.parametrize(
    ("multiple_ns", "ticks", "said"),
    [
        (1_000_000, 10**9, "all timestamps are multiples of 1 ms, though the files can hold 1 ns"),
        (10**9, 10**6, "all timestamps are multiples of 1 s, though the files can hold 1 µs"),
        (1_000, 10**6, None),
        (1, 10**9, None),
    ],
)
def test_timestamps_coarser_than_the_file_are_named_whatever_the_cuts(multiple_ns, ticks, said):
    times = [START_NS // 10**9 * 10**9 + at * at * multiple_ns for at in range(200)]
    whole, first, later = Summary(), Summary(), Summary()
    interfaces = (Interface(link_type=1, ticks_per_second=ticks),)
    for summary, part in ((whole, times), (first, times[:77]), (later, times[77:])):
        summary.update(FrameBatch.from_frames([bytes(60)] * len(part), part, interfaces=interfaces))
    first.merge(later)
    for summary in (whole, first):
        assert [note[: len(said or "")] for note in summary.notes] == ([said] if said else [])
    few = Summary()
    few.update(FrameBatch.from_frames([bytes(60)] * 50, times[:50], interfaces=interfaces))
    assert few.notes == []


def test_link_types_that_are_not_decoded_are_named_with_their_frames():
    interfaces = (Interface(link_type=1), Interface(link_type=127), Interface(link_type=147))
    summary = Summary()
    batch = FrameBatch.from_frames([bytes(60)] * 3, [1, 2, 3], interfaces=interfaces)
    batch.storage("interface")[:3] = [0, 1, 1]
    summary.update(batch)
    assert summary.notes == [
        "link type IEEE802_11_RADIOTAP is not decoded: its 2 frames count in totals, sizes and times, but in no stream "
        "or connection"
    ]


def test_protocol_classes_have_names():
    assert [protocol_class_name(kind) for kind in (6, 253, 256 + 58, 512 + 0x0806, 512 + 0x1234, 512)] == [
        "IPv4/TCP", "IPv4/253", "IPv6/ICMPV6", "ARP", "0x1234", "other",
    ]  # fmt: skip


def summary_of(name):
    summary = Summary()
    with open_capture(str(CAPTURES / name)) as reader:
        for batch in reader.batches():
            summary.update(batch)
    return summary


def nanoseconds(text):
    return int(Decimal(text) * 10**9)


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize("name", WELL_FORMED)
def test_real_captures_have_the_figures_of_capinfos(name):
    (facts,) = (one for one in manifest() if one["file"] == name)
    result = summary_of(name).result().as_dict()
    for ours, theirs in (
        ("packets", "packets"),
        ("bytes_on_wire", "bytes_on_wire"),
        ("bytes_captured", "bytes_captured"),
        ("cut_packets", "packets_cut"),
    ):
        assert result[ours] == facts[theirs]
    for ours, theirs in (
        ("first_timestamp_ns", facts["first_ts"]),
        ("last_timestamp_ns", facts["last_ts"]),
        ("earliest_timestamp_ns", facts["capinfos"]["earliest"]),
        ("latest_timestamp_ns", facts["capinfos"]["latest"]),
    ):
        assert result[ours] == nanoseconds(theirs)


@pytest.mark.oracle
@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("name", WELL_FORMED)
def test_real_captures_have_the_protocols_and_sizes_that_tshark_sees(name):
    rows = fields_of(CAPTURES / name, "frame.len", "ip.proto", "ipv6.nxt", "eth.type")
    result = summary_of(name).result().as_dict()
    sizes = [int(row[0]) for row in rows]
    assert table(result["sizes"], "bytes") == by_class((length, size_class(length)) for length in sizes)
    protocols = {"IPv4/UDP": 0, "IPv4/TCP": 0, "IPv4/ICMP": 0, "IPv6/UDP": 0, "IPv6/TCP": 0, "ARP": 0}
    names = {"6": "TCP", "17": "UDP", "1": "ICMP"}
    for _, version4, version6, ethertype in rows:
        for kind in (
            f"IPv4/{names.get(version4)}" if version4 else f"IPv6/{names.get(version6)}" if version6 else None,
            "ARP" if int(ethertype or "0", 16) == 0x0806 else None,
        ):
            if kind in protocols:
                protocols[kind] += 1
    found = table(result["protocols"], "protocol")
    assert {kind: found.get(kind, (0, 0))[0] for kind in protocols} == protocols


@pytest.mark.parametrize(
    ("ticks", "said"),
    [((10**9, 10**3), "no finer than 1 ms"), ((10**6, 10**9), "no finer than 1 µs"), ((10**9, 10**9), None)],
)
def test_interfaces_whose_timestamps_have_different_resolutions_are_named(ticks, said):
    interfaces = tuple(Interface(link_type=1, name=f"if{at}", ticks_per_second=one) for at, one in enumerate(ticks))
    batch = FrameBatch.from_frames([bytes(60)] * 2, [START_NS, START_NS + 1], interfaces=interfaces)
    batch.storage("interface")[:2] = (0, 1)
    summary = Summary()
    summary.update(batch)
    found = [note for note in summary.notes if "have a resolution of" in note]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
