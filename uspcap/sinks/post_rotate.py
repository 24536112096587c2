"""The command that is run on each finished file of a capture, in the background and without a shell."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import threading
from collections import deque
from typing import Final

from uspcap.errors import UsageError
from uspcap.notices import say

MOST_AT_ONCE: Final = 4
"""Files beyond that wait for their turn."""

LOWEST_PRIORITY: Final = 19

SOON_S: Final = 0.5
"""A longer wait at the end is reported, with what it is for."""


class PostRotateCommand:
    """Runs a command with one file's name as its last argument, for each file.

    It has the lowest priority, no input, standard error for both outputs, and a process group of its own, so that
    Ctrl-C ends the capture and not the command.

    Parameters
    ----------
    command : str
        Program and arguments, quoted as for a shell.

    Raises
    ------
    UsageError
        Where there is no such program.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"cannot run {command!r}: {error}; check its quotes") from error
        if not self._words or shutil.which(self._words[0]) is None:
            raise UsageError(f"cannot run {command!r}: there is no such program; name one in PATH, or its full path")
        self._command = command
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._files = self._failed = 0
        self._first_failure = ""

    @property
    def warning(self) -> str:
        """What failed, in a sentence; empty where nothing did."""
        if not self._failed:
            return ""
        return (
            f"{self._command!r} failed for {self._failed} of {self._files} files, first for {self._first_failure}; "
            "the files are as they were written, or as it left them"
        )

    def run(self, path: str) -> None:
        """Run the command on a file, now or when fewer are running."""
        with self._lock:
            self._files += 1
            self._waiting.append(path)
            self._start()

    def wait(self) -> None:
        """Wait until it has run on every file; say so where that takes a while."""
        reported = False
        while True:
            with self._lock:
                self._start()
                if not self._running:
                    return
                process, left = self._running[0][1], len(self._running) + len(self._waiting)
            try:
                process.wait(None if reported else SOON_S)
            except subprocess.TimeoutExpired:
                reported = True
                say(f"waiting for {self._command!r} on {left} {'file' if left == 1 else 'files'}; Ctrl-C ends the wait")

    def _start(self) -> None:
        """Look after what has ended, and start what waits."""
        still = []
        for path, process in self._running:
            code = process.poll()
            if code is None:
                still.append((path, process))
            elif code:
                self._fail(path, f"it was killed by signal {-code}" if code < 0 else f"exit code {code}")
        self._running = still
        while self._waiting and len(self._running) < MOST_AT_ONCE:
            path = self._waiting.popleft()
            # No file name is to be taken for an option.
            argument = f"./{path}" if path.startswith("-") else path
            try:
                process = subprocess.Popen(
                    [*self._words, argument], stdin=subprocess.DEVNULL, stdout=2, process_group=0
                )
            except OSError as error:
                self._fail(path, error.strerror or str(error))
                continue
            with contextlib.suppress(OSError):  # it may have ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
            self._running.append((path, process))

    def _fail(self, path: str, reason: str) -> None:
        self._failed += 1
        self._first_failure = self._first_failure or f"{path} ({reason})"
