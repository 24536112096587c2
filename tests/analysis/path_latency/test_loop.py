"""From timestamp to reading by source and ring, against lists of all frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.analysis.path_latency.loop import GROUPS, LEFT_OUT, PATH_TRACK_DTYPE, RING_GROUPS, track_paths
from uspcap.frames import UNTRUSTED, FrameBatch, TimestampSource
from uspcap.stats.buckets import Cells
from uspcap.stats.histogram import Histogram

MOST = (1 << 63) - 1
ENDS = st.sampled_from([-(1 << 63), -MOST, -(1 << 62), -1, 0, 1, 1 << 62, MOST - 1, MOST])
TIMES = st.one_of(st.integers(0, 5000), ENDS)
ROWS = st.lists(
    st.tuples(
        TIMES, TIMES, st.sampled_from([*range(7), 5 | UNTRUSTED]), st.sampled_from([0, 1, 254, 255, 256, (1 << 32) - 1])
    ),
    max_size=30,
)


def tracked(rows: list[Any], sizes: int = 100, shift: int = 0) -> tuple[Any, Cells, list[int]]:
    tracks, cells, left_out = np.zeros(GROUPS, PATH_TRACK_DTYPE), Cells(), np.zeros(len(LEFT_OUT), np.uint64)
    for start in range(0, len(rows), sizes):
        part = rows[start : start + sizes]
        batch = FrameBatch.from_frames([b""] * len(part), [0] * len(part), first_frame_number=1 + start)
        for name, values in zip(
            ("timestamp_ns", "read_ns", "timestamp_source", "queue"), zip(*part, strict=True), strict=True
        ):
            batch.storage(name)[: len(part)] = np.array(values)
        track_paths(batch, shift, tracks, cells, left_out)
    return tracks, cells, left_out.tolist()


@given(rows=ROWS, sizes=st.sampled_from([1, 100]), shift=st.sampled_from([0, 1 << 40]))
def test_groups_have_what_lists_of_their_frames_have(rows: list[Any], sizes: int, shift: int) -> None:
    tracks, cells, left_out = tracked(rows, sizes, shift)
    groups: dict[int, list[tuple[int, int]]] = {}
    expected_out = [0, 0, 0]
    for number, (timestamp_ns, read_ns, source, ring) in enumerate(rows, 1 + shift):
        if source >= TimestampSource.NONE:
            expected_out[0] += 1
        elif read_ns == 0:
            expected_out[1] += 1
        elif source == TimestampSource.USER:
            expected_out[2] += 1
        else:
            path_ns = max(-MOST, min(MOST, read_ns - timestamp_ns))
            groups.setdefault(source * RING_GROUPS + min(ring, RING_GROUPS - 1), []).append((path_ns, number))
    assert left_out == expected_out
    assert set(np.flatnonzero(tracks["frames"] + tracks["negative"]).tolist()) == set(groups)
    by_flow = cells.by_flow()
    for group, paths in groups.items():
        track = tracks[group]
        forward = [path_ns for path_ns, _ in paths if path_ns >= 0]
        assert (int(track["frames"]), int(track["negative"])) == (len(forward), len(paths) - len(forward))
        assert (int(track["sum_high"]) << 64) + int(track["sum_low"]) == sum(forward)
        assert int(track["most_negative_ns"]) == min([path_ns for path_ns, _ in paths if path_ns < 0], default=0)
        if forward:
            assert (int(track["lowest_ns"]), int(track["highest_ns"])) == (min(forward), max(forward))
            # The first of equal maxima.
            assert int(track["highest_frame"]) == next(number for path_ns, number in paths if path_ns == max(forward))
        buckets, counts = by_flow.histogram_of(group)
        dense = np.zeros_like(Histogram().counts)
        dense[buckets] = counts
        assert dense.tolist() == Histogram.from_values(forward).counts.tolist()


def test_an_empty_batch_counts_nothing() -> None:
    tracks, cells, left_out = tracked([])
    assert not tracks.view(np.uint8).any()
    assert (cells.lines, left_out) == (0, [0, 0, 0])


def test_tracks_of_another_layout_are_refused() -> None:
    batch = FrameBatch.from_frames([b""], [0])
    right = np.zeros(GROUPS, PATH_TRACK_DTYPE)
    for tracks, counts in ((right[:-1], 3), (right[:RING_GROUPS], 3), (right, 2), (right, 4)):
        with pytest.raises(ValueError, match="another layout"):
            track_paths(batch, 0, tracks, Cells(), np.zeros(counts, np.uint64))
