"""The law of analyses: cut anywhere, analyse apart, merge in order, and nothing has changed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from support.streams import Frame, cut_streams, feed

from uspcap.analysis.base import Analysis
from uspcap.analysis.bursts import Bursts
from uspcap.analysis.gaps import Gaps
from uspcap.analysis.inter_arrival import InterArrival
from uspcap.analysis.orders import Orders
from uspcap.analysis.overhead import Overhead
from uspcap.analysis.path_latency import PathLatency
from uspcap.analysis.patterns import Patterns
from uspcap.analysis.requests import Requests
from uspcap.analysis.summary import Summary
from uspcap.analysis.tcp import Tcp
from uspcap.analysis.tick_to_trade import TickToTrade
from uspcap.analysis.timestamps import Timestamps
from uspcap.protocols.flows import FlowTable
from uspcap.protocols.rules import Key, Rule, RulePair

pytestmark = pytest.mark.thorough

BY_PAYLOAD = RulePair(
    "ports",
    Rule("", "udp src port 1001 or udp src port 1003", Key("payload", 0, 2)),
    Rule("", "udp src port 1002", Key("payload", 2, 4)),
    "key",
)
NEAREST = RulePair("ports", Rule("", "udp src port 1001"), Rule("", "udp src port 1002 or udp src port 1003"), "key")

MAKERS: dict[str, Callable[[], Analysis]] = {
    "summary": Summary,
    "timestamps": Timestamps,
    "inter_arrival": InterArrival,
    "inter_arrival with few lines": lambda: InterArrival(maximum_lines=6),
    "inter_arrival with few flows": lambda: InterArrival(FlowTable(2)),
    "gaps, automatic": Gaps,
    "gaps, automatic, with few kept": lambda: Gaps(maximum_silences=8, kept_a_flow=4),
    "gaps, given": lambda: Gaps(threshold_ns=1_000),
    "gaps, given, with few kept": lambda: Gaps(threshold_ns=10, maximum_silences=4),
    "gaps with few flows": lambda: Gaps(FlowTable(2), threshold_ns=10),
    "bursts": lambda: Bursts(line_rate_bps=10**10),
    "overhead": lambda: Overhead(framing=True),
    "path_latency": PathLatency,
    "orders": Orders,
    "requests": lambda: Requests([BY_PAYLOAD], timeout_ns=10_000),
    "requests in rounds, with few followed": lambda: Requests([BY_PAYLOAD], quorum=1, maximum_in_rounds=2),
    "tick_to_trade": lambda: TickToTrade(NEAREST, timeout_ns=10_000, rows_kept=3),
    "tcp": Tcp,
    "patterns": Patterns,
    "patterns with few flows": lambda: Patterns(maximum_flows=2),
}


def outcome(analysis: Analysis) -> tuple[Any, Any, int]:
    return analysis.result(), analysis.tables(), analysis.frames_read


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=200)
@given(cut_stream=cut_streams())
def test_cutting_and_merging_changes_nothing(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, parts, batch_frames = cut_stream
    whole = feed(MAKERS[name](), frames, 4096)
    merged = feed(MAKERS[name](), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(feed(MAKERS[name](), part, batch_frames))
    assert outcome(merged) == outcome(whole)


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=60)
@given(cut_stream=cut_streams())
def test_merging_is_associative(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, _, batch_frames = cut_stream
    third = len(frames) // 3

    def parts() -> list[Analysis]:
        cuts = (frames[:third], frames[third : 2 * third], frames[2 * third :])
        return [feed(MAKERS[name](), part, batch_frames) for part in cuts]

    left, right = parts(), parts()
    left[0].merge(left[1])
    left[0].merge(left[2])
    right[1].merge(right[2])
    right[0].merge(right[1])
    assert outcome(left[0]) == outcome(right[0])


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=60)
@given(cut_stream=cut_streams())
def test_state_may_be_pickled_at_any_time(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, parts, _ = cut_stream
    whole = feed(MAKERS[name](), frames, 4096)
    here, travelling = MAKERS[name](), MAKERS[name]()
    for part in parts:
        there = pickle.loads(pickle.dumps(feed(MAKERS[name](), part, 4096), protocol=5))
        assert outcome(there) == outcome(feed(MAKERS[name](), part, 4096))
        here.merge(there)
        travelling.merge(feed(MAKERS[name](), part, 4096))
        travelling = pickle.loads(pickle.dumps(travelling, protocol=5))
    assert outcome(here) == outcome(whole)
    assert outcome(travelling) == outcome(whole)


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=60)
@given(cut_stream=cut_streams())
def test_the_result_may_be_taken_at_any_time(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, parts, _ = cut_stream
    asked, silent = MAKERS[name](), MAKERS[name]()
    for part in parts:
        feed_on(asked, part)
        feed_on(silent, part)
        asked.result()
        asked.tables()
    assert outcome(asked) == outcome(silent)
    assert asked.frames_read == len(frames)


def feed_on(analysis: Analysis, frames: list[Frame]) -> None:
    feed(analysis, frames, 4096)
