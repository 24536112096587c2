"""Numbers of flows against a dictionary, under a level and in parts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import Frame, batch_of

from uspcap.frames import UNTRUSTED, FrameBatch, TimestampSource
from uspcap.protocols.flow_index import KEY_DTYPE, FlowIndex

SOURCES = st.sampled_from([TimestampSource.FILE, TimestampSource.KERNEL, TimestampSource.NONE])
TALK = st.lists(st.tuples(st.integers(0, 8), SOURCES), max_size=60)


def frames_of(talk: list[tuple[int, int]]) -> FrameBatch:
    return batch_of([Frame(at, 60, flow, source) for at, (flow, source) in enumerate(talk)])


def assigned(index: FlowIndex, talk: list[tuple[int, int]]) -> list[int]:
    batch = frames_of(talk)
    index.assign(batch, batch.headers)
    return batch.headers.column("flow").tolist()


def many(count: int) -> list[tuple[int, int]]:
    return [(1 + number, TimestampSource.FILE) for number in range(count)]


@given(talk=TALK, rows=st.sampled_from([1, 7, 60]))
def test_ids_rise_in_order_of_first_appearance_by_flow_and_timestamp_source(
    talk: list[tuple[int, int]], rows: int
) -> None:
    index, known = FlowIndex(), {}
    for start in range(0, len(talk), rows):
        part = talk[start : start + rows]
        expected = [known.setdefault(one, len(known)) for one in part]
        assert assigned(index, part) == expected
    keys = index.key_array()
    assert (index.count, len(index.hash_array()), keys.dtype) == (len(known), len(known), KEY_DTYPE)
    for (flow, source), number in known.items():
        key = keys[number]
        assert int(key["timestamp_source"]) == source
        if flow == 0:
            assert (int(key["ip_version"]), int(key["ethertype"])) == (0, 0x0806)
        else:
            assert (int(key["source_port"]), int(key["destination_port"])) == (1000 + flow, 9)
            assert (int(key["ip_version"]), int(key["protocol"]), int(key["ethertype"])) == (4, 17, 0)


def test_an_untrusted_timestamp_is_of_its_source_still() -> None:
    batch = frames_of([(1, TimestampSource.FILE), (1, TimestampSource.FILE | UNTRUSTED)])
    index = FlowIndex()
    index.assign(batch, batch.headers)
    assert batch.headers.column("flow").tolist() == [0, 0]


@given(level=st.integers(0, 6), before=st.integers(0, 64))
def test_a_level_keeps_the_flows_whose_hash_begins_with_so_many_zero_bits(level: int, before: int) -> None:
    talk = many(64)
    index = FlowIndex()
    batch = frames_of(talk[:before])
    index.assign(batch, batch.headers)
    hashes = index.hash_array().tolist()
    remap = index.raise_level(level)
    tracked = [at for at, value in enumerate(hashes) if value >> (64 - level) == 0]
    assert (index.level, index.count) == (level, len(tracked))
    assert remap.tolist() == [tracked.index(at) if at in tracked else -1 for at in range(before)]
    assert index.hash_array().tolist() == [hashes[at] for at in tracked]
    index.remap_column(batch.headers, remap)
    assert batch.headers.column("flow").tolist() == remap.tolist()
    # What is left out stays out, and what is tracked has its number still.
    assert assigned(index, talk)[:before] == remap.tolist()


@given(talk=TALK, cut=st.integers(0, 60), level=st.integers(0, 3), pickled=st.booleans())
def test_parts_have_the_flows_of_the_whole_in_its_order(
    talk: list[tuple[int, int]], cut: int, level: int, pickled: bool
) -> None:
    whole, first, second = FlowIndex(), FlowIndex(), FlowIndex()
    for index, part in ((whole, talk), (first, talk[:cut]), (second, talk[cut:])):
        index.raise_level(level)
        assigned(index, part)
    if pickled:
        first, second = pickle.loads(pickle.dumps((first, second)))
    keys = second.key_array()
    ids = first.absorb(second)
    assert first.key_array().tobytes() == whole.key_array().tobytes()
    assert first.hash_array().tolist() == whole.hash_array().tolist()
    assert first.key_array()[ids].tobytes() == keys.tobytes()
    assert second.key_array().tobytes() == keys.tobytes()
    assert assigned(first, talk) == assigned(whole, talk)


def test_flows_that_a_level_leaves_out_are_absorbed_nowhere() -> None:
    first, second = FlowIndex(), FlowIndex()
    assigned(second, many(64))
    first.raise_level(3)
    ids = first.absorb(second)
    assert ids.dtype == np.int32
    expected = [hash_ >> 61 == 0 for hash_ in second.hash_array().tolist()]
    assert (ids >= 0).tolist() == expected
    assert first.count == sum(expected)
    assert FlowIndex().absorb(FlowIndex()).tolist() == []


def test_more_flows_than_there_was_room_for_are_all_found_again() -> None:
    index = FlowIndex()
    talk = many(3000)
    assert assigned(index, talk) == list(range(3000))
    assert assigned(index, talk[::-1]) == list(range(3000))[::-1]
    index.raise_level(64)
    assert (index.count, assigned(index, talk[:3])) == (0, [-1] * 3)


def test_headers_of_another_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="not those of this batch"):
        FlowIndex().assign(frames_of(many(2)), frames_of(many(1)).headers)
