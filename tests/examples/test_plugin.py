"""An analysis and an output format of somebody else, installed beside uspcap, which knows neither."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support.command_line import PROGRAM
from support.live_outcomes import outcome_of

from uspcap.report.live_comparison import live_report

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_captures" / "microburst.pcap"

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the plug-in into a directory of its own, and return an environment that has it."""
    target = tmp_path_factory.mktemp("plugin")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            target,
            ROOT / "examples" / "plugin",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": f"{target}"}


def run(installed: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], env=installed, capture_output=True, text=True, timeout=120)


def test_its_section_is_in_the_report(installed: dict[str, str]) -> None:
    done = run(installed, "analyze", SAMPLE, "--only", "vlans")
    assert (done.returncode, done.stderr) == (0, "")
    assert "VLANs\n  VLAN  packets  on the wire\n" in done.stdout


def test_its_result_keeps_to_its_schema(installed: dict[str, str]) -> None:
    done = run(installed, "analyze", SAMPLE, "--only", "vlans,summary", "--format", "json")
    document = json.loads(done.stdout)
    rows = document["analyses"]["vlans"]["vlans"]
    assert sum(row["packets"] for row in rows) == document["source"]["packets"] == 593
    program = (
        "import json, sys, jsonschema\n"
        "from uspcap.report.schema import load_schema\n"
        "schema = load_schema()\n"
        "assert 'vlans' in schema['properties']['analyses']['properties']\n"
        "jsonschema.validate(json.load(sys.stdin), schema)\n"
    )
    checked = subprocess.run([sys.executable, "-c", program], input=done.stdout, env=installed, text=True, timeout=60)
    assert checked.returncode == 0


def test_its_option_is_on_every_command_that_runs_analyses(installed: dict[str, str]) -> None:
    for command in ("analyze", "capture"):
        assert "--fewest-frames N" in run(installed, command, "--help").stdout
    done = run(installed, "analyze", SAMPLE, "--only", "vlans", "--fewest-frames", "1000000")
    assert "left out: 1 VLAN with fewer frames" in done.stdout
    refused = run(installed, "capture", "-r", SAMPLE, "--analyze", "vlans", "--fewest-frames", "0")
    assert refused.returncode == 2
    assert "'0' is not a whole number of 1 or more; write one, as 1" in refused.stderr
    unused = run(installed, "analyze", SAMPLE, "--only", "gaps", "--fewest-frames", "3")
    assert "--fewest-frames is an option of vlans: add --only vlans, or leave it out" in unused.stderr


def test_its_table_is_written(installed: dict[str, str], tmp_path: Path) -> None:
    assert run(installed, "analyze", SAMPLE, "--only", "vlans", "--tables", tmp_path).returncode == 0
    assert (tmp_path / "vlans.vlans.csv").read_text().startswith("vlan,packets,bytes_on_wire\n")


def test_intervals_of_a_capture_say_it_in_a_few_words(installed: dict[str, str]) -> None:
    done = run(installed, "capture", "-r", SAMPLE, "--speed", "0", "--analyze", "vlans", "--interval", "1h")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +VLANs +1$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("law", ["analysis/test_law.py", "stages/test_any_order.py"])
def test_the_law_is_tested_for_it(installed: dict[str, str], law: str) -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"tests/{law}",
        "-m",
        "",
        "-k",
        "vlans",
    ]
    done = subprocess.run(words, env=installed, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


MARKDOWN = ("--format", "markdown")
LISTENER = "address of a socket that takes what comes"
FEED = ROOT / "sample_captures" / "feed-two-lines.pcapng"


@pytest.mark.parametrize(
    ("words", "heading", "said"),
    [
        (("analyze", SAMPLE, "--only", "summary,vlans"), "VLANs", "593"),
        (("analyze", SAMPLE, "--only", "gaps,inter_arrival", "--show-outliers"), "Inter-arrival", "frames"),
        (("compare", FEED, FEED), "Delay, B's timestamp minus A's", "frames matched, every frame of A is in B"),
        (("compare", "1.json", "2.json"), "Latency, hook to user: 2 minus 1", "not distinguishable"),
        (("doctor", "-i", "lo"), "interface lo", "checks"),
        (("probe", "reflect", "127.0.0.1:0", "--duration", "100ms"), "", "0 answered"),
        (("probe", "send", LISTENER, "--count", "3", "--one-way"), "", "sent late by"),
        (("capture", "-r", SAMPLE, "--speed", "0", "--analyze", "summary"), "Summary", "593"),
        (("capture", "-r", SAMPLE, "--speed", "0", "--analyze", "gaps", "--interval", "1h"), "Gaps", "dropped"),
        (
            (
                "capture",
                "-D",
            ),
            "",
            "packet_mmap: yes",
        ),
        (("protocols",), "", "moldudp64"),
    ],
    ids=lambda value: "-".join(map(str, value[:2])).rsplit("/", 1)[-1] if isinstance(value, tuple) else None,
)
def test_its_format_is_on_every_command(
    installed: dict[str, str], tmp_path: Path, words: tuple[str | Path, ...], heading: str, said: str
) -> None:
    for name, seed in (("1.json", 1), ("2.json", 2)):
        (tmp_path / name).write_text(json.dumps(live_report(outcome_of(seed=seed))))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{listener.getsockname()[1]}"
        given = [there if word == LISTENER else word for word in words]
        done = subprocess.run(
            [*PROGRAM, *given, *MARKDOWN], env=installed, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    tokens = MarkdownIt("commonmark").enable("table").parse(done.stdout)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert not heading or any(heading in title.replace("\\", "") for title in titles), titles
    assert said in plain(tokens)
    assert not [token for token in tokens if token.type.startswith("html")]


def plain(tokens: Sequence[Token]) -> str:
    """What a reader of Markdown sees."""
    parts = []
    for token in tokens:
        parts += [child.content for child in token.children or ()] if token.children else [token.content]
    return "".join(parts)


def test_its_format_is_in_the_help_of_every_command(installed: dict[str, str]) -> None:
    for command in (("analyze",), ("capture",), ("compare",), ("doctor",), ("protocols",), ("probe", "send")):
        assert "[text|json|markdown]" in run(installed, *command, "--help").stdout


def test_its_lines_are_not_taken_for_more_than_text(installed: dict[str, str], tmp_path: Path) -> None:
    named = tmp_path / "# a|b*c <b> `x` [y](z) &amp; _u_ \x1b[31m.pcap"
    named.write_bytes(SAMPLE.read_bytes())
    done = run(installed, "analyze", named, "--only", "summary", *MARKDOWN)
    assert "\x1b" not in done.stdout
    tokens = MarkdownIt("commonmark").enable("table").parse(done.stdout)
    assert tokens[0].tag == "h1"
    kinds = {child.type for child in tokens[1].children or ()}
    assert kinds <= {"text", "text_special"}, kinds
    assert plain(tokens[1:2]) == f"uspcap {named}".replace("\x1b", "\\x1b")
