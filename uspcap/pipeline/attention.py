"""What a capture gives an eye to while it runs: signals that ask for something, and its file.

SIGUSR1 asks for the accounts so far. SIGUSR2 brings to the file what is held back or, where there are many files,
begins the next. Once a second it is looked whether the file is still where it was opened.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from uspcap.notices import say
from uspcap.signals import calling

if TYPE_CHECKING:
    from uspcap.formats.writer import CaptureWriter
    from uspcap.pipeline.session import Accounts
    from uspcap.sinks.rotation import RotatingWriter

LOOK_NS: Final = 1_000_000_000


class Attention:
    """Looked after by the loop of a capture.

    Parameters
    ----------
    writer : CaptureWriter or RotatingWriter or None
    clock : callable
        Nanoseconds that never step back.
    """

    def __init__(
        self, writer: CaptureWriter | RotatingWriter | None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._next_ns = clock() + LOOK_NS
        self._losses_reported = 0
        self._accounts_asked = self._flush_asked = False

    def ask_accounts(self) -> None:
        """Request a report of the accounts so far; may be called by a signal handler."""
        self._accounts_asked = True

    def ask_flush(self) -> None:
        """Have the file flushed, or the next one begun; may be called by a signal handler."""
        self._flush_asked = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGUSR1 and SIGUSR2."""
        with calling({signal.SIGUSR1: self.ask_accounts, signal.SIGUSR2: self.ask_flush}):
            yield

    def look(self, accounts: Callable[[], Accounts]) -> None:
        """Do what was asked for, and look at the file from time to time; to be called after each batch.

        Raises
        ------
        CaptureFileError
            The file cannot be written.
        """
        if self._accounts_asked:
            self._accounts_asked = False
            say(f"so far: {accounts()}")
        if self._flush_asked:
            self._flush_asked = False
            if self._writer is not None:
                self._writer.flush()
        now_ns = self._clock()
        if now_ns >= self._next_ns and self._writer is not None:
            self._next_ns = now_ns + LOOK_NS
            self._writer.look_at_file()
        self.report_losses()

    def report_losses(self) -> None:
        """Report what happened to files and was not reported yet."""
        losses = () if self._writer is None else self._writer.losses
        for loss in losses[self._losses_reported :]:
            self._losses_reported += 1
            say(f"{loss}: start the capture again, with a name that stays")
