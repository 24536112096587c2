"""An analysis of somebody else, installed beside uspcap: everything of it is there, and nothing in uspcap knows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import PROGRAM

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_captures" / "microburst.pcap"

INSTALL = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target")

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
    assert "'0' is no whole number of 1 or more; write one, as 1" in refused.stderr
    unused = run(installed, "analyze", SAMPLE, "--only", "gaps", "--fewest-frames", "3")
    assert "--fewest-frames is about vlans: add --only vlans, or leave it out" in unused.stderr


def test_its_table_is_written(installed: dict[str, str], tmp_path: Path) -> None:
    assert run(installed, "analyze", SAMPLE, "--only", "vlans", "--tables", tmp_path).returncode == 0
    assert (tmp_path / "vlans.vlans.csv").read_text().startswith("vlan,packets,bytes_on_wire\n")


def test_intervals_of_a_capture_say_it_in_a_few_words(installed: dict[str, str]) -> None:
    done = run(installed, "capture", "-r", SAMPLE, "--speed", "0", "--analyze", "vlans", "--interval", "1h")
    assert done.returncode == 0, done.stderr
    assert "VLANs    1\n" in done.stdout


def test_the_law_is_tested_for_it(installed: dict[str, str]) -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/analysis/test_law.py",
        "-k",
        "vlans",
    ]
    done = subprocess.run(words, env=installed, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
