"""What each segment says beside the state of its connection, against a byte-by-byte reference and case by case.

This module has no functions that Python can call; the nearest owner is `TcpTracks`, with nothing before.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tcp_reference import Connection
from support.tcp_segments import ACK, PSH, RST, SYN, WRAP, Segment, captures

from uspcap.analysis.tcp.tcp_state import COUNTS
from uspcap.analysis.tcp.tcp_tracks import MEASURE_COUNT, TcpTracks
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

Counts = dict[int, list[dict[str, int]]]

ACKNOWLEDGED, BY_TIMESTAMPS, HANDSHAKE, WHOLE_HANDSHAKE = 0, 2, 4, 6


def tracked(segments: list[Segment]) -> TcpTracks:
    batch = FrameBatch.from_frames([one.wire() for one in segments], [one.timestamp_ns for one in segments])
    batch.storage("timestamp_source")[: len(segments)] = [one.source for one in segments]
    tracks = TcpTracks(1 << 10, 1 << 16, 1 << 10, 1 << 10, at_once=True)
    tracks.update(batch, batch.headers, 0)
    return tracks


def counts_of(tracks: TcpTracks) -> Counts:
    """Return what was counted by connection: of the initiator of these tests, and of the responder, the lower end."""
    found = {}
    for row in tracks.connection_array():
        named = [dict(zip(COUNTS, map(int, way), strict=True)) for way in row["counts"]]
        found[int(row["high_port"]) - 40_000] = [
            {name: number for name, number in way.items() if number} for way in reversed(named)
        ]
    return found


def times_of(tracks: TcpTracks) -> list[tuple[int, int, int]]:
    """Return measure, count and sum of all that was measured."""
    blocks = tracks.block_array()
    return [
        (measure, int(track["count"]), int(track["sum_low"]))
        for block in blocks
        for measure, track in enumerate(block["tracks"])
        if track["count"]
    ]


@settings(max_examples=60)
@given(segments=captures(most=20))
def test_counts_of_each_end_are_those_of_the_reference(segments: list[Segment]) -> None:
    slow: dict[int, Connection] = {}
    for frame, segment in enumerate(segments):
        slow.setdefault(segment.connection, Connection([])).take(segment, frame)
    expected = {
        number: [{name: many for name, many in one.counts[side].items() if many} for side in (False, True)]
        for number, one in slow.items()
    }
    assert counts_of(tracked(segments)) == expected


DATA = ACK | PSH
CASES = {
    "retransmissions": [(0, 100), (100, 100), (100, 100)],
    "out_of_order": [(0, 100), (200, 100), (100, 100)],
    "gaps": [(0, 100), (200, 100)],
    "restarts": [(0, 100), (1 << 30, 100)],
}


@pytest.mark.parametrize("isn", [0, 1 << 31, WRAP - 150, WRAP - 1])
@pytest.mark.parametrize("name", sorted(CASES))
def test_what_befalls_data_is_counted_once_wherever_numbers_wrap(name: str, isn: int) -> None:
    segments = [Segment(at, False, isn + first, 1, length, DATA) for at, (first, length) in enumerate(CASES[name])]
    (sent, received) = counts_of(tracked(segments))[0]
    of_cases = {case: sent[case] for case in CASES if case in sent}
    # What comes out of order was missing first.
    assert of_cases == ({name: 1, "gaps": 1} if name == "out_of_order" else {name: 1})
    assert (sent["segments"], received) == (len(segments), {})


def test_three_duplicate_acknowledgments_make_a_retransmission_a_fast_one() -> None:
    for duplicates, fast in ((2, 0), (3, 1), (9, 1)):
        segments = [Segment(at, False, 100 * at, 1, 100, DATA) for at in range(3)]
        segments += [Segment(5, True, 1, 100)] * (1 + duplicates)
        segments += [Segment(6, False, 100, 1, 100, DATA)]
        sent, received = counts_of(tracked(segments))[0]
        assert received["duplicate_acks"] == duplicates
        assert sent.get("fast_retransmissions", 0) == fast
        assert sent["retransmissions"] == 1


@pytest.mark.parametrize(
    ("flags", "window", "counted"),
    [(RST | ACK, 500, "resets"), (SYN, 500, "syns"), (ACK, 0, "zero_windows")],
)
def test_flags_and_windows_are_counted_of_their_sender(flags: int, window: int, counted: str) -> None:
    segments = [Segment(0, True, 5, 1), Segment(1, True, 5, 1, flags=flags, window=window)]
    sent, received = counts_of(tracked(segments))[0]
    assert sent == {}
    assert received[counted] == 1


def handshake(*, repeated: bool = False) -> list[Segment]:
    return [
        *[Segment(0, False, 9, flags=SYN)] * (1 + repeated),
        Segment(30, True, 99, 10, flags=SYN | ACK),
        Segment(50, False, 10, 100),
    ]


def test_a_handshake_is_measured_on_both_sides_and_as_a_whole() -> None:
    times = times_of(tracked(handshake()))
    assert (WHOLE_HANDSHAKE, 1, 50) in times
    assert sorted(sum_ns for measure, _, sum_ns in times if HANDSHAKE <= measure < WHOLE_HANDSHAKE) == [20, 30]
    # What was retransmitted gives no time.
    repeated = times_of(tracked(handshake(repeated=True)))
    assert [sum_ns for measure, _, sum_ns in repeated if measure >= HANDSHAKE] == [20]


@given(
    sent_ns=st.sampled_from([EARLIEST_NS, -1, 0, LATEST_NS - 1, LATEST_NS]),
    acknowledged_ns=st.sampled_from([EARLIEST_NS, EARLIEST_NS + 1, 0, 5, LATEST_NS]),
    other_source=st.booleans(),
)
def test_an_acknowledgment_gives_a_time_that_is_not_negative_of_one_timestamp_source(
    sent_ns: int, acknowledged_ns: int, other_source: bool
) -> None:
    source = TimestampSource.KERNEL if other_source else TimestampSource.FILE
    tracks = tracked([Segment(sent_ns, False, 1, 1, 10, DATA), Segment(acknowledged_ns, True, 1, 11, source=source)])
    apart = acknowledged_ns - sent_ns
    counted = {name for way in counts_of(tracks)[0] for name in way}
    if other_source:
        assert (times_of(tracks), "different_sources" in counted) == ([], True)
    elif apart < 0:
        assert (times_of(tracks), "negative" in counted) == ([], True)
    else:
        ((measure, count, sum_ns),) = times_of(tracks)
        assert (measure // 2 * 2, count, sum_ns) == (ACKNOWLEDGED, 1, apart)


def test_an_echoed_timestamp_gives_a_time() -> None:
    segments = [
        Segment(0, False, 1, 1, 10, DATA, timestamps=(WRAP - 1, 0)),
        # The first value may be an old one; the next is later, across the wrap.
        Segment(10, False, 11, 1, 10, DATA, timestamps=(0, 0)),
        Segment(30, True, 1, 21, timestamps=(7, 0)),
    ]
    assert (BY_TIMESTAMPS, 20) in [(measure // 2 * 2, sum_ns) for measure, _, sum_ns in times_of(tracked(segments))]
    assert len(set(COUNTS)) == len(COUNTS)
    assert MEASURE_COUNT == WHOLE_HANDSHAKE + 1
