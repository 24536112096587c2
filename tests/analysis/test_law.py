"""The law of analyses: cut anywhere, analyse apart, merge in order, and nothing has changed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from support.streams import START_NS, Frame, batch_of, cut_streams, feed, hostile_streams

from uspcap.analysis import registry
from uspcap.analysis.base import Analysis
from uspcap.analysis.bursts.analysis import Bursts
from uspcap.analysis.declaration import Shared
from uspcap.analysis.gaps.analysis import Gaps
from uspcap.analysis.inter_arrival.analysis import InterArrival
from uspcap.analysis.orders.analysis import Orders
from uspcap.analysis.overhead.analysis import Overhead
from uspcap.analysis.patterns.analysis import Patterns
from uspcap.analysis.requests.analysis import Requests
from uspcap.analysis.tcp.analysis import Tcp
from uspcap.analysis.tick_to_trade.analysis import TickToTrade
from uspcap.analysis.trailer.analysis import Trailer
from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.protocols.flows import FlowTable
from uspcap.protocols.rules import Key, Rule, RulePair
from uspcap.timestamps.trailers import FORMATS, TrailerChoice, TrailerStage

pytestmark = pytest.mark.thorough

BY_PAYLOAD = RulePair(
    "ports",
    Rule("", "udp src port 1001 or udp src port 1003", Key("payload", 0, 2)),
    Rule("", "udp src port 1002", Key("payload", 2, 4)),
    "key",
)
NEAREST = RulePair("ports", Rule("", "udp src port 1001"), Rule("", "udp src port 1002 or udp src port 1003"), "key")

OWN_LAW_TESTS = {"sequence", "arbitration"}


def as_declared(name: str) -> Callable[[], Analysis]:
    """Return what makes an analysis as a run does that says nothing of it."""
    return lambda: registry.declarations()[name].make(Shared(FlowTable()))


VARIANTS: dict[str, Callable[[], Analysis]] = {
    "inter_arrival with few lines": lambda: InterArrival(maximum_lines=6),
    "inter_arrival with few flows": lambda: InterArrival(FlowTable(2)),
    "gaps, automatic, with few kept": lambda: Gaps(maximum_gaps=8, kept_a_flow=4),
    "gaps, given": lambda: Gaps(threshold_ns=1_000),
    "gaps, given, with few kept": lambda: Gaps(threshold_ns=10, maximum_gaps=4),
    "gaps with few flows": lambda: Gaps(FlowTable(2), threshold_ns=10),
    "bursts against a line": lambda: Bursts(line_rate_bps=10**10),
    "overhead with framing": lambda: Overhead(framing=True),
    "requests": lambda: Requests([BY_PAYLOAD], timeout_ns=10_000),
    "requests in rounds, with few followed": lambda: Requests([BY_PAYLOAD], quorum=1, maximum_in_rounds=2),
    "tick_to_trade": lambda: TickToTrade(NEAREST, timeout_ns=10_000, rows_kept=3),
    "patterns with few flows": lambda: Patterns(maximum_flows=2),
    "trailer": lambda: Trailer(TrailerChoice(FORMATS["metamako"])),
}

MAKERS: dict[str, Callable[[], Analysis]] = {
    # Whatever is registered, other people's too.
    **{name: as_declared(name) for name in registry.names() if name not in OWN_LAW_TESTS | {*VARIANTS}},
    **VARIANTS,
}

HOSTILE_MAKERS: dict[str, Callable[[], Analysis]] = {
    **MAKERS,
    **{
        f"{name} with {flows} flows": lambda flows=flows, make=make: make(FlowTable(flows))
        for flows in (1, 2, 3, 5)
        for name, make in {
            "inter_arrival": InterArrival,
            "gaps, automatic": Gaps,
            "gaps, given": lambda table: Gaps(table, threshold_ns=1 << 40),
        }.items()
    },
    **{f"patterns with {flows} flows": lambda flows=flows: Patterns(maximum_flows=flows) for flows in (1, 3, 5)},
    "gaps over the longest threshold": lambda: Gaps(threshold_ns=LATEST_NS),
    "bursts in the widest windows": lambda: Bursts(widths_ns=(1000, 1000 << 40, (1 << 60) // 1000 * 1000)),
    "requests with the longest timeout": lambda: Requests([BY_PAYLOAD], timeout_ns=1 << 60),
    "requests with the shortest timeout": lambda: Requests([BY_PAYLOAD], timeout_ns=1, maximum=2),
    "tick_to_trade with the longest timeout": lambda: TickToTrade(NEAREST, timeout_ns=1 << 60),
    "orders, ouch-5.0": lambda: Orders("ouch-5.0"),
    "trailer, expcap": lambda: Trailer(TrailerChoice(FORMATS["expcap"])),
}


def outcome(analysis: Analysis) -> tuple[Any, ...]:
    return analysis.result(), analysis.tables(), analysis.frames_read, analysis.caveats()


def fed(analysis: Analysis, frames: list[Frame], batch_frames: int) -> Analysis:
    """Give frames to an analysis, with what it looks for taken out of them before."""
    if not isinstance(analysis, Trailer):
        return feed(analysis, frames, batch_frames)
    assert analysis.choice is not None and analysis.choice.format is not None
    stage = TrailerStage(analysis.choice.format)
    for start in range(0, len(frames), batch_frames):
        batch = batch_of(frames[start : start + batch_frames], start + 1)
        stage.apply(batch)
        analysis.update(batch)
    return analysis


def test_the_law_is_tested_for_every_analysis() -> None:
    assert {make().name for make in MAKERS.values()} == set(registry.names()) - OWN_LAW_TESTS


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=80)
@given(cut_stream=cut_streams())
def test_cutting_and_merging_changes_nothing(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, parts, batch_frames = cut_stream
    whole = fed(MAKERS[name](), frames, 4096)
    merged = fed(MAKERS[name](), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(fed(MAKERS[name](), part, batch_frames))
    assert outcome(merged) == outcome(whole)


def counters(node: Any, name: str = "") -> list[tuple[str, int]]:
    """All whole numbers in a result that are no times, with their names."""
    if isinstance(node, dict):
        return [found for key, value in node.items() for found in counters(value, key)]
    if isinstance(node, list):
        return [found for value in node for found in counters(value, name)]
    return [(name, node)] if type(node) is int and not name.endswith("_ns") else []


@pytest.mark.parametrize("name", HOSTILE_MAKERS)
@settings(deadline=None, max_examples=20)
@given(cut_stream=cut_streams(hostile_streams()))
def test_it_holds_where_times_are_at_the_ends_and_frames_of_any_kind(
    name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]
) -> None:
    frames, parts, batch_frames = cut_stream
    make = HOSTILE_MAKERS[name]
    whole = fed(make(), frames, 4096)
    merged = fed(make(), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(fed(make(), part, batch_frames))
    # Where two parts did not come to the same, which is said, tcp is not exact.
    assume(not (isinstance(merged, Tcp) and merged.result()["unsettled_connections"]))
    assert outcome(merged) == outcome(whole)
    assert [found for found in counters(whole.result().as_dict()) if found[1] < 0] == []
    json.dumps(whole.result().as_dict(), allow_nan=False)


@pytest.mark.parametrize("name", HOSTILE_MAKERS)
def test_timestamps_at_either_end_are_reported_where_a_figure_rests_on_them(name: str) -> None:
    frames = [Frame(moment, 60, 1) for moment in (-(1 << 63), EARLIEST_NS, START_NS, LATEST_NS, 1 << 63)]
    analysis = fed(HOSTILE_MAKERS[name](), frames, 2)
    if not analysis.rests_on_timestamps:
        assert analysis.caveats() == []
        return
    (caveat,) = analysis.caveats()
    assert caveat.startswith("4 frames have timestamps outside")
    assert fed(HOSTILE_MAKERS[name](), frames[2:3], 1).caveats() == []


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=20)
@given(cut_stream=cut_streams())
def test_merging_is_associative(name: str, cut_stream: tuple[list[Frame], list[list[Frame]], int]) -> None:
    frames, _, batch_frames = cut_stream
    third = len(frames) // 3

    def parts() -> list[Analysis]:
        cuts = (frames[:third], frames[third : 2 * third], frames[2 * third :])
        return [fed(MAKERS[name](), part, batch_frames) for part in cuts]

    left, right = parts(), parts()
    left[0].merge(left[1])
    left[0].merge(left[2])
    right[1].merge(right[2])
    right[0].merge(right[1])
    assert outcome(left[0]) == outcome(right[0])


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=20)
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
@settings(deadline=None, max_examples=20)
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
    fed(analysis, frames, 4096)
