"""Numbers that were made to break what follows them: a slow account agrees, and cutting changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile_numbers import (
    Drawn,
    Said,
    Seeded,
    Sent,
    Table,
    datagrams,
    hostile_fix,
    hostile_segments,
    hostile_soup,
    shipped_tables,
    udp_frame,
)
from support.lines import SlowPair, assert_pair_as_slow
from support.numbered_streams import Carried, carry, direction_of, fix_arrivals, soup_arrivals
from support.order_sessions import Segment, feed
from support.slow_feeds import SlowFeed
from support.slow_numbers import Arrival, SlowNumbers, assert_as_slow

from uspcap.analysis.arbitration.analysis import Arbitration
from uspcap.analysis.base import Analysis
from uspcap.analysis.sequence.analysis import Sequence as FeedSequence
from uspcap.analysis.sequence.streams import MessageSequence, SegmentSequence
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import FeedProtocol, find_protocol, protocol_of
from uspcap.protocols.line_pairs import parse_pairs

pytestmark = pytest.mark.thorough

OWN: dict[str, Table] = {
    f"own-{8 * size}{'-wraps' if wraps else ''}{'-counts' if counts else ''}": {
        "verified": True,
        "numbers": "messages" if counts else "packets",
        "endian": "big",
        "header": 16,
        "sequence": [0, size],
        "wraps": wraps,
        **({"count": [8, counts], "heartbeat": "last", "heartbeat_count": 0} if counts else {}),
    }
    for size in (1, 2, 4, 7, 8)
    for wraps in (False, True)
    for counts in (0, 8)
}
"""Numbers of every width, that begin again or do not, with counts that claim anything."""

TABLES = shipped_tables(unverified=True) | OWN


def protocol_named(name: str) -> FeedProtocol:
    return protocol_of(name, OWN[name], unverified=False) if name in OWN else find_protocol(name, unverified=True)


@st.composite
def cut_datagrams(draw: st.DrawFn, table: Table, most: int = 40) -> tuple[list[Sent], list[int], int]:
    """Datagrams of up to five flows, where to cut them, and how many are in a batch."""
    flows, sessions = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (5, 2)]))
    many = draw(st.one_of(st.integers(0, 3), st.integers(0, most)))
    sent = datagrams(Drawn(draw), table, many, flows=flows, sessions=sessions)
    cuts = draw(st.lists(st.integers(0, len(sent)), max_size=4))
    return sent, cuts, draw(st.sampled_from([1, 2, 7, 4096]))


def in_parts(
    make: Callable[[], Analysis],
    frames: Sequence[tuple[int, bytes]],
    cuts: Sequence[int],
    batch_frames: int = 4096,
    *,
    from_right: bool = False,
) -> Analysis:
    """Analyse timestamped frames in parts, merged from either end."""
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(frames)]):
        parts.append(make())
        for start in range(first, last, batch_frames):
            some = frames[start : min(start + batch_frames, last)]
            parts[-1].update(
                FrameBatch.from_frames(
                    [frame for _, frame in some], [at for at, _ in some], first_frame_number=start - first + 1
                )
            )
    while len(parts) > 1:
        at = len(parts) - 2 if from_right else 0
        parts[at].merge(parts.pop(at + 1))
    return parts[0]


def outcome(analysis: Analysis) -> tuple[Any, Any, int]:
    return analysis.result().as_dict(), analysis.tables(), analysis.frames_read


def numbers_in(result: Any, name: str = "") -> list[tuple[str, int]]:
    """Return every number of a result with its name, without percentiles, which are below 0 where line A was first."""
    if isinstance(result, dict):
        return [pair for key, one in result.items() if key != "percentiles_ns" for pair in numbers_in(one, key)]
    if isinstance(result, list):
        return [pair for item in result for pair in numbers_in(item, name)]
    return [(name, result)] if isinstance(result, int) else []


def assert_in_range(result: dict[str, Any], bits: int) -> None:
    """Check that no count is negative, and no number beyond its field."""
    for name, number in numbers_in(result):
        assert number >= 0, (name, number)
        if name in ("first", "last", "joined_at"):
            assert number < 1 << bits, (name, number)
    json.dumps(result)


@pytest.mark.parametrize("size", [1, 2, 4, 7, 8])
def test_what_follows_the_highest_number_is_no_number_of_its_field(size: int) -> None:
    name = f"own-{8 * size}-counts"
    repeated = Sent(0, 1_700_000_000_000_000_000, (Said((1 << 8 * size) - 1, 0, 0, None),))
    frames = [(repeated.at_ns, repeated.frame(OWN[name]))]
    for make in (FeedSequence, lambda protocol: Arbitration(protocol, PAIRS)):
        assert_in_range(in_parts(lambda: make(protocol_named(name)), frames, []).result().as_dict(), 8 * size)  # noqa: B023


@pytest.mark.parametrize("name", TABLES)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_every_stream_is_as_a_slow_account_has_it_whatever_the_cuts(name: str, data: st.DataObject) -> None:
    table, protocol = TABLES[name], protocol_named(name)
    sent, cuts, batch_frames = data.draw(cut_datagrams(table))
    frames = [(one.at_ns, one.frame(table)) for one in sent]
    analysis = in_parts(lambda: FeedSequence(protocol), frames, cuts, batch_frames, from_right=data.draw(st.booleans()))
    result = analysis.result().as_dict()
    assert_in_range(result, 8 * table["sequence"][1])
    slow = SlowFeed.of(table, sent)
    assert result["foreign"] == slow.foreign
    assert (result["complete"], result["not_followed"], result["of_untracked_flows"]) == (True, 0, 0)
    found = {(stream["flow"], stream["key"]): stream for stream in result["streams"] + result["refused"]}
    assert len(found) == len(slow.arrivals)
    lateness_ns = []
    for (flow, key), arrivals in slow.arrivals.items():
        stream = found[flow_text(flow), protocol.key_text(key)]
        account = SlowNumbers.of(arrivals, modulus=protocol.modulus)
        account.excluded = slow.excluded[flow, key]
        assert_as_slow(stream, account, bits=8 * table["sequence"][1])
        lateness_ns += account.lateness_ns if "evidence" not in stream else []
    if not result["coalesced"]:
        assert result["lateness"]["count"] == len(lateness_ns)
        assert result["lateness"]["max_ns"] == max(lateness_ns, default=None)


def flow_text(flow: int) -> str:
    frame = udp_frame(b"", flow)
    source, group = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
    return f"UDP {source}:30000 > {group}:{30001 + flow % 2}"


BOUNDS: tuple[dict[str, int], ...] = (
    {},
    *({"maximum_streams": many} for many in (1, 2, 3, 5, 7)),
    *({"runs_a_stream": many} for many in (1, 2, 3, 5, 7)),
    *({"maximum_runs": many} for many in (1, 2, 3, 7, 30)),
    {"maximum_runs": 30, "runs_a_stream": 3, "maximum_streams": 5},
)


@pytest.mark.parametrize("name", TABLES)
@settings(deadline=None, max_examples=8)
@given(data=st.data(), bounds=st.sampled_from(BOUNDS))
def test_cutting_changes_nothing_whatever_the_bounds(name: str, data: st.DataObject, bounds: dict[str, int]) -> None:
    table, protocol = TABLES[name], protocol_named(name)
    sent, cuts, batch_frames = data.draw(cut_datagrams(table, most=60))
    frames = [(one.at_ns, one.frame(table)) for one in sent]
    make = lambda: FeedSequence(protocol, **bounds)  # noqa: E731
    whole = outcome(in_parts(make, frames, []))
    assert outcome(in_parts(make, frames, cuts, batch_frames, from_right=data.draw(st.booleans()))) == whole
    assert_in_range(whole[0], 8 * table["sequence"][1])
    counted = sum(one.kind == "data" for arrivals in SlowFeed.of(table, sent).arrivals.values() for one in arrivals)
    refused = sum(stream["packets"] for stream in whole[0]["refused"])
    assert whole[0]["packets"] + refused + whole[0]["of_untracked_flows"] == counted
    assert len(whole[0]["streams"]) <= bounds.get("maximum_streams", 1 << 16)


@pytest.mark.parametrize("bounds", [{}, {"runs_a_stream": 100}, {"maximum_streams": 3}, {"maximum_runs": 2_000}])
@pytest.mark.parametrize("name", ["moldudp64", "rtp", "miax-mach", "own-8-wraps-counts", "own-64-wraps-counts"])
def test_long_hostile_streams_come_back_from_any_parts(name: str, bounds: dict[str, int]) -> None:
    table, protocol = TABLES[name], protocol_named(name)
    for seed in range(2):
        choices = Seeded(seed)
        sent = datagrams(choices, table, 4_000, flows=choices.pick([1, 2, 9]), sessions=choices.pick([1, 4]))
        frames = [(one.at_ns, one.frame(table)) for one in sent]
        make = lambda: FeedSequence(protocol, **bounds)  # noqa: E731
        whole = outcome(in_parts(make, frames, []))
        for _ in range(3):
            cuts = [choices.integer(0, len(frames)) for _ in range(choices.pick([1, 2, 5, 40]))]
            merged = in_parts(make, frames, cuts, choices.pick([13, 500]), from_right=choices.pick([False, True]))
            assert outcome(merged) == whole


PAIRS = parse_pairs(["A=233.252.0.1:30001,B=233.252.0.2:30002"])


@pytest.mark.parametrize("name", TABLES)
@settings(deadline=None, max_examples=8)
@given(data=st.data(), ring_length=st.sampled_from([2, 16, 64]))
def test_every_pair_is_as_a_slow_account_has_it_whatever_the_cuts(
    name: str, data: st.DataObject, ring_length: int
) -> None:
    table, protocol = TABLES[name], protocol_named(name)
    sent, cuts, batch_frames = data.draw(cut_datagrams(table))
    frames = [(one.at_ns, one.frame(table)) for one in sent]
    make = lambda: Arbitration(protocol, PAIRS, ring_length=ring_length)  # noqa: E731
    analysis = in_parts(make, frames, cuts, batch_frames, from_right=data.draw(st.booleans()))
    result = analysis.result().as_dict()
    assert_in_range(result, 8 * table["sequence"][1])
    slow = SlowFeed.of(table, sent)
    assert (result["foreign"], result["excluded"]) == (slow.foreign, sum(slow.excluded.values()))
    assert (result["complete"], result["not_followed"]) == (True, 0)
    assert outcome(in_parts(make, frames, [])) == outcome(analysis)
    pairs = {pair["key"]: pair for pair in result["pairs"]}
    assert len(pairs) == len(slow.lines)
    for key, packets in slow.lines.items():
        account = SlowPair.of(packets, ring_length, modulus=protocol.modulus)
        assert_pair_as_slow(pairs[protocol.key_text(key)], account, bits=8 * table["sequence"][1])


@pytest.mark.parametrize("bounds", [{}, {"runs_a_stream": 3}, {"maximum_pairs": 1}, {"maximum_runs": 4}], ids=str)
@pytest.mark.parametrize("name", ["moldudp64", "nyse-pillar", "rtp", "own-8-wraps-counts", "own-64-wraps-counts"])
def test_long_hostile_lines_come_back_from_any_parts(name: str, bounds: dict[str, int]) -> None:
    table, protocol = TABLES[name], protocol_named(name)
    for seed in range(2):
        choices = Seeded(seed)
        sent = datagrams(choices, table, 9_000, flows=2, sessions=choices.pick([1, 1, 3]))
        frames = [(one.at_ns, one.frame(table)) for one in sent]
        make = lambda: Arbitration(protocol, PAIRS, ring_length=16, **bounds)  # noqa: E731
        whole = outcome(in_parts(make, frames, []))
        for _ in range(3):
            cuts = [choices.integer(0, len(frames)) for _ in range(choices.pick([1, 2, 5, 40]))]
            merged = in_parts(make, frames, cuts, choices.pick([13, 500]), from_right=choices.pick([False, True]))
            assert outcome(merged) == whole


def merged_segments(
    make: Callable[[], Analysis], segments: list[Segment], cuts: list[int], batch_frames: int, *, from_right: bool
) -> Analysis:
    edges = [0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]
    parts = [feed(make(), segments[first:last], batch_frames) for first, last in pairwise(edges)]
    while len(parts) > 1:
        at = len(parts) - 2 if from_right else 0
        parts[at].merge(parts.pop(at + 1))
    return parts[0]


CUTS = st.lists(st.integers(0, 60), max_size=4)
BATCHES = st.sampled_from([1, 2, 64])


def tcp_arrivals(segments: list[Segment], connection: int, from_venue: bool) -> tuple[list[Arrival], int]:
    """Say what the segments of one direction say, and how many of them are RST."""
    arrivals: list[Arrival] = []
    resets = 0
    for frame, one in enumerate(segments, 1):
        if (one.connection, one.from_venue) != (connection, from_venue):
            continue
        first, timestamp = one.sequence, one.timestamp_ns
        syn, fin = bool(one.flags & 2), bool(one.flags & 1)
        if one.flags & 4:
            resets += 1
            continue
        if syn:
            first = (first + 1) % 2**32
            arrivals.append(Arrival("reset", first, first, frame, timestamp))
        if one.payload or fin:
            after = first + len(one.payload) + fin
            arrivals.append(Arrival("data", first, after, frame, timestamp, messages=len(one.payload)))
            if fin:
                arrivals.append(Arrival("end", after, after, frame, timestamp))
        elif not syn:
            arrivals.append(Arrival("next", first, first, frame, timestamp))
    return arrivals, resets


@settings(deadline=None, max_examples=100)
@given(data=st.data(), cuts=CUTS, batch_frames=BATCHES, from_right=st.booleans())
def test_bytes_of_hostile_tcp_are_as_a_slow_account_has_them(
    data: st.DataObject, cuts: list[int], batch_frames: int, from_right: bool
) -> None:
    segments = hostile_segments(data.draw(choices()), data.draw(st.integers(0, 40)))
    make = lambda: SegmentSequence(find_protocol("tcp"))  # noqa: E731
    analysis = merged_segments(make, segments, cuts, batch_frames, from_right=from_right)
    result = analysis.result().as_dict()
    assert_in_range(result, 32)
    assert outcome(analysis) == outcome(feed(make(), segments))
    ends = {(one.connection, one.from_venue) for one in segments}
    assert len(result["streams"]) == len(ends)
    streams = {stream["flow"]: stream for stream in result["streams"]}
    for connection, side in ends:
        arrivals, excluded = tcp_arrivals(segments, connection, side)
        slow = SlowNumbers.of(arrivals, modulus=1 << 32, far=1 << 30)
        slow.excluded = excluded
        assert_as_slow(streams[direction_of(side).replace(":40000", f":{40_000 + connection}")], slow)


@st.composite
def choices(draw: st.DrawFn) -> Drawn:
    return Drawn(draw)


@pytest.mark.parametrize("bounds", [{}, {"runs_a_stream": 3}, {"maximum_streams": 1}, {"maximum_runs": 4}])
@settings(deadline=None, max_examples=60)
@given(data=st.data(), cuts=CUTS, batch_frames=BATCHES, from_right=st.booleans())
def test_cutting_hostile_tcp_changes_nothing_whatever_the_bounds(
    bounds: dict[str, int], data: st.DataObject, cuts: list[int], batch_frames: int, from_right: bool
) -> None:
    segments = hostile_segments(data.draw(choices()), data.draw(st.integers(0, 40)))
    make = lambda: SegmentSequence(find_protocol("tcp"), **bounds)  # noqa: E731
    merged = merged_segments(make, segments, cuts, batch_frames, from_right=from_right)
    assert outcome(merged) == outcome(feed(make(), segments))


@st.composite
def carried(draw: st.DrawFn, messages: dict[bool, list[bytes]]) -> Carried:
    return carry(draw, messages)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), cuts=CUTS, batch_frames=BATCHES, from_right=st.booleans())
def test_numbers_of_hostile_fix_are_as_a_slow_account_has_them(
    data: st.DataObject, cuts: list[int], batch_frames: int, from_right: bool
) -> None:
    said = {side: hostile_fix(data.draw(choices()), data.draw(st.integers(1, 20))) for side in (False, True)}
    session = data.draw(carried(said))
    make = lambda: MessageSequence(find_protocol("fix"))  # noqa: E731
    analysis = merged_segments(make, session.segments, cuts, batch_frames, from_right=from_right)
    result = analysis.result().as_dict()
    assert_in_range(result, 60)
    assert outcome(analysis) == outcome(feed(make(), session.segments))
    streams = {(stream["flow"], stream["key"]): stream for stream in result["streams"]}
    for side, messages in session.messages.items():
        for key, arrivals in fix_arrivals(messages).items():
            assert_as_slow(streams.pop((direction_of(side), key)), SlowNumbers.of(arrivals), but=["excluded"])
    assert all(stream["packets"] == 0 and stream["joined_at"] is None for stream in streams.values())


@settings(deadline=None, max_examples=60)
@given(data=st.data(), cuts=CUTS, batch_frames=BATCHES, from_right=st.booleans())
def test_numbers_of_hostile_soupbintcp_are_as_a_slow_account_has_them(
    data: st.DataObject, cuts: list[int], batch_frames: int, from_right: bool
) -> None:
    said = {False: [], True: hostile_soup(data.draw(choices()), data.draw(st.integers(1, 30)))}
    session = data.draw(carried(said))
    make = lambda: MessageSequence(find_protocol("soupbintcp"))  # noqa: E731
    analysis = merged_segments(make, session.segments, cuts, batch_frames, from_right=from_right)
    result = analysis.result().as_dict()
    assert_in_range(result, 64)
    assert outcome(analysis) == outcome(feed(make(), session.segments))
    streams = {stream["key"]: stream for stream in result["streams"] if stream["flow"] == direction_of(True)}
    arrivals, _ = soup_arrivals(session.messages[True])
    for key, of_session in arrivals.items():
        assert_as_slow(streams[key], SlowNumbers.of(of_session), but=["excluded", "heartbeats"])


MESSAGE_BOUNDS: tuple[dict[str, int], ...] = (
    {"runs_a_stream": 2},
    {"maximum_streams": 1},
    {"maximum_streams": 3},
    {"maximum_runs": 4},
    {"maximum_connections": 1},
)


@pytest.mark.parametrize("protocol", ["fix", "soupbintcp"])
@pytest.mark.parametrize("bounds", MESSAGE_BOUNDS, ids=str)
@settings(deadline=None, max_examples=50)
@given(data=st.data(), cuts=CUTS, batch_frames=BATCHES, from_right=st.booleans())
def test_cutting_hostile_messages_changes_nothing_whatever_the_bounds(
    protocol: str, bounds: dict[str, int], data: st.DataObject, cuts: list[int], batch_frames: int, from_right: bool
) -> None:
    hostile = hostile_fix if protocol == "fix" else hostile_soup
    segments: list[Segment] = []
    for connection in range(2):
        said = {side: hostile(data.draw(choices()), data.draw(st.integers(1, 12))) for side in (False, True)}
        segments += [replace(one, connection=connection) for one in data.draw(carried(said)).segments]
    segments = data.draw(st.permutations(segments)) if data.draw(st.booleans()) else segments
    make = lambda: MessageSequence(find_protocol(protocol), **bounds)  # noqa: E731
    merged = merged_segments(make, segments, cuts, batch_frames, from_right=from_right)
    assert outcome(merged) == outcome(feed(make(), segments))
