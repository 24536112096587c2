"""Numbered streams of flows: what names them, what a bound follows, and parts that are the whole."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_runs import Numbered, batch_of, new_streams, numbered_packets, plain_rule, streams_as_slow

from uspcap.analysis.sequence.feed_runs import track_runs
from uspcap.analysis.sequence.numbered_streams import STREAM_NAME_DTYPE, NumberedStreams


def update(streams: NumberedStreams, packets: list[Numbered], frame_shift: int = 0) -> NumberedStreams:
    batch = batch_of(packets)
    track_runs(batch, batch.headers, frame_shift, plain_rule(), streams)
    return streams


def session(number: int) -> bytes:
    return b"%04d" % number


def followed(streams: NumberedStreams) -> set[bytes]:
    return {name["key"].tobytes()[:4] for name in streams.arrays()[0]}


def without_times(streams: NumberedStreams) -> object:
    """Return streams as the slow account has them; times of parts begin again, those of the whole do not."""
    found = streams_as_slow(streams)
    for stream in found.values():
        for run, _ in stream["runs"]:
            for name in ("first_ns", "last_ns", "seen_ns"):
                del run[name]
    return found, streams.packets, streams.foreign, streams.level


@given(packets=numbered_packets(), cuts=st.lists(st.integers(0, 40), max_size=3), pickled=st.booleans())
def test_parts_merged_at_any_cuts_are_the_whole(packets: list[Numbered], cuts: list[int], pickled: bool) -> None:
    whole = update(new_streams(), packets)
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    merged = new_streams()
    for first, last in pairwise(edges):
        part = update(merged.empty(), packets[first:last])
        if pickled:
            merged, part = pickle.loads(pickle.dumps((merged, part)))
        before = without_times(part)
        merged.absorb(part, first)
        assert without_times(part) == before
    assert without_times(merged) == without_times(whole)


@given(numbers=st.permutations(range(30)), bound=st.sampled_from([1, 2, 7, 29, 30]), rows=st.sampled_from([1, 4, 30]))
def test_which_streams_are_followed_depends_on_which_there_were_only(numbers: list[int], bound: int, rows: int) -> None:
    in_order = update(new_streams(most=bound), [Numbered(1, session=session(number)) for number in range(30)])
    streams = new_streams(most=bound)
    for start in range(0, len(numbers), rows):
        update(streams, [Numbered(1, session=session(number)) for number in numbers[start : start + rows]])
    assert (streams.level, followed(streams)) == (in_order.level, followed(in_order))
    assert len(followed(streams)) <= bound
    assert (streams.level == 0) == (bound == 30)
    assert streams.packets == 30


@given(cut=st.integers(0, 30), bound=st.sampled_from([1, 7, 29]))
def test_a_bound_follows_the_same_sample_wherever_the_capture_is_cut(cut: int, bound: int) -> None:
    packets = [Numbered(1 + at // 30, session=session(at % 30)) for at in range(60)]
    whole = update(new_streams(most=bound), packets)
    merged = update(new_streams(most=bound), packets[:cut])
    merged.absorb(update(merged.empty(), packets[cut:]), cut)
    assert without_times(merged) == without_times(whole)


def test_a_bound_on_all_runs_follows_fewer_streams_and_one_always() -> None:
    packets = [Numbered(10 * at + 1, session=session(number)) for number in range(16) for at in range(20)]
    wide = update(new_streams(runs=1 << 12), packets)
    assert (wide.level, len(followed(wide))) == (0, 16)
    narrow = update(new_streams(runs=40), packets)
    assert narrow.level > 0
    assert len(followed(narrow)) < 16
    assert followed(narrow) < followed(wide)
    alone = update(new_streams(runs=1, a_stream=1), [Numbered(10 * at + 1) for at in range(50)])
    assert (alone.level, followed(alone)) == (0, {b"SESS"})


def test_flow_and_key_name_a_stream() -> None:
    packets = [Numbered(1, session=name, line=line) for name in (b"A\0\0\0", b"\0A\0\0") for line in (0, 1)]
    names = update(new_streams(), packets).arrays()[0]
    assert names.dtype == STREAM_NAME_DTYPE
    assert [(name["key"].tobytes().rstrip(b"\0"), int(name["flow"]["destination_port"])) for name in names] == [
        (b"A", 30_001), (b"A", 30_002), (b"\0A", 30_001), (b"\0A", 30_002)
    ]  # fmt: skip
    assert {bytes(name["flow"]["source"])[-4:] for name in names} == {b"\xc0\0\2\1"}


def test_empty_streams_have_the_bounds_and_nothing_else() -> None:
    streams = update(new_streams(a_stream=3, most=2), [Numbered(1, session=session(at)) for at in range(9)])
    empty = streams.empty()
    assert (empty.packets, empty.foreign, empty.level, empty.most_runs) == (0, 0, 0, 3)
    assert [len(array) for array in empty.arrays()] == [0, 0, 0, 0]
    empty.absorb(streams, 0)
    assert without_times(empty) == without_times(streams)


def test_no_room_for_a_stream_is_refused() -> None:
    for most in (0, -1):
        with pytest.raises(ValueError, match="at least one stream"):
            new_streams(most=most)
