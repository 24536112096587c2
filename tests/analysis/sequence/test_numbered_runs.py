"""Runs of numbered packets against a slow account.

The tables of this module have no functions that Python can call; the nearest owner is `NumberedStreams`, which
`track_runs` fills.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.direct_runs import (
    RUN_FIELDS,
    Numbered,
    batch_of,
    new_streams,
    numbered_packets,
    plain_rule,
    slow_streams,
    streams_as_slow,
)

from uspcap.analysis.sequence.feed_runs import track_runs
from uspcap.analysis.sequence.numbered_runs import (
    KEPT_ENDS,
    KIND_DATA,
    KIND_END,
    KIND_FILL,
    KIND_HEARTBEAT,
    KIND_HOLE,
    KIND_RESET,
    PACKET_END_DTYPE,
    RUN_DTYPE,
    STREAM_DTYPE,
)
from uspcap.analysis.sequence.numbered_streams import NumberedStreams


def tracked(packets: list[Numbered], number_bytes: int = 8, **bounds: int) -> NumberedStreams:
    streams = new_streams(number_bytes=number_bytes, **bounds)
    batch = batch_of(packets)
    track_runs(batch, batch.headers, 0, plain_rule(number_bytes=number_bytes), streams)
    return streams


@given(packets=numbered_packets(), number_bytes=st.sampled_from([1, 2, 8]))
def test_runs_are_those_of_the_slow_account_at_both_ends_of_the_numbers(
    packets: list[Numbered], number_bytes: int
) -> None:
    found = streams_as_slow(tracked(packets, number_bytes))
    slow = slow_streams(packets, number_bytes)
    assert found.keys() == slow.keys()
    for name, stream in slow.items():
        assert found[name]["packets"] == stream.packets
        assert found[name]["messages"] == stream.messages
        assert found[name]["heartbeats"] == stream.heartbeats
        assert [run for run, _ in found[name]["runs"]] == [{key: run[key] for key in RUN_FIELDS} for run in stream.runs]
        for (_, kept), run in zip(found[name]["runs"], stream.runs, strict=True):
            # The last packet ends where the run does.
            assert kept == run["ends"][:-1]


@pytest.mark.parametrize("packets", [KEPT_ENDS, KEPT_ENDS + 1, KEPT_ENDS + 2, 3 * KEPT_ENDS])
def test_ends_are_kept_of_the_first_packets_of_a_run_only(packets: int) -> None:
    streams = tracked([Numbered(1 + 2 * at, 2) for at in range(packets)])
    _, _, runs, ends = streams.arrays()
    assert runs["packets"].tolist() == [packets]
    assert ends["after"].tolist() == [2 * (at + 1) for at in range(min(packets - 1, KEPT_ENDS))]


def test_later_runs_of_a_stream_keep_fewer_ends() -> None:
    packets = [Numbered(1_000 * (run + 1) + at) for run in range(260) for at in range(KEPT_ENDS)]
    kept = [len(ends) for _, ends in streams_as_slow(tracked(packets))[0, b"SESS"]["runs"]]
    assert kept == sorted(kept, reverse=True)
    assert kept[:256] == [KEPT_ENDS - 1] * 256
    assert set(kept[256:]) == {KEPT_ENDS >> 2}


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_stream_is_full_after_two_runs_more_than_its_bound_and_still_counts(most: int) -> None:
    packets = [Numbered(10 * at + 1) for at in range(20)]
    _, streams, runs, _ = tracked(packets, a_stream=most).arrays()
    assert len(runs) == most + 2
    assert streams["full"].tolist() == [1]
    assert streams["packets"].tolist() == [20]
    # As many runs as there is room for are not too many.
    _, streams, runs, _ = tracked(packets[: most + 2], a_stream=most).arrays()
    assert (len(runs), streams["full"].tolist()) == (most + 2, [0])


def test_messages_are_counted_beyond_64_bits() -> None:
    count = 1 << 31
    streams = tracked([Numbered(0, count)] * 2)
    for _ in range(35):
        other = streams.empty()
        other.absorb(streams, 0)
        streams.absorb(other, 0)
    _, rows, _, _ = streams.arrays()
    low, high = (int(half) for half in rows["messages"][0])
    assert low + (high << 64) == 2 * count << 35


def test_kinds_are_distinct_and_rows_have_the_layout_that_results_read() -> None:
    assert len({KIND_DATA, KIND_HEARTBEAT, KIND_END, KIND_RESET, KIND_FILL, KIND_HOLE}) == 6
    found = tracked([Numbered(1)]).arrays()[1:]
    assert [array.dtype for array in found] == [STREAM_DTYPE, RUN_DTYPE, PACKET_END_DTYPE]
    assert found[1]["first"].dtype == np.uint64


@pytest.mark.parametrize("bounds", [{"runs": 0}, {"a_stream": 0}, {"runs": -1}, {"runs": (1 << 40) + 1}])
def test_bounds_that_hold_no_run_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one run of each stream"):
        new_streams(**bounds)
