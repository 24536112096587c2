"""Path latency against plain loops, over streams of any kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import START_NS, Frame, feed, streams

from uspcap.analysis.path_latency.analysis import PathLatency
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.stats.histogram import Histogram

LARGEST = 2**63 - 1


def of(frames: Sequence[Frame], batch_frames: int = 4096) -> PathLatency:
    analysis = feed(PathLatency(), frames, batch_frames)
    assert isinstance(analysis, PathLatency)
    return analysis


def slow_result(frames: Sequence[Frame]) -> dict[str, Any]:
    """The result without its definition and what only a source knows, by loops over frames that anybody can follow."""
    paths: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    left_out = {"frames_without_timestamp": 0, "frames_without_reading": 0, "frames_timestamped_on_reading": 0}
    for number, frame in enumerate(frames, 1):
        if frame.source == TimestampSource.NONE:
            left_out["frames_without_timestamp"] += 1
        elif frame.read_ns == 0:
            left_out["frames_without_reading"] += 1
        elif frame.source == TimestampSource.USER:
            left_out["frames_timestamped_on_reading"] += 1
        else:
            path_ns = min(frame.read_ns - frame.timestamp_ns, LARGEST)
            paths[TimestampSource(frame.source).name].append((path_ns, number, min(frame.ring, 255)))
    sources = {
        name: {
            **slow_row(paths[name]),
            "error_bound_ns": None,
            "rings": [
                {"ring": ring, **slow_row([one for one in paths[name] if one[2] == ring])}
                for ring in sorted({ring for _, _, ring in paths[name]})
            ],
        }
        for name in sorted(paths, key=lambda name: TimestampSource[name])
    }
    return left_out | {"sources": sources, "caveats": []}


def slow_row(paths: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    forward = [path_ns for path_ns, _, _ in paths if path_ns >= 0]
    negative = [path_ns for path_ns, _, _ in paths if path_ns < 0]
    longest = max(forward, default=None)
    return {
        **Histogram.from_values(forward).result(),
        "max_frame": next((number for path_ns, number, _ in paths if path_ns == longest), 0),
        "negative": len(negative),
        "most_negative_ns": min(negative, default=0),
    }


@settings(deadline=None, max_examples=200)
@given(streams(), st.sampled_from([1, 7, 4096]))
def test_result_is_that_of_a_plain_loop(frames: list[Frame], batch_frames: int) -> None:
    result = of(frames, batch_frames).result().as_dict()
    del result["definition"], result["longest_unread_ns"]
    assert result == slow_result(frames)


@settings(deadline=None, max_examples=100)
@given(streams())
def test_every_frame_is_counted_once(frames: list[Frame]) -> None:
    result = of(frames).result().as_dict()
    left_out = sum(value for name, value in result.items() if name.startswith("frames_"))
    counted = sum(one["count"] + one["negative"] for one in result["sources"].values())
    assert counted + left_out == len(frames)
    for one in result["sources"].values():
        assert sum(ring["count"] for ring in one["rings"]) == one["count"]
        assert sum(ring["negative"] for ring in one["rings"]) == one["negative"]


@settings(deadline=None, max_examples=50)
@given(streams())
def test_table_holds_the_buckets_of_the_histograms(frames: list[Frame]) -> None:
    analysis = of(frames)
    table = analysis.tables()["histogram"]
    by_source: dict[str, int] = defaultdict(int)
    for source, count in zip(table["source"], table["count"], strict=True):
        by_source[source] += count
    totals = {name: histogram.total_count for name, histogram in analysis.histograms().items()}
    assert dict(by_source) == {name: count for name, count in totals.items() if count}


@pytest.mark.parametrize("source", [TimestampSource.XDP, TimestampSource.HARDWARE, TimestampSource.KERNEL])
def test_time_is_from_the_timestamp_to_the_reading(source: TimestampSource) -> None:
    frames = [Frame(START_NS + at, 60, 1, source, START_NS + at + 1_000 * at) for at in range(11)]
    (one,) = of(frames).result().as_dict()["sources"].values()
    assert (one["count"], one["min_ns"], one["max_ns"], one["max_frame"], one["mean_ns"]) == (11, 0, 10_000, 11, 5_000)


def test_negative_times_are_counted_apart_and_in_no_histogram() -> None:
    frames = [Frame(START_NS, 60, 1, TimestampSource.XDP, START_NS + path_ns) for path_ns in (-5, 7, -900, 0)]
    one = of(frames).result().as_dict()["sources"]["XDP"]
    assert (one["count"], one["min_ns"], one["max_ns"]) == (2, 0, 7)
    assert (one["negative"], one["most_negative_ns"]) == (2, -900)


def test_sum_beyond_64_bits_is_exact() -> None:
    path_ns = 2**62
    frames = [Frame(0, 60, 1, TimestampSource.XDP, path_ns + at) for at in range(9)]
    whole, first, second = of(frames), of(frames[:4]), of(frames[4:])
    first.merge(second)
    assert whole.result().as_dict()["sources"]["XDP"]["mean_ns"] == path_ns + 4
    assert first.result().as_dict() == whole.result().as_dict()


def test_filtering_a_batch_keeps_each_reading_with_its_frame() -> None:
    batch = FrameBatch.from_frames([bytes(60)] * 5, [START_NS] * 5, timestamp_source=TimestampSource.KERNEL)
    batch.storage("read_ns")[:5] = START_NS + np.array([1, 20, 300, 4_000, 50_000])
    batch.keep(np.array([0, 1, 0, 0, 1], np.uint8))
    analysis = PathLatency()
    analysis.update(batch)
    one = analysis.result().as_dict()["sources"]["KERNEL"]
    assert (one["count"], one["min_ns"], one["max_ns"]) == (2, 20, 50_000)
