"""Gaps against plain loops over the same frames."""

from collections import defaultdict
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import START_NS, Frame, feed, flow_text, seeded_stream, streams

from uspcap.analysis.gaps.analysis import FEWEST_GAPS, KEPT_A_FLOW, Gaps
from uspcap.frames import LATEST_NS, TimestampSource
from uspcap.protocols.flows import FlowTable

pytestmark = pytest.mark.thorough

COLUMNS = ("flow", "gap_ns", "start_ns", "end_ns", "before_frame", "after_frame", "threshold_ns")


def forward_gaps(frames):
    """All gaps of each flow and timestamp source, frames numbered from 1."""
    last, gaps = {}, defaultdict(list)
    for number, frame in enumerate(frames, 1):
        if frame.source == TimestampSource.NONE:
            continue
        key = frame.flow, frame.source
        gaps[key] += []
        if key in last:
            before_number, before_ns = last[key]
            gap = frame.timestamp_ns - before_ns
            if gap >= 0:
                gaps[key].append((gap, before_ns, before_number, number))
        last[key] = number, frame.timestamp_ns
    return gaps


def automatic_threshold(lengths):
    """The flow's threshold as `AUTOMATIC_RULE` states it, None for too few gaps."""
    if len(lengths) < FEWEST_GAPS:
        return None
    percentile = sorted(lengths)[-int(-Fraction(99, 100) * len(lengths) // 1) - 1]
    power = 32
    while power <= percentile:
        power *= 2
    return min(8 * power, 2**43) - 1


def expected(frames, threshold_ns):
    """All gaps as rows of the table, longest first; and count and total by flow."""
    rows, by_flow = [], {}
    for (flow, source), gaps in forward_gaps(frames).items():
        threshold = automatic_threshold([gap for gap, *_ in gaps]) if threshold_ns is None else threshold_ns
        if threshold is None:
            by_flow[flow, source] = None
            continue
        over = [gap for gap in gaps if gap[0] > threshold]
        by_flow[flow, source] = threshold, len(over), sum(gap for gap, *_ in over)
        rows += [
            (flow_text(flow), gap, start, start + gap, before, after, threshold) for gap, start, before, after in over
        ]
    return sorted(rows, key=lambda row: (-row[1], row[5])), by_flow


def listed(analysis):
    table = analysis.tables()["gaps"]
    assert tuple(table) == COLUMNS
    return list(zip(*table.values(), strict=True))


def check(analysis, frames, threshold_ns, *, all_listed=True):
    rows, by_flow = expected(frames, threshold_ns)
    result = analysis.result().as_dict()
    with_threshold = [flow for flow in by_flow.values() if flow is not None]
    assert result["count"] == sum(count for _, count, _ in with_threshold) == len(rows)
    assert result["total_ns"] == sum(total for *_, total in with_threshold)
    assert result["flows_with_gaps"] == sum(count > 0 for _, count, _ in with_threshold)
    assert result["threshold"] == ("given" if threshold_ns is not None else "automatic")
    kept = listed(analysis)
    assert result["listed"] == len(kept)
    if all_listed:
        assert kept == rows
    else:
        assert kept == [row for row in rows if row in set(kept)]
    assert [tuple(row[column] for column in COLUMNS) for row in result["longest"]] == kept[:10]
    table = analysis.tables()["flows"]
    assert sorted(row for row in zip(*table.values(), strict=True) if row[2]) == sorted(
        (flow_text(flow), *found) for (flow, _), found in by_flow.items() if found and found[1]
    )
    assert table["total_ns"] == sorted(table["total_ns"], reverse=True)


@settings(max_examples=150)
@given(frames=streams(), threshold_ns=st.sampled_from([0, 1, 39, 1000, 10**6, 10**9]))
def test_a_given_threshold_finds_exactly_the_longer_gaps(frames, threshold_ns):
    check(feed(Gaps(threshold_ns=threshold_ns), frames, 7), frames, threshold_ns)


@pytest.mark.parametrize(
    ("seed", "sources"),
    [(11, (TimestampSource.FILE,)), (12, (TimestampSource.XDP, TimestampSource.USER, TimestampSource.NONE))],
)
@pytest.mark.parametrize("threshold_ns", [0, 5_000, 10**6])
def test_a_given_threshold_on_long_streams(seed, sources, threshold_ns):
    frames = seeded_stream(seed, 30_000, sources=sources)
    check(feed(Gaps(threshold_ns=threshold_ns), frames, 4096), frames, threshold_ns)


@pytest.mark.parametrize("seed", [13, 14])
def test_automatic_thresholds_follow_their_rule(seed):
    frames = seeded_stream(seed, 50_000, flows=8)
    quiet = [Frame(frame.timestamp_ns, 60, 9) for frame in frames[::600]]
    frames = sorted(frames + quiet, key=lambda frame: frame.timestamp_ns)
    analysis = feed(Gaps(), frames, 4096)
    check(analysis, frames, None)
    result = analysis.result().as_dict()
    _, by_flow = expected(frames, None)
    assert result["flows_without_threshold"] == sum(flow is None for flow in by_flow.values()) > 0
    assert result["count"] > 20


@settings(max_examples=100)
@given(
    scale_ns=st.sampled_from([1, 31, 32, 33, 63, 64, 65, 1000, 4096, 10**9, 10**12, 2**42, 2**43]),
    count=st.integers(FEWEST_GAPS - 3, KEPT_A_FLOW),
    gaps=st.dictionaries(st.integers(0, 90), st.sampled_from([0, 4, 7, 8, 9, 15, 16, 17, 100]), max_size=5),
)
def test_the_automatic_threshold_at_the_edges_of_octaves(scale_ns, count, gaps):
    timestamps = [START_NS]
    for at in range(count):
        timestamps.append(timestamps[-1] + scale_ns * gaps.get(at, 1))
    frames = [Frame(timestamp, 60, 1) for timestamp in timestamps]
    check(feed(Gaps(), frames, 4096), frames, None)


@pytest.mark.parametrize(("threshold_ns", "bounds"), [(None, (60, 16)), (500, (60, 16)), (500, (7, 16))])
def test_a_bound_keeps_the_longest_of_each_flow_and_exact_totals(threshold_ns, bounds):
    maximum, kept_a_flow = bounds
    frames = seeded_stream(15, 40_000, flows=12)
    analysis = feed(Gaps(threshold_ns=threshold_ns, maximum_gaps=maximum, kept_a_flow=kept_a_flow), frames, 4096)
    check(analysis, frames, threshold_ns, all_listed=False)
    rows, _ = expected(frames, threshold_ns)
    kept = listed(analysis)
    assert 0 < len(kept) < len(rows)
    flows = {row[0] for row in rows}
    assert len(kept) <= max(maximum, len(flows))
    for flow in flows:
        mine = [row for row in kept if row[0] == flow]
        assert mine == [row for row in rows if row[0] == flow][: len(mine)]
    assert kept[0] == rows[0]


def test_equal_gaps_are_kept_in_the_order_of_their_frames():
    frames = [Frame(START_NS + 1000 * step, 60, 1) for step in range(50)]
    analysis = feed(Gaps(threshold_ns=10, maximum_gaps=8), frames, 3)
    kept = listed(analysis)
    assert [row[5] for row in kept] == list(range(2, 2 + len(kept)))
    assert analysis.result().as_dict()["count"] == 49
    assert analysis.result().as_dict()["total_ns"] == 49_000


def test_a_sample_of_flows_has_exact_gaps():
    frames = seeded_stream(16, 30_000, flows=200)
    table = FlowTable(16)
    analysis = feed(Gaps(table, threshold_ns=20_000), frames, 4096)
    result = analysis.result().as_dict()
    assert result["sampled_one_in"] == 1 << table.level > 1
    tracked = set(analysis.tables()["flows"]["flow"])
    assert 0 < len(tracked) == result["flows_tracked"] <= 16
    rows, _ = expected(frames, 20_000)
    mine = [row for row in rows if row[0] in tracked]
    assert listed(analysis) == mine
    assert (result["count"], result["total_ns"]) == (len(mine), sum(row[1] for row in mine))


def test_a_step_backward_is_no_gap_and_later_gaps_start_from_it():
    frames = [Frame(START_NS + at, 60, 1) for at in (0, 5_000, 100, 2_000)]
    kept = listed(feed(Gaps(threshold_ns=1_000), frames, 4096))
    assert [(row[1], row[4], row[5]) for row in kept] == [(5_000, 1, 2), (1_900, 3, 4)]


@pytest.mark.parametrize("threshold_ns", [None, 5])
@pytest.mark.parametrize("cut", range(4))
def test_timestamps_at_the_ends_of_the_range_are_cut_like_others(threshold_ns, cut):
    frames = [Frame(timestamp, 60, 1) for timestamp in (1 - 2**63, 2**63 - 1, -(2**63))]
    merged = feed(Gaps(threshold_ns=threshold_ns), frames[:cut], 4096)
    merged.merge(feed(Gaps(threshold_ns=threshold_ns), frames[cut:], 4096))
    whole = feed(Gaps(threshold_ns=threshold_ns), frames, 4096)
    assert (merged.result().as_dict(), merged.tables()) == (whole.result().as_dict(), whole.tables())
    assert merged.result().as_dict()["count"] == (1 if threshold_ns else 0)


@pytest.mark.parametrize("threshold_ns", [None, 5])
@pytest.mark.parametrize("cut", range(0, 401, 57))
def test_more_gaps_than_64_bits_hold_are_added_up_to_the_most_that_they_hold(threshold_ns, cut):
    moments = [0, LATEST_NS] * 100 + list(range(0, 200_000, 1000))
    frames = [Frame(moment, 60, 1) for moment in moments]
    merged = feed(Gaps(threshold_ns=threshold_ns), frames[:cut], 4096)
    merged.merge(feed(Gaps(threshold_ns=threshold_ns), frames[cut:], 4096))
    whole = feed(Gaps(threshold_ns=threshold_ns), frames, 4096)
    assert (merged.result().as_dict(), merged.tables()) == (whole.result().as_dict(), whole.tables())
    if threshold_ns:
        assert merged.result().as_dict()["total_ns"] == merged.tables()["flows"]["total_ns"][0] == 2**63 - 1
