"""Numbers that TCP carries: against a dictionary of every number, against the law, and where streams are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbered_streams import (
    FIN,
    RST,
    Carried,
    TcpCapture,
    direction_of,
    fix_arrivals,
    fix_of,
    fix_sessions,
    soup_arrivals,
    soup_sessions,
    tcp_captures,
)
from support.order_sessions import ACK, START_NS, SYN, Segment, feed, in_parts, soup
from support.slow_numbers import SlowNumbers, assert_as_slow

from uspcap.analysis.sequence.analysis import Sequence
from uspcap.analysis.sequence.streams import MessageSequence, SegmentSequence
from uspcap.protocols.feeds import find_protocol

FIX, SOUP, TCP = (find_protocol(name) for name in ("fix", "soupbintcp", "tcp"))


def followed(
    make: Callable[[], Sequence], segments: list[Segment], cuts: Iterable[int] = (), frames: int = 64
) -> Sequence:
    """Analyse segments in parts, merged in order."""
    edges = [0, *sorted(min(cut, len(segments)) for cut in cuts), len(segments)]
    parts = [feed(make(), segments[first:last], frames) for first, last in pairwise(edges)]
    for later in parts[1:]:
        parts[0].merge(later)
    return parts[0]


def streams_of(analysis: Sequence) -> dict[tuple[str, str], dict[str, Any]]:
    return {(stream["flow"], stream["key"]): stream for stream in analysis.result().as_dict()["streams"]}


def outcome(analysis: Sequence) -> tuple[Any, Any, int]:
    return analysis.result().as_dict(), analysis.tables(), analysis.frames_read


CUTS = st.lists(st.integers(0, 60), max_size=4)


@settings(deadline=None, max_examples=80)
@given(capture=tcp_captures(), cuts=CUTS)
def test_every_byte_of_tcp_is_where_a_dictionary_has_it_whatever_the_cuts(capture: TcpCapture, cuts: list[int]) -> None:
    analysis = followed(lambda: SegmentSequence(TCP), capture.segments, cuts)
    found = streams_of(analysis)
    for side, arrivals in capture.arrivals.items():
        if not arrivals:
            assert (direction_of(side), "") not in found
            continue
        stream = found[direction_of(side), ""]
        slow = SlowNumbers.of(arrivals, modulus=2**32, far=TCP.far)
        assert_as_slow(stream, slow, but=["messages"])
        assert stream["messages"] == sum(one.after - one.first for one in arrivals if one.kind == "data") - sum(
            one.kind == "end" for one in arrivals
        )
        acknowledged = capture.acknowledged[not side]
        for number, (gap, slow_gap) in enumerate(zip(stream["gaps"], slow.gaps, strict=True)):
            in_last_epoch = len(slow.epochs) == 1 or number >= slow.epochs[-2]
            known = acknowledged is not None and in_last_epoch and slow_gap.last < acknowledged < slow.mark + 2**30
            assert gap["undetermined"] == known


@settings(deadline=None, max_examples=80)
@given(session=fix_sessions(), cuts=CUTS)
def test_every_fix_message_is_where_a_dictionary_has_it_whatever_the_cuts(session: Carried, cuts: list[int]) -> None:
    analysis = followed(lambda: MessageSequence(FIX), session.segments, cuts)
    found = streams_of(analysis)
    assert len(found) == 2
    for side, messages in session.messages.items():
        stream = found[direction_of(side), "A > B"]
        assert_as_slow(stream, SlowNumbers.of(fix_arrivals(messages)["A > B"]))
        assert stream["undetermined"] == stream["holes"] == stream["missing_bytes"] == 0


@settings(deadline=None, max_examples=80)
@given(session=soup_sessions(), cuts=CUTS)
def test_every_sequenced_packet_has_the_number_that_counting_gives(session: Carried, cuts: list[int]) -> None:
    analysis = followed(lambda: MessageSequence(SOUP), session.segments, cuts)
    found = {key: stream for (_, key), stream in streams_of(analysis).items()}
    arrivals, unnumbered = soup_arrivals(session.messages[True])
    assert found.pop("", {"excluded": 0})["excluded"] == unnumbered
    assert set(found) == set(arrivals)
    of_session = heartbeats_by_session(session)
    for key, stream in found.items():
        slow = SlowNumbers.of(arrivals[key])
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
@settings(deadline=None, max_examples=60)
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
    assert outcome(in_parts(data, make, segments)) == outcome(whole)


@settings(deadline=None, max_examples=60)
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


def spoken(messages: list[bytes], *, lost: tuple[int, ...] = (), side: bool = True, syn: bool = True) -> list[Segment]:
    """A connection whose one end sends each message in a segment of its own, but for those that were lost."""
    segments = [Segment(START_NS, 0, False, 99, flags=SYN), Segment(START_NS, 0, True, 199, flags=SYN | ACK)]
    at = 200 if side else 100
    for number, message in enumerate(messages, 1):
        segments.append(Segment(START_NS + 1_000 * number, 0, side, at, message, acknowledgment=0, flags=ACK))
        at += len(message)
    kept = [one for number, one in enumerate(segments) if number - 2 not in lost]
    return kept if syn else kept[2:]


def only_stream(analysis: Sequence) -> dict[str, Any]:
    (stream,) = analysis.result().as_dict()["streams"]
    return stream  # type: ignore[no-any-return]


def fix_stream(messages: list[bytes], **how: Any) -> dict[str, Any]:
    return only_stream(followed(lambda: MessageSequence(FIX), spoken(messages, **how)))


def soup_stream(messages: list[bytes], **how: Any) -> dict[str, Any]:
    return only_stream(followed(lambda: MessageSequence(SOUP), spoken(messages, **how)))


LOGIN = soup(b"A", b"   SESSION" + b"%20d" % 1)


def test_number_that_was_skipped_is_lost_and_one_whose_bytes_are_missing_is_undetermined() -> None:
    numbers = [1, 2, 5, 6, 7, 8, 11]
    messages = [fix_of("D", number) for number in numbers]
    stream = fix_stream(messages, lost=(4, 5))
    assert [(gap["first"], gap["last"], gap["undetermined"]) for gap in stream["gaps"]] == [
        (3, 4, False),
        (7, 10, True),
    ]
    assert (stream["lost"], stream["undetermined"], stream["holes"]) == (2, 4, 1)
    assert stream["missing_bytes"] == len(messages[4] + messages[5])


def test_hole_that_no_number_is_missing_after_leaves_the_next_gap_alone() -> None:
    client = [fix_of("D", 1), fix_of("D", 2), fix_of("D", 3)]
    # What is missing belongs to no message with a number of this stream: another session in the same direction.
    messages = [client[0], fix_of("D", 9, sender="X"), client[1], fix_of("D", 5), client[2]]
    found = streams_of(followed(lambda: MessageSequence(FIX), spoken(messages, lost=(1,))))
    (stream,) = found.values()
    assert [(gap["first"], gap["undetermined"]) for gap in stream["gaps"]] == [(3, False)]
    assert stream["late"] == 1


def test_sessions_of_one_direction_are_streams_of_their_own_and_both_are_torn_by_a_hole() -> None:
    messages = [
        fix_of("D", 1),
        fix_of("D", 70, sender="X"),
        fix_of("D", 2),
        fix_of("D", 71, sender="X"),
        fix_of("D", 3),
        fix_of("D", 72, sender="X"),
    ]
    found = streams_of(followed(lambda: MessageSequence(FIX), spoken(messages, lost=(2, 3))))
    gaps = {key: [(gap["first"], gap["undetermined"]) for gap in one["gaps"]] for (_, key), one in found.items()}
    assert gaps == {"A > B": [(2, True)], "X > B": [(71, True)]}


@pytest.mark.parametrize("cuts", [(), (4,), (7,), (4, 7), (5,)])
def test_hole_of_the_connection_before_tears_nothing_of_the_next(cuts: tuple[int, ...]) -> None:
    before = spoken([fix_of("D", number) for number in (1, 2, 3)], lost=(1,))
    after = spoken([fix_of("D", number) for number in (4, 6)])
    stream = only_stream(followed(lambda: MessageSequence(FIX), before + after, cuts))
    gaps = [(gap["first"], gap["undetermined"]) for gap in stream["gaps"]]
    assert gaps == [(2, True), (5, False)]


def test_possible_duplicates_fill_what_is_missing_and_change_nothing_else() -> None:
    again = ((43, "Y"), (122, "20240305-14:30:00"))
    messages = [fix_of("D", number) for number in (1, 2, 6)]
    messages += [fix_of("D", 3, *again), fix_of("4", 4, *again, (123, "Y"), (36, "6")), fix_of("D", 2, *again)]
    messages += [fix_of("D", 1, *again), fix_of("D", 40, *again), fix_of("D", 7)]
    stream = fix_stream(messages)
    assert (stream["lost"], stream["late"], stream["duplicate"], stream["resets"]) == (0, 3, 0, 0)
    assert (stream["packets"], stream["excluded"], stream["last"], stream["before_joined"]) == (4, 5, 7, 0)
    (gap,) = stream["gaps"]
    assert (gap["filled"], gap["filled_after_ns"]) == (3, 2_000)


def test_gap_fill_accounts_for_the_numbers_that_it_names() -> None:
    stream = fix_stream([fix_of("D", 1), fix_of("4", 2, (123, "Y"), (36, "9")), fix_of("D", 9), fix_of("D", 11)])
    assert (stream["packets"], stream["messages"], stream["last"], stream["lost"]) == (4, 4, 11, 1)


@pytest.mark.parametrize(
    ("message", "resets"),
    [
        (fix_of("4", 900, (36, "40")), 1),
        (fix_of("4", 900, (123, "N"), (36, "40")), 1),
        (fix_of("A", 40, (141, "Y")), 1),
        (fix_of("A", 40, (141, "N")), 0),
        (fix_of("4", 900, (43, "Y"), (36, "40")), 0),
    ],
)
def test_resets_restart_the_stream_and_are_counted(message: bytes, resets: int) -> None:
    first = 41 if b"35=A" in message else 40
    stream = fix_stream([fix_of("D", 7), message, fix_of("D", first)])
    assert stream["resets"] == resets
    assert stream["gap_count"] == (0 if resets else 1)


def test_logon_numbered_one_restarts_the_stream_and_the_first_of_all_is_no_reset() -> None:
    day = [fix_of("A", 1), fix_of("D", 2), fix_of("5", 3)]
    stream = fix_stream(day + day)
    assert (stream["resets"], stream["duplicate"], stream["lost"], stream["ended"]) == (1, 0, 0, True)


def test_message_without_a_number_is_foreign_and_ids_that_are_missing_are_empty() -> None:
    bare = b"8=FIX.4.4\x019=5\x0135=0\x0110=163\x01"
    anonymous = fix_of("D", 1, sender=None, target=None)
    result = followed(lambda: MessageSequence(FIX), spoken([fix_of("D", 1), bare, anonymous])).result().as_dict()
    assert result["foreign"] == 1
    assert [stream["key"] for stream in result["streams"]] == ["", "A > B"]


def test_packets_after_bytes_that_are_missing_are_counted_on_and_the_next_login_shows_how_many_there_were() -> None:
    messages = [LOGIN, *(soup(b"S", b"%d" % number) for number in range(1, 11))]
    (lost, kept) = (soup_stream(messages, lost=(4, 5)), soup_stream(messages))
    assert (kept["last"], kept["packets"], kept["holes"]) == (10, 10, 0)
    assert (lost["last"], lost["packets"], lost["lost"], lost["undetermined"]) == (8, 8, 0, 0)
    assert (lost["holes"], lost["missing_bytes"]) == (1, len(messages[4] + messages[5]))
    again = [*messages, soup(b"A", b"   SESSION" + b"%20d" % 11), soup(b"S", b"11")]
    stream = soup_stream(again, lost=(4, 5))
    (gap,) = stream["gaps"]
    assert (gap["first"], gap["last"], gap["undetermined"], stream["undetermined"]) == (9, 10, True, 2)
    assert stream["last"] == 11


def test_login_that_announces_more_than_was_sent_shows_a_loss_where_no_byte_is_missing() -> None:
    messages = [LOGIN, soup(b"S", b"1"), soup(b"A", b"   SESSION" + b"%20d" % 5), soup(b"S", b"5"), soup(b"Z")]
    stream = soup_stream(messages)
    assert (stream["lost"], stream["undetermined"], stream["last"], stream["ended"]) == (3, 0, 5, True)


def test_sequenced_packets_before_any_login_have_no_number() -> None:
    stream = soup_stream([soup(b"S", b"1"), soup(b"S", b"2"), soup(b"S", b"3")])
    assert (stream["excluded"], stream["packets"], stream["first"], stream["key"]) == (3, 0, None, "")


@pytest.mark.parametrize(
    "number", [b"x" * 20, b" " * 20, b"%20d" % (2**64 - 1), b"99999999999999999999", b"1".ljust(20)]
)
def test_login_whose_number_is_none_numbers_nothing(number: bytes) -> None:
    messages = [soup(b"A", b"   SESSION" + number), soup(b"S", b"1"), soup(b"H"), soup(b"H")]
    result = followed(lambda: MessageSequence(SOUP), spoken(messages)).result().as_dict()
    assert result["foreign"] == 1
    assert [(stream["excluded"], stream["heartbeats"]) for stream in result["streams"]] == [(1, 2)]


def bytes_sent(*parts: tuple[int, int, int]) -> list[Segment]:
    """Segments of the venue: number, length, flags."""
    return [
        Segment(START_NS + 1_000 * at, 0, True, number, b"x" * length, flags)
        for at, (number, length, flags) in enumerate(parts)
    ]


def tcp_stream(segments: list[Segment], cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    return streams_of(followed(lambda: SegmentSequence(TCP), segments, cuts))[direction_of(True), ""]


@pytest.mark.parametrize("cut", [None, *range(8)])
def test_syn_that_is_said_again_begins_nothing(cut: int | None) -> None:
    start = 2**32 - 3
    sent = bytes_sent(
        (start, 0, SYN | ACK), (start, 0, SYN | ACK), (start + 1, 10, ACK),
        (start, 0, SYN | ACK), (start, 0, SYN | ACK), (start + 11, 10, ACK),
        (start + 31, 10, ACK), (start + 21, 10, ACK),
    )  # fmt: skip
    stream = tcp_stream(sent, () if cut is None else (cut,))
    assert (stream["resets"], stream["lost"], stream["late"], stream["duplicate"]) == (0, 0, 10, 0)
    assert (stream["first"], stream["last"]) == (2**32 - 2, 37)


@pytest.mark.parametrize("cut", [None, *range(7)])
def test_connection_that_begins_with_the_same_number_again_restarts_the_stream(cut: int | None) -> None:
    once = bytes_sent((99, 0, SYN | ACK), (100, 10, ACK), (110, 10, ACK), (120, 0, FIN | ACK))
    stream = tcp_stream(once + once[:3], () if cut is None else (cut,))
    assert (stream["resets"], stream["duplicate"], stream["packets"]) == (1, 0, 5)


def test_far_away_segment_restarts_the_stream_and_the_largest_window_does_not() -> None:
    near = tcp_stream(bytes_sent((0, 10, ACK), (10 + 2**30, 10, ACK)))
    assert (near["resets"], near["lost"]) == (0, 2**30)
    far = tcp_stream(bytes_sent((0, 10, ACK), (11 + 2**30, 10, ACK)))
    assert (far["resets"], far["lost"]) == (1, 0)


def test_bytes_that_the_receiver_has_acknowledged_were_lost_by_the_capture() -> None:
    sent = bytes_sent((99, 0, SYN | ACK), (100, 10, ACK), (120, 10, ACK), (140, 10, ACK))
    answer = Segment(START_NS + 9_000, 0, False, 500, flags=ACK, acknowledgment=130)
    stream = tcp_stream([*sent, answer])
    assert [(gap["first"], gap["undetermined"]) for gap in stream["gaps"]] == [(110, True), (130, False)]
    assert (stream["lost"], stream["undetermined"]) == (10, 10)
    # Nothing can be known of the connection before.
    stream = tcp_stream([*sent, answer, *bytes_sent((999, 0, SYN | ACK))])
    assert (stream["lost"], stream["undetermined"]) == (20, 0)


def test_acknowledgement_from_before_the_connection_restarted_shows_nothing() -> None:
    old = Segment(START_NS, 0, False, 500, flags=ACK, acknowledgment=1_000)
    restarted = [
        Segment(START_NS, 0, False, 900, flags=SYN),
        *bytes_sent((99, 0, SYN | ACK), (100, 10, ACK), (120, 10, ACK)),
    ]
    for cuts in ((), (1,), (2,)):
        stream = tcp_stream([old, *restarted], cuts)
        assert (stream["lost"], stream["undetermined"]) == (10, 0)


def test_reset_segment_is_excluded_whatever_its_number() -> None:
    stream = tcp_stream(bytes_sent((100, 10, ACK), (0, 0, RST), (110, 10, ACK)))
    assert (stream["excluded"], stream["resets"], stream["gap_count"]) == (1, 0, 0)


def test_long_connection_from_its_syn_on_is_kept_as_few_runs() -> None:
    segments = bytes_sent((99, 0, SYN | ACK))
    at = 100
    for number in range(4_000):
        segments += bytes_sent((at, 10, ACK))
        at += 10
        segments += [Segment(START_NS, 0, False, 500, flags=ACK, acknowledgment=at)]
        if number % 100 == 0:
            segments += bytes_sent((at, 0, ACK))
    analysis = followed(lambda: SegmentSequence(TCP), segments, frames=4_096)
    assert tcp_stream(segments)["packets"] == 4_000
    assert len(analysis._streams.arrays()[2]) < 10


@pytest.mark.parametrize("protocol", [FIX, SOUP], ids=lambda protocol: protocol.name)
def test_a_bound_on_the_log_changes_nothing_of_a_whole_capture_and_what_it_cut_is_counted(protocol: Any) -> None:
    messages = [fix_of("D", number) for number in range(1, 200)]
    if protocol is SOUP:
        messages = [LOGIN, *(soup(b"S", b"%d" % number) for number in range(1, 200))]
    for syn in (True, False):
        segments = spoken(messages, syn=syn)
        roomy = followed(lambda: MessageSequence(protocol), segments)
        tight = followed(lambda: MessageSequence(protocol, maximum_log_bytes=1_000), segments)
        assert outcome(tight) == outcome(roomy)
        assert tight.result().as_dict()["complete"]
    segments = spoken(messages)
    cut = followed(lambda: MessageSequence(protocol, maximum_log_bytes=1_000), segments, [100])
    assert cut.result().as_dict()["cut_connections"] == 1
    assert not cut.result().as_dict()["complete"]


def test_messages_beyond_the_bounds_are_counted() -> None:
    messages = [fix_of("D", number) for number in range(1, 798, 2)]
    result = followed(lambda: MessageSequence(FIX, runs_a_stream=100), spoken(messages)).result().as_dict()
    assert (result["not_followed"], result["packets"], result["complete"]) == (299, 399, False)
    several = [fix_of("D", number, sender=f"S{number}") for number in range(1, 9)]
    result = followed(lambda: MessageSequence(FIX, maximum_streams=3), spoken(several)).result().as_dict()
    assert len(result["streams"]) <= 3
    assert (result["sampled_one_in"] > 1, result["complete"]) == (True, False)
    segments = bytes_sent(*((100 + 20 * number, 10, ACK) for number in range(300)))
    result = followed(lambda: SegmentSequence(TCP, runs_a_stream=100), segments).result().as_dict()
    assert (result["not_followed"], result["complete"]) == (200, False)


def test_names_longer_than_what_is_kept_of_them_are_streams_of_their_own() -> None:
    messages = [fix_of("D", 1, sender="S" * 70 + end, target="T" * 200) for end in ("1", "2", "1")]
    found = streams_of(followed(lambda: MessageSequence(FIX), spoken(messages)))
    assert sorted(stream["packets"] for stream in found.values()) == [1, 2]


def test_nothing_of_a_login_but_session_and_number_is_reported() -> None:
    login = soup(b"L", b"uspcap" + b"secretword" + b" " * 10 + b"1".rjust(20))
    logon = fix_of("A", 1, (553, "trader"), (554, "secretword"))
    for protocol, message in ((SOUP, login), (FIX, logon)):
        analysis = followed(lambda: MessageSequence(protocol), spoken([message, LOGIN, soup(b"S", b"1")]))  # noqa: B023
        assert "secretword" not in str(outcome(analysis))
