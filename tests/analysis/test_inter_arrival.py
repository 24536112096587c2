"""Inter-arrival times against plain loops over the same frames."""

from collections import defaultdict
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import Frame, batch_of, feed, flow_text, seeded_stream, streams

from uspcap.analysis.inter_arrival.analysis import LARGEST_KEPT, ROWS_SHOWN, InterArrival
from uspcap.frames import EARLIEST_NS, LATEST_NS, TimestampSource
from uspcap.protocols.flows import FlowTable
from uspcap.stats.histogram import PERCENTILES


class Track:
    """The times of one sequence of frames, the obvious way."""

    def __init__(self, numbered):
        self.frames = len(numbered)
        self.bytes = sum(frame.length for _, frame in numbered)
        self.gaps = []
        self.backward = 0
        for (before_number, before), (after_number, after) in pairwise(numbered):
            gap = after.timestamp_ns - before.timestamp_ns
            if gap < 0:
                self.backward += 1
            else:
                self.gaps.append((gap, before.timestamp_ns, before_number, after_number))

    @property
    def values(self):
        return sorted(gap for gap, *_ in self.gaps)

    @property
    def jitter(self):
        """RFC 3550, 6.4.1: J += (|D| - J) / 16, with D the change from one forward gap to the next."""
        jitter = 0.0
        for (before, *_), (after, *_) in pairwise(self.gaps):
            jitter += (abs(after - before) - jitter) / 16
        return jitter

    def rank(self, percentile):
        values = self.values
        beyond = len(values) * (1 - Fraction(percentile) / 100)
        if beyond < 10:
            return None
        return values[-int(-Fraction(percentile) / 100 * len(values) // 1) - 1]

    def check(self, result):
        values = self.values
        assert result["count"] == len(values)
        assert result["backward_steps"] == self.backward
        assert abs(result["jitter_ns"] - self.jitter) <= 0.5 + self.jitter * 1e-9
        if not values:
            assert result["min_ns"] is result["max_ns"] is result["mean_ns"] is None
        else:
            assert (result["min_ns"], result["max_ns"]) == (values[0], values[-1])
            assert result["mean_ns"] == round(Fraction(sum(values), len(values)))
            first_largest = next(number for gap, _, _, number in self.gaps if gap == values[-1])
            assert result["max_frame"] == first_largest
            spread = float(np.std(np.array(values, np.float64)))
            assert abs(result["stddev_ns"] - spread) <= values[-1] / 2000 + 1
        for percentile, value in result["percentiles_ns"].items():
            exact = self.rank(percentile)
            assert (percentile in result["insufficient"]) == (exact is None) == (value is None)
            if exact is not None:
                assert exact <= value <= exact + Fraction(exact, 1000)


def by_key(frames, key):
    """Number the timestamped frames from 1 and group them."""
    groups = defaultdict(list)
    for number, frame in enumerate(frames, 1):
        if frame.source != TimestampSource.NONE:
            groups[key(frame)].append((number, frame))
    return {name: Track(numbered) for name, numbered in groups.items()}


def check(result, frames, shown=ROWS_SHOWN):
    sources = by_key(frames, lambda frame: TimestampSource(frame.source).name)
    assert result["sources"].keys() == sources.keys()
    for name, track in sources.items():
        track.check(result["sources"][name])
    largest = sorted(
        (
            (-gap, after, start, before, name)
            for name, track in sources.items()
            for gap, start, before, after in track.gaps
        )
    )[: min(shown, LARGEST_KEPT)]
    assert [
        (-gap["gap_ns"], gap["after_frame"], gap["start_ns"], gap["before_frame"], gap["source"])
        for gap in result["largest_gaps"]
    ] == largest
    assert all(gap["end_ns"] == gap["start_ns"] + gap["gap_ns"] for gap in result["largest_gaps"])


def check_flows(result, frames, shown):
    flows = by_key(frames, lambda frame: (flow_text(frame.flow), TimestampSource(frame.source).name))
    assert result["flows"]["frames_untracked"] == 0
    assert result["flows"]["sampled_one_in"] == 1
    by_count = result["flows"]["by_count"]
    assert len(by_count) == min(shown, len(flows))
    assert [row["frames"] for row in by_count] == sorted((track.frames for track in flows.values()), reverse=True)[
        :shown
    ]
    for row in by_count + result["flows"]["worst"]:
        track = flows[row["flow"], row["source_kind"]]
        assert (row["frames"], row["bytes_on_wire"]) == (track.frames, track.bytes)
        track.check(row)
    enough = [track for track in flows.values() if track.rank("99.9") is not None]
    worst = [row["percentiles_ns"]["99.9"] for row in result["flows"]["worst"]]
    assert len(worst) == min(shown, len(enough))
    assert worst == sorted(worst, reverse=True)
    exact = sorted((track.rank("99.9") for track in enough), reverse=True)[:shown]
    for reported, true in zip(worst, exact, strict=True):
        assert abs(reported - true) <= true / 1000


@settings(max_examples=300)
@given(frames=streams())
def test_short_streams_equal_the_plain_loops(frames):
    analysis = feed(InterArrival(shown=100), frames, 7)
    check(analysis.result().as_dict(), frames, 100)
    check_flows(analysis.result().as_dict(), frames, 100)


@pytest.mark.parametrize(
    ("seed", "sources"),
    [(1, (TimestampSource.FILE,)), (2, (TimestampSource.HARDWARE, TimestampSource.KERNEL, TimestampSource.NONE))],
)
def test_long_streams_equal_the_plain_loops(seed, sources):
    frames = seeded_stream(seed, 50_000, sources=sources)
    analysis = feed(InterArrival(shown=5), frames, 4096)
    check(analysis.result().as_dict(), frames, 5)
    check_flows(analysis.result().as_dict(), frames, 5)


def test_the_table_holds_every_flow_and_the_largest_gaps():
    frames = seeded_stream(3, 50_000)
    tables = feed(InterArrival(), frames, 4096).tables()
    tracks = by_key(frames, lambda frame: flow_text(frame.flow))
    table = tables["flows"]
    assert sorted(table["flow"]) == sorted(tracks)
    assert table["frames"] == sorted(table["frames"], reverse=True)
    for row in [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]:
        track = tracks[row["flow"]]
        values = track.values
        assert (row["frames"], row["bytes"], row["gaps"]) == (track.frames, track.bytes, len(values))
        assert row["backward"] == track.backward
        assert abs(row["jitter_ns"] - track.jitter) <= 0.5 + track.jitter * 1e-9
        assert (row["min_ns"], row["max_ns"]) == ((values[0], values[-1]) if values else (None, None))
        for percentile in PERCENTILES:
            value, exact = row[f"p{percentile}_ns"], track.rank(percentile)
            assert (value is None) == (exact is None)
            assert exact is None or exact <= value <= exact + Fraction(exact, 1000)
    (whole,) = by_key(frames, lambda frame: "all").values()
    largest = sorted(((gap, -after) for gap, _, _, after in whole.gaps), reverse=True)[:LARGEST_KEPT]
    assert list(zip(tables["largest_gaps"]["gap_ns"], tables["largest_gaps"]["after_frame"], strict=True)) == [
        (gap, -after) for gap, after in largest
    ]
    histogram = tables["histogram"]
    at = np.searchsorted(histogram["lowest_ns"], whole.values, side="right") - 1
    assert np.bincount(at).tolist() == histogram["count"]
    assert (np.array(whole.values) <= np.array(histogram["highest_ns"])[at]).all()


@pytest.mark.parametrize(("maximum_flows", "maximum_lines"), [(8, 1 << 22), (1 << 17, 1_500)])
def test_a_bound_leaves_a_sample_by_hash_whose_figures_are_exact(maximum_flows, maximum_lines):
    frames = seeded_stream(4, 30_000, flows=300)
    unbounded = FlowTable()
    hashes = {}
    for start in range(0, len(frames), 4096):
        unbounded.assign(batch_of(frames[start : start + 4096]))
    for flow, value in zip(unbounded.flows(np.arange(len(unbounded))), unbounded.hashes().tolist(), strict=True):
        hashes[str(flow)] = value
    table = FlowTable(maximum_flows)
    analysis = feed(InterArrival(table, maximum_lines=maximum_lines, shown=1000), frames, 4096)
    result = analysis.result().as_dict()
    level = table.level
    assert level > 0
    tracks = by_key(frames, lambda frame: flow_text(frame.flow))
    expected = {name: track for name, track in tracks.items() if hashes[name] >> (64 - level) == 0}
    assert {row["flow"] for row in result["flows"]["by_count"]} == expected.keys()
    for row in result["flows"]["by_count"]:
        assert row["frames"] == expected[row["flow"]].frames
        expected[row["flow"]].check(row)
    assert result["flows"]["tracked"] == len(expected) <= maximum_flows
    assert result["flows"]["sampled_one_in"] == 1 << level
    assert result["flows"]["estimated"] == len(expected) << level
    assert result["flows"]["frames_untracked"] == len(frames) - sum(track.frames for track in expected.values())
    check(result, frames, 1000)
    # No level less would have kept the bound.
    one_less = [name for name in tracks if level == 1 or hashes[name] >> (65 - level) == 0]
    lines = sum(len({line(gap) for gap in tracks[name].values}) for name in one_less)
    assert len(one_less) > maximum_flows or lines > maximum_lines


def line(gap):
    """The 32 neighbouring buckets that a gap is counted with."""
    octave = max(gap.bit_length() - 11, 0)
    return ((octave << 10) + (gap >> octave)) // 32


def test_a_flow_without_a_gap_has_neither_a_shortest_nor_a_longest_one_in_the_table():
    frames = [Frame(0, 60, 1), Frame(7, 60, 2), Frame(9, 60, 2), Frame(10, 60, 3), Frame(9, 60, 3)]
    table = feed(InterArrival(), frames, 4096).tables()["flows"]
    by_flow = dict(
        zip(table["flow"], zip(table["min_ns"], table["max_ns"], table["max_frame"], strict=True), strict=True)
    )
    none = None, None, None
    assert by_flow == {flow_text(1): none, flow_text(2): (2, 2, 3), flow_text(3): none}


def test_frames_without_a_timestamp_belong_to_no_flow_of_the_report():
    frames = [Frame(0, 60, 1, TimestampSource.NONE)] * 3 + [Frame(5, 60, 2), Frame(9, 60, 2)]
    analysis = feed(InterArrival(), frames, 4096)
    assert [row["flow"] for row in analysis.result().as_dict()["flows"]["by_count"]] == [flow_text(2)]
    assert analysis.tables()["flows"]["flow"] == [flow_text(2)]


@pytest.mark.parametrize("batch_frames", [1, 4096])
@pytest.mark.parametrize("cut", range(5))
def test_timestamps_at_the_ends_of_the_range_are_cut_like_others(batch_frames, cut):
    frames = [Frame(timestamp, 60, 1) for timestamp in (1 - 2**63, 2**63 - 1, -(2**63), 0)]
    merged = feed(InterArrival(), frames[:cut], batch_frames)
    merged.merge(feed(InterArrival(), frames[cut:], batch_frames))
    result = merged.result().as_dict()
    for row in (result["sources"]["FILE"], result["flows"]["by_count"][0]):
        assert (row["count"], row["backward_steps"], row["max_ns"]) == (2, 1, 2 * LATEST_NS)
        assert row["mean_ns"] == round(Fraction(3 * LATEST_NS, 2))
    assert result == feed(InterArrival(), frames, 4096).result().as_dict()


def jitter_of(gaps: list[int]) -> Fraction:
    """RFC 3550, 6.4.1, exactly."""
    jitter = Fraction()
    for before, after in pairwise(gaps):
        jitter += (abs(after - before) - jitter) / 16
    return jitter


def stream_of(gaps: list[int]) -> list[Frame]:
    return [Frame(moment, 60, 1) for moment in accumulate(gaps, initial=EARLIEST_NS)]


def jitter_cut(gaps: list[int], cuts: list[int]) -> int:
    frames = stream_of(gaps)
    edges = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    merged = InterArrival()
    for start, end in pairwise(edges):
        merged.merge(feed(InterArrival(), frames[start:end], 4096))
    result = merged.result().as_dict()
    jitters = {row["jitter_ns"] for row in (result["sources"]["FILE"], result["flows"]["by_count"][0])}
    assert jitters == {merged.tables()["flows"]["jitter_ns"][0]}
    return jitters.pop()


# Runs of few different gaps, whose jitter stands still at whole numbers and halves; and some of any size.
JITTERED = st.one_of(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 8, 16, 24, 1000, 1016, 16_000, 10**9]), st.integers(1, 40)), max_size=6
    ).map(lambda runs: [gap for gap, times in runs for _ in range(times)]),
    st.lists(st.integers(0, 1 << 55), max_size=120),
    st.lists(st.sampled_from([0, 1 << 56]), max_size=100),
)


@settings(deadline=None, max_examples=150)
@given(JITTERED, st.lists(st.integers(0, 130), max_size=3))
def test_jitter_is_that_of_the_rfc_to_the_nanosecond_however_cut(gaps: list[int], cuts: list[int]) -> None:
    exact = jitter_of(gaps)
    jitter = jitter_cut(gaps, [])
    assert abs(jitter - exact) <= Fraction(1, 2) + Fraction(1, 2**31)
    assert jitter_cut(gaps, cuts) == jitter


@pytest.mark.parametrize("cut", range(0, 70, 3))
@pytest.mark.parametrize("last", [8, 7, 9, 24])
def test_a_jitter_that_stands_at_a_half_is_rounded_alike_however_cut(cut: int, last: int) -> None:
    # |D| is 16 * 5 once and 5 from then on, which keeps J at 5; the last makes it 5 + (last / 16).
    gaps = [0, 80]
    for at in range(60):
        gaps.append(gaps[-1] + (5 if at % 2 else -5))
    gaps.append(gaps[-1] + 5 + last)
    assert jitter_of(gaps) == 5 + Fraction(last, 16)
    assert jitter_cut(gaps, [cut]) == 5 + (last + 8) // 16
