"""What recurs is found at the right period, and nothing is found in noise; state is bounded and exact."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.command_line import invoke
from support.hard_to_cut import pcap_file
from support.streams import START_NS, Frame, feed, seeded_stream

from uspcap.analysis.patterns.analysis import Patterns
from uspcap.analysis.patterns.loop import (
    GAP_BUCKETS,
    PHASE_BINS,
    PHASE_PERIODS_NS,
    SLOTS_IN_SCALE,
    Arrivals,
    gap_bounds,
)
from uspcap.analysis.patterns.significance import (
    SIGNIFICANCE,
    find_lines,
    log_binomial_tail,
    log_gamma_tail,
    t_tail,
    trials,
)
from uspcap.analysis.suite import Settings, analyze_files
from uspcap.formats import parts
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource
from uspcap.report.schema import load_schema

SAMPLES = Path(__file__).parents[2] / "sample_captures"
WHOLE_SECOND_NS = START_NS // 10**9 * 10**9


def arrivals_of(timestamps: NDArray[Any], size: int = 100_000) -> Arrivals:
    """Arrivals at these timestamps, in this order."""
    arrivals = Arrivals()
    for start in range(0, len(timestamps), size):
        arrivals.update(timestamps_batch(timestamps[start : start + size]), TimestampSource.FILE)
    return arrivals


def timestamps_batch(timestamps: NDArray[Any]) -> FrameBatch:
    return FrameBatch.from_frames([b""] * len(timestamps), timestamps.astype(np.int64))


def patterns_of(offsets_ns: NDArray[Any], *, begin_ns: int = WHOLE_SECOND_NS) -> dict[str, Any]:
    """The result for frames of no flow at these times after the beginning."""
    analysis = Patterns()
    timestamps = begin_ns + np.sort(offsets_ns).astype(np.int64)
    for start in range(0, len(timestamps), 50_000):
        analysis.update(timestamps_batch(timestamps[start : start + 50_000]))
    return analysis.result().as_dict()


def noise(kind: str, seed: int) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if kind == "poisson, sparse":
        return np.cumsum(random.exponential(1e7, 400))
    if kind == "poisson, dense":
        return np.cumsum(random.exponential(2e4, 60_000))
    if kind == "lognormal":
        return np.cumsum(random.lognormal(11, 2, 20_000))
    # Bursts at random times, of sizes with a heavy tail.
    starts = np.cumsum(random.exponential(3e6, 800))
    sizes = (random.pareto(1.3, 800) * 4).astype(int).clip(1, 400)
    return np.concatenate(
        [start + np.cumsum(random.exponential(3e3, size)) for start, size in zip(starts, sizes, strict=True)]
    )


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["poisson, sparse", "poisson, dense", "lognormal", "bursts"])
def test_nothing_is_found_in_noise(kind: str) -> None:
    found = []
    for seed in range(25):
        result = patterns_of(noise(kind, seed))
        found += [(seed, row["period_ns"], row["p_value"]) for row in result["periods"]]
        found += [(seed, phase) for one in result["phases"] for phase in one["found"]]
        found += [(seed, row) for row in result["heartbeats"]]
    assert found == []


def train(period_ns: float, count: int, jitter_ns: float = 0, seed: int = 1) -> NDArray[Any]:
    return np.arange(count) * period_ns + np.random.default_rng(seed).normal(0, jitter_ns, count)


def spread(count: int, span_ns: float, seed: int = 2) -> NDArray[Any]:
    return np.random.default_rng(seed).uniform(0, span_ns, count)


MADE = {
    "50 Hz with jitter": ([20e6], np.r_[train(20e6, 600, 2e5)]),
    "50 Hz in four times as much noise": ([20e6], np.r_[train(20e6, 600, 1e5), spread(2400, 12e9)]),
    "a heartbeat each second in noise": ([1e9], np.r_[train(1e9, 300, 1e6), spread(500, 300e9)]),
    "a period of no round number": ([13_370_042.0], train(13_370_042.0, 2_000, 5e4)),
    "two trains": ([20e6, 27e6], np.r_[train(20e6, 2000, 1e4), train(27e6, 1481, 1e4)]),
    "bursts each ms": ([1e6], np.concatenate([at * 1e6 + np.arange(5 + at * 7 % 31) * 100.0 for at in range(200)])),
    "each minute for a day": ([60e9], np.r_[train(60e9, 1440, 1e8), spread(1000, 86400e9)]),
}


@pytest.mark.parametrize("name", MADE)
def test_periods_come_back(name: str) -> None:
    expected, offsets = MADE[name]
    rows = patterns_of(offsets - min(offsets.min(), 0))["periods"]
    assert len(rows) == len(expected), rows
    for period, row in zip(expected, sorted(rows, key=lambda row: row["period_ns"]), strict=True):
        assert abs(row["period_ns"] - period) <= row["uncertainty_ns"], (period, row)
        assert row["uncertainty_ns"] < period / 50
        assert row["p_value"] <= SIGNIFICANCE


@pytest.mark.parametrize(
    ("period_ns", "count"), [(1_000_000, 200), (1_000_000, 300), (1_000_000, 3000), (125_000, 1000), (33_333_333, 200)]
)
def test_frames_with_exactly_equal_gaps_have_that_period_and_no_other(period_ns: int, count: int) -> None:
    rows = patterns_of(np.arange(count) * period_ns)["periods"]
    assert len(rows) == 1, rows
    assert abs(rows[0]["period_ns"] - period_ns) <= rows[0]["uncertainty_ns"]


def test_a_beat_missing_from_an_exact_train_now_and_again_is_its_period() -> None:
    offsets = np.arange(3000) * 1_000_000
    rows = patterns_of(offsets[np.arange(3000) % 14 > 0])["periods"]
    assert len(rows) == 1, rows
    assert abs(rows[0]["period_ns"] - 14_000_000) <= rows[0]["uncertainty_ns"]


def test_a_slow_wave_of_the_rate_is_a_period() -> None:
    random = np.random.default_rng(4)
    at = random.uniform(0, 8e9, 40_000)
    kept = at[random.random(len(at)) < 0.5 * (1 + np.sin(2 * np.pi * at / 20e6))]
    rows = patterns_of(kept)["periods"]
    assert len(rows) == 1
    assert abs(rows[0]["period_ns"] - 20e6) <= rows[0]["uncertainty_ns"]
    assert 0.3 < rows[0]["coherence"] < 0.6


@pytest.mark.statistical
def test_what_is_faster_than_a_slot_does_not_come_back_slower() -> None:
    for period in (7_001.0, 31_337.0, 8_000.0):
        assert patterns_of(train(period, 200_000))["periods"] == []


def test_ticks_of_a_coarse_clock_are_no_period() -> None:
    timestamps = np.sort(spread(20_000, 4e9)) // 1e6 * 1e6
    result = patterns_of(timestamps)
    assert result["periods"] == []
    assert [one["tested"] for one in result["phases"]] == [False, False]
    assert "multiples of 1000000 ns" in result["phases"][1]["why_not"]


def test_more_at_the_top_of_the_millisecond_is_found() -> None:
    random = np.random.default_rng(5)
    tops = random.integers(0, 3_000, 1_500) * 1e6 + random.uniform(0, 1_000, 1_500)
    phases = {one["period_ns"]: one for one in patterns_of(np.r_[tops, spread(9_000, 3e9)])["phases"]}
    found = phases[10**6]["found"]
    assert [(row["start_ns"], row["end_ns"]) for row in found] == [(0, 1_000)]
    assert abs(found[0]["frames"] - 1_509) < 12
    assert phases[10**9]["tested"] is False


def test_a_phase_of_the_second_is_found_and_one_large_burst_is_none() -> None:
    random = np.random.default_rng(6)
    each = np.concatenate([at * 1e9 + 250e6 + random.uniform(0, 1e5, 6) for at in range(60)])
    once = 17e9 + 700e6 + random.uniform(0, 1e5, 5_000)
    seconds = patterns_of(np.r_[each, once, spread(3_000, 60e9)])["phases"][0]
    assert seconds["tested"]
    assert [row["start_ns"] for row in seconds["found"]] == [250_000_000]
    assert seconds["found"][0]["periods_hit"] == 60


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 10**6), st.integers(0, 10**10), st.integers(0, 10**14), st.integers(-(10**18), 10**18)
        ),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.integers(0, 40), max_size=3),
    st.randoms(use_true_random=False),
)
def test_counts_are_those_of_a_plain_count_whatever_the_order_and_the_cuts(
    offsets: list[int], cuts: list[int], random: Any
) -> None:
    timestamps = START_NS + np.array(offsets, np.int64)
    edges = [0, *sorted(min(cut, len(timestamps)) for cut in cuts), len(timestamps)]
    merged = Arrivals()
    for begin, end in pairwise(edges):
        merged.join(arrivals_of(timestamps[begin:end]))
    shuffled = timestamps.copy()
    random.shuffle(shuffled)
    others = arrivals_of(shuffled)
    for k in range(6):
        width, counts = merged.scale(k)
        shift = width.bit_length() - 1
        slots = (timestamps >> shift) - (timestamps.min() >> shift)
        expected = np.bincount(slots[slots < SLOTS_IN_SCALE], minlength=len(counts))
        assert counts.tolist() == expected.tolist()
        other_width, other_counts = others.scale(k)
        assert (other_width, other_counts.tolist()) == (width, counts.tolist())
    span = int(timestamps.max()) - int(timestamps.min())
    assert merged.scale(5)[0] >= 1 << 30
    assert span < merged.scale(5)[0] * SLOTS_IN_SCALE
    for clock, (period, bins) in enumerate(zip(PHASE_PERIODS_NS, PHASE_BINS, strict=True)):
        frames, visits, squares = merged.phase_bins(clock)
        expected_frames, expected_visits, expected_squares = plain_phases(timestamps.tolist(), period, bins)
        assert frames.tolist() == expected_frames
        assert visits.tolist() == expected_visits
        assert squares.tolist() == expected_squares


def plain_phases(timestamps: list[int], period: int, bins: int) -> tuple[list[int], list[int], list[int]]:
    """Count frames, visits and squares the slow way."""
    runs: list[list[tuple[int, int]]] = [[] for _ in range(bins)]
    for timestamp in timestamps:
        number, phase = divmod(timestamp, period)
        of_bin = runs[phase // (period // bins)]
        if of_bin and of_bin[-1][0] == number:
            of_bin[-1] = (number, of_bin[-1][1] + 1)
        else:
            of_bin.append((number, 1))
    lengths = [[run for _, run in of_bin] for of_bin in runs]
    return (
        [sum(one) for one in lengths],
        [len(one) for one in lengths],
        [sum(run * run for run in one) for one in lengths],
    )


def beats(period_ns: int, count: int, flow: int, length: int = 60, lost: tuple[int, ...] = ()) -> list[Frame]:
    random = np.random.default_rng(flow)
    return [
        Frame(WHOLE_SECOND_NS + at * period_ns + int(random.integers(0, period_ns // 100)), length, flow)
        for at in range(count)
        if at not in lost
    ]


def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)
    frames = seeded_stream(80, 3_000, flows=9) + beats(20_000_000, 300, 3)
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap_file(sorted(frames, key=lambda frame: frame.timestamp_ns)))
    results = []
    for jobs in (1, 2, 5):
        analysis = analyze_files([str(path)], Settings(names=("patterns",)), jobs=jobs).suite.analyses["patterns"]
        results.append((analysis.result().as_dict(), analysis.tables()))
    assert results[0] == results[1] == results[2]
    assert results[0][0]["heartbeats"]


@pytest.mark.statistical
def test_few_bursts_are_never_a_period() -> None:
    random = np.random.default_rng(12)
    for _ in range(40):
        bursts = np.sort(random.uniform(0, 2e9, 8))
        result = patterns_of(np.concatenate([at + np.cumsum(random.exponential(2e4, 40)) for at in bursts]))
        assert result["periods"] == []


def test_flows_that_beat_are_found_with_beats_lost_and_others_are_not() -> None:
    random = np.random.default_rng(9)
    frames = beats(30_000_000, 100, 1, lost=(7, 50)) + beats(1_000_000_000, 12, 2)
    frames += [Frame(WHOLE_SECOND_NS + int(at), 60, 3) for at in np.cumsum(random.exponential(1e7, 400))]
    result = feed(Patterns(), sorted(frames, key=lambda frame: frame.timestamp_ns), 4096).result().as_dict()
    found = {row["flow"]: row for row in result["heartbeats"]}
    assert list(found) == ["UDP 10.0.0.1:1001 > 10.0.0.2:9", "UDP 10.0.0.1:1002 > 10.0.0.2:9"]
    first, second = found.values()
    assert abs(first["period_ns"] - 30_000_000) < 100_000
    assert (first["gaps"], first["regular_gaps"], first["frame_bytes"]) == (97, 95, None)
    assert abs(second["period_ns"] - 10**9) < 10**7


def test_heartbeats_among_longer_frames_are_found_by_their_length() -> None:
    random = np.random.default_rng(10)
    data = [Frame(WHOLE_SECOND_NS + int(at), 200, 1) for at in np.cumsum(random.exponential(1e7, 300))]
    frames = sorted(beats(100_000_000, 28, 1) + data, key=lambda frame: frame.timestamp_ns)
    (row,) = feed(Patterns(), frames, 7).result().as_dict()["heartbeats"]
    assert row["frame_bytes"] == 60
    assert row["frames"] == 28
    assert abs(row["period_ns"] - 10**8) < 10**6


@pytest.mark.statistical
def test_a_flow_at_random_is_hardly_ever_a_heartbeat() -> None:
    random = np.random.default_rng(11)
    found = 0
    for _ in range(20):
        frames = [
            Frame(WHOLE_SECOND_NS + int(at), 60, flow)
            for flow in range(1, 41)
            for at in np.cumsum(random.exponential(1e7, int(random.integers(5, 40))))
        ]
        found += len(
            feed(Patterns(), sorted(frames, key=lambda one: one.timestamp_ns), 4096).result().as_dict()["heartbeats"]
        )
    assert found == 0


def test_buckets_of_gaps_follow_one_another() -> None:
    lowest, highest = gap_bounds()
    assert len(lowest) == GAP_BUCKETS
    assert (lowest[1:] == highest[:-1] + 1).all()
    widths = (highest - lowest + 1)[1:-1] / lowest[1:-1]
    assert widths.max() <= 1 / 32


def test_tails_are_those_of_tables() -> None:
    # Student's t: 12.706 at 0.025 with 1 degree of freedom, 2.228 with 10, 1.96 with very many.
    for t, degrees, tail in ((12.7062, 1, 0.025), (2.22814, 10, 0.025), (1.95996, 10**7, 0.025), (3.85, 1000, 6.3e-5)):
        assert math.isclose(t_tail(t, degrees), tail, rel_tol=0.01)
    exact = sum(math.comb(20, hits) * 0.1**hits * 0.9 ** (20 - hits) for hits in range(7, 21))
    assert math.isclose(math.exp(log_binomial_tail(7, 20, 0.1)), exact, rel_tol=1e-9)
    for shape in (1, 4, 16):
        value = 12.0
        poisson = sum(math.exp(-value) * value**k / math.factorial(k) for k in range(shape))
        assert math.isclose(math.exp(log_gamma_tail(shape, np.array([value]))[0]), poisson, rel_tol=1e-9)


def test_series_that_are_too_short_hold_no_period() -> None:
    assert find_lines(np.zeros(65_536, np.uint64), -27) == []
    assert find_lines(np.ones(200, np.uint64), -27) == []
    assert trials(32) == 0


@pytest.mark.parametrize(
    ("name", "periods", "beating"), [("microburst.pcap", [10**6], 0), ("feed-two-lines.pcapng", [], 2)]
)
def test_samples_show_what_was_put_into_them(name: str, periods: list[int], beating: int) -> None:
    ended = invoke("analyze", SAMPLES / name, "--only", "patterns", "--format", "json")
    report = json.loads(ended.stdout)
    jsonschema.Draft202012Validator(load_schema()).validate(report)
    result = report["analyses"]["patterns"]
    assert len(result["periods"]) == len(periods)
    for period, row in zip(periods, result["periods"], strict=True):
        assert abs(row["period_ns"] - period) <= row["uncertainty_ns"]
    assert [row["between_ns"][0] <= 20_000_000 <= row["between_ns"][1] for row in result["heartbeats"]] == [
        True
    ] * beating
    if name == "microburst.pcap":
        truth = json.loads((SAMPLES / "truth.json").read_text())[name]
        (top,) = result["phases"][1]["found"]
        assert (top["start_ns"], top["end_ns"], top["periods_hit"]) == (0, 1_000, len(truth["bursts"]))
        assert top["frames"] == sum(min(burst["frames"], 10) for burst in truth["bursts"])
    text = invoke("analyze", SAMPLES / name, "--only", "patterns").stdout
    assert "Patterns" in text
    assert "none found" in text


def test_patterns_are_not_in_the_default_report_and_write_tables(tmp_path: Path) -> None:
    report = json.loads(invoke("analyze", SAMPLES / "microburst.pcap", "--format", "json").stdout)
    assert "patterns" not in report["analyses"]
    ended = invoke("analyze", SAMPLES / "microburst.pcap", "--only", "patterns", "--tables", tmp_path)
    assert ended.code == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"patterns.periods.csv", "patterns.phases.csv", "patterns.phase_histogram.csv"}


@pytest.mark.parametrize("bucket", range(GAP_BUCKETS))
def test_every_gap_at_a_bound_is_counted_in_its_bucket(bucket: int) -> None:
    lowest, highest = (ends[bucket] for ends in gap_bounds())
    for gap in {int(lowest), int(highest)}:
        frames = [Frame(EARLIEST_NS, 60, 1), Frame(EARLIEST_NS + min(gap, LATEST_NS - EARLIEST_NS), 60, 1)]
        analysis = feed(Patterns(), frames, 2)
        assert isinstance(analysis, Patterns)
        assert np.flatnonzero(analysis._beats.rows["every"]["counts"][0]).tolist() == [bucket]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([-(1 << 63), -1, 0, (1 << 63) - 1]))))
def test_whatever_is_in_a_batch_is_counted_once_in_each_clock(timestamps: list[int]) -> None:
    batch = FrameBatch.from_frames([bytes(60)] * len(timestamps), [0] * len(timestamps))
    batch.storage("timestamp_ns")[: len(timestamps)] = timestamps
    arrivals = Arrivals()
    arrivals.update(batch, int(TimestampSource.FILE))
    clamped = [max(EARLIEST_NS, min(LATEST_NS, timestamp)) for timestamp in timestamps]
    for clock, (period, bins) in enumerate(zip(PHASE_PERIODS_NS, PHASE_BINS, strict=True)):
        wanted = np.bincount([timestamp % period // (period // bins) for timestamp in clamped], minlength=bins)
        assert arrivals.phase_bins(clock)[0].tolist() == wanted.tolist()
    width, counts = arrivals.scale(5)
    assert counts.sum() == len(timestamps)
    if timestamps:
        assert len(counts) == max(clamped) // width - min(clamped) // width + 1
