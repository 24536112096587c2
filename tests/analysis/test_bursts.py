"""Peaks of sliding windows against windows counted one by one, and against windows that slide freely."""

from bisect import bisect_left

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.streams import START_NS, Frame, feed, seeded_stream, streams

from uspcap.analysis.bursts.analysis import DEFINITION, WIDTHS_NS, Bursts
from uspcap.analysis.bursts.loop import WIDEST_NS, SlidingWindows
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

SLOTS = 1000


def stretches(frames, slot_ns):
    """Cut numbered frames of one source where one lies in an earlier slot than the frame before."""
    found = []
    for number, frame in frames:
        slot = frame.timestamp_ns // slot_ns
        if not found or slot < found[-1][-1][0]:
            found.append([])
        found[-1].append((slot, number, frame))
    return found


def slotted_peaks(frames, width_ns):
    """Content of every run of 1000 slots that ends with an occupied one; the first of the largest."""
    slot_ns = width_ns // SLOTS
    windows = []
    parts = stretches(frames, slot_ns)
    for part in parts:
        slots = [slot for slot, *_ in part]
        last_of_slot = {slot: at for at, slot in enumerate(slots)}
        for last in sorted(last_of_slot):
            inside = [one for _, *one in part[bisect_left(slots, last - SLOTS + 1) : last_of_slot[last] + 1]]
            first_number, first = inside[0]
            size = sum(frame.length for _, frame in inside)
            windows.append((size, len(inside), first.timestamp_ns, first_number))
    by_bytes = max(windows, key=lambda window: window[0])
    by_frames = max(windows, key=lambda window: window[1])
    return by_bytes, by_frames, len(parts) - 1


def free_peaks(frames, width_ns, slot_ns):
    """Most bytes and most frames of any window [t, t + width) at all, within a stretch; timestamps put in order."""
    most_bytes = most_frames = 0
    for part in stretches(frames, slot_ns):
        ordered = sorted((frame.timestamp_ns, frame.length) for *_, frame in part)
        first = size = 0
        for at, (timestamp, length) in enumerate(ordered):
            size += length
            while ordered[first][0] <= timestamp - width_ns:
                size -= ordered[first][1]
                first += 1
            most_bytes, most_frames = max(most_bytes, size), max(most_frames, at + 1 - first)
    return most_bytes, most_frames


def by_source(frames):
    sources = {}
    for number, frame in enumerate(frames, 1):
        if frame.source != TimestampSource.NONE:
            sources.setdefault(TimestampSource(frame.source), []).append((number, frame))
    return sources


def check(analysis, frames, widths_ns):
    rows = {(row["source"], row["window_ns"]): row for row in analysis.result().as_dict()["windows"]}
    sources = by_source(frames)
    assert rows.keys() == {(source.name, width) for source in sources for width in widths_ns}
    for source, numbered in sources.items():
        timestamps = [frame.timestamp_ns for _, frame in numbered]
        duration = max(timestamps) - min(timestamps)
        total = sum(frame.length for _, frame in numbered)
        for width in widths_ns:
            row = rows[source.name, width]
            by_bytes, by_frames, restarts = slotted_peaks(numbered, width)
            assert (
                tuple(
                    row[field]
                    for field in ("peak_bytes", "peak_bytes_frames", "peak_bytes_start_ns", "peak_bytes_first_frame")
                )
                == by_bytes
            )
            assert (
                tuple(
                    row[field]
                    for field in ("peak_frames_bytes", "peak_frames", "peak_frames_start_ns", "peak_frames_first_frame")
                )
                == by_frames
            )
            assert row["restarts"] == restarts
            assert row["peak_bits_per_second"] == pytest.approx(by_bytes[0] * 8 / (width / 10**9), abs=0.001)
            if duration and duration >= width:
                expected = (by_bytes[0] / width) / (total / duration)
                assert row["peak_to_mean"] == pytest.approx(expected, abs=0.001)
            else:
                assert row["peak_to_mean"] is None


@settings(max_examples=150)
@given(frames=streams())
def test_short_streams_equal_windows_counted_one_by_one(frames):
    check(feed(Bursts(), frames, 7), frames, WIDTHS_NS)


@pytest.mark.parametrize(
    ("seed", "mean_gap_ns", "widths_ns", "sources"),
    [
        (31, 50, (1_000, 10_000), (TimestampSource.FILE,)),
        (32, 4_000, (1_000, 10_000, 100_000, 10**6), (TimestampSource.FILE,)),
        (33, 10**6, WIDTHS_NS, (TimestampSource.HARDWARE, TimestampSource.XDP, TimestampSource.NONE)),
        (34, 4_000, (7_000, 91_000, 300_000), (TimestampSource.FILE,)),
        (35, 300_000, (10**7, 10**8), (TimestampSource.FILE,)),
    ],
)
def test_long_streams_equal_windows_counted_one_by_one(seed, mean_gap_ns, widths_ns, sources):
    frames = seeded_stream(seed, 10_000, mean_gap_ns=mean_gap_ns, sources=sources)
    check(feed(Bursts(widths_ns=widths_ns), frames, 4096), frames, widths_ns)


SMALL_STEPS = st.lists(
    st.one_of(st.integers(0, 3), st.integers(0, 1200), st.integers(-3, 3), st.integers(900, 1100)), max_size=80
)


@settings(max_examples=300)
@given(steps=SMALL_STEPS, slot_ns=st.sampled_from([1, 2, 7, 10]), start=st.integers(-5_000, 5_000))
def test_windows_around_the_epoch_and_at_the_edges_of_slots(steps, slot_ns, start):
    now, frames = start, []
    for step in steps:
        now += step * slot_ns
        frames.append(Frame(now, 60 + step % 7, 1))
    check(feed(Bursts(widths_ns=(SLOTS * slot_ns,)), frames, 5), frames, (SLOTS * slot_ns,))


@settings(max_examples=150)
@given(frames=streams(), width_ns=st.sampled_from(WIDTHS_NS))
def test_peaks_lie_between_those_of_windows_that_slide_freely(frames, width_ns):
    slot_ns = width_ns // SLOTS
    check_between(frames, width_ns, slot_ns)


@pytest.mark.parametrize("width_ns", WIDTHS_NS[:-2])
def test_peaks_of_long_streams_lie_between_those_of_windows_that_slide_freely(width_ns):
    check_between(seeded_stream(36, 30_000, mean_gap_ns=max(width_ns // 100, 30)), width_ns, width_ns // SLOTS)


def check_between(frames, width_ns, slot_ns):
    """No window of 1000 slots holds more than the best of its width, nor less than the best that is a slot narrower.

    The narrower one touches 1000 slots at most, wherever it lies.
    """
    analysis = feed(Bursts(widths_ns=(width_ns,)), frames, 4096)
    for row in analysis.result().as_dict()["windows"]:
        numbered = by_source(frames)[TimestampSource[row["source"]]]
        wide_bytes, wide_frames = free_peaks(numbered, width_ns, slot_ns)
        narrow_bytes, narrow_frames = free_peaks(numbered, width_ns - slot_ns + 1, slot_ns)
        assert narrow_bytes <= row["peak_bytes"] <= wide_bytes
        assert narrow_frames <= row["peak_frames"] <= wide_frames
        if slot_ns == 1:
            assert (row["peak_bytes"], row["peak_frames"]) == (wide_bytes, wide_frames)


def test_a_window_may_miss_what_a_free_one_of_its_width_holds():
    # Two frames a nanosecond less than the width apart, but 1001 slots of 10 ns touched.
    frames = [Frame(START_NS + 5, 60, 1), Frame(START_NS + 5 + 9_999, 60, 1)]
    (row,) = feed(Bursts(widths_ns=(10_000,)), frames, 4096).result().as_dict()["windows"]
    assert row["peak_frames"] == 1
    assert free_peaks(list(enumerate(frames, 1)), 10_000, 10) == (120, 2)


def test_a_step_back_within_a_slot_restarts_nothing():
    frames = [Frame(START_NS + at, 60, 1) for at in (9, 3, 12, 1)]
    rows = feed(Bursts(widths_ns=(1_000, 10_000)), frames, 4096).result().as_dict()["windows"]
    assert [(row["restarts"], row["peak_frames"]) for row in rows] == [(2, 2), (1, 3)]
    assert "earlier slot" in DEFINITION


@pytest.mark.parametrize("frames_at_once", [1, 12])
def test_the_line_rate_counts_preamble_check_sequence_and_gap(frames_at_once):
    frames = [Frame(START_NS + at, 600, 1) for at in range(frames_at_once)]
    result = feed(Bursts(line_rate_bps=10**10, widths_ns=(10_000,)), frames, 4096).result().as_dict()
    assert result["line_rate_bps"] == 10**10
    (row,) = result["windows"]
    bits = (600 + 24) * 8 * frames_at_once
    assert row["line_rate_share"] == pytest.approx(bits / (10**10 * 10_000 / 10**9), abs=1e-6)
    (row,) = feed(Bursts(widths_ns=(10_000,)), frames, 4096).result().as_dict()["windows"]
    assert row["line_rate_share"] is None


@pytest.mark.parametrize("width_ns", [0, 999, 1_001, -1_000])
def test_widths_that_are_no_multiple_of_the_slots_are_refused(width_ns):
    with pytest.raises(ValueError, match="1000"):
        feed(Bursts(widths_ns=(width_ns,)), [Frame(START_NS, 60, 1)], 4096)


def test_the_table_holds_the_rows_of_the_result():
    analysis = feed(Bursts(), seeded_stream(37, 1000), 4096)
    table = analysis.tables()["windows"]
    assert [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)] == (
        analysis.result().as_dict()["windows"]
    )


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([-(1 << 63), -1, 0, (1 << 63) - 1])),
        max_size=40,
    ),
    st.sampled_from([(1000,), WIDTHS_NS, (1000 << 40,), (WIDEST_NS // 1000 * 1000,)]),
)
@example([EARLIEST_NS, LATEST_NS], WIDTHS_NS)
def test_whatever_is_in_a_batch_stays_within_the_windows(timestamps, widths_ns):
    batch = FrameBatch.from_frames([bytes(60)] * len(timestamps), [0] * len(timestamps))
    batch.storage("timestamp_ns")[: len(timestamps)] = timestamps
    windows = SlidingWindows(widths_ns)
    windows.update(batch, 0, TimestampSource.FILE)
    clamped = [max(EARLIEST_NS, min(LATEST_NS, timestamp)) for timestamp in timestamps]
    frames = [(number, Frame(timestamp, 60, 1)) for number, timestamp in enumerate(clamped, 1)]
    for width_ns, peaks in zip(widths_ns, windows.peaks() if frames else (), strict=False):
        assert peaks == tuple_of(slotted_peaks(frames, width_ns))


def tuple_of(wanted):
    """Peaks as the compiled windows give them: bytes, frames, timestamp, number."""
    by_bytes, by_frames, restarts = wanted
    return tuple(by_bytes), tuple(by_frames), restarts


@pytest.mark.parametrize("width_ns", [0, 999, 1001, 2 * WIDEST_NS, 1 << 62])
def test_a_width_that_no_window_has_is_refused(width_ns):
    with pytest.raises(ValueError, match="multiple of 1000"):
        SlidingWindows((width_ns,))


def test_a_thousand_frames_at_the_end_of_time_are_one_slot():
    batch = FrameBatch.from_frames([bytes(60)] * 4096, [1 << 80] * 4096)
    windows = SlidingWindows(WIDTHS_NS)
    for _ in range(3):
        windows.update(batch, 0, TimestampSource.FILE)
    assert [by_bytes[:2] for by_bytes, _, _ in windows.peaks()] == [(3 * 4096 * 60, 3 * 4096)] * len(WIDTHS_NS)
