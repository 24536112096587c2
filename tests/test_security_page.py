"""What SECURITY.md says and points to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`((?:tests|docs|fuzz)/[\w./-]+)`", PAGE)))


def test_the_page_names_tests() -> None:
    assert len([path for path in PATHS if path.startswith("tests/")]) > 10


@pytest.mark.parametrize("path", PATHS)
def test_what_the_page_names_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("tests/")])
def test_what_the_page_names_are_tests(path: str) -> None:
    assert re.search(r"^\s*def test_", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


REFUSED = ("socket.", "subprocess.", "os.exec", "os.system", "os.posix_spawn", "os.fork", "pickle.")
"""Events of Python's audit hooks."""

READING = (
    ("analyze", "FILE", "--only", "summary,timestamps,inter_arrival,gaps,bursts,overhead,tcp,requests,patterns"),
    ("analyze", "FILE", "--format", "json", "--only", "orders,sequence", "--protocol", "fix"),
    ("dump", "FILE", "-x"),
    ("compare", "FILE", "FILE"),
    ("protocols",),
)


@pytest.mark.parametrize("words", READING, ids=[" ".join(words[:4]) for words in READING])
def test_reading_files_asks_nobody_starts_nothing_and_unpickles_nothing(words: tuple[str, ...]) -> None:
    program = (
        "import os, sys\n"
        "def refuse(event, arguments):\n"
        f"    if event.startswith({REFUSED}):\n"
        "        os.write(2, f'{event} {arguments}'.encode()[:1000])\n"
        "        os._exit(99)\n"
        "import uspcap.formats  # an editable installation builds itself with the first compiled module\n"
        "sys.addaudithook(refuse)\n"
        "from uspcap.cli import run; run()"
    )
    for sample in sorted((ROOT / "sample_captures").glob("*.pcap*")):
        if sample.suffix == ".json":
            continue
        command = [str(sample) if word == "FILE" else word for word in words]
        done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr
