"""Orders and their answers in TCP streams, case by case and against a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.order_sessions import FIX_EXECUTIONS, START_NS, SYN, Segment, fix, message, ouch

from uspcap.analysis.orders.order_machine import RULE_DTYPE, OrderMachine
from uspcap.analysis.orders.order_tables import COUNTS
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.order_entry import ANSWER_KINDS, REQUEST_KINDS, ouch_rules

VERSIONS = {"ouch-4.2": 1, "ouch-5.0": 2, "fix": 3}
KINDS = {"O": "enter", "U": "replace", "X": "cancel", "M": "modify"}
ANSWERS = {"a": "accepted", "e": "executed", "c": "canceled", "j": "rejected", "u": "replaced"}


def machine(version: int) -> OrderMachine:
    return OrderMachine(version, ouch_rules(RULE_DTYPE), 64, 1 << 10, 1 << 20, at_once=True)


def read(version: int, messages: list[tuple[bool, bytes]], *, split: int = 0) -> OrderMachine:
    """Read messages, each in a segment of its own, or in two where `split` bytes go before."""
    at = {False: 1, True: 1}
    segments = [Segment(START_NS, 0, False, 0, flags=SYN)]
    for from_venue, payload in messages:
        for part in (payload[:split], payload[split:]) if split else (payload,):
            segments.append(Segment(START_NS + len(segments), 0, from_venue, at[from_venue], part))
            at[from_venue] += len(part)
    batch = FrameBatch.from_frames([one.wire() for one in segments], [one.timestamp_ns for one in segments])
    orders = machine(version)
    orders.update(batch, batch.headers, 0)
    orders.finish()
    return orders


def counts_of(orders: OrderMachine) -> dict[str, int]:
    (row,) = orders.connection_array()
    return {name: int(count) for name, count in zip(COUNTS, row["counts"], strict=True)}


def answers_of(row: Any) -> dict[str, int]:
    """Return the frame of the first answer of each kind."""
    found = row["answers"]["first_frame"].tolist()
    return {kind: frame for kind, frame in zip(ANSWER_KINDS, found, strict=True) if frame}


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_noted_with_the_order_that_it_is_of(protocol: str, kind: str) -> None:
    request = "U" if kind == "u" else "O"
    answer = message(protocol, kind, 5, 77)
    if protocol == "fix":
        answer = fix("8", 5, (37, "V"), (11, "T5"), (150, FIX_EXECUTIONS[kind]), (39, "0"))
    orders = read(VERSIONS[protocol], [(False, message(protocol, request, 5, 0)), (True, answer)])
    (row,) = orders.request_array()
    assert REQUEST_KINDS[int(row["kind"])] == KINDS[request]
    assert answers_of(row) == {ANSWERS[kind]: 3}
    assert int(row["asked"]["first_ns"]) == START_NS + 1
    assert int(row["answers"][ANSWER_KINDS.index(ANSWERS[kind])]["first_ns"]) == START_NS + 2
    counts = counts_of(orders)
    assert (counts["messages"], counts[KINDS[request]], counts[ANSWERS[kind]]) == (2, 1, 1)
    assert counts["answers_without_request"] == 0
    if protocol != "fix":
        assert int(row["venue_ns"][ANSWER_KINDS.index(ANSWERS[kind])]) == 77


@given(split=st.integers(1, 40), protocol=st.sampled_from(sorted(VERSIONS)))
def test_a_message_in_two_segments_has_both_frames(split: int, protocol: str) -> None:
    (row,) = read(VERSIONS[protocol], [(False, message(protocol, "O", 1, 0))], split=split).request_array()
    asked = row["asked"]
    assert [int(asked[name]) for name in ("first_frame", "complete_frame")] == [2, 3]
    assert [int(asked[name]) for name in ("first_ns", "complete_ns")] == [START_NS + 1, START_NS + 2]
    assert int(asked["first_source"]) == int(asked["complete_source"]) == TimestampSource.FILE


@given(story=st.lists(st.tuples(st.sampled_from("OOae"), st.integers(1, 4)), max_size=20))
def test_answers_belong_to_requests_that_came_before_them(story: list[tuple[str, int]]) -> None:
    orders = read(2, [(kind.islower(), ouch("ouch-5.0", kind, number)) for kind, number in story])
    asked: dict[int, dict[str, int]] = {}
    executions: dict[int, int] = {}
    lacking = 0
    for frame, (kind, number) in enumerate(story, 2):
        if kind == "O":
            asked.setdefault(number, {})
        elif number in asked:
            asked[number].setdefault(ANSWERS[kind], frame)
            executions[number] = executions.get(number, 0) + (kind == "e")
        else:
            lacking += 1
    rows = {int(row["id"][: int(row["id_length"])].tobytes()): row for row in orders.request_array()}
    assert {number: answers_of(row) for number, row in rows.items()} == asked
    assert {number: int(row["executions"]) for number, row in rows.items() if row["executions"]} == {
        number: many for number, many in executions.items() if many
    }
    if story:
        assert counts_of(orders)["answers_without_request"] == lacking


@pytest.mark.parametrize("protocol", ["ouch-4.2", "ouch-5.0"])
def test_without_a_version_messages_are_counted_by_the_versions_that_they_fit(protocol: str) -> None:
    orders = read(0, [(False, ouch(protocol, "O", 1)), (True, ouch(protocol, "a", 1))])
    counts = counts_of(orders)
    fits = {"ouch-4.2": counts["fits_ouch_4_2"], "ouch-5.0": counts["fits_ouch_5_0"]}
    assert fits.pop(protocol) == counts["application_messages"] == 2
    assert fits.popitem()[1] < 2


def test_a_fix_message_that_is_possibly_a_duplicate_is_no_request() -> None:
    again = fix("D", 1, (43, "Y"), (11, "A"))
    wrong = fix("D", 2, (11, "B"))
    wrong = wrong[:-4] + b"%03d\x01" % ((int(wrong[-4:-1]) + 1) % 256)
    orders = read(3, [(False, again), (False, wrong)])
    counts = counts_of(orders)
    assert (counts["possible_duplicates"], counts["checksum_mismatches"]) == (1, 1)
    names = [row["id"][: int(row["id_length"])].tobytes() for row in orders.request_array()]
    assert b"A" not in names


def test_rules_of_another_layout_are_refused() -> None:
    for wrong in (ouch_rules(RULE_DTYPE)[:1], np.zeros((2, 2, 256), np.uint8)):
        with pytest.raises(ValueError, match="rules have another layout"):
            OrderMachine(2, wrong, 1, 1, 1)
