"""Two lines of one feed against each other, number by number, against a slow account.

This module has no functions that Python can call; the nearest owner is `Arbiter`, with nothing before.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.direct_lines import RING, in_parts, new_arbiter, said, update, whole
from support.feeds import START_NS, Packet
from support.lines import SlowPair, line_packets, two_lines

from uspcap.analysis.arbitration.arbiter import Arbiter
from uspcap.analysis.arbitration.line_pair import LONGEST_LOG
from uspcap.frames import TimestampSource

FILE = TimestampSource.FILE


def known(packets: list[Packet], **bounds: Any) -> Arbiter:
    return update(new_arbiter(is_known=True, **bounds), packets)


def sent(line: int, first: int, at_ns: int, count: int = 1) -> Packet:
    return Packet(first, count, START_NS + at_ns, line=line)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    sends=st.integers(0, 60),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    restart=st.sampled_from([0.0, 0.05]),
)
def test_what_two_lines_bring_is_what_the_slow_account_says(seed: int, sends: int, loss: float, restart: float) -> None:
    packets = two_lines(seed, sends, loss=loss, restart=restart)
    arbiter = known(packets)
    slow = SlowPair.of(line_packets(packets), RING)
    if not packets:
        assert arbiter.count == 0
        return
    counts = arbiter.counts(0)
    assert counts["alone"] == slow.alone
    assert counts["first"] == [sum(skew < 0 for skew in slow.skews), sum(skew > 0 for skew in slow.skews)]
    for name in ("other_clock", "too_late", "too_many"):
        assert counts[name] == getattr(slow, name), name
    assert arbiter.ties(0, FILE) == slow.skews.count(0)
    for line in (0, 1):
        first = [abs(skew) for skew in slow.skews if skew and (skew < 0) == (line == 0)]
        skews = arbiter.skews(0, FILE, line)
        assert (skews is None) == (not first)
        if skews is not None:
            buckets, total, least, most = skews
            assert (int(buckets.sum()), total, least, most) == (len(first), sum(first), min(first), max(first))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    sends=st.integers(0, 60),
    loss=st.sampled_from([0.0, 0.05, 0.5]),
    restart=st.sampled_from([0.0, 0.05]),
    cuts=st.lists(st.integers(0, 120), max_size=3),
    pickled=st.booleans(),
)
def test_parts_merged_at_any_cuts_are_the_whole(
    seed: int, sends: int, loss: float, restart: float, cuts: list[int], pickled: bool
) -> None:
    packets = two_lines(seed, sends, loss=loss, restart=restart)
    assert said(whole(in_parts(packets, cuts, pickled=pickled))) == said(known(packets))


@pytest.mark.parametrize(
    ("skew_ns", "first", "ties"), [(5, [1, 0], 0), (-5, [0, 1], 0), (0, [0, 0], 1), (1 << 40, [1, 0], 0)]
)
def test_which_line_is_first_timestamps_say(skew_ns: int, first: list[int], ties: int) -> None:
    arbiter = known([sent(0, 1, 0), sent(1, 1, skew_ns)])
    assert arbiter.counts(0)["first"] == first
    assert arbiter.ties(0, FILE) == ties
    assert arbiter.counts(0)["alone"] == [0, 0]


def test_numbers_are_compared_within_the_ring_and_not_behind_it() -> None:
    for behind, alone in ((RING - 1, [RING - 1, 0]), (RING, [RING + 1, 0])):
        packets = [sent(0, 1 + at, at) for at in range(behind + 1)]
        counts = known([*packets, sent(1, 1, behind)]).counts(0)
        # A number that has left the ring is too late; the other line has brought it alone.
        assert counts["too_late"] == (behind == RING)
        assert counts["alone"] == alone
        assert counts["first"] == ([1, 0] if behind < RING else [0, 0])


def test_a_packet_of_more_numbers_than_the_ring_has_is_not_compared() -> None:
    for count, too_many in ((RING, 0), (RING + 1, 1)):
        counts = known([sent(0, 1, 0, count), sent(1, 1, 9, count)]).counts(0)
        assert counts["too_many"] == 2 * too_many
        assert counts["first"] == [0 if too_many else RING, 0]


def test_first_copies_are_one_run_where_each_line_lacks_what_the_other_brings() -> None:
    packets = [sent(at % 2, 1 + at, at) for at in range(20)]
    streams, runs, _ = known(packets).arrays()
    of_stream = [[(int(run["first"]), int(run["length"])) for run in runs[runs["stream"] == at]] for at in range(3)]
    assert of_stream[2] == [(1, 20)]
    assert of_stream[0] == [(number, 1) for number in range(1, 21, 2)]
    assert streams["packets"].tolist() == [10, 10, 20]


def test_a_part_keeps_so_many_packets_at_most_until_the_lines_are_near_each_other() -> None:
    alone = [sent(0, 1 + at, at) for at in range(LONGEST_LOG + 3)]
    for packets, counted in ((alone[:-3], 0), (alone, 3), ([sent(0, 1, 0), sent(1, 1, 1), sent(0, 2, 2)], 1)):
        arbiter = update(new_arbiter(), packets)
        streams, _, _ = arbiter.arrays()
        assert int(streams["packets"][:2].sum()) == counted
        streams, _, _ = whole(arbiter).arrays()
        assert int(streams["packets"][:2].sum()) == len(packets)
