"""Requests and responses: a sample with a known truth, tshark's own times, and rounds of known replies."""

from __future__ import annotations

import functools
import json
import shutil
import struct
import subprocess
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fragments import fragments_of
from support.request_frames import udp
from support.shared_captures import CAPTURES, needs_captures
from support.untidy import pcap

from uspcap.analysis.matching_options import MOST_REPLIES
from uspcap.analysis.requests.analysis import Requests
from uspcap.analysis.requests.request_runs import REPLIES_KEPT
from uspcap.analysis.suite import Settings, analyze_files
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.rules import named_pairs
from uspcap.stages.reading import Reading

SAMPLES = Path(__file__).parents[2] / "sample_captures"
START_NS = 1_700_000_000_000_000_000
HOUR_NS = 3600 * 10**9


def analyzed(path: Path, jobs: int = 2, **arguments: Any) -> Requests:
    settings = Settings(names=("requests",), arguments={"requests": arguments}, reading=Reading(sorting="off"))
    outcome = analyze_files([str(path)], settings, jobs=jobs)
    analysis = outcome.suite.analyses["requests"]
    assert isinstance(analysis, Requests)
    return analysis


def by_rule(analysis: Requests) -> dict[str, Any]:
    return {rule["name"]: rule for rule in analysis.result().as_dict()["rules"]}


def rows(table: Any) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_the_sample_has_the_latencies_that_were_put_into_it() -> None:
    truth = json.loads((SAMPLES / "truth.json").read_text())["request-response.pcapng"]
    analysis = analyzed(SAMPLES / "request-response.pcapng")
    rules = by_rule(analysis)
    pairs = rows(analysis.tables()["pairs"])
    for name, of_truth in (("dns", truth["dns"]), ("icmp_echo", truth["icmp_echo"])):
        found = [
            (row["request_frame"], row["response_frame"], row["latency_from_first_ns"])
            for row in pairs
            if row["rule"] == name
        ]
        assert found == [(one["frame"], one["response_frame"], one["latency_ns"]) for one in of_truth["answered"]]
        assert rules[name]["requests"] == of_truth["requests"]
        assert rules[name]["responses"] == of_truth["responses"]
        assert [one["request_frame"] for one in rules[name]["first_unanswered"]] == [
            one["frame"] for one in of_truth["unanswered"]
        ]
        assert rules[name]["unsolicited_responses"] == 0
    assert rules["dns"]["slowest"][0]["latency_from_first_ns"] == truth["dns"]["slow"][0]["latency_ns"]


def test_orders_have_the_answers_that_were_put_into_the_sample() -> None:
    truth = json.loads((SAMPLES / "truth.json").read_text())["order-session.pcap"]
    pairs = named_pairs(
        ["tcp dst port 24001; key=payload[4:18]; name=orders"], ["tcp src port 24001; key=payload[12:26]"], "flow"
    )
    analysis = analyzed(SAMPLES / "order-session.pcap", pairs=pairs)
    found = {
        row["request_frame"]: (row["last_request_frame"], row["response_frame"], row["latency_from_last_ns"])
        for row in rows(analysis.tables()["pairs"])
    }
    # A token that begins in one segment is matched from there, although its order ends in the next.
    whole = [order for order in truth["orders"] if "split" not in order["fate"]]
    assert len(whole) == len(truth["orders"]) - 1
    for order in whole:
        frames = order["frames"]
        assert found[frames[0]] == (frames[-1], order["answer_frame"], order["answer_ns"])


TSHARK = {
    "dns": ("udp && !mdns && dns.time", "dns.response_to", "dns.time", 10**9),
    "icmp_echo": ("icmp.resptime", "icmp.resp_to", "icmp.resptime", 10**6),
}
"""By rule: tshark's filter for responses, its fields of the request's frame and of the time, units of that a second."""


@functools.cache
def tshark_times(path: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """Return, by rule and by the response's frame, the request's frame and the time in ns, as tshark has them."""
    any_response = " || ".join(f"({display_filter})" for display_filter, *_ in TSHARK.values())
    command = ["tshark", "-n", "-r", str(path), "-Y", any_response, "-T", "fields", "-E", "occurrence=f"]
    command += ["-e", "frame.number"]
    for _, frame_field, time_field, _ in TSHARK.values():
        command += ["-e", frame_field, "-e", time_field]
    # Whatever is wrong at the end of a capture, what was read before it is reported.
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in TSHARK}
    for line in lines:
        response, *fields = line.split("\t")
        for (name, (*_, unit)), request, time in zip(TSHARK.items(), fields[::2], fields[1::2], strict=True):
            if time:
                found[name][int(response)] = (int(request), round(Fraction(time) * unit))
    return found


def compared(path: Path, name: str) -> int:
    """Compare each pair that either tool has; return how many there are."""
    theirs = tshark_times(path)[name]
    # tshark waits for as long as it takes.
    analysis = analyzed(path, jobs=1, timeout_ns=1000 * HOUR_NS)
    pairs = [row for row in rows(analysis.tables()["pairs"]) if row["rule"] == name]
    ours = {row["response_frame"]: row for row in pairs}
    assert ours.keys() == theirs.keys(), path.name
    for frame, (request, time_ns) in theirs.items():
        row = ours[frame]
        # It takes a retransmitted request for one request in DNS, and prints microseconds for echoes.
        assert request == row["request_frame"], (path.name, frame)
        assert abs(row["latency_from_first_ns"] - time_ns) <= (1000 if name == "icmp_echo" else 0), (path.name, frame)
    return len(theirs)


@pytest.mark.oracle
@pytest.mark.parametrize("name", TSHARK)
def test_times_of_the_sample_are_those_of_tshark(name: str) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark to compare with")
    assert compared(SAMPLES / "request-response.pcapng", name) > 50


@pytest.mark.oracle
@needs_captures
@pytest.mark.parametrize("name", TSHARK)
def test_times_of_captures_are_those_of_tshark(name: str) -> None:
    assert sum(compared(path, name) for path in sorted(Path(CAPTURES, "udp-rr").iterdir())) >= 30


@pytest.mark.oracle
@needs_captures
def test_ntp_pairs_are_those_whose_timestamps_say_so() -> None:
    path = CAPTURES / "udp-rr" / "nDPI__NTPv3.pcap"
    fields = ("frame.number", "ip.src", "ip.dst", "udp.srcport", "udp.dstport", "ntp.flags.mode", "ntp.xmt", "ntp.org")
    command = ["tshark", "-n", "-r", str(path), "-Y", "ntp", "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    asked: dict[Any, int] = {}
    expected = []
    for line in lines:
        number, source, destination, source_port, destination_port, mode, transmitted, origin = line.split("\t")
        if mode == "3":
            asked[source, destination, source_port, destination_port, transmitted] = int(number)
        elif mode == "4":
            request = asked.get((destination, source, destination_port, source_port, origin))
            if request:
                expected.append((request, int(number)))
    analysis = analyzed(path)
    rule = by_rule(analysis)["ntp"]
    pairs = [row for row in rows(analysis.tables().get("pairs") or {}) if row["rule"] == "ntp"]
    assert [(row["request_frame"], row["response_frame"]) for row in pairs] == expected
    assert rule["requests"] + rule["responses"] > 0


ROUND = named_pairs(
    ["udp dst port 7000; key=payload[0:8]; name=rounds"], ["udp src port 7000; key=payload[0:8]"], "key"
)


def rounds_of(replies_ns: list[list[int]]) -> list[tuple[int, bytes]]:
    """Return timestamped frames of rounds 1 ms apart: one multicast request each, and replies of responders 2, 3, 4…"""
    frames = []
    for at, delays in enumerate(replies_ns):
        key = at.to_bytes(8, "big")
        start = START_NS + at * 10**6
        frames.append((start, udp(9000, 7000, key, "10.0.0.1", "239.0.0.1")))
        frames += [
            (start + delay, udp(7000, 9000, key, f"10.0.0.{responder}", "10.0.0.1"))
            for responder, delay in enumerate(delays, 2)
        ]
    return sorted(frames)


def fed(analysis: Requests, frames: list[tuple[int, bytes]], batch_frames: int = 100) -> Requests:
    for start in range(0, len(frames), batch_frames):
        some = frames[start : start + batch_frames]
        analysis.update(
            FrameBatch.from_frames([frame for _, frame in some], [at for at, _ in some], first_frame_number=start + 1)
        )
    return analysis


@pytest.mark.parametrize(("quorum", "needed"), [(2, 2), ("majority", 3)])
def test_rounds_of_known_replies(quorum: int | str, needed: int) -> None:
    random = np.random.default_rng(11)
    replies = [random.integers(1_000, 400_000, random.integers(0, 6)).tolist() for _ in range(200)]
    replies.append([500, 600, 700, 800, 900])
    analysis = fed(Requests(ROUND, quorum=quorum), rounds_of(replies))
    rule = by_rule(analysis)["rounds"]
    rounds = rule["rounds"]
    assert rounds["responders"] == 5
    assert rounds["quorum"] == needed
    assert rounds["rounds"] == len(replies)
    assert rounds["reached"] == sum(len(one) >= needed for one in replies)
    assert rounds["never_reached"] == sum(len(one) < needed for one in replies)
    assert rounds["by_replies"] == [sum(len(one) == many for one in replies) for many in range(6)]
    for measure, values in (
        ("reply_1", [min(one) for one in replies if one]),
        (f"reply_{needed}", [sorted(one)[needed - 1] for one in replies if len(one) >= needed]),
        ("last_reply", [max(one) for one in replies if one]),
    ):
        histogram = analysis.histograms()[f"rounds.FILE.{measure}"].result()
        assert (histogram["count"], histogram["min_ns"], histogram["max_ns"], histogram["mean_ns"]) == (
            len(values),
            min(values),
            max(values),
            round(Fraction(sum(values), len(values))),
        )


def test_a_duplicate_reply_counts_once_towards_the_quorum() -> None:
    key = bytes(8)
    frames = [
        (START_NS, udp(9, 7000, key, "10.0.0.1", "239.0.0.1")),
        *((START_NS + at, udp(7000, 9, key, "10.0.0.2", "10.0.0.1")) for at in (10, 20, 30)),
        (START_NS + 40, udp(7000, 9, key, "10.0.0.3", "10.0.0.1")),
    ]
    rule = by_rule(fed(Requests(ROUND, quorum=3), frames))["rounds"]
    assert rule["rounds"]["never_reached"] == 1
    assert rule["rounds"]["by_replies"] == [0, 0, 1]
    assert rule["duplicate_responses"] == 2


def test_a_retransmitted_request_has_two_times() -> None:
    pairs = named_pairs(["udp dst port 7000; key=payload[0:8]"], ["udp src port 7000; key=payload[0:8]"], "flow")
    ask, answer = udp(9, 7000, bytes(8)), udp(7000, 9, bytes(8), "10.0.0.2", "10.0.0.1")
    frames = [(START_NS, ask), (START_NS + 1000, ask), (START_NS + 1300, answer), (START_NS + 1400, answer)]
    rule = by_rule(fed(Requests(pairs), frames))["rule1"]
    assert (rule["retransmitted_requests"], rule["duplicate_responses"], rule["answered"]) == (1, 1, 1)
    measures = rule["sources"]["FILE"]
    assert (measures["from_first"]["max_ns"], measures["from_last"]["max_ns"]) == (1300, 300)


def test_timestamps_of_two_clocks_make_no_time() -> None:
    pairs = named_pairs(["udp dst port 7000"], ["udp src port 7000"], "flow")
    batch = FrameBatch.from_frames(
        [udp(9, 7000, b""), udp(7000, 9, b"", "10.0.0.2", "10.0.0.1")], [START_NS, START_NS + 37 * 10**9]
    )
    batch.storage("timestamp_source")[:2] = TimestampSource.KERNEL, TimestampSource.HARDWARE
    analysis = Requests(pairs)
    analysis.update(batch)
    rule = by_rule(analysis)["rule1"]
    assert (rule["answered"], rule["across_clocks"], rule["sources"]) == (1, 1, {})


def test_the_option_takes_as_many_replies_as_are_kept() -> None:
    assert MOST_REPLIES == REPLIES_KEPT


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3, 5)])
def test_datagrams_in_fragments_that_lack_some_are_said(cuts: tuple[int, ...]) -> None:
    query = struct.pack("!HH", 7, 0x0100) + bytes(60)
    frames = [piece.frame() for at in range(3) for piece in fragments_of(query, at, 32)][:-1]
    frames.append(udp(40_000, 53, query))
    parts = []
    for first, last in pairwise([0, *cuts, len(frames)]):
        parts.append(Requests())
        parts[-1].update(FrameBatch.from_frames(frames[first:last], [START_NS + at for at in range(first, last)]))
    for part in parts[1:]:
        parts[0].merge(part)
    counts = parts[0].result().fragments.as_dict()
    assert counts == {
        "put_together": 2,
        "incomplete": 1,
        "discarded": 0,
        "copies": 0,
        "frames_left_out": len(fragments_of(query, 2, 32)) - 1,
        "cut": 0,
    }
    assert any("1 of 3 UDP datagrams in IP fragments lacks some" in one for one in parts[0].caveats())


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3,), (1, 4)])
def test_frames_beside_fragments_are_looked_at_once(cuts: tuple[int, ...]) -> None:
    """A batch is taken in pieces where fragments end; what lacks a key, or matches both filters, counts once."""
    pieces = [piece.frame() for piece in fragments_of(bytes(60), 1, 32)]
    short = udp(40_000, 7_000, b"ab")
    frames = [short, pieces[0], short, *pieces[1:], short]
    rules = named_pairs(
        ["udp dst port 7000; key=payload[0:8]; name=key", "udp port 7000; name=both"],
        ["udp src port 7000; key=payload[0:8]", "udp dst port 7000"],
        "flow",
    )
    parts = []
    for first, last in pairwise([0, *cuts, len(frames)]):
        parts.append(Requests(rules))
        parts[-1].update(FrameBatch.from_frames(frames[first:last], [START_NS + at for at in range(first, last)]))
    for part in parts[1:]:
        parts[0].merge(part)
    found = {rule.name: (rule.without_key, rule.matched_both) for rule in parts[0].result().rules}
    assert (found["key"][0], found["both"][1]) == (3, 3)


def directions(tmp_path: Path, *, offset_ns: int, keyed: bool = True) -> Requests:
    """Analyze 50 exchanges of 100 µs, put in order of time, where the clock of the responses is off by so much."""
    frames = []
    for number in range(50):
        at_ns, payload = START_NS + number * 10**6, struct.pack("!Q", number)
        frames.append((at_ns, udp(5000, 7000, payload)))
        frames.append((at_ns + 100_000 + offset_ns, udp(7000, 5000, payload, "10.0.0.2", "10.0.0.1")))
    file = pcap(tmp_path / "directions.pcap", sorted(frames))
    key = ";key=payload[0:8]" if keyed else ""
    pairs = named_pairs([f"udp dst port 7000{key};name=q"], [f"udp src port 7000{key}"], "flow")
    return analyzed(Path(file), pairs=pairs)


def test_responses_that_precede_their_requests_by_the_offset_of_two_clocks_are_reported(tmp_path: Path) -> None:
    analysis = directions(tmp_path, offset_ns=-150_000)
    rule = by_rule(analysis)["q"]
    assert (rule["answered"], rule["unanswered"], rule["unsolicited_responses"]) == (0, 50, 50)
    assert rule["preceding"] == {"exchanges": 50, "least_ns": 50_000, "most_ns": 50_000}
    assert rule["sources"] == {}
    (caveat,) = analysis.caveats()
    assert caveat.startswith("q: 50 of the responses without a request precede the request with their key, by 50.00 µs")


@pytest.mark.parametrize(("offset_ns", "keyed"), [(0, True), (0, False), (-150_000, False)])
def test_nothing_is_said_of_responses_after_their_requests_nor_without_keys(
    tmp_path: Path, offset_ns: int, keyed: bool
) -> None:
    analysis = directions(tmp_path, offset_ns=offset_ns, keyed=keyed)
    assert by_rule(analysis)["q"]["preceding"] is None
    assert analysis.caveats() == []


def test_a_few_preceding_responses_do_not_cast_doubt_on_the_times(tmp_path: Path) -> None:
    """A key of one byte comes round within the timeout: what answers a lost request precedes the next of its key."""
    frames = []
    for number in range(300):
        at_ns, payload = START_NS + number * 10**6, bytes([number % 256])
        if number != 3:
            frames.append((at_ns, udp(5000, 7000, payload)))
        frames.append((at_ns + 1000, udp(7000, 5000, payload, "10.0.0.2", "10.0.0.1")))
    pairs = named_pairs(["udp dst port 7000;key=payload[0:1];name=q"], ["udp src port 7000;key=payload[0:1]"], "flow")
    analysis = analyzed(Path(pcap(tmp_path / "wraps.pcap", frames)), pairs=pairs)
    rule = by_rule(analysis)["q"]
    assert (rule["answered"], rule["unsolicited_responses"]) == (299, 1)
    assert rule["preceding"] == {"exchanges": 1, "least_ns": 255_999_000, "most_ns": 255_999_000}
    assert analysis.caveats() == []
