"""Ctrl-C and SIGTERM end a capture in good order; the second time, at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first SIGINT or SIGTERM; after it, both do again what they do without a handler.

    To be used in the main thread; the handlers that were there come back at the end.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_DFL)
        stop()

    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
