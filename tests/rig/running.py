"""uspcap's commands as its users run them, in a process of their own that need not import everything again.

Where a CPU is emulated, imports take longer than most tests; a child of this process has made them.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final, Self

from rig.frames import Outcome, compare, read_frames
from uspcap.cli import main

PATIENCE_S: Final = 120
"""Nothing awaited here takes a tenth of that."""

SETTLED_S: Final = 1.0
"""Frames that are on their way when nothing has come for so long do not exist."""


class Command:
    """A command at work.

    Parameters
    ----------
    directory : Path
        For what it prints.
    words : str
        As on the command line.
    """

    def __init__(self, directory: Path, *words: str | Path) -> None:
        number = len(list(directory.glob("*.stderr")))
        self._out, self._err = directory / f"{number}.stdout", directory / f"{number}.stderr"
        self.code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run([str(word) for word in words])

    def _run(self, words: list[str]) -> None:
        code = 70
        try:
            for number, path in ((1, self._out), (2, self._err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
            try:
                main(words)
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    @property
    def stdout(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def stderr(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def until(self, said: str) -> Self:
        """Wait until stderr holds `said`, which it must before the end."""
        until_s = time.monotonic() + PATIENCE_S
        while said not in self.stderr:
            assert not self._ended(), self.stderr
            assert time.monotonic() < until_s, self.stderr
            time.sleep(0.02)
        return self

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        until_s = time.monotonic() + PATIENCE_S
        while not self._ended():
            if time.monotonic() > until_s:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"does not end: {self.stderr}")
            time.sleep(0.02)
        assert "Traceback" not in self.stderr, self.stderr
        assert self.code is not None
        return self.code

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, and wait for the end."""
        if not self._ended():
            os.kill(self.pid, number)
        return self.wait()

    def _ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None


def run(directory: Path, *words: str | Path) -> Command:
    """Run a command to its end."""
    command = Command(directory, *words)
    command.wait()
    return command


class Capture(Command):
    """A capture into a file, from its start line on.

    Parameters
    ----------
    directory : Path
    interface : str
    words : str
        Further ones of the command line.
    name : str, optional
        Of the file; by default of a pcap file.
    """

    def __init__(self, directory: Path, interface: str, *words: str | Path, name: str = "") -> None:
        self._interface = interface
        self.path = directory / (name or f"{len(list(directory.glob('*.pcap')))}.pcap")
        super().__init__(directory, "capture", "-i", interface, "-w", self.path, *words)
        self.until("timestamps:")

    @property
    def start_line(self) -> str:
        return next(line for line in self.stderr.splitlines() if "timestamps:" in line)

    @property
    def accounts(self) -> str:
        """The line that a capture ends with."""
        (line,) = (line for line in self.stderr.splitlines() if line.startswith("uspcap: received"))
        return line.removeprefix("uspcap: ")

    @property
    def received(self) -> int:
        counted = re.match(r"received (\d+)", self.accounts)
        assert counted is not None
        return int(counted[1])

    def finish(self) -> int:
        """Wait until nothing more comes to the interface, then end it as Ctrl-C does."""
        counter = Path(f"/sys/class/net/{self._interface}/statistics/rx_packets")
        last, since_s = "", time.monotonic()
        while time.monotonic() - since_s < SETTLED_S and counter.exists():
            time.sleep(0.05)
            now = counter.read_text() + str(self.path.stat().st_size if self.path.exists() else 0)
            if now != last:
                last, since_s = now, time.monotonic()
        return self.end()

    def compared_with(self, sent: list[bytes]) -> Outcome:
        return compare(sent, read_frames(self.path))
