"""The fuzzing loop, on targets made up here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GENERATE = "def generate(random): return random.randrange(1000)\n"

WRONG = {
    "raises": ("def run(value): assert value != value // 1, 'as it is'\n", "AssertionError"),
    # Not a signal that a sanitizer reports on: that takes time, and ends in another one.
    "dies": ("import os, signal\ndef run(value): os.kill(os.getpid(), signal.SIGKILL)\n", "signal SIGKILL"),
    "spins": ("def run(value):\n    while True: pass\n", "did not end within"),
    "waits": ("import time\ndef run(value): time.sleep(600)\n", "waited for"),
}

IMPATIENT = """
import sys

import engine

engine.LONGEST_S, engine.LONGEST_QUIET_S, engine.__file__ = 0.2, 2, __file__
sys.exit(engine.main())
"""


@pytest.fixture
def engine(tmp_path):
    """Run a target on so many inputs, with little patience; return the exit code and the target's account."""

    def run(name: str, body: str, *words: str):
        (tmp_path / "targets").mkdir()
        (tmp_path / "targets" / f"{name}.py").write_text(GENERATE + body)
        script = tmp_path / "impatient.py"
        script.write_text(IMPATIENT)
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'fuzz'}:{ROOT / 'tests'}"}
        command = [sys.executable, str(script), name, "--directory", str(tmp_path / "accounts"), *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return done.returncode, json.loads((tmp_path / "accounts" / f"{name}.json").read_text())

    return run


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_a_finding_with_its_input(engine, name):
    body, why = WRONG[name]
    code, account = engine(name, body, "--count", "20", "--first")
    assert code == 1
    (finding,) = account["findings"]
    assert why in finding["kind"]
    assert 0 <= int(finding["input"]) < 1000


def test_what_goes_well_is_counted(engine):
    code, account = engine("well", "def run(value): pass\n", "--count", "50")
    assert (code, account["findings"]) == (0, [])
    assert account["inputs"] == account["generated"] + account["mutated"] == 50


def test_a_target_goes_on_until_it_has_tried_the_minimum(engine):
    _, account = engine("least", "def run(value): pass\n", "--seconds", "0.01", "--least", "500")
    assert account["inputs"] >= 500
