"""Pairs of lines and the keys under which they carry a feed: which packets are theirs, and which are followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_lines import MOLD, RING, in_parts, lines_of, new_arbiter, said, update, whole
from support.feeds import START_NS, Packet, batch_of, frame_of
from support.fragments import fragments_of

from uspcap.analysis.arbitration.arbiter import LINE_DTYPE, Arbiter
from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams


def session(number: int) -> bytes:
    return b"%010d" % number


def sent(number: int, key: int = 0, line: int = 0, count: int = 1) -> Packet:
    return Packet(number, count, START_NS + number, session(key), line=line)


def keys(arbiter: Arbiter) -> set[bytes]:
    return {arbiter.pair(number)[1][:10] for number in range(arbiter.count)}


@given(pairs=st.integers(1, 9), lines=st.lists(st.integers(0, 20), max_size=20))
def test_packets_are_of_the_pair_whose_line_they_are_sent_to_or_of_none(pairs: int, lines: list[int]) -> None:
    packets = [sent(1 + at, line=line) for at, line in enumerate(lines)]
    arbiter = update(new_arbiter(pairs=pairs, is_known=True), packets)
    of_lines = [line for line in lines if line < 2 * pairs]
    assert arbiter.packets == len(of_lines)
    streams, _, _ = arbiter.arrays()
    found = {
        (arbiter.pair(number)[0], line): int(streams["packets"][3 * number + line])
        for number in range(arbiter.count)
        for line in (0, 1)
    }
    for pair in {line // 2 for line in of_lines}:
        for line in (0, 1):
            assert found.pop((pair, line)) == of_lines.count(2 * pair + line)
    assert found == {}


@given(order=st.permutations(range(30)), bound=st.sampled_from([1, 2, 7, 29, 30]), cut=st.integers(0, 30))
def test_which_keys_are_followed_depends_on_which_there_were_only(order: list[int], bound: int, cut: int) -> None:
    in_order = update(new_arbiter(most=bound), [sent(1, key) for key in range(30)])
    merged = in_parts([sent(1, key) for key in order], [cut], most=bound)
    assert (merged.level, keys(merged)) == (in_order.level, keys(in_order))
    assert merged.count <= bound
    assert (merged.level == 0) == (bound == 30)
    assert merged.packets == 30


def test_a_bound_on_all_runs_follows_fewer_keys() -> None:
    packets = [sent(10 * at + 1, key, line) for key in range(12) for at in range(9) for line in (0, 1)]
    wide, narrow = (whole(update(new_arbiter(runs=runs), packets)) for runs in (1 << 12, 64))
    assert (wide.level, wide.count) == (0, 12)
    assert narrow.level > 0
    assert keys(narrow) < keys(wide)


def test_packets_that_are_foreign_or_excluded_touch_no_pair() -> None:
    assert MOLD.rule is not None
    batch = FrameBatch.from_frames([frame_of(b"short"), frame_of(b"x", line=7)], [START_NS] * 2)
    arbiter = new_arbiter()
    arbiter.track(batch, batch.headers, 0, MOLD.rule)
    assert (arbiter.packets, arbiter.foreign, arbiter.excluded, arbiter.count) == (0, 1, 0, 0)


def test_datagrams_stand_in_place_of_the_fragments_that_complete_them() -> None:
    assert MOLD.rule is not None
    pieces = [piece.frame() for piece in fragments_of(sent(2).mold(), 5, 16)]
    frames = [frame_of(sent(1).mold()), *pieces, frame_of(sent(3).mold())]
    batch = FrameBatch.from_frames(frames, [START_NS + at for at in range(len(frames))])
    datagrams = Datagrams(is_known=True)
    datagrams.take(batch, batch.headers, 0, 0)
    arbiter = new_arbiter(is_known=True)
    arbiter.track_with_datagrams(
        batch, batch.headers, 0, MOLD.rule, 0, batch.count, datagrams.frames, datagrams.headers, datagrams.rows
    )
    _, runs, _ = arbiter.arrays()
    assert runs[runs["stream"] == 0][["first", "packets"]].tolist() == [(1, 3)]
    assert arbiter.foreign == 0


def test_an_empty_arbiter_has_the_lines_and_bounds_and_an_absorbed_one_stays_as_it_is() -> None:
    arbiter = update(new_arbiter(pairs=2, a_stream=5), [sent(number, line=number % 4) for number in range(1, 9)])
    empty = arbiter.empty()
    assert (empty.count, empty.packets, empty.most_runs) == (0, 0, 5)
    before = said(arbiter)
    empty.absorb(arbiter, 0)
    assert said(arbiter) == before
    assert said(whole(empty)) == said(whole(arbiter))


@pytest.mark.parametrize(
    "wrong",
    [{"most": 0}, {"ring": 0}, {"ring": 1}, {"ring": 48}, {"modulus": 2 * RING}, {"modulus": 4 * RING - 1}],
    ids=str,
)
def test_rings_and_bounds_that_hold_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one pair is followed, in a ring of a power of two"):
        new_arbiter(**wrong)
    assert new_arbiter(modulus=4 * RING).count == 0


def test_lines_of_another_layout_and_numbers_of_no_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="another layout"):
        Arbiter(np.zeros(2, [("address", np.uint8, 16)]), 0, RING, 10, 10, 1)
    assert lines_of().dtype == LINE_DTYPE
    arbiter = update(new_arbiter(is_known=True), [sent(1)])
    for number in (-1, 1, 1 << 40):
        for ask in (arbiter.pair, arbiter.counts, arbiter.sources):
            with pytest.raises(IndexError, match="there are 1 pairs"):
                ask(number)
    batch = batch_of([sent(1)])
    assert MOLD.rule is not None
    with pytest.raises(ValueError, match="not those of this batch"):
        arbiter.track(batch, batch_of([]).headers, 0, MOLD.rule)
