"""Orders against plain Python, under the law, and where streams are damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.order_reference import Request, slow_requests
from support.order_sessions import (
    ACK,
    PROTOCOLS,
    START_NS,
    SYN,
    Segment,
    Session,
    feed,
    fix,
    in_parts,
    ouch,
    sessions,
    soup,
)

from uspcap.analysis.orders.analysis import Orders
from uspcap.frames import TimestampSource


def rows_of(analysis: Orders) -> list[dict[str, Any]]:
    """The table of requests by row, without what is empty."""
    table = analysis.tables()["requests"]
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def expected_row(request: Request, segments: list[Segment]) -> dict[str, Any]:
    def ends(prefix: str, first: int, complete: int) -> dict[str, int]:
        return {
            f"{prefix}first_ns": segments[first].timestamp_ns,
            f"{prefix}first_frame": first + 1,
            f"{prefix}complete_ns": segments[complete].timestamp_ns,
            f"{prefix}complete_frame": complete + 1,
        }

    row: dict[str, Any] = {"request": request.kind, "id": request.id, "executions": request.executions}
    row |= ends("", request.first, request.complete)
    for kind, (first, complete, venue_ns) in request.answers.items():
        row |= ends(f"{kind}_", first, complete)
        if venue_ns is not None:
            row[f"{kind}_venue_ns"] = venue_ns
    return row


def outcome(analysis: Orders) -> tuple[Any, Any, int]:
    return analysis.result().as_dict(), analysis.tables(), analysis.frames_read


@settings(deadline=None, max_examples=150)
@given(session=sessions())
def test_every_request_has_the_times_that_plain_python_finds(session: Session) -> None:
    expected = [expected_row(one, session.segments) for one in slow_requests(session.protocol, session.segments)]
    analysis = feed(Orders(session.protocol), session.segments)
    left_out = ("connection", "source", "repeats")
    assert [{key: row[key] for key in row if key not in left_out} for row in rows_of(analysis)] == expected
    counted = analysis.result().as_dict()
    assert counted["streams"]["holes"] == 0
    assert counted["followed"] == len(expected)


@pytest.mark.parametrize("bounds", [{}, {"maximum_connections": 1}, {"maximum_requests": 3}], ids=str)
@pytest.mark.parametrize("losses", [False, True])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_cutting_and_merging_changes_nothing(bounds: dict[str, int], losses: bool, data: st.DataObject) -> None:
    session = data.draw(sessions(losses=losses))
    segments = session.segments
    whole = feed(Orders(session.protocol, **bounds), segments)
    merged = in_parts(data, lambda: Orders(session.protocol, **bounds), segments)
    assert outcome(merged) == outcome(whole)


@settings(deadline=None, max_examples=60)
@given(session=sessions(losses=True))
def test_the_result_may_be_taken_at_any_time(session: Session) -> None:
    asked, silent = Orders(session.protocol), Orders(session.protocol)
    for segment in session.segments:
        feed(asked, [segment])
        asked.result()
        feed(silent, [segment])
    assert outcome(asked) == outcome(silent)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_bound_on_the_log_changes_nothing_of_a_whole_capture(protocol: str) -> None:
    segments = long_session(protocol, 300)[2:]
    roomy, tight = feed(Orders(protocol), segments), feed(Orders(protocol, maximum_log_bytes=2_000), segments)
    assert outcome(tight) == outcome(roomy)
    assert roomy.result().as_dict()["sources"]["FILE"]["enter_to_accepted"]["count"] == 300


def test_a_connection_that_the_bound_on_the_log_cut_is_counted() -> None:
    segments = long_session("ouch-4.2", 100)
    first = feed(Orders("ouch-4.2"), segments[:102])
    first.merge(feed(Orders("ouch-4.2", maximum_log_bytes=2_000), segments[102:]))
    assert first.result().as_dict()["bounds"] == {"cut_connections": 1, "dropped_bytes": 0}


def long_session(protocol: str, orders: int) -> list[Segment]:
    """A connection from its SYN on; order n is accepted 1000 + n ns after it was sent."""
    segments = [Segment(START_NS, 0, False, 99, flags=SYN), Segment(START_NS, 0, True, 199, flags=SYN | ACK)]
    sequences = {False: 100, True: 200}
    for order in range(1, orders + 1):
        at_ns = START_NS + order * 1_000_000
        for side, now, kind in ((False, at_ns, "O"), (True, at_ns + 1000 + order, "a")):
            if protocol == "fix":
                name = (11, f"T{order}")
                payload = fix("D", order, name) if kind == "O" else fix("8", order, name, (150, "0"))
            else:
                payload = ouch(protocol, kind, order, now - START_NS)
            segments.append(Segment(now, 0, side, sequences[side], payload, acknowledgment=sequences[not side]))
            sequences[side] += len(payload)
    return segments


def accepted(analysis: Orders, source: str = "FILE") -> dict[str, Any]:
    measure: dict[str, Any] = analysis.result().as_dict()["sources"][source]["enter_to_accepted"]
    return measure


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_known_latencies_are_exact(protocol: str) -> None:
    analysis = feed(Orders(protocol), long_session(protocol, 50))
    rows = rows_of(analysis)
    assert [row["accepted_complete_ns"] - row["first_ns"] for row in rows] == [1000 + n for n in range(1, 51)]
    assert (accepted(analysis)["min_ns"], accepted(analysis)["max_ns"]) == (1001, 1050)


def test_fix_is_detected_and_ouch_is_proposed_not_guessed() -> None:
    assert accepted(feed(Orders(), long_session("fix", 20)))["count"] == 20
    for protocol, fits in (("ouch-4.2", "fit_4_2"), ("ouch-5.0", "fit_5_0")):
        result = feed(Orders(), long_session(protocol, 20)).result().as_dict()
        assert result["sources"] == {}
        assert result["followed"] == 0
        assert result["ouch_versions"] == {"application_messages": 40, "fit_4_2": 0, "fit_5_0": 0, fits: 40}


def test_a_retransmitted_order_counts_once_and_from_its_first_sighting() -> None:
    segments = long_session("ouch-4.2", 1)
    again = Segment(START_NS + 1_000_500, 0, False, 100, segments[2].payload)
    analysis = feed(Orders("ouch-4.2"), [*segments[:3], again, segments[3]])
    assert analysis.result().as_dict()["requests"]["enter"] == 1
    assert analysis.result().as_dict()["streams"]["repeated_bytes"] == len(again.payload)
    assert accepted(analysis)["max_ns"] == 1001


def test_an_order_ends_where_the_last_byte_of_its_answer_came_however_it_was_cut() -> None:
    segments = long_session("ouch-5.0", 1)
    request, answer = segments[2:]
    pieces = [
        Segment(START_NS + 10, 0, False, 100, request.payload[:1]),
        Segment(START_NS + 20, 0, False, 101, request.payload[1:]),
        Segment(START_NS + 500, 0, True, 202, answer.payload[2:30]),
        Segment(START_NS + 700, 0, True, 230, answer.payload[30:]),
        Segment(START_NS + 900, 0, True, 200, answer.payload[:2]),
    ]
    analysis = feed(Orders("ouch-5.0"), [*segments[:2], *pieces])
    (row,) = rows_of(analysis)
    assert (row["first_ns"], row["complete_ns"]) == (START_NS + 10, START_NS + 20)
    # The first byte came last, and with it the message was whole.
    assert (row["accepted_first_ns"], row["accepted_complete_ns"]) == (START_NS + 900, START_NS + 900)
    assert accepted(analysis)["max_ns"] == 890


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reading_goes_on_behind_a_hole(protocol: str) -> None:
    segments = long_session(protocol, 30)
    del segments[22]  # order 11
    analysis = feed(Orders(protocol), segments)
    result = analysis.result().as_dict()
    assert result["requests"]["enter"] == 29
    assert accepted(analysis)["count"] == 29
    assert result["answers_without_request"] == 1
    assert result["streams"]["holes"] == 1
    assert result["streams"]["lost_bytes"] == len(long_session(protocol, 30)[22].payload)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_connection_joined_in_the_middle_of_a_message_is_read_from_the_next(protocol: str) -> None:
    segments = long_session(protocol, 30)[4:]
    torn = segments[0]
    segments[0] = Segment(torn.timestamp_ns, 0, False, torn.sequence + 9, torn.payload[9:])
    result = feed(Orders(protocol), segments).result().as_dict()
    assert result["requests"]["enter"] == 28
    assert result["streams"]["unread_bytes"] == len(torn.payload) - 9


def test_times_between_timestamps_of_two_sources_are_left_out() -> None:
    segments = long_session("fix", 4)
    mixed = [
        Segment(one.timestamp_ns, 0, one.from_venue, one.sequence, one.payload, one.flags, source)
        for one, source in zip(
            segments,
            [TimestampSource.HARDWARE] * 5 + [TimestampSource.KERNEL] * 3 + [TimestampSource.NONE] * 2,
            strict=True,
        )
    ]
    result = feed(Orders("fix"), mixed).result().as_dict()
    assert {source: times["enter_to_accepted"]["count"] for source, times in result["sources"].items()} == {
        "HARDWARE": 1,
        "KERNEL": 1,
    }
    assert result["different_sources"] == 2


def test_venue_timestamps_are_subtracted_from_each_other_only() -> None:
    payloads = [ouch("ouch-4.2", "O", 1), ouch("ouch-4.2", "a", 1, 5_000) + ouch("ouch-4.2", "e", 1, 9_500)]
    segments = [
        Segment(START_NS, 0, False, 1, payloads[0]),
        Segment(START_NS + 100, 0, True, 1, payloads[1]),
    ]
    result = feed(Orders("ouch-4.2"), segments).result().as_dict()
    assert result["venue"]["accepted_to_executed"]["max_ns"] == 4_500
    assert result["sources"]["FILE"]["accepted_to_executed"]["max_ns"] == 0
    assert result["sources"]["FILE"]["enter_to_executed"]["max_ns"] == 100


def test_requests_without_an_answer_are_counted_and_listed() -> None:
    segments = [one for one in long_session("ouch-4.2", 40) if not one.from_venue]
    result = feed(Orders("ouch-4.2", shown=3), segments).result().as_dict()
    assert result["unanswered"] == {"enter": 40, "replace": 0, "cancel": 0, "modify": 0}
    assert [row["id"] for row in result["unanswered_listed"]] == ["T1", "T2", "T3"]
    assert result["unanswered_listed"][0] == {
        "request": "enter",
        "id": "T1",
        "connection": "192.0.2.20:40000 > 192.0.2.200:24001",
        "first_ns": START_NS + 1_000_000,
        "first_frame": 2,
    }


def test_fix_rejects_name_their_request_by_sequence_number() -> None:
    segments = [
        Segment(START_NS, 0, False, 1, fix("D", 7, (11, "A")) + fix("D", 8, (11, "B"))),
        Segment(START_NS + 70, 0, True, 1, fix("3", 1, (45, "8")) + fix("j", 2, (45, "7"))),
    ]
    rows = rows_of(feed(Orders(), segments))
    assert [(row["id"], row["rejected_complete_ns"] - row["first_ns"]) for row in rows] == [("A", 70), ("B", 70)]


def test_possible_duplicates_and_status_reports_are_no_answers() -> None:
    segments = [
        Segment(START_NS, 0, False, 1, fix("D", 7, (11, "A"))),
        Segment(START_NS + 10, 0, True, 1, fix("8", 1, (43, "Y"), (11, "A"), (150, "0"))),
        Segment(START_NS + 20, 0, True, 1 + len(fix("8", 1, (43, "Y"), (11, "A"), (150, "0"))),
                fix("8", 2, (11, "A"), (20, "3"), (150, "0")) + fix("8", 3, (11, "A"), (150, "0"))),
    ]  # fmt: skip
    analysis = feed(Orders(), segments)
    assert accepted(analysis)["max_ns"] == 20
    assert analysis.result().as_dict()["possible_duplicates"] == 1


@pytest.mark.parametrize("protocol", [None, *PROTOCOLS])
def test_nothing_of_a_login_is_reported(protocol: str | None) -> None:
    login = soup(b"L", b"uspcap" + b"secretword" + b" " * 10 + b"1".rjust(20))
    logon = fix("A", 1, (553, "trader"), (554, "secretword"), (96, "secretword"))
    segments = [
        Segment(START_NS, 0, False, 1, login + soup(b"R")),
        Segment(START_NS + 1, 1, False, 1, logon),
        Segment(START_NS + 2, 2, False, 1, login[:20]),
    ]
    assert "secret" not in str(outcome(feed(Orders(protocol), segments)))


def test_other_traffic_is_no_order_entry() -> None:
    payload = b"POST /orders HTTP/1.1\r\nHost: example.com\r\n\r\n" + bytes(range(256)) * 5
    segments = [Segment(START_NS + at, 0, False, 1 + at * len(payload), payload) for at in range(300)]
    for protocol in (None, *PROTOCOLS):
        result = feed(Orders(protocol), segments).result().as_dict()
        assert result["followed"] == 0
        assert result["connections_with_orders"] == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_joined", [False, True])
def test_answers_that_another_clock_puts_before_their_requests_are_reported(protocol: str, is_joined: bool) -> None:
    segments = [
        replace(segment, timestamp_ns=segment.timestamp_ns - 5_000 * segment.from_venue)
        for segment in long_session(protocol, 50)[2 * is_joined :]
    ]
    segments[2 * (not is_joined) :] = sorted(segments[2 * (not is_joined) :], key=lambda one: one.timestamp_ns)
    analysis = feed(Orders(protocol), segments)
    result = analysis.result().as_dict()
    assert (result["unanswered"]["enter"], result["answers_without_request"]) == (50, 50)
    assert result["streams"]["after_acknowledgment"] == 50
    (caveat,) = analysis.caveats()
    assert caveat.startswith("50 of 100 TCP segments were captured after the acknowledgment of their bytes")
    halves = feed(Orders(protocol), segments[:51])
    halves.merge(feed(Orders(protocol), segments[51:]))
    assert outcome(halves) == outcome(analysis)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_said_of_clocks_where_requests_precede_their_answers_or_are_retransmitted(protocol: str) -> None:
    segments = long_session(protocol, 50)
    again = replace(segments[2], timestamp_ns=segments[4].timestamp_ns - 1)
    analysis = feed(Orders(protocol), [*segments[:4], again, *segments[4:]])
    assert analysis.result().as_dict()["streams"]["after_acknowledgment"] == 0
    assert analysis.caveats() == []
