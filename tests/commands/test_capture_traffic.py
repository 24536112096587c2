"""Analyses of particular traffic while a capture runs: what is on the wire is what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.capturing import Run
from support.command_line import assert_one_clear_line, invoke
from support.feeds import frame_of
from support.lines import SlowPair, line_packets, two_lines
from support.veth_pairs import HERE, Pair

SAMPLES = Path(__file__).parents[2] / "sample_captures"
LINES = "A=233.252.0.1:30001,B=233.252.0.2:30002"


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_feed_on_the_wire_is_followed_and_its_lines_arbitrated(pair: Pair, run: Run, backend: str) -> None:
    packets = two_lines(7, 150, loss=0.05)
    words = ["--analyze", "sequence,arbitration", "--protocol", "moldudp64", "--pair", LINES, "--format", "json"]
    running = run("-i", HERE, "--backend", backend, *words, "udp").ready()
    pair.send(*[frame_of(packet.mold(), packet.line) for packet in packets])
    assert running.end() == 0
    analyses = json.loads(running.stdout)["analyses"]
    slow = SlowPair.of(line_packets(packets), 1 << 15)
    (pair,) = analyses["arbitration"]["pairs"]
    for at, (line, stream) in enumerate(zip(pair["lines"].values(), analyses["sequence"]["streams"], strict=True)):
        account = slow.account(at)
        assert line["lost"] == stream["lost"] == account.missing
        assert line["late"] == stream["late"] == account.late
        assert line["duplicate"] == stream["duplicate"] == account.duplicate
        assert line["brought_alone"] == slow.alone[at]
    assert pair["arbitrated"]["lost"] == slow.arbitrated().missing
    assert pair["compared"] == len(slow.skews)
    assert list(pair["skew"]) == ["KERNEL" if backend == "packet_mmap" else "XDP"]


def test_replay_says_of_requests_and_orders_what_analyze_says() -> None:
    for sample, words in (
        ("request-response.pcapng", ["requests", "--request", "udp port 53", "--response", "udp port 53"]),
        ("order-session.pcap", ["orders,tcp", "--protocol", "ouch-4.2"]),
    ):
        path = SAMPLES / sample
        live = invoke("capture", "-r", path, "--speed", "0", "--format", "json", "--analyze", *words)
        of_file = invoke("analyze", path, "--format", "json", "--only", *words)
        assert live.code == of_file.code == 0, live
        assert json.loads(live.stdout)["analyses"] == json.loads(of_file.stdout)["analyses"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--analyze", "sequence"], "--protocol NAME"),
        (["--protocol", "auto"], "interfaces lack"),
        (["--pair", LINES], "--protocol NAME"),
        (["--request", "udp"], "add --analyze requests"),
        (["-w", "/dev/null", "--trigger", "udp"], "add --analyze tick_to_trade"),
        (["--analyze", "requests", "--response", "udp"], "needs what it responds to"),
    ],
)
def test_options_that_go_with_nothing_are_one_clear_line(words: list[str], said: str) -> None:
    assert_one_clear_line(invoke("capture", "-i", "lo", *words), 2, said)
