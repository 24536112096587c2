"""Requests and responses in IP fragments: as if each datagram had come whole, with its last fragment."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.any_traffic import RULES, START_NS, Sent, in_fragments, in_order, numbered, questions
from support.header_frames import ethernet
from support.request_frames import udp

from uspcap.analysis import ip_fragments
from uspcap.analysis.base import Analysis
from uspcap.analysis.requests.analysis import Requests
from uspcap.analysis.tick_to_trade.analysis import TickToTrade
from uspcap.frames import FrameBatch
from uspcap.protocols.rules import named_pairs, pair_rules, parse_rule

FILLER = ethernet(0x0806, bytes(46))


def whole(frames: Sequence[Sent]) -> list[Sent]:
    """Return frames with each datagram where its last fragment came, and what says nothing in place of the others."""
    found, pieces = [], {}
    for one in frames:
        field = struct.unpack_from("!H", one.data, 20)[0] if one.data[12:15] == b"\x08\0\x45" else 0
        if not field & 0x3FFF:
            found.append(one)
            continue
        group = pieces.setdefault(one.data[18:20] + one.data[26:34], {})
        is_copy = field in group
        group[field] = one.data[34:]
        places = sorted(8 * (field & 0x1FFF) for field in group)
        ends = [8 * (field & 0x1FFF) + len(data) for field, data in group.items() if not field & 0x2000]
        complete = bool(ends) and sum(map(len, group.values())) == ends[0] and places[0] == 0
        data = FILLER
        if complete and not is_copy:
            datagram = b"".join(group[field] for field in sorted(group, key=lambda field: field & 0x1FFF))
            ports = struct.unpack_from("!HH", datagram)
            addresses = (".".join(map(str, one.data[at : at + 4])) for at in (26, 30))
            data = udp(*ports, datagram[8:], *addresses)
        found.append(Sent(one.ns, data))
    return found


def fed(make: Callable[[], Analysis], frames: Sequence[Sent], batch_frames: int = 4096) -> Analysis:
    analysis = make()
    for start in range(0, len(frames), batch_frames):
        part = frames[start : start + batch_frames]
        analysis.update(
            FrameBatch.from_frames([one.data for one in part], [one.ns for one in part], first_frame_number=start + 1)
        )
    return analysis


def result(analysis: Analysis) -> Any:
    found = analysis.result()
    return {name: value for name, value in found.items() if name != "fragments"}, analysis.tables()


PAIRS = named_pairs(RULES["requests"], RULES["responses"], "flow")
MAKERS: dict[str, Callable[[], Analysis]] = {
    "requests": lambda: Requests(PAIRS, timeout_ns=10**9),
    "tick_to_trade": lambda: TickToTrade(
        pair_rules(
            parse_rule("udp dst port 53; key=payload[0:2]", "--trigger"),
            parse_rule("udp src port 53; key=payload[0:2]", "--response"),
            name="tick_to_trade",
            match="key",
            options=("--trigger", "--response"),
        )
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@given(frames=questions(), data=st.data())
def test_datagrams_count_where_their_last_fragment_comes_wherever_a_capture_is_cut(
    name: str, frames: list[Sent], data: st.DataObject
) -> None:
    frames = numbered(in_order(frames))
    make = MAKERS[name]
    expected = result(fed(make, whole(frames)))
    assert result(fed(make, frames)) == expected
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=4))), len(frames)]
    batch_frames = data.draw(st.sampled_from([1, 3, 4096]))
    parts = [fed(make, frames[first:last], batch_frames) for first, last in pairwise(edges)]
    if data.draw(st.booleans()):
        for part in parts:
            part.result()
    if data.draw(st.booleans()):
        parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    if data.draw(st.booleans()):
        for part in parts[1:]:
            parts[0].merge(part)
    else:
        while len(parts) > 1:
            later = parts.pop()
            parts[-1].merge(later)
    assert result(parts[0]) == expected
    assert result(parts[0]) == expected
    assert parts[0].result()["fragments"] == fed(make, frames).result()["fragments"]


def dns(count: int, *, lost: int = -1) -> list[Sent]:
    """Queries, and their responses in three fragments each, of which one may be lost."""
    frames = []
    for number in range(count):
        ns = START_NS + 10_000_000 * number
        head = struct.pack("!H", number)
        frames.append(Sent(ns, udp(2000, 53, head + b"\1\0" + bytes(30), "10.1.0.1", "10.1.1.1")))
        pieces = in_fragments(head + b"\x84\0" + bytes(3000), number, 1400, (53, 2000), ("10.1.1.1", "10.1.0.1"))
        frames += [Sent(ns + 1000 * (at + 1), piece) for at, piece in enumerate(pieces) if (number, at) != (lost, 1)]
    return frames


def test_responses_in_fragments_answer_and_one_that_lacks_some_does_not() -> None:
    found = fed(Requests, dns(5, lost=3)).result()
    rule = found["rules"][0]
    assert (rule["requests"], rule["responses"], rule["answered"], rule["unanswered"]) == (5, 4, 4, 1)
    assert rule["sources"]["FILE"]["from_first"]["max_ns"] == 3000
    assert rule["slowest"][0]["response_frame"] - rule["slowest"][0]["request_frame"] == 3
    assert (found["fragments"]["put_together"], found["fragments"]["incomplete"]) == (4, 1)


def test_a_rule_about_the_link_layer_is_asked_about_first_fragments() -> None:
    pairs = named_pairs(
        ["ether src 02:00:00:00:00:01 and udp dst port 53; key=payload[0:2]"],
        ["ether host 02:a0:b0:c0:d0:e0 and udp src port 53; key=payload[0:2]"],
        "flow",
    )
    rule = fed(lambda: Requests(pairs), dns(5)).result()["rules"][-1]
    assert (rule["answered"], rule["sources"]["FILE"]["from_first"]["max_ns"]) == (5, 1000)


def test_what_is_more_than_is_kept_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ip_fragments, "MOST_KEPT", 12)
    frames = dns(10)
    parts = [fed(Requests, frames[:20]), fed(Requests, frames[20:])]
    parts[0].merge(parts[1])
    assert parts[0].result()["fragments"]["cut"] > 0
    assert any("exceed what is kept" in one for one in parts[0].caveats())
    assert parts[0].result()["rules"][0]["requests"] == 10
