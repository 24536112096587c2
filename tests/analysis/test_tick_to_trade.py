"""Tick to trade: feeds and orders whose times are known."""

from __future__ import annotations

from typing import Any

from support.request_frames import udp

from uspcap.analysis.tick_to_trade.analysis import TickToTrade
from uspcap.frames import FrameBatch
from uspcap.protocols.rules import pair_rules, parse_rule

START_NS = 1_700_000_000_000_000_000


def tick(at_ns: int, number: int = 0, line: int = 1) -> tuple[int, bytes]:
    return START_NS + at_ns, udp(30_001, 30_001, b"Q" + number.to_bytes(4, "big"), f"10.0.0.{line}", "239.0.0.1")


def order(at_ns: int, number: int = 0) -> tuple[int, bytes]:
    return START_NS + at_ns, udp(50_000, 9000, b"order" + number.to_bytes(4, "big"), "10.0.1.1", "10.0.2.1")


def result(frames: list[tuple[int, bytes]], *, by_id: bool, **options: Any) -> tuple[dict[str, Any], TickToTrade]:
    keys = ("; key=payload[1:5]", "; key=payload[5:9]") if by_id else ("", "")
    pair = pair_rules(
        parse_rule("udp dst port 30001" + keys[0], "--trigger"),
        parse_rule("udp dst port 9000" + keys[1], "--response"),
        name="tick_to_trade",
        match="key",
        options=("--trigger", "--response"),
    )
    analysis = TickToTrade(pair, **options)
    analysis.update(FrameBatch.from_frames([frame for _, frame in frames], [at for at, _ in frames]))
    return analysis.result().as_dict(), analysis


def test_the_nearest_trigger_before_a_response_is_taken_for_its_cause() -> None:
    frames = [order(0), tick(100), tick(200), order(230), order(260), tick(300), tick(400), order(1000)]
    found, analysis = result(frames, by_id=False)
    assert found["matched_by"] == "nearest trigger"
    assert [found[name] for name in ("triggers", "responses", "answered", "unanswered")] == [4, 4, 2, 2]
    assert found["responses_without_trigger"] == 1
    assert (found["with_several_responses"], found["further_responses"]) == (1, 1)
    assert [row["request_frame"] for row in found["first_unanswered"]] == [2, 6]
    assert [row["response_frame"] for row in found["first_unsolicited"]] == [1]
    pairs = analysis.tables()["pairs"]
    assert list(pairs["latency_from_first_ns"]) == [30, 600]
    assert list(pairs["responses"]) == [2, 1]
    assert found["sources"]["FILE"]["from_first"]["max_ns"] == 600


def test_by_id_the_cause_is_found_whatever_came_in_between() -> None:
    frames = [tick(0, 1), tick(10, 2), tick(20, 3), order(90, 1), order(95, 3), order(99, 7)]
    found, analysis = result(frames, by_id=True)
    assert found["matched_by"] == "id"
    assert list(analysis.tables()["pairs"]["latency_from_first_ns"]) == [90, 75]
    assert (found["unanswered"], found["responses_without_trigger"]) == (1, 1)


def test_the_second_line_of_a_feed_is_the_same_trigger() -> None:
    found, _ = result([tick(0, 1, line=1), tick(40, 1, line=2), order(100, 1)], by_id=True)
    assert found["repeated_triggers"] == 1
    measures = found["sources"]["FILE"]
    assert (measures["from_first"]["max_ns"], measures["from_last"]["max_ns"]) == (100, 60)


def test_a_response_after_the_timeout_has_no_trigger() -> None:
    found, _ = result([tick(0), order(1001)], by_id=False, timeout_ns=1000)
    assert (found["unanswered"], found["responses_without_trigger"]) == (1, 1)
    found, _ = result([tick(0), order(1000)], by_id=False, timeout_ns=1000)
    assert found["answered"] == 1


def test_triggers_without_an_id_are_never_too_many() -> None:
    frames = [frame for at in range(500) for frame in (tick(at * 10), order(at * 10 + at % 7))]
    found, _ = result(frames, by_id=False, maximum=5)
    assert (found["sampled_one_in"], found["answered"]) == (1, 500)
