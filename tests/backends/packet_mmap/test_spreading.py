"""How frames are spread over rings, as it is written."""

from __future__ import annotations

import os

import pytest

from uspcap.backends.packet_mmap import spreading


@pytest.mark.parametrize("text", ["", "cpu:", "cpu:0", "hash:100", "queue", "hash:x", "HASH"])
def test_what_is_no_way_to_spread_frames_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"write cpu, hash or qm, and rings as in hash:4$"):
        spreading(text)


def test_rings_are_as_many_as_said_or_as_there_are_cpus() -> None:
    assert spreading("hash:4") == ("hash", 4)
    assert spreading("qm") == ("qm", len(os.sched_getaffinity(0)))
