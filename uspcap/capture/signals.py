"""Ctrl-C and SIGTERM end a capture in good order; the second time, at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first SIGINT or SIGTERM; after it, both do what they did before, or end the process.

    To be used in the main thread; the handlers that were there come back at the end.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        for one, previous in before.items():
            # Not KeyboardInterrupt: whoever is stuck does not see an exception.
            signal.signal(one, signal.SIG_DFL if previous is signal.default_int_handler else previous)
        stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
