"""From the times of frames to histograms and segments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uspcap.comparison.live.measurement import SEGMENTS, Cost, Measured, find_again, measure, merged
from uspcap.comparison.live.path_readers import COLUMNS
from uspcap.comparison.live.timestamp_ring import TIMESTAMP_DTYPE
from uspcap.comparison.schedule import Trim
from uspcap.stats.histogram import Histogram

TAI_NS = 37_000_000_000
START_NS = 1_700_000_000_000_000_000
NO_TRIM = Trim()


def records(frames: int, *, kernel: bool = True) -> np.ndarray:
    """Frames 1 ms apart: hook 100, skb 250, found 900 and user 1000 + n after frame n was due."""
    number = np.arange(frames)
    intended = START_NS + 1_000_000 * number
    columns = {
        "sequence": number,
        "intended_ns": intended,
        "hook_ns": intended + TAI_NS + 100,
        "kernel_ns": intended + 250 if kernel else np.zeros(frames, np.int64),
        "found_ns": intended + TAI_NS + 900,
        "user_ns": intended + TAI_NS + 1000 + number,
    }
    return np.array([columns[name] for name in COLUMNS], np.int64)


def test_segments_are_on_one_clock_and_add_up_to_the_latency() -> None:
    for kind, names in SEGMENTS.items():
        kept, latency, segments = measure(records(50, kernel=kind != "af_xdp"), kind, TAI_NS, NO_TRIM)
        assert kept.as_dict() == {"warm_up": 0, "counted": 50, "cool_down": 0}
        assert tuple(segments) == names
        total = latency.histogram.sum_ns
        assert total == sum(900 + n for n in range(50))
        for first, second in zip(names[::2], names[1::2], strict=True):
            parts = (segments[first].histogram.sum_ns, segments[second].histogram.sum_ns)
            assert None not in parts
            assert sum(part or 0 for part in parts) == total
        if "hook_to_skb" in segments:
            assert segments["hook_to_skb"].histogram.highest_ns == 150
        if "hook_to_ring" in segments:
            assert segments["hook_to_ring"].histogram.lowest_ns == 800


def test_ends_of_a_run_are_left_out_by_the_time_that_frames_were_due() -> None:
    shuffled = records(100)[:, np.random.default_rng(3).permutation(100)]
    kept, latency, _ = measure(shuffled, "kernel", TAI_NS, Trim(warm_up_ns=10_000_000, cool_down_ns=20_000_000))
    assert kept.as_dict() == {"warm_up": 10, "counted": 70, "cool_down": 20}
    assert (latency.histogram.lowest_ns, latency.histogram.highest_ns) == (910, 979)


def test_a_run_without_frames_measures_nothing() -> None:
    kept, latency, segments = measure(records(0), "kernel", TAI_NS, Trim(warm_up_ns=5))
    assert (kept.frames, latency.histogram.total_count) == (0, 0)
    assert all(segment.histogram.total_count == 0 for segment in segments.values())


def test_negative_lengths_are_counted_and_not_clipped() -> None:
    measured = Measured.between(np.array([100, 100, 100, 0, 100]), np.array([150, 90, 40, 50, 0]))
    assert (measured.histogram.total_count, measured.histogram.sum_ns) == (1, 50)
    assert (measured.negative, measured.lowest_negative_ns, measured.missing) == (2, -60, 2)


values = st.lists(st.integers(-(1 << 40), 1 << 40), max_size=30)


@given(values, values)
def test_measuring_parts_and_adding_equals_measuring_all(one: list[int], other: list[int]) -> None:
    def of(lengths: list[int]) -> Measured:
        start = np.full(len(lengths), 1 << 50, np.int64)
        return Measured.between(start, start + np.array(lengths, np.int64))

    added, whole = of(one) + of(other), of(one + other)
    assert added.histogram.result() == whole.histogram.result()
    assert (added.negative, added.lowest_negative_ns) == (whole.negative, whole.lowest_negative_ns)


def test_merging_keeps_what_is_exact_only_where_both_are() -> None:
    exact = Histogram.from_values([10, 30])
    rough = Histogram(Histogram.from_values([20]).counts)
    both = merged(exact, rough)
    assert (both.total_count, both.sum_ns, both.lowest_ns) == (3, None, None)
    assert merged(Histogram(), exact) is exact


def test_costs_add_and_what_one_does_not_know_nobody_knows() -> None:
    total = Cost(frames=2, cpu_ns=10, cycles=5, softirq_ns=1) + Cost(frames=3, cpu_ns=1, cycles=None, softirq_ns=2)
    assert (total.frames, total.cpu_ns, total.cycles, total.softirq_ns) == (5, 11, None, 3)


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["both", "read", "timestamped"])), max_size=60))
def test_frames_are_found_again_by_the_order_of_their_digest(frames: list[tuple[int, str]]) -> None:
    timestamps = np.array(
        [(digest, 1_000 + at, 1, 0) for at, (digest, where) in enumerate(frames) if where != "read"], TIMESTAMP_DTYPE
    )
    read = [(digest, 5_000 + at) for at, (digest, where) in enumerate(frames) if where != "timestamped"]
    of_reader = np.zeros((len(COLUMNS), len(read)), np.int64)
    of_reader[COLUMNS.index("sequence")] = [digest for digest, _ in read]
    of_reader[COLUMNS.index("user_ns")] = [at for _, at in read]
    again = find_again(of_reader, timestamps, 37)
    # By a dictionary of queues.
    pairs = []
    received = lost = foreign = ambiguous = 0
    for digest in range(7):
        ours = [at for one, at in read if one == digest]
        theirs = [int(timestamp["hook_ns"]) for timestamp in timestamps if timestamp["digest"] == digest]
        if len(ours) == len(theirs):
            pairs += list(zip(theirs, ours, strict=True))
        elif ours and theirs:
            ambiguous += len(ours)
        received += min(len(ours), len(theirs))
        lost += max(0, len(theirs) - len(ours))
        foreign += max(0, len(ours) - len(theirs))
    rows = dict(zip(COLUMNS, again.records, strict=True))
    assert sorted(zip(rows["hook_ns"].tolist(), rows["user_ns"].tolist(), strict=True)) == sorted(pairs)
    assert (rows["intended_ns"] == rows["hook_ns"] - 37).all()
    assert (again.received, again.lost, again.foreign, again.ambiguous) == (received, lost, foreign, ambiguous)
