"""Numbers that TCP carries: against a dictionary of every number, against the law, and where streams are damaged."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbered_streams import (
    Carried,
    SlowNumbers,
    TcpCapture,
    direction_of,
    fix_sessions,
    fix_told,
    soup_sessions,
    soup_told,
    tcp_captures,
)
from support.order_sessions import Segment, feed

from uspcap.analysis.sequence import Sequence
from uspcap.analysis.stream_sequence import MessageSequence, SegmentSequence
from uspcap.protocols.feeds import find_protocol

FIX, SOUP, TCP = (find_protocol(name) for name in ("fix", "soupbintcp", "tcp"))


def followed(make: Callable[[], Sequence], segments: list[Segment], cuts: list[int] = [], frames: int = 64) -> Sequence:  # noqa: B006
    """Analyse segments in parts, merged in order."""
    edges = [0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]
    parts = [feed(make(), segments[first:last], frames) for first, last in pairwise(edges)]
    for later in parts[1:]:
        parts[0].merge(later)
    return parts[0]


def streams_of(analysis: Sequence) -> dict[tuple[str, str], dict[str, Any]]:
    return {(stream["flow"], stream["key"]): stream for stream in analysis.result()["streams"]}


def assert_as_slow(stream: dict[str, Any], slow: SlowNumbers, *, shift: int = 0) -> None:
    """Compare a stream with what the dictionary says; `shift` is added to the numbers of the stream."""
    for name in (
        "packets",
        "late",
        "duplicate",
        "overlap",
        "resets",
        "before_joined",
        "excluded",
        "heartbeats",
        "ended",
    ):
        assert stream[name] == getattr(slow, name), name
    assert slow.joined_at is not None
    assert stream["joined_at"] + shift == slow.joined_at
    assert stream["lost"] + stream["undetermined"] == slow.missing
    found = [
        (gap["first"] + shift, gap["last"] + shift, gap["before_frame"], gap["after_frame"]) for gap in stream["gaps"]
    ]
    assert found == [gap[:4] for gap in slow.gaps]


def outcome(analysis: Sequence) -> tuple[Any, Any, int]:
    return analysis.result(), analysis.tables(), analysis.frames_read


CUTS = st.lists(st.integers(0, 60), max_size=4)


@settings(deadline=None, max_examples=200)
@given(capture=tcp_captures(), cuts=CUTS)
def test_every_byte_of_tcp_is_where_a_dictionary_has_it_whatever_the_cuts(capture: TcpCapture, cuts: list[int]) -> None:
    analysis = followed(lambda: SegmentSequence(TCP), capture.segments, cuts)
    found = streams_of(analysis)
    for side, told in capture.told.items():
        if not told:
            assert (direction_of(side), "") not in found
            continue
        stream = found[direction_of(side), ""]
        slow = SlowNumbers().take(told, falls_to_one=False)
        assert slow.joined_at is not None
        assert_as_slow(stream, slow, shift=slow.joined_at - stream["joined_at"])
        assert stream["joined_at"] == slow.joined_at % 2**32
        assert stream["messages"] == sum(one.after - one.first for one in told if one.kind == "data") - sum(
            one.kind == "end" for one in told
        )
        acknowledged = capture.acknowledged[not side]
        for number, (gap, slow_gap) in enumerate(zip(stream["gaps"], slow.gaps, strict=True)):
            in_last_epoch = len(slow.epochs) == 1 or number >= slow.epochs[-2]
            known = acknowledged is not None and in_last_epoch and slow_gap[1] < acknowledged < slow.mark + 2**30
            assert gap["undetermined"] == known


@settings(deadline=None, max_examples=200)
@given(session=fix_sessions(), cuts=CUTS)
def test_every_fix_message_is_where_a_dictionary_has_it_whatever_the_cuts(session: Carried, cuts: list[int]) -> None:
    analysis = followed(lambda: MessageSequence(FIX), session.segments, cuts)
    found = streams_of(analysis)
    assert len(found) == 2
    for side, messages in session.messages.items():
        stream = found[direction_of(side), "A > B"]
        told = fix_told(messages)
        slow = SlowNumbers().take(told, falls_to_one=True)
        slow.heartbeats = sum(one.kind == "end" for one in told)
        slow.excluded = sum(one.kind == "fill" for one in told)
        assert_as_slow(stream, slow)
        assert stream["undetermined"] == stream["holes"] == stream["missing_bytes"] == 0
        times = {frame: at_ns for _, frame, at_ns in messages}
        for gap in stream["gaps"]:
            assert [gap["start_ns"], gap["end_ns"]] == [times[gap["before_frame"]], times[gap["after_frame"]]]


@settings(deadline=None, max_examples=200)
@given(session=soup_sessions(), cuts=CUTS)
def test_every_sequenced_packet_has_the_number_that_counting_gives(session: Carried, cuts: list[int]) -> None:
    analysis = followed(lambda: MessageSequence(SOUP), session.segments, cuts)
    found = {key: stream for (_, key), stream in streams_of(analysis).items()}
    told, unnumbered = soup_told(session.messages[True])
    assert found.pop("", {"excluded": 0})["excluded"] == unnumbered
    assert set(found) == set(told)
    of_session = heartbeats_by_session(session)
    for key, stream in found.items():
        slow = SlowNumbers().take(told[key], falls_to_one=True)
        slow.heartbeats += of_session.get(key, 0)
        assert_as_slow(stream, slow)


def heartbeats_by_session(session: Carried) -> dict[str, int]:
    counts: dict[str, int] = {}
    key = ""
    for message, _, _ in session.messages[True]:
        if message[2:3] == b"A":
            key = message[3:13].decode().strip()
        counts[key] = counts.get(key, 0) + (message[2:3] == b"H")
    return counts


@pytest.mark.parametrize("bounds", [{}, {"maximum_connections": 1}], ids=str)
@pytest.mark.parametrize("protocol", [FIX, SOUP], ids=lambda protocol: protocol.name)
@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_cutting_and_merging_changes_nothing_where_segments_are_lost(
    protocol: Any, bounds: dict[str, int], data: st.DataObject
) -> None:
    sessions = fix_sessions if protocol is FIX else soup_sessions
    segments = data.draw(sessions(losses=True)).segments
    more = data.draw(sessions(losses=True)).segments
    if data.draw(st.booleans()):
        # The same two ends again, or another connection at the same time.
        segments = segments + more
    else:
        other = [Segment(**{**vars(one), "connection": 1}) for one in more]
        segments = [one for pair in zip(segments, other, strict=False) for one in pair]
    make = lambda: MessageSequence(protocol, **bounds)  # noqa: E731
    whole = followed(make, segments)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(segments)), max_size=4))), len(segments)]
    parts = [feed(make(), segments[first:last], data.draw(st.sampled_from([1, 64]))) for first, last in pairwise(edges)]
    if data.draw(st.booleans()):
        for part in parts:
            part.result()
    if data.draw(st.booleans()):
        for later in parts[1:]:
            parts[0].merge(later)
    else:
        while len(parts) > 1:
            later = parts.pop()
            parts[-1].merge(later)
    assert outcome(parts[0]) == outcome(whole)


@settings(deadline=None, max_examples=120)
@given(first=tcp_captures(), second=tcp_captures(), data=st.data())
def test_cutting_and_merging_changes_nothing_of_tcp(first: TcpCapture, second: TcpCapture, data: st.DataObject) -> None:
    segments = first.segments + second.segments
    whole = followed(lambda: SegmentSequence(TCP), segments)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(segments)), max_size=4))), len(segments)]
    parts = [feed(SegmentSequence(TCP), segments[a:b], 3) for a, b in pairwise(edges)]
    while len(parts) > 1:
        later = parts.pop()
        parts[-1].merge(later)
    assert outcome(parts[0]) == outcome(whole)
