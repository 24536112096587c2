"""What SIGINT, SIGTERM and SIGHUP do to a command.

Most commands only read. Such a signal ends them at once, wherever they are, by a thread that does nothing but wait
for it (`end_at_once`): neither compiled code nor a read that blocks can hold that up. The process ends by the signal,
so that a shell sees 130 or 143 and leaves its loops. What must be done before, such as removing an unfinished file or
putting a setting back, is registered by `before_the_end`.

Commands that have something to end in good order (a capture, probes) take the signals over with `Ending`: until they
know how to stop, the signal unwinds them as an exception; then it calls what stops them; a second SIGINT or SIGTERM
ends the process at once. SIGHUP is never the second: a process that loses its terminal often gets two, or SIGTERM too.

A signal that was ignored when the process began stays ignored: `nohup` and background jobs of shell scripts rely on
that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, Self

from uspcap.notices import say

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LEAVE: Final = signal.SIGRTMAX
"""Sent to the waiting thread alone, to end it."""

_NOBODYS: Final = (signal.SIG_DFL, signal.default_int_handler)
"""How signals are dealt with that nobody has taken over."""


def _unheard(number: int, frame: FrameType | None) -> None:
    """Do nothing: in place of SIG_IGN, which programs started meanwhile would inherit."""


_STAYING: Final = (signal.SIG_IGN, _unheard)
"""How signals are dealt with that stays so."""

_actions: list[Callable[[], None]] = []
_taken_over: dict[int, Any] = {}


class Interrupted(BaseException):
    """A signal asks the process to end, and nothing knows yet how to stop in good order.

    Attributes
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def before_the_end(action: Callable[[], None], *, handle: bool = False) -> Callable[[], None]:
    """Have something done even where a signal ends the process at once; return what takes that back.

    Parameters
    ----------
    action : callable
        May be called by any thread, in the middle of anything, and more than once. The newest comes first.
    handle : bool
        Do it for signals that nobody handles, too: for what concerns more than this process, and for whoever uses
        uspcap from Python. Only where this is called by the main thread.
    """
    _actions.append(action)
    if handle and threading.current_thread() is threading.main_thread():
        for number in ENDING:
            before = signal.getsignal(number)
            if before in _NOBODYS:
                _taken_over[number] = before
                signal.signal(number, _end_at_last)

    def forget() -> None:
        with suppress(ValueError):
            _actions.remove(action)
        if not _actions and threading.current_thread() is threading.main_thread():
            for number, before in _taken_over.items():
                if signal.getsignal(number) is _end_at_last:
                    signal.signal(number, before)
            _taken_over.clear()

    return forget


def end_by(number: int, sentence: str = "") -> NoReturn:
    """Do what is registered, say why, and end the process by a signal, as if nobody handled it.

    To be called by the main thread, or by one that has the signal blocked.
    """
    for action in reversed(_actions.copy()):
        with suppress(Exception):
            action()
    if sentence:
        say(sentence)
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_DFL)
    # To this thread alone: another may be waiting for signals to the process.
    signal.pthread_kill(threading.get_ident(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    # Its own signals do not end process 1 of a container.
    os._exit(128 + number)


def ended_by(number: int) -> str:
    """Return the sentence for a command that a signal ended."""
    return f"ended by {signal.Signals(number).name} before it was done: what was not written yet is lost"


class _Waiter:
    """The thread that waits for signals, which every other thread has blocked meanwhile."""

    def __init__(self) -> None:
        self._waited_for = {number for number in ENDING if signal.getsignal(number) not in _STAYING}
        self._thread = threading.Thread(target=self._run, name="uspcap-signals", daemon=True)
        # It starts with the mask of who starts it, and the others do so, too.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._waited_for, _LEAVE})
        try:
            self._thread.start()
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        signal.pthread_sigmask(signal.SIG_SETMASK, before | self._waited_for)

    def leave(self) -> None:
        """End the thread; what it waited for comes to the main thread again."""
        if self._thread.ident is not None and self._thread.is_alive():
            signal.pthread_kill(self._thread.ident, _LEAVE)
            self._thread.join()

    def unblock(self) -> None:
        """Let signals through that came in the meantime."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._waited_for)

    def _run(self) -> None:
        number = signal.sigwait({*self._waited_for, _LEAVE})
        if number != _LEAVE:
            end_by(number, ended_by(number))


_waiter: _Waiter | None = None


def end_at_once() -> None:
    """Let the signals end the process at once, from now on; to be called by the main thread of a process of our own."""
    global _waiter
    if _waiter is None:
        # Without a thread the kernel ends the process, only without a word.
        for number in ENDING:
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)
        with suppress(RuntimeError):
            _waiter = _Waiter()


class Ending:
    """Ends in good order on the first signal, at once on a second SIGINT or SIGTERM; a context manager.

    Until there is something to call, the first signal raises `Interrupted`. At the end of the block everything is as
    it was before; after `end_at_once`, where a signal came, SIGHUP stays unheard. It is for the main thread; in others
    it does nothing.

    Parameters
    ----------
    stop : callable, optional
        As for `stop_with`.
    """

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._waited = self._came = False

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Call `stop` on the first signal from now on; it is called in the middle of whatever the main thread does."""
        self._stop = stop

    def __enter__(self) -> Self:
        global _waiter
        if threading.current_thread() is not threading.main_thread():
            return self
        waiter, _waiter = _waiter, None
        self._waited = waiter is not None
        if waiter is not None:
            waiter.leave()
        for number in ENDING:
            before = signal.getsignal(number)
            if before not in _STAYING:
                self._before[number] = before
                signal.signal(number, self._handle)
        if waiter is not None:
            waiter.unblock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            # A process of our own is about to end in good order, and SIGHUP may come once more until it has.
            if not (number == signal.SIGHUP and self._came and self._waited):
                signal.signal(number, before)
        self._before.clear()
        if self._waited:
            end_at_once()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for other, before in self._before.items():
            if other == signal.SIGHUP:
                # Shells send it again, and service managers behind SIGTERM: it never means to hurry.
                signal.signal(other, _unheard)
            elif number != signal.SIGHUP:
                if before in _NOBODYS:
                    # Where nothing need be done before, by the kernel itself: whoever is stuck runs no handler.
                    before = _end_at_last if _actions else signal.SIG_DFL
                signal.signal(other, before)
        first, self._came = not self._came, True
        if self._stop is not None:
            self._stop()
        elif first:
            raise Interrupted(number)


def _end_at_last(number: int, frame: FrameType | None) -> None:
    end_by(number)


@contextmanager
def calling(actions: Mapping[int, Callable[[], None]]) -> Iterator[None]:
    """Call something whenever a signal comes, unless it was ignored; to be used in the main thread.

    Parameters
    ----------
    actions : mapping of int to callable
        Signal to what is called, in the middle of whatever the main thread does.
    """
    before = {}
    for number, action in actions.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _ignoring_arguments(action))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignoring_arguments(action: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    return lambda number, frame: action()
