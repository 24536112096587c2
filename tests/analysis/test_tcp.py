"""TCP connections: against a byte-by-byte reference, cut anywhere, and case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from support.tcp_reference import assert_as_reference, reference
from support.tcp_segments import ACK, FIN, PSH, RST, START_NS, SYN, WRAP, Segment, captures, cut_captures, feed

from uspcap.analysis.tcp.analysis import Tcp
from uspcap.frames import FrameBatch, TimestampSource

BY_REFERENCE = {
    "segments", "payload_bytes", "syns", "retransmissions", "retransmitted_bytes", "fast_retransmissions",
    "out_of_order", "before_join", "keep_alives", "duplicate_acks", "zero_windows", "resets", "gaps", "restarts",
    "ambiguous", "unmatched", "different_sources", "negative", "uncaptured_bytes",
}  # fmt: skip


def outcome(analysis: Tcp) -> tuple[Any, Any, Any]:
    histograms = {name: one.table() for name, one in analysis.histograms().items()}
    return analysis.result().as_dict(), analysis.tables(), histograms


def samples_of(result: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The histograms that hold anything."""
    return {
        (source, kind, side): one
        for source, kinds in result["sources"].items()
        for kind, sides in kinds.items()
        for side, one in sides.items()
        if one["count"]
    }


# --- against the reference --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(segments=captures(most=40))
def test_counts_and_times_are_those_of_the_reference(segments: list[Segment]) -> None:
    assert_as_reference(feed(Tcp(), segments), reference(segments))


# --- the law ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(cut=cut_captures())
def test_cutting_and_merging_changes_nothing(cut: tuple[list[Segment], list[list[Segment]], int]) -> None:
    segments, parts, batch_frames = cut
    whole = feed(Tcp(), segments)
    merged = feed(Tcp(), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(feed(Tcp(), part, batch_frames))
    assert outcome(merged) == outcome(whole)
    assert merged.frames_read == whole.frames_read


@settings(deadline=None, max_examples=100)
@given(cut=cut_captures())
def test_merging_is_associative(cut: tuple[list[Segment], list[list[Segment]], int]) -> None:
    segments, _, batch_frames = cut
    third = len(segments) // 3

    def parts() -> list[Tcp]:
        cuts = (segments[:third], segments[third : 2 * third], segments[2 * third :])
        return [feed(Tcp(logged_a_connection=9), part, batch_frames) for part in cuts]

    left, right = parts(), parts()
    left[0].merge(left[1])
    left[0].merge(left[2])
    right[1].merge(right[2])
    right[0].merge(right[1])
    if not left[0].result().as_dict()["unsettled_connections"] + right[0].result().as_dict()["unsettled_connections"]:
        assert outcome(left[0]) == outcome(right[0])


@settings(deadline=None, max_examples=100)
@given(cut=cut_captures())
def test_the_result_may_be_taken_at_any_time(cut: tuple[list[Segment], list[list[Segment]], int]) -> None:
    segments, parts, _ = cut
    asked, silent = Tcp(logged_a_connection=10), Tcp(logged_a_connection=10)
    for part in parts:
        feed(asked, part)
        feed(silent, part)
        asked.result()
        asked.tables()
    assert outcome(asked) == outcome(silent)
    assert asked.frames_read == len(segments)


@pytest.mark.parametrize(
    "bounds",
    [{"logged_a_connection": 0}, {"logged_a_connection": 12}, {"maximum_logged": 0}, {"maximum_logged": 20}],
    ids=str,
)
@settings(deadline=None, max_examples=100)
@given(cut=cut_captures(most=60))
def test_a_short_log_changes_nothing_or_says_so(
    bounds: dict[str, int], cut: tuple[list[Segment], list[list[Segment]], int]
) -> None:
    segments, parts, batch_frames = cut
    whole = feed(Tcp(**bounds), segments)
    assert outcome(whole) == outcome(feed(Tcp(), segments))
    merged = feed(Tcp(**bounds), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(feed(Tcp(**bounds), part, batch_frames))
    if not merged.result().as_dict()["unsettled_connections"]:
        assert outcome(merged) == outcome(whole)


@pytest.mark.parametrize("bounds", [{"maximum_connections": 2}, {"maximum_lines": 3}], ids=str)
@settings(deadline=None, max_examples=100)
@given(cut=cut_captures(connection_count=7, most=12))
def test_what_is_followed_does_not_depend_on_the_cut(
    bounds: dict[str, int], cut: tuple[list[Segment], list[list[Segment]], int]
) -> None:
    segments, parts, batch_frames = cut
    whole = feed(Tcp(**bounds), segments)
    merged = feed(Tcp(**bounds), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(feed(Tcp(**bounds), part, batch_frames))
    assert outcome(merged) == outcome(whole)


def test_a_connection_in_the_sample_is_measured_as_without_one() -> None:
    segments = [
        segment for number in range(64) for segment in download(30, connection=number, begin_ns=START_NS + number)
    ]
    sampled, all_of_them = (feed(Tcp(maximum_connections=most), segments) for most in (10, 100))
    result = sampled.result().as_dict()
    assert 1 < result["connections"]["sampled_one_in"] <= 64
    assert 0 < result["connections"]["followed"] <= 10
    assert result["segments"] == len(segments) > result["segments_followed"]
    rows = dict.fromkeys(table_rows(sampled, "round_trips"))
    assert rows.keys() <= dict.fromkeys(table_rows(all_of_them, "round_trips")).keys()


def table_rows(analysis: Tcp, name: str) -> list[tuple[Any, ...]]:
    return list(zip(*analysis.tables()[name].values(), strict=True))


# --- logs, and parts that come to the same state ----------------------------------------------------------------------


def download(
    count: int,
    *,
    connection: int = 0,
    begin_ns: int = START_NS,
    window: int = 4,
    timestamped: bool = True,
    acks: bool = True,
) -> list[Segment]:
    """A handshake, a request and `count` segments from the responder, some in flight, one in seven retransmitted."""
    now, client, server = begin_ns, WRAP - 20, WRAP - 3_000
    segments: list[Segment] = []

    def add(side: int, sequence: int, acknowledgment: int, length: int = 0, flags: int = ACK) -> None:
        nonlocal now
        now += 7_000
        timestamps = (now // 50_000, (now - 30_000) // 50_000) if timestamped else None
        if acks or side:
            segments.append(
                Segment(
                    now,
                    bool(side),
                    sequence,
                    acknowledgment,
                    length,
                    flags,
                    timestamps=timestamps,
                    connection=connection,
                )
            )

    add(0, client, 0, flags=SYN)
    add(1, server, client + 1, flags=SYN | ACK)
    add(0, client + 1, server + 1, 100, ACK | PSH)
    for number in range(count):
        at = server + 1 + 1448 * number
        add(1, at, client + 101, 1448)
        if number % 7 == 3:
            add(1, at, client + 101, 1448)
        if number % window == window - 1:
            add(0, client + 101, at + 1448 - 1448 * (window // 2))
    return segments


@pytest.mark.parametrize("acks", [True, False], ids=["both ways", "one way only"])
def test_parts_come_to_the_same_state_long_before_their_logs_end(acks: bool) -> None:
    segments = download(9_000, acks=acks)
    whole = feed(Tcp(), segments)
    merged = feed(Tcp(), segments[:4_000])
    merged.merge(feed(Tcp(), segments[4_000:9_000]))
    merged.merge(feed(Tcp(), segments[9_000:]))
    assert merged.result().as_dict()["unsettled_connections"] == 0
    assert outcome(merged) == outcome(whole)


def test_a_window_of_segments_is_enough_where_all_are_acknowledged() -> None:
    segments = download(2_000, window=4)
    merged = feed(Tcp(logged_a_connection=30), segments[:1_000])
    merged.merge(feed(Tcp(logged_a_connection=30), segments[1_000:]))
    assert merged.result().as_dict()["unsettled_connections"] == 0
    assert outcome(merged) == outcome(feed(Tcp(), segments))


def test_a_log_that_is_too_short_is_reported() -> None:
    segments = download(2_000, window=200)
    merged = feed(Tcp(logged_a_connection=10), segments[:1_000])
    merged.merge(feed(Tcp(logged_a_connection=10), segments[1_000:]))
    assert merged.result().as_dict()["unsettled_connections"] == 1


def test_a_connection_that_restarts_needs_no_more_log() -> None:
    segments = download(100) + download(100, begin_ns=START_NS + 10**9)
    merged = feed(Tcp(maximum_logged=0), segments[: len(segments) // 2])
    merged.merge(feed(Tcp(maximum_logged=0), segments[len(segments) // 2 :]))
    assert merged.result().as_dict()["unsettled_connections"] == 0
    assert outcome(merged) == outcome(feed(Tcp(), segments))


# --- what is measured, case by case -----------------------------------------------------------------------------------


def at(time_ns: int, **kwargs: Any) -> Segment:
    """A segment of one established connection; from the initiator unless said otherwise."""
    values: dict[str, Any] = {"from_responder": False, "sequence": 1_000, "acknowledgment": 5_000} | kwargs
    return Segment(START_NS + time_ns, **values)


HANDSHAKE = [
    at(0, sequence=999, acknowledgment=0, flags=SYN),
    at(700, from_responder=True, sequence=4_999, acknowledgment=1_000, flags=SYN | ACK),
    at(750),
]


def times_ns(segments: list[Segment], kind: str, side: str) -> dict[str, Any]:
    found: dict[str, Any] = feed(Tcp(), segments).result().as_dict()["sources"]["FILE"][kind][side]
    return found


def test_the_two_sides_of_a_handshake_are_distinguished() -> None:
    assert times_ns(HANDSHAKE, "handshake", "responder_side")["max_ns"] == 700
    assert times_ns(HANDSHAKE, "handshake", "initiator_side")["max_ns"] == 50
    assert times_ns(HANDSHAKE, "handshake", "whole")["max_ns"] == 750
    assert times_ns(HANDSHAKE, "handshake", "whole")["max_frame"] == 3


def test_a_retransmitted_syn_gives_no_time_to_its_answer() -> None:
    segments = [HANDSHAKE[0], replace(HANDSHAKE[0], timestamp_ns=START_NS + 600), *HANDSHAKE[1:]]
    assert times_ns(segments, "handshake", "responder_side")["count"] == 0
    assert times_ns(segments, "handshake", "initiator_side")["max_ns"] == 50
    assert times_ns(segments, "handshake", "whole")["count"] == 0


def test_data_sent_to_the_responder_measure_the_responder_side() -> None:
    segments = [*HANDSHAKE, at(1_000, length=10), at(1_900, from_responder=True, sequence=5_000, acknowledgment=1_010)]
    assert times_ns(segments, "data_ack", "responder_side")["max_ns"] == 900
    assert times_ns(segments, "data_ack", "initiator_side")["count"] == 0


def test_an_acknowledgment_of_several_segments_is_timed_from_the_last() -> None:
    segments = [at(0, length=10), at(100, sequence=1_010, length=10)]
    answer = at(350, from_responder=True, sequence=5_000, acknowledgment=1_020)
    assert times_ns([*segments, answer], "data_ack", "responder_side")["max_ns"] == 250


def test_an_acknowledgment_within_a_segment_is_timed_from_it_and_so_is_the_rest() -> None:
    answers = [
        at(300, from_responder=True, sequence=5_000, acknowledgment=1_004),
        at(400, from_responder=True, sequence=5_000, acknowledgment=1_010),
    ]
    found = times_ns([at(0, length=10), *answers], "data_ack", "responder_side")
    assert (found["count"], found["min_ns"], found["max_ns"]) == (2, 300, 400)


def test_retransmitted_data_give_no_time_by_number_but_by_timestamps() -> None:
    segments = [
        *(replace(one, timestamps=(1, 0)) for one in HANDSHAKE),
        at(1_000, length=10, timestamps=(7, 1)),
        at(9_000, length=10, timestamps=(8, 1)),
        at(9_600, from_responder=True, sequence=5_000, acknowledgment=1_010, timestamps=(3, 8)),
    ]
    result = feed(Tcp(), segments).result().as_dict()
    assert result["counts"]["from_initiator"]["retransmissions"] == 1
    assert result["counts"]["from_initiator"]["ambiguous"] == 1
    assert times_ns(segments, "data_ack", "responder_side")["count"] == 0
    assert times_ns(segments, "timestamps", "responder_side")["max_ns"] == 600


def test_data_behind_a_loss_give_no_time_when_the_loss_is_mended() -> None:
    segments = [
        *HANDSHAKE,
        at(1_000, length=10),
        at(1_100, sequence=1_010, length=10),
        at(1_500, from_responder=True, sequence=5_000, acknowledgment=1_000),
        at(9_000, length=10),
        at(9_500, from_responder=True, sequence=5_000, acknowledgment=1_020),
        at(9_600, sequence=1_020, length=10),
        at(9_900, from_responder=True, sequence=5_000, acknowledgment=1_030),
    ]
    found = times_ns(segments, "data_ack", "responder_side")
    assert (found["count"], found["max_ns"]) == (1, 300)


def test_what_was_overtaken_is_no_retransmission() -> None:
    segments = [*HANDSHAKE, at(1_000, sequence=1_010, length=10), at(1_001, length=10), at(1_002, length=10)]
    counts = feed(Tcp(), segments).result().as_dict()["counts"]["from_initiator"]
    assert (counts["gaps"], counts["out_of_order"], counts["retransmissions"]) == (1, 1, 1)
    assert counts["retransmitted_bytes"] == 10


def test_bytes_that_were_acknowledged_and_never_captured_are_counted() -> None:
    segments = [
        *HANDSHAKE,
        at(1_000, sequence=1_400, length=100),
        at(1_100, from_responder=True, sequence=5_000, acknowledgment=2_000),
    ]
    assert feed(Tcp(), segments).result().as_dict()["counts"]["from_initiator"]["uncaptured_bytes"] == 900


def test_a_repeated_acknowledgment_is_a_duplicate_only_while_data_are_outstanding() -> None:
    again = at(2_000, from_responder=True, sequence=5_000, acknowledgment=1_000)
    idle = feed(Tcp(), [*HANDSHAKE, again, again, again]).result().as_dict()["counts"]["total"]
    assert idle["duplicate_acks"] == 0
    asking = [*HANDSHAKE, at(1_000, length=10), *[again] * 3, at(2_500, length=10)]
    counts = feed(Tcp(), asking).result().as_dict()["counts"]
    # The window of the SYN-ACK is the same.
    assert counts["from_responder"]["duplicate_acks"] == 3
    assert counts["from_initiator"]["fast_retransmissions"] == 1


def test_keep_alives_zero_windows_and_resets_are_counted_apart() -> None:
    segments = [
        *HANDSHAKE,
        at(10**9, sequence=999, length=1),
        at(10**9 + 5, from_responder=True, sequence=5_000, acknowledgment=1_000, window=0),
        at(10**9 + 9, flags=RST | ACK),
    ]
    counts = feed(Tcp(), segments).result().as_dict()["counts"]
    assert (counts["from_initiator"]["keep_alives"], counts["from_initiator"]["resets"]) == (1, 1)
    assert counts["from_responder"]["zero_windows"] == 1
    assert counts["total"]["retransmissions"] == counts["total"]["duplicate_acks"] == 0


def test_a_fin_that_comes_again_is_a_retransmission_without_bytes() -> None:
    segments = [*HANDSHAKE, at(1_000, flags=FIN | ACK), at(2_000, flags=FIN | ACK)]
    counts = feed(Tcp(), segments).result().as_dict()["counts"]["from_initiator"]
    assert (counts["retransmissions"], counts["retransmitted_bytes"]) == (1, 0)


def test_what_is_from_before_a_join_is_not_distinguished() -> None:
    segments = [at(0, sequence=2_000, length=10), at(1, length=10)]
    counts = feed(Tcp(), segments).result().as_dict()["counts"]["from_initiator"]
    assert (counts["before_join"], counts["retransmissions"], counts["out_of_order"]) == (1, 0, 0)


def test_roles_without_a_syn_are_guessed_by_ports_and_said_to_be() -> None:
    answer = at(5, from_responder=True, sequence=5_000, acknowledgment=1_010)
    row = feed(Tcp(), [at(0, length=10), answer]).result().as_dict()["listed"][0]
    assert row["roles_by_ports"]
    assert (row["initiator"], row["responder"]) == ("192.0.2.9:40000", "192.0.2.1:443")
    known = feed(Tcp(), HANDSHAKE).result().as_dict()["listed"][0]
    assert not known["roles_by_ports"]


def test_roles_follow_the_syn_whatever_the_ports() -> None:
    turned = [replace(one, from_responder=not one.from_responder) for one in HANDSHAKE]
    row = feed(Tcp(), turned).result().as_dict()["listed"][0]
    assert (row["initiator"], row["responder"]) == ("192.0.2.1:443", "192.0.2.9:40000")
    assert times_ns(turned, "handshake", "responder_side")["max_ns"] == 700


@pytest.mark.parametrize("form", ["ipv6", "vlan"])
def test_ipv6_and_tags_are_measured_alike(form: str) -> None:
    segments = [replace(one, form=form) for one in download(50)]
    expected, found = (feed(Tcp(), one).result().as_dict() for one in (download(50), segments))
    assert found["counts"] == expected["counts"]
    assert found["sources"] == expected["sources"]
    assert found["listed"][0]["initiator"] == ("[2001:db8::9]:40000" if form == "ipv6" else "192.0.2.9:40000")


def test_timestamps_of_two_sources_are_not_subtracted() -> None:
    segments = [replace(HANDSHAKE[0], source=TimestampSource.KERNEL), *HANDSHAKE[1:]]
    result = feed(Tcp(), segments).result().as_dict()
    assert result["counts"]["total"]["different_sources"] == 2
    assert result["sources"]["FILE"]["handshake"]["initiator_side"]["count"] == 1


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_of_many_segments_in_flight_some_are_kept_and_the_rest_is_counted() -> None:
    flight = [at(number, sequence=1_000 + 10 * number, length=10) for number in range(1_000)]
    answers = [
        at(5_000 + number, from_responder=True, sequence=5_000, acknowledgment=1_010 + 10 * number)
        for number in range(1_000)
    ]
    found = times_ns([*HANDSHAKE, *flight, *answers], "data_ack", "responder_side")
    counts = feed(Tcp(), [*HANDSHAKE, *flight, *answers]).result().as_dict()["counts"]["from_initiator"]
    assert (found["min_ns"], found["max_ns"]) == (5_000, 5_000)
    # The last 128 of them, and about one in sixteen of those before.
    assert 128 + 30 < found["count"] < 128 + 64 + 1
    assert counts["unmatched"] == 1_000 - found["count"]


def test_more_holes_than_are_kept_give_up_the_first() -> None:
    holed = [at(number, sequence=1_010 + 20 * number, length=10) for number in range(20)]
    fills = [at(100 + number, sequence=1_000 + 20 * number, length=10) for number in range(20)]
    counts = feed(Tcp(), [*HANDSHAKE, *holed, *fills]).result().as_dict()["counts"]["from_initiator"]
    assert (counts["gaps"], counts["crowded_holes"], counts["uncaptured_bytes"]) == (20, 4, 40)
    assert (counts["retransmissions"], counts["out_of_order"]) == (4, 16)


def test_a_hole_is_given_up_after_many_segments() -> None:
    late = at(5_000, sequence=1_000, length=10)
    flight = [at(1 + number, sequence=1_010 + 10 * number, length=10) for number in range(1_030)]
    counts = feed(Tcp(), [*HANDSHAKE, *flight, late]).result().as_dict()["counts"]["from_initiator"]
    assert (counts["uncaptured_bytes"], counts["retransmissions"], counts["out_of_order"]) == (10, 1, 0)


def test_headers_that_are_cut_are_left_out_and_counted() -> None:
    wire = HANDSHAKE[0].wire()
    batch = FrameBatch.from_frames([wire, wire[:50]], [START_NS, START_NS], wire_lengths=[len(wire)] * 2)
    analysis = Tcp()
    analysis.update(batch)
    result = analysis.result().as_dict()
    assert (result["segments"], result["undecoded"], result["segments_followed"]) == (2, 1, 1)


@pytest.mark.parametrize("options", [b"\x08\x0a\0\0", b"\x08\x02\0\0", b"\x05\0\x08\x0a", b"\xff" * 4, b"\1\1\1\x08"])
def test_options_that_contradict_themselves_are_no_timestamps(options: bytes) -> None:
    wire = bytearray(HANDSHAKE[2].wire() + options)
    wire[17] += len(options)
    wire[46] = (20 + len(options)) // 4 << 4
    analysis = Tcp()
    analysis.update(FrameBatch.from_frames([bytes(wire)], [START_NS]))
    assert analysis.result().as_dict()["segments_followed"] == 1


# --- two clocks -------------------------------------------------------------------------------------------------------


def exchanges(number: int, *, outstanding: int = 1) -> list[Segment]:
    """Data of the initiator that are captured after their acknowledgment; so many acknowledgments are ahead of them."""
    segments = list(HANDSHAKE)
    data = [at(10_000 * (1 + one), sequence=1_000 + 100 * one, length=100) for one in range(number)]
    acks = [
        at(
            10_000 * (2 + one - outstanding) - 5_000,
            from_responder=True,
            sequence=5_000,
            acknowledgment=1_100 + 100 * one,
        )
        for one in range(number)
    ]
    return segments + sorted(data + acks, key=lambda one: one.timestamp_ns)


@pytest.mark.parametrize("outstanding", [1, 2, 8])
def test_data_captured_after_their_acknowledgment_are_no_retransmissions(outstanding: int) -> None:
    segments = exchanges(50, outstanding=outstanding)
    analysis = feed(Tcp(), segments)
    counts = analysis.result().as_dict()["counts"]["from_initiator"]
    names = ("after_acknowledgment", "retransmissions", "retransmitted_bytes", "out_of_order", "uncaptured_bytes")
    assert [counts[name] for name in names] == [50, 0, 0, 0, 0]
    (caveat,) = analysis.caveats()
    assert caveat.startswith("50 of 103 TCP segments were captured after the acknowledgment of their bytes")
    halves = feed(Tcp(), segments[:53])
    halves.merge(feed(Tcp(), segments[53:]))
    assert outcome(halves) == outcome(analysis)


def test_bytes_are_waited_for_through_many_acknowledgments_ahead_of_them() -> None:
    counts = feed(Tcp(), exchanges(1_000, outstanding=50)).result().as_dict()["counts"]["from_initiator"]
    assert counts["after_acknowledgment"] + counts["retransmissions"] == 1_000
    assert counts["after_acknowledgment"] > 900


def test_what_is_captured_again_after_it_was_captured_late_is_a_retransmission() -> None:
    segments = exchanges(1)
    again = [replace(segments[-1], timestamp_ns=segments[-1].timestamp_ns + later) for later in (10, 20)]
    counts = feed(Tcp(), [*segments, *again]).result().as_dict()["counts"]["from_initiator"]
    assert (counts["after_acknowledgment"], counts["retransmissions"], counts["retransmitted_bytes"]) == (1, 2, 200)
