"""Merging and sorting as mergecap and reordercap do them, over captures made by others."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter

import pytest
from support.shared_captures import CAPTURES, WELL_FORMED, needs_captures
from support.untidy import pcap

import uspcap

pytestmark = [pytest.mark.oracle, needs_captures]


def frames_of(*paths, **options):
    """Return time and bytes of each frame in the order in which they come."""
    return [
        (int(batch.timestamp_ns[row]), batch.frame_bytes(row))
        for batch in uspcap.open(*paths, **options).batches()
        for row in range(len(batch))
    ]


@pytest.fixture(params=WELL_FORMED)
def tidy(request):
    """The frames of a capture in order of time."""
    return sorted(frames_of(CAPTURES / request.param, sort="off"), key=lambda frame: frame[0])


@pytest.mark.skipif(shutil.which("mergecap") is None, reason="mergecap is not installed")
@pytest.mark.parametrize("parts", [2, 5])
def test_files_are_merged_as_mergecap_does(tmp_path, tidy, parts):
    made = random.Random(parts)
    split = [[] for _ in range(parts)]
    for frame in tidy:
        split[made.randrange(parts)].append(frame)
    paths = [pcap(tmp_path / f"{at}.pcap", part) for at, part in enumerate(split)]
    merged = tmp_path / "merged.pcap"
    subprocess.run(["mergecap", "-F", "nsecpcap", "-w", merged, *paths], check=True)
    expected, found = frames_of(merged, sort="off"), frames_of(*paths)
    assert [ns for ns, _ in found] == [ns for ns, _ in expected]
    # Equal times may come in either order.
    assert Counter(found) == Counter(expected)


@pytest.mark.skipif(shutil.which("reordercap") is None, reason="reordercap is not installed")
@pytest.mark.parametrize("lag_ns", [1_000, 1_000_000, 40_000_000])
def test_frames_are_sorted_as_reordercap_does(tmp_path, tidy, lag_ns):
    made = random.Random(lag_ns)
    untidy = pcap(tmp_path / "untidy.pcap", sorted(tidy, key=lambda frame: frame[0] + made.randrange(lag_ns)))
    subprocess.run(["reordercap", untidy, tmp_path / "sorted.pcap"], check=True, capture_output=True)
    expected, found = frames_of(tmp_path / "sorted.pcap", sort="off"), frames_of(untidy)
    assert [ns for ns, _ in found] == [ns for ns, _ in expected]
    assert Counter(found) == Counter(expected)
