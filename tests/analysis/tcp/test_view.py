"""What the terminal says of TCP connections."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings
from rich.console import Console
from support.command_line import invoke
from support.tcp_segments import ACK, START_NS, SYN, Segment, captures, feed

from uspcap.analysis.tcp.analysis import Tcp
from uspcap.analysis.tcp.result import TcpResult
from uspcap.analysis.tcp.view import section
from uspcap.frames import TimestampSource
from uspcap.report.model import Context
from uspcap.report.renderers.text import show_section
from uspcap.report.schema import load_schema

SAMPLE = Path(__file__).parents[3] / "sample_captures" / "order-session.pcap"
SCHEMA = load_schema()

HANDSHAKE = [
    Segment(START_NS, False, 999, 0, flags=SYN),
    Segment(START_NS + 38_200, True, 4_999, 1_000, flags=SYN | ACK),
    Segment(START_NS + 41_000, False, 1_000, 5_000),
]


def shown(segments: Sequence[Segment], width: int = 200, **bounds: Any) -> str:
    return rendered(feed(Tcp(**bounds), segments).result(), width)


def rendered(result: TcpResult, width: int = 200) -> str:
    stream = io.StringIO()
    show_section(Console(file=stream, width=width), section(result, Context(one_day=True)))
    return stream.getvalue()


def test_both_sides_of_a_handshake_are_shown_under_their_names() -> None:
    lines = shown(HANDSHAKE).splitlines()
    assert any("handshake, responder side" in line and "38.20 µs" in line for line in lines)
    assert any("handshake, initiator side" in line and "2.800 µs" in line for line in lines)
    assert any("handshake, both" in line and "41.00 µs" in line for line in lines)
    assert any("192.0.2.9:40000 > 192.0.2.1:443" in line for line in lines)


def test_without_tcp_there_is_nothing_but_that() -> None:
    assert "0 connections, 0 segments" in shown([])
    assert "round trips" not in shown([])


def test_guessed_roles_are_reported() -> None:
    assert "1 connection without a SYN" in shown(HANDSHAKE[2:])
    assert "without a SYN" not in shown(HANDSHAKE)


def test_what_costs_times_is_reported() -> None:
    again = Segment(START_NS + 50_000, False, 1_000, 5_000, 10)
    answer = Segment(START_NS + 90_000, True, 5_000, 1_010)
    text = shown([*HANDSHAKE, again, again, answer])
    assert "1 acknowledgment without a time" in text
    other = replace(HANDSHAKE[1], source=TimestampSource.KERNEL)
    assert "left out: start and end have timestamps of different sources" in shown([HANDSHAKE[0], other, HANDSHAKE[2]])


def test_a_sample_is_called_one() -> None:
    segments = [replace(one, connection=number) for number in range(40) for one in HANDSHAKE]
    assert "a sample: one in" in shown(segments, maximum_connections=5)


def test_connections_that_are_not_known_exactly_are_reported() -> None:
    result = replace(feed(Tcp(), HANDSHAKE).result(), unsettled_connections=2)
    assert "2 connections not known exactly where parts of the capture were joined" in rendered(result)


@settings(deadline=None, max_examples=80)
@given(segments=captures())
def test_results_keep_to_the_schema_and_can_be_shown(segments: list[Segment]) -> None:
    result = feed(Tcp(), segments).result()
    schema = {"$ref": "#/$defs/tcp", "$defs": SCHEMA["$defs"]}
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(result.as_dict()))
    assert "TCP" in rendered(result, 80)


def test_it_is_asked_for_and_writes_tables_and_histograms(tmp_path: Path) -> None:
    assert "tcp" not in json.loads(invoke("analyze", SAMPLE, "--format", "json").stdout)["analyses"]
    ended = invoke("analyze", SAMPLE, "--only", "tcp", "--format", "json", "--tables", tmp_path)
    report = json.loads(ended.stdout)
    jsonschema.validate(report, SCHEMA)
    # By sample_captures/truth.json.
    handshake = report["analyses"]["tcp"]["sources"]["FILE"]["handshake"]["responder_side"]
    assert (handshake["count"], handshake["max_ns"]) == (1, 38_200)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tcp.connections.csv",
        "tcp.round_trips.csv",
        *(f"tcp.FILE.data_ack.{side}.hgrm" for side in ("initiator_side", "responder_side")),
        *(f"tcp.FILE.handshake.{side}.hgrm" for side in ("initiator_side", "responder_side", "whole")),
    }
