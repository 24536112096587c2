"""The flow table: ids, bounds, moves, and keys as text."""

import ipaddress
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import START_NS, Frame, batch_of

from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.protocols.flows import FlowRows, FlowTable, through

ETHERNET = bytes.fromhex("020000000002 020000000001")

FLOWS = st.lists(st.integers(0, 60), max_size=80)


def assign(table, flows):
    """Give one batch of frames of these flows to a table; return the column."""
    batch = batch_of([Frame(START_NS, 60, flow) for flow in flows])
    table.assign(batch)
    return batch.headers.column("flow").tolist()


def names(table):
    return [str(flow) for flow in table.flows(np.arange(len(table)))]


def ports(table):
    """The number of each flow of the streams, by id."""
    return [flow.source_port - 1000 if flow.source_port else 0 for flow in table.flows(np.arange(len(table)))]


def hash_of():
    table = FlowTable()
    assign(table, range(61))
    return dict(zip(ports(table), table.hashes().tolist(), strict=True))


HASHES = hash_of()


def sample(flows, level):
    """The flows that a table at this level tracks, in order of first appearance."""
    return [flow for flow in dict.fromkeys(flows) if level == 0 or HASHES[flow] >> (64 - level) == 0]


def level_for(flows, maximum):
    level = 0
    while len(sample(flows, level)) > maximum:
        level += 1
    return level


@given(batches=st.lists(FLOWS, max_size=6))
def test_ids_are_dense_and_in_order_of_first_appearance(batches):
    table, seen = FlowTable(), {}
    for flows in batches:
        column = assign(table, flows)
        for flow in flows:
            seen.setdefault(flow, len(seen))
        assert column == [seen[flow] for flow in flows]
        assert ports(table) == list(seen)
    assert len(table) == len(seen) == table.estimated_flows
    assert (table.level, table.generation) == (0, 0)


@settings(max_examples=200)
@given(batches=st.lists(FLOWS, max_size=6), maximum=st.integers(1, 40))
def test_a_bound_raises_the_level_until_it_holds(batches, maximum):
    table, seen = FlowTable(maximum), []
    for flows in batches:
        column = assign(table, flows)
        seen += flows
        assert table.level == level_for(seen, maximum)
        tracked = sample(seen, table.level)
        assert sorted(ports(table)) == sorted(tracked)
        assert len(table) <= maximum
        assert table.estimated_flows == len(tracked) << table.level
        ids = {flow: at for at, flow in enumerate(ports(table))}
        assert column == [ids.get(flow, -1) for flow in flows]


@settings(max_examples=200)
@given(batches=st.lists(FLOWS, max_size=8), maximum=st.integers(1, 40))
def test_rows_follow_their_flows_through_every_change(batches, maximum):
    table = FlowTable(maximum)
    rows = FlowRows(table, np.dtype([("flow", np.int64), ("frames", np.int64)]))
    seen = []
    for flows in batches:
        before = ports(table)
        column = assign(table, flows)
        remap = rows.sync()
        after = ports(table)
        assert len(rows.rows) == len(table)
        if remap is not None:
            for old, new in zip(before, remap.tolist(), strict=False):
                assert (new == -1) == (old not in after)
                assert new == -1 or after[new] == old
        for flow, number in zip(flows, column, strict=True):
            if number >= 0:
                rows.rows[number]["flow"] = flow
                rows.rows[number]["frames"] += 1
        seen += flows
        # A tracked flow was tracked from its first frame on.
        assert rows.rows["flow"].tolist() == after
        assert rows.rows["frames"].tolist() == [seen.count(flow) for flow in after]
        assert rows.with_spare_rows[len(table) :]["frames"].sum() == 0


@settings(max_examples=200)
@given(first=FLOWS, second=FLOWS, maximum=st.integers(1, 40), later_maximum=st.integers(1, 40))
def test_absorbing_a_later_part_is_having_seen_it(first, second, maximum, later_maximum):
    table, later = FlowTable(maximum), FlowTable(later_maximum)
    assign(table, first)
    assign(later, second)
    theirs, level = ports(later), later.level
    ids = table.absorb(later)
    assert table.level >= max(level, level_for(first, maximum))
    assert sorted(ports(table)) == sorted(sample(first + second, table.level))
    assert len(table) <= maximum
    own = ports(table)
    assert [own[number] if number >= 0 else None for number in ids.tolist()] == [
        flow if flow in own else None for flow in theirs
    ]
    # Whoever asks again gets the same answer, moved on by what happened since.
    assert table.absorb(later).tolist() == ids.tolist()
    table.raise_level()
    own = ports(table)
    assert [own[number] if number >= 0 else None for number in table.absorb(later).tolist()] == [
        flow if flow in own else None for flow in theirs
    ]


@settings(max_examples=100)
@given(parts=st.lists(FLOWS, min_size=3, max_size=3), maximum=st.integers(1, 40))
def test_absorbing_is_associative(parts, maximum):
    def tables():
        made = [FlowTable(maximum) for _ in parts]
        for table, flows in zip(made, parts, strict=True):
            assign(table, flows)
        return made

    left, right = tables(), tables()
    left[0].absorb(left[1])
    left[0].forget_absorbed()
    left[0].absorb(left[2])
    right[1].absorb(right[2])
    right[0].absorb(right[1])
    assert (left[0].level, ports(left[0])) == (right[0].level, ports(right[0]))
    assert left[0].level == level_for([flow for flows in parts for flow in flows], maximum)


@given(moves=st.lists(st.lists(st.booleans(), max_size=30), max_size=5), count=st.integers(0, 30))
def test_following_ids_step_by_step_is_following_them_at_once(moves, count):
    ids = np.arange(count, dtype=np.int32)
    alive, expected = list(range(count)), list(range(count))
    for keep in moves:
        kept = [at < len(keep) and keep[at] for at in range(len(alive))]
        remap = np.full(len(alive), -1, np.int32)
        remap[kept] = np.arange(sum(kept))
        alive = [one for one, there in zip(alive, kept, strict=True) if there]
        ids = through(ids, remap) if count else ids
        expected = [alive.index(one) if one in alive else -1 for one in range(count)]
        if not alive:
            break
    assert ids.tolist() == expected
    assert ids.dtype == np.int32


def test_ids_asked_for_since_a_generation_pass_through_every_change():
    table = FlowTable()
    assign(table, range(61))
    before = ports(table)
    table.raise_level()
    between = ports(table)
    table.raise_level()
    assert table.generation == 2
    own = ports(table)
    for generation, old in ((0, before), (1, between), (2, own)):
        moved = table.remap_since(generation, len(old)).tolist()
        assert [own[number] if number >= 0 else None for number in moved] == [
            flow if flow in own else None for flow in old
        ]


def test_a_table_holds_at_least_one_flow():
    with pytest.raises(ValueError, match="at least one"):
        FlowTable(0)


def test_two_tables_fill_the_column_each_for_itself():
    first, second = FlowTable(), FlowTable()
    batch = batch_of([Frame(START_NS, 60, flow) for flow in (3, 4, 3)])
    assign(second, [4])
    first.assign(batch)
    assert batch.headers.column("flow").tolist() == [0, 1, 0]
    second.assign(batch)
    assert batch.headers.column("flow").tolist() == [1, 0, 1]
    first.assign(batch)
    assert batch.headers.column("flow").tolist() == [0, 1, 0]


def udp(source_port, destination_port):
    return struct.pack("!HHHH", source_port, destination_port, 8, 0)


def ipv4(source, destination, protocol, transport, fragment=0):
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 1, fragment, 64, protocol, 0)
    return ETHERNET + b"\x08\x00" + header + addresses + transport


def ipv6(source, destination, protocol, transport):
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return ETHERNET + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64) + addresses + transport


def one_flow(frame, source=TimestampSource.FILE, interface=None):
    table = FlowTable()
    table.assign(
        FrameBatch.from_frames(
            [frame], [START_NS], timestamp_source=source, interfaces=(interface or Interface(link_type=1),)
        )
    )
    (flow,) = table.flows(np.arange(len(table)))
    return flow


V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str)
PORTS = st.integers(0, 65_535)


@given(source=V4, destination=V4, source_port=PORTS, destination_port=PORTS)
def test_ipv4_keys_give_their_text_back(source, destination, source_port, destination_port):
    flow = one_flow(ipv4(source, destination, 17, udp(source_port, destination_port)))
    assert (flow.source, flow.destination) == (source, destination)
    assert (flow.source_port, flow.destination_port, flow.protocol, flow.ip_version) == (
        source_port,
        destination_port,
        "UDP",
        4,
    )
    if source_port or destination_port:
        assert str(flow) == f"UDP {source}:{source_port} > {destination}:{destination_port}"
    else:
        assert str(flow) == f"UDP {source} > {destination}"


@given(source=V6, destination=V6, source_port=PORTS, destination_port=st.integers(1, 65_535))
def test_ipv6_keys_give_their_text_back(source, destination, source_port, destination_port):
    transport = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1, 0x50, 0x10, 100, 0, 0)
    flow = one_flow(ipv6(source, destination, 6, transport))
    assert (ipaddress.ip_address(flow.source), ipaddress.ip_address(flow.destination)) == (
        ipaddress.ip_address(source),
        ipaddress.ip_address(destination),
    )
    assert str(flow) == f"TCP [{flow.source}]:{source_port} > [{flow.destination}]:{destination_port}"


@given(source=st.binary(min_size=6, max_size=6), destination=st.binary(min_size=6, max_size=6))
def test_frames_without_ip_are_named_by_their_mac_addresses(source, destination):
    flow = one_flow(destination + source + b"\x08\x06" + bytes(46))
    assert str(flow) == f"ARP {source.hex(':')} > {destination.hex(':')}"
    assert (flow.ip_version, flow.source_port) == (0, 0)
    flow = one_flow(destination + source + b"\x12\x34" + bytes(46))
    assert str(flow) == f"0x1234 {source.hex(':')} > {destination.hex(':')}"


def test_protocols_without_ports_fragments_and_unknown_protocols():
    assert str(one_flow(ipv4("10.0.0.1", "10.0.0.2", 1, bytes(8)))) == "ICMP 10.0.0.1 > 10.0.0.2"
    assert str(one_flow(ipv4("10.0.0.1", "10.0.0.2", 253, bytes(8)))) == "ip-253 10.0.0.1 > 10.0.0.2"
    later = one_flow(ipv4("10.0.0.1", "10.0.0.2", 17, udp(5, 6), fragment=100))
    assert str(later) == "UDP 10.0.0.1 > 10.0.0.2"


def test_what_distinguishes_flows():
    base = ipv4("10.0.0.1", "10.0.0.2", 17, udp(5, 6))
    others = [
        ipv4("10.0.0.3", "10.0.0.2", 17, udp(5, 6)),
        ipv4("10.0.0.1", "10.0.0.3", 17, udp(5, 6)),
        ipv4("10.0.0.1", "10.0.0.2", 136, udp(5, 6)),
        ipv4("10.0.0.1", "10.0.0.2", 17, udp(6, 6)),
        ipv4("10.0.0.1", "10.0.0.2", 17, udp(5, 5)),
        ipv4("10.0.0.2", "10.0.0.1", 17, udp(6, 5)),
        ipv6("::ffff:10.0.0.1", "::ffff:10.0.0.2", 17, udp(5, 6)),
    ]
    table = FlowTable()
    table.assign(FrameBatch.from_frames([base, *others, base], [START_NS] * (len(others) + 2)))
    assert len(table) == len(others) + 1
    tagged = base[:12] + b"\x81\x00\x00\x05" + base[12:]
    table.assign(FrameBatch.from_frames([tagged], [START_NS]))
    assert len(table) == len(others) + 1
    table.assign(FrameBatch.from_frames([base], [START_NS], timestamp_source=TimestampSource.HARDWARE))
    assert len(table) == len(others) + 2
    assert table.flows(np.array([len(others) + 1]))[0].timestamp_source == TimestampSource.HARDWARE


def test_many_flows_in_one_table():
    frames = [ipv4("10.0.0.1", "10.0.0.2", 17, udp(port, host)) for port in range(1, 301) for host in range(1, 101)]
    table = FlowTable()
    for start in range(0, len(frames), 4096):
        table.assign(
            FrameBatch.from_frames(frames[start : start + 4096], [START_NS] * len(frames[start : start + 4096]))
        )
    assert len(table) == 30_000
    flows = table.flows(np.arange(30_000))
    assert [(flow.source_port, flow.destination_port) for flow in flows] == [
        (port, host) for port in range(1, 301) for host in range(1, 101)
    ]
    bounded = FlowTable(1_000)
    for start in range(0, len(frames), 4096):
        bounded.assign(
            FrameBatch.from_frames(frames[start : start + 4096], [START_NS] * len(frames[start : start + 4096]))
        )
    # Hashes are spread evenly enough for the estimate: five standard deviations of a binomial sample.
    expected = 30_000 / 2**bounded.level
    assert 250 < len(bounded) <= 1_000
    assert abs(len(bounded) - expected) < 5 * expected**0.5
