"""uspcap as its users start it: in a process of its own, or in this one where many short runs are wanted."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

from click.testing import CliRunner
from support.capture_files import pcap_header, pcap_record
from support.streams import Frame

from uspcap.cli import main

PROGRAM = (sys.executable, "-c", "from uspcap.cli import run; run()")
"""What starts uspcap in this interpreter, whether it is installed or not."""

NANOSECOND_MAGIC = 0xA1B23C4D


class Ended(NamedTuple):
    """How a run ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def invoke(*arguments: str | PathLike[str]) -> Ended:
    """Run in this process, as `main` does it."""
    with CliRunner().isolation() as (stdout, stderr, _):
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        return Ended(int(code or 0), stdout.getvalue().decode(), stderr.getvalue().decode())


def start(*arguments: str | PathLike[str], stdin: bytes = b"", **options: Any) -> Ended:
    """Run in a process of its own; `stdin` goes through a pipe."""
    done = subprocess.run([*PROGRAM, *arguments], input=stdin, capture_output=True, timeout=60, **options)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_one_clear_line(ended: Ended, code: int, *words: str) -> None:
    """Check that a run failed with one line, or with click's usage and one line, that holds `words`."""
    assert ended.code == code, ended
    assert ended.stderr.endswith("\n")
    *before, line = ended.stderr.splitlines()
    if line.startswith("Error: "):
        assert code == 2
        assert before[0].startswith("Usage: uspcap")
        assert len(before) == 3, ended.stderr
        assert before[1].startswith("Try 'uspcap")
        assert before[2] == ""
    else:
        assert not before, ended.stderr
        assert line.startswith("uspcap: ")
    assert not any(unicodedata.category(char) == "Cc" for char in line), line
    for word in words:
        assert word in line


def pcap_of(frames: Sequence[Frame]) -> bytes:
    """Return a little-endian pcap file with timestamps in nanoseconds."""
    records = [pcap_record(*divmod(frame.timestamp_ns, 10**9), frame.wire()) for frame in frames]
    return pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records)
