"""Signals that end a capture."""

import os
import signal

import pytest

from uspcap.capture.signals import stopping_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_to_stop_and_the_second_has_its_default(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    asked = []
    with stopping_on_signals(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
        assert asked == [1]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_second_signal_does_what_it_did_before() -> None:
    seen: list[int] = []

    def earlier(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, earlier)
    try:
        stopped: list[bool] = []
        with stopping_on_signals(lambda: stopped.append(True)):
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stopped, seen) == ([True], [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stopped, seen) == ([True], [signal.SIGTERM])
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)
