"""Options about requests, triggers and responses: which go together, and what a run with them prints."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from support.command_line import invoke

from uspcap.report.schema import load_schema

SAMPLE = str(Path(__file__).parents[2] / "sample_captures" / "request-response.pcapng")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--request", "udp"], "add --only requests"),
        (["--trigger", "udp"], "add --only tick_to_trade"),
        (
            ["--only", "gaps", "--timeout", "1s"],
            "--timeout is an option of requests and tick_to_trade: add --only requests",
        ),
        (["--only", "tick_to_trade"], "tick_to_trade needs --trigger RULE"),
        (["--only", "requests", "--request", "udp"], "give a response for each"),
        (["--only", "requests", "--response", "udp"], "needs what it responds to"),
        (["--only", "requests", "--quorum", "2"], "add --request RULE"),
        (["--only", "requests", "--request", "udp; key=x", "--response", "udp"], "--request: character 6: 'x'"),
        (["--only", "requests", "--request", "udp prt 1", "--response", "udp"], "--request: "),
        (["--only", "requests", "--timeout", "0s"], "--timeout takes 1ns"),
        (["--only", "requests", "--quorum", "33"], "up to 32, or majority"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options: list[str], why: str) -> None:
    ended = invoke("analyze", SAMPLE, *options)
    assert ended.code == 2
    assert ended.stdout == ""
    assert why in ended.stderr


def test_a_report_with_rules_obeys_the_schema_and_tables_hold_every_pair(tmp_path: Path) -> None:
    ask, answer = "udp dst port 53; key=payload[0:2]; name=lookups", "udp src port 53; key=payload[0:2]"
    command = ["analyze", SAMPLE, "--only", "requests,tick_to_trade", "--format", "json", "--tables", str(tmp_path)]
    command += ["--request", ask, "--response", answer, "--trigger", ask, "--quorum", "1", "--match", "client"]
    ended = invoke(*command)
    assert (ended.code, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema())
    rules = {rule["name"]: rule for rule in report["analyses"]["requests"]["rules"]}
    assert rules["lookups"]["answered"] == rules["dns"]["answered"] == 199
    assert rules["lookups"]["rounds"]["reached"] == 199
    assert report["analyses"]["tick_to_trade"]["answered"] == 199
    pairs = (tmp_path / "requests.pairs.csv").read_text().splitlines()
    assert sum(line.startswith("dns,") for line in pairs) == 199
    assert (tmp_path / "requests.dns.FILE.from_first.hgrm").exists()
    assert (tmp_path / "tick_to_trade.FILE.from_first.hgrm").exists()


def test_the_text_says_what_was_found() -> None:
    command = ["analyze", SAMPLE, "--only", "requests,tick_to_trade", "--trigger", "icmp[0] == 8", "--response", "icmp"]
    text = invoke(*command).stdout
    assert "Requests and responses" in text
    assert "Tick to trade" in text
    assert "69 with a response, 1 without" in text
    assert "70 frames matched by both rules" in text
