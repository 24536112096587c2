"""A capture as a user runs it: a process of its own, in a namespace of the test's own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.veth_pairs import Pair, wait_until

from uspcap.formats import open_capture

USPCAP = [sys.executable, "-c", "from uspcap.__main__ import run; run()"]


class Running:
    """A capture in the namespace `here` of a pair, whose stderr is kept."""

    def __init__(self, pair: Pair, directory: Path, *words: str, wrapper: tuple[str, ...] = ()) -> None:
        self.pair = pair
        self.stderr_path = directory / "stderr"
        self.stdout_path = directory / "stdout"
        command = pair.here.command(*wrapper, *USPCAP, "capture", *words)
        with self.stderr_path.open("wb") as errors, self.stdout_path.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors)

    def ready(self) -> Running:
        """Wait for the line that a capture starts with."""
        assert wait_until(lambda: "timestamps:" in self.stderr or self.process.poll() is not None)
        assert self.process.poll() is None, self.stderr
        return self

    def end(self, number: int = signal.SIGINT, *, within_s: float = 30) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text()

    @property
    def accounts(self) -> str:
        """The line that a capture ends with, without how long a ring went unread, which is the machine's affair."""
        (line,) = (line for line in self.stderr.splitlines() if line.startswith("uspcap: received"))
        accounts, unread, milliseconds = line.removeprefix("uspcap: ").rpartition("; a ring went unread for ")
        return accounts if unread and milliseconds.endswith(" ms at most") else line.removeprefix("uspcap: ")

    def written_until_the_disk_was_full(self) -> int:
        """Check the accounts of a capture that a full disk ended, and return how many frames it has written."""
        counts = re.match(
            r"received (\d+) = (\d+) written \+ (\d+) dropped \(the file could not take them (\d+)\)$", self.accounts
        )
        assert counts is not None, self.accounts
        received, written, dropped, not_taken = map(int, counts.groups())
        assert received == written + dropped
        assert dropped == not_taken
        return written


Run = Callable[..., Running]


@pytest.fixture
def run(pair: Pair, tmp_path: Path) -> Iterator[Run]:
    """Give a function that starts a capture; whatever still runs at the end is killed."""
    started: list[Running] = []

    def start(*words: str, wrapper: tuple[str, ...] = ()) -> Running:
        directory = tmp_path / f"run{len(started)}"
        directory.mkdir()
        started.append(Running(pair, directory, *words, wrapper=wrapper))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def frames_of(path: Path | str) -> list[bytes]:
    with open_capture(str(path)) as reader:
        frames = [batch.frame_bytes(row) for batch in reader.batches() for row in range(batch.count)]
        assert reader.facts.problems == []
    return frames
