"""Quality of timestamps against plain loops over the same frames."""

import math
from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import START_NS, Frame, feed, seeded_stream, streams

from uspcap.analysis.timestamps.analysis import BATCHED_SHARE, STEPS_LISTED, Timestamps
from uspcap.frames import LATEST_NS, TimestampSource

SECOND_NS = 10**9


def zeros_of(timestamp):
    """Trailing decimal zeros, at most nine."""
    return next((digits for digits in range(9) if timestamp % 10 ** (digits + 1)), 9)


def numbered_by_source(frames):
    sources = {}
    for number, frame in enumerate(frames, 1):
        if frame.source != TimestampSource.NONE:
            sources.setdefault(frame.source, []).append((number, frame.timestamp_ns))
    return dict(sorted(sources.items()))


def quality(numbered):
    timestamps = [timestamp for _, timestamp in numbered]
    steps = [after - before for before, after in pairwise(timestamps)]
    runs = [list(run) for _, run in groupby(numbered, key=lambda one: one[1])]
    longest = max(runs, key=len)
    zeros = Counter(map(zeros_of, timestamps))
    classes = Counter(len(run).bit_length() - 1 for run in runs)
    # The resolution is the coarsest power of ten that all but one in 1000 are multiples of.
    finest = next(
        (digits for digits in range(10) if sum(zeros[d] for d in range(digits + 1)) * 1000 > len(timestamps)), 9
    )
    return {
        "frames": len(timestamps),
        "first_ns": timestamps[0],
        "last_ns": timestamps[-1],
        "earliest_ns": min(timestamps),
        "latest_ns": max(timestamps),
        "observed_resolution_ns": 10**finest,
        "common_divisor_ns": math.gcd(*(timestamp - timestamps[0] for timestamp in timestamps)),
        "trailing_zeros": [zeros[digits] for digits in range(10)],
        "duplicates": steps.count(0),
        "backward_steps": sum(step < 0 for step in steps),
        "backward_largest_ns": max([-step for step in steps if step < 0], default=0),
        "tai_like_jumps": sum(35 * SECOND_NS <= abs(step) <= 38 * SECOND_NS for step in steps),
        "runs": len(runs),
        "longest_run": len(longest),
        "longest_run_frame": longest[0][0],
        "run_lengths": [
            {"from": 2**power, "to": 2 ** (power + 1) - 1, "runs": count} for power, count in sorted(classes.items())
        ],
    }


def steps_of(sources):
    """Backward steps and jumps of all sources, the first ones."""
    steps = [
        {
            "frame": number,
            "before_ns": before,
            "after_ns": after,
            "step_ns": after - before,
            "source": TimestampSource(source).name,
        }
        for source, numbered in sources.items()
        for (_, before), (number, after) in pairwise(numbered)
        if after < before or 35 * SECOND_NS <= after - before <= 38 * SECOND_NS
    ]
    return sorted(steps, key=lambda step: step["frame"])[:STEPS_LISTED]


def kinds(warnings, name):
    """Which things are said of a source."""
    said = {
        "resolution": f"{name} timestamps have a resolution of",
        "quantised": f"{name} timestamps all differ by multiples",
        "backward": f"{name} timestamps step backward",
        "batched": f"{name} timestamps equal the previous one",
        "jumps": f"{name} timestamps jump",
    }
    return {kind for kind, words in said.items() if any(words in warning for warning in warnings)}


def expected_kinds(found):
    frames = found["frames"]
    coarse = frames >= 100 and found["observed_resolution_ns"] > 1
    wanted = {
        "resolution": coarse,
        "quantised": frames >= 100 and not coarse and found["common_divisor_ns"] > 1,
        "backward": found["backward_steps"] > 0,
        "batched": frames >= 100 and found["duplicates"] > BATCHED_SHARE * frames,
        "jumps": found["tai_like_jumps"] > 0,
    }
    return {kind for kind, there in wanted.items() if there}


def check(analysis, frames):
    result = analysis.result().as_dict()
    sources = numbered_by_source(frames)
    names = [TimestampSource(source).name for source in sources]
    assert list(result["sources"]) == names
    warned = 0
    for source, name in zip(sources, names, strict=True):
        found = quality(sources[source])
        assert result["sources"][name] == found
        assert kinds(result["warnings"], name) == expected_kinds(found)
        warned += len(expected_kinds(found))
    without_timestamp = len(frames) - sum(map(len, sources.values()))
    assert result["frames_without_timestamp"] == without_timestamp
    assert any("frames have no timestamp" in warning for warning in result["warnings"]) == (without_timestamp > 0)
    assert any("never compared" in warning for warning in result["warnings"]) == (len(sources) > 1)
    assert len(result["warnings"]) == warned + (without_timestamp > 0) + (len(sources) > 1)
    assert result["steps"] == steps_of(sources)


@settings(max_examples=300)
@given(frames=streams())
def test_short_streams_equal_the_plain_loops(frames):
    check(feed(Timestamps(), frames, 7), frames)


@settings(max_examples=200)
@given(
    steps=st.lists(st.sampled_from([0, 0, 1, 3, -1]), min_size=95, max_size=130),
    grid_ns=st.sampled_from([1, 2, 7, 10, 1000, 4000, 15_625_000, SECOND_NS]),
)
def test_coarse_clocks_are_reported(steps, grid_ns):
    frames, now = [], START_NS
    for step in steps:
        now += step * grid_ns
        frames.append(Frame(now, 60, 1))
    check(feed(Timestamps(), frames, 50), frames)


@pytest.mark.parametrize(
    ("seed", "grid_ns", "sources"),
    [
        (41, 1, (TimestampSource.FILE,)),
        (42, 8, (TimestampSource.HARDWARE, TimestampSource.KERNEL, TimestampSource.NONE)),
        (43, 1000, (TimestampSource.FILE,)),
        (44, 100_000, (TimestampSource.XDP, TimestampSource.TRAILER, TimestampSource.USER)),
    ],
)
def test_long_streams_equal_the_plain_loops(seed, grid_ns, sources):
    frames = seeded_stream(seed, 50_000, grid_ns=grid_ns, sources=sources, backward_share=0.0005)
    check(feed(Timestamps(), frames, 4096), frames)


def test_few_fine_timestamps_among_coarse_ones_are_outliers():
    for fine, resolution in ((2, 1000), (3, 1)):
        timestamps = START_NS + np.arange(2_000) * 1000
        timestamps[100 : 100 + fine] += 1
        frames = [Frame(int(timestamp), 60, 1) for timestamp in timestamps]
        analysis = feed(Timestamps(), frames, 4096)
        check(analysis, frames)
        assert analysis.result().as_dict()["sources"]["FILE"]["observed_resolution_ns"] == resolution


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("step_ns", "jumps"),
    [
        (35 * SECOND_NS - 1, 0),
        (35 * SECOND_NS, 1),
        (37 * SECOND_NS + 123, 1),
        (38 * SECOND_NS, 1),
        (38 * SECOND_NS + 1, 0),
    ],
)
def test_steps_of_35_to_38_seconds_either_way_are_taken_for_tai(direction, step_ns, jumps):
    frames = [Frame(START_NS, 60, 1), Frame(START_NS + direction * step_ns, 60, 1)]
    analysis = feed(Timestamps(), frames, 4096)
    check(analysis, frames)
    assert analysis.result().as_dict()["sources"]["FILE"]["tai_like_jumps"] == jumps


def test_only_the_first_steps_are_listed_and_all_are_counted():
    frames = [Frame(START_NS + 10 * (at % 2) - at, 60, 1) for at in range(3 * STEPS_LISTED)]
    analysis = feed(Timestamps(), frames, 64)
    check(analysis, frames)
    assert analysis.result().as_dict()["sources"]["FILE"]["backward_steps"] > STEPS_LISTED
    assert len(analysis.tables()["steps"]["frame"]) == STEPS_LISTED


def test_the_tables_hold_the_steps_and_the_runs():
    frames = seeded_stream(45, 20_000, sources=(TimestampSource.FILE, TimestampSource.XDP), backward_share=0.002)
    analysis = feed(Timestamps(), frames, 4096)
    tables, result = analysis.tables(), analysis.result().as_dict()
    assert [dict(zip(tables["steps"], row, strict=True)) for row in zip(*tables["steps"].values(), strict=True)] == (
        result["steps"]
    )
    assert list(zip(*tables["runs"].values(), strict=True)) == [
        (name, row["from"], row["to"], row["runs"])
        for name, found in result["sources"].items()
        for row in found["run_lengths"]
    ]


def test_timestamps_at_the_ends_of_the_range_are_cut_like_others():
    frames = [Frame(timestamp, 60, 1) for timestamp in (1 - 2**63, 2**63 - 1, 1 - 2**63, 0)]
    whole = feed(Timestamps(), frames, 4096)
    assert whole.result().as_dict()["sources"]["FILE"]["backward_largest_ns"] == 2 * LATEST_NS
    for cut in range(len(frames) + 1):
        merged = feed(Timestamps(), frames[:cut], 4096)
        merged.merge(feed(Timestamps(), frames[cut:], 4096))
        assert merged.result().as_dict() == whole.result().as_dict()
