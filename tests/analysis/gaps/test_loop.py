"""The longest gaps of each flow, against sorting them all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.analysis.gaps.loop import GAP_DTYPE, GAP_TRACK_DTYPE, keep_longest

FLOWS = 5


@given(
    rows=st.lists(st.tuples(st.integers(0, FLOWS - 1), st.integers(0, 12)), max_size=120),
    most=st.integers(1, 9),
    floor_ns=st.integers(-1, 12),
)
def test_the_longest_are_kept_the_earlier_among_equals_and_floors_rise(rows, most, floor_ns):
    gaps = np.zeros(len(rows), GAP_DTYPE)
    gaps["flow"] = [flow for flow, _ in rows]
    gaps["gap_ns"] = [gap for _, gap in rows]
    gaps["after_frame"] = np.arange(len(rows))
    tracks = np.zeros(FLOWS, GAP_TRACK_DTYPE)
    tracks["floor_ns"] = floor_ns
    kept = keep_longest(gaps, tracks, most)
    expected, floors = [], []
    for flow in range(FLOWS):
        ranked = sorted((-gap, frame) for frame, (of_flow, gap) in enumerate(rows) if of_flow == flow)[:most]
        expected += [(flow, -gap, frame) for gap, frame in ranked]
        floors.append(max(floor_ns, -ranked[-1][0]) if len(ranked) == most else floor_ns)
    found = zip(kept["flow"].tolist(), kept["gap_ns"].tolist(), kept["after_frame"].tolist(), strict=True)
    assert sorted(found) == sorted(expected)
    assert kept["flow"].tolist() == sorted(kept["flow"].tolist())
    assert tracks["floor_ns"].tolist() == floors


def test_a_gap_of_a_flow_without_a_track_is_refused():
    gaps = np.zeros(1, GAP_DTYPE)
    gaps["flow"] = FLOWS
    with pytest.raises(ValueError, match="without a track"):
        keep_longest(gaps, np.zeros(FLOWS, GAP_TRACK_DTYPE), 1)
