"""Intervals are reported on and merged in a process of their own, so that none of it stops whoever reads rings.

A thread of the capturing process hands over one thing at a time, and is busy until it is dealt with: it pickles the
state of an interval straight into a socket, and waits without the GIL. So the reader goes on meanwhile; all that it
does at the end of an interval is to begin the next. Frames never travel.

The process is forked before there is any thread, when the capture has given up its privileges, and closes all that it
does not need: a descriptor of the hook that it kept would keep the hook attached. It ignores what ends the capture,
since it is to report the last interval, and ends when the capturing process does, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import socket
import threading
import time
import warnings
from collections.abc import Collection, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn, Protocol, cast

from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.errors import CaptureError, UspcapError
from uspcap.pipeline.keeping import Interval, IntervalReporter, Keeper, Whole
from uspcap.unexpected import explain, show_traceback

HURRY: Final = signal.SIGRTMIN + 1
"""To the process: the capture has ended, wait for readers of reports no longer than must be."""

LEAVE_VIEW: Final = signal.SIGRTMIN + 2
"""To the process: give the terminal back."""

NICENESS: Final = 5
"""What the reader has no CPU for must not be lost to reports."""

_BUFFER_BYTES: Final = 1 << 20
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NAME: Final = 15
_LOOK_S: Final = 0.1

_libc = ctypes.CDLL(None, use_errno=True)


class _Writable(Protocol):
    """What takes bytes and sends them on `flush`."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...


class KeepingProcess(Keeper):
    """Reports and merges in a process of its own, from `__enter__` to `__exit__`.

    Parameters
    ----------
    settings : Settings
    reporter : IntervalReporter
        Works in that process only.
    descriptors : collection of int
        What it writes to, beside standard error.
    """

    def __init__(self, settings: Settings, reporter: IntervalReporter, descriptors: Collection[int]) -> None:
        self._settings = settings
        self._reporter = reporter
        self._descriptors = descriptors
        self.draws = reporter.draws
        self._pid = 0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._busy = self._closing = False
        self._message: tuple[Any, ...] = ()
        self._cost_ns = 0
        self._failure: UspcapError | None = None
        self._lost = False
        self._whole: Suite | None = None

    @property
    def busy(self) -> bool:
        return self._busy

    @property
    def cost_ns(self) -> int:
        return self._cost_ns

    def take(self, interval: Interval) -> None:
        self._hand_over(("interval", interval))

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        self._hand_over(("draw", now_ns, statistics))

    def check(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self, last: Interval) -> Suite | None:
        self._signal(HURRY)
        with suppress(OSError):
            # There is no reader any more that it could hold up; without privileges it stays as it is.
            os.setpriority(os.PRIO_PROCESS, self._pid, os.getpriority(os.PRIO_PROCESS, 0))
        self._wait()
        self.take(last)
        self._wait()
        self._hand_over(("end",))
        self._wait()
        return self._whole

    def close_view(self) -> None:
        if self.draws:
            self._signal(LEAVE_VIEW)

    def __enter__(self) -> Keeper:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # Threads of whoever uses uspcap do not run in the process, which takes no lock of theirs.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
            if not self._pid:
                _serve(theirs, parent, before, self._settings, self._reporter, self._descriptors)
        except OSError as error:
            ours.close()
            raise CaptureError(
                f"cannot start the process that reports on intervals: {error.strerror}; raise the limit on processes "
                "('ulimit -u', the control group's pids.max), or leave --interval and the live view out"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._socket = ours
        self._thread = threading.Thread(target=self._run, name="hands intervals over", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._socket is not None:
            # The process ends with the last message.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        if self._pid:
            pid, self._pid = self._pid, 0
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _hand_over(self, message: tuple[Any, ...]) -> None:
        with self._changed:
            if not self._lost:
                self._busy, self._message = True, message
                self._changed.notify_all()

    def _wait(self) -> None:
        """Wait until what was handed over is dealt with; signals are handled meanwhile."""
        with self._changed:
            while self._busy:
                self._changed.wait(_LOOK_S)

    def _signal(self, number: int) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _run(self) -> None:
        """Send what is to be handed over, and take the answers, until the end."""
        assert self._socket is not None
        try:
            with self._socket.makefile("wb", _BUFFER_BYTES) as out, self._socket.makefile("rb", _BUFFER_BYTES) as back:
                while True:
                    with self._changed:
                        while not self._message and not self._closing:
                            self._changed.wait()
                        if not self._message:
                            return
                    _send(out, self._message)
                    # Nobody needs its state here any more.
                    self._message = ()
                    self._take_answer(*pickle.load(back))
        except BaseException as error:
            self._lose(error)

    def _take_answer(self, cost_ns: int, failure: UspcapError | None, whole: Suite | None) -> None:
        with self._changed:
            self._cost_ns = cost_ns or self._cost_ns
            self._failure = self._failure or failure
            self._whole = whole
            self._busy = False
            self._changed.notify_all()

    def _lose(self, error: BaseException) -> None:
        """Take note that the process is gone, and with it the whole."""
        if self._closing:
            return
        how = "ended"
        pid, self._pid = self._pid, 0
        with suppress(ChildProcessError):
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                how = f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        if not isinstance(error, EOFError | OSError):
            how = f"cannot be sent an interval ({explain(error)})"
        show_traceback(error)
        with self._changed:
            self._lost = True
            self._busy, self._message = False, ()
            self._failure = CaptureError(
                f"the process that reports on intervals {how}, and its analyses so far are lost; files are not"
            )
            self._changed.notify_all()


def _send(out: _Writable, message: tuple[Any, ...]) -> None:
    """Pickle a message into a stream, large arrays without another copy."""
    pickle.Pickler(out, protocol=5).dump(message)
    out.flush()


def _serve(
    theirs: socket.socket,
    parent: int,
    mask: Iterable[int],
    settings: Settings,
    reporter: IntervalReporter,
    descriptors: Collection[int],
) -> NoReturn:
    """Do what the forked process is for, and end it."""
    status = 1
    try:
        _close_all_but({theirs.fileno(), 2, *descriptors})
        _listen(parent, mask, reporter)
        with suppress(OSError):
            os.nice(NICENESS)
        _libc.prctl(_PR_SET_NAME, b"uspcap-reports", 0, 0, 0)
        reporter.open()
        try:
            with theirs.makefile("rb", _BUFFER_BYTES) as messages, theirs.makefile("wb", _BUFFER_BYTES) as answers:
                _Desk(settings, reporter, answers).work(messages)
        finally:
            reporter.close()
        status = 0
    except (EOFError, ConnectionError):
        status = 0
    except BaseException as error:
        show_traceback(error)
    finally:
        # What the capturing process has registered for its own end is none of ours.
        os._exit(status)


class _Desk:
    """Deals with what the capturing process sends."""

    def __init__(self, settings: Settings, reporter: IntervalReporter, answers: _Writable) -> None:
        self._reporter = reporter
        self._answers = answers
        self._whole = Whole(settings)

    def work(self, messages: Any) -> None:
        """Deal with one message after the other until the end."""
        while True:
            kind, *content = pickle.load(messages)
            failure: UspcapError | None = None
            before_ns = _cpu_ns()
            cost_ns = 0
            try:
                if kind == "interval":
                    self._whole.take(content[0], self._reporter)
                elif kind == "draw":
                    self._reporter.draw(*content)
            except Exception as error:
                show_traceback(error)
                # An error's cause may not be picklable.
                failure = CaptureError(str(explain(error)))
            if kind != "draw":
                cost_ns = _cpu_ns() - before_ns
            del content
            if kind == "end":
                self._reporter.close()
            _send(self._answers, (cost_ns, failure, self._whole.suite if kind == "end" else None))
            if kind == "end":
                return


def _cpu_ns() -> int:
    return time.process_time_ns()


def _close_all_but(kept: Collection[int]) -> None:
    """Close all other descriptors; what stands at 0 to 2 and is not kept becomes /dev/null."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(3):
        if descriptor not in kept:
            os.dup2(null, descriptor)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    first = 3
    for descriptor in sorted({descriptor for descriptor in kept if descriptor >= 3}):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, most if most != resource.RLIM_INFINITY else 1 << 20)


def _listen(parent: int, mask: Iterable[int], reporter: IntervalReporter) -> None:
    """Ignore what ends a capture, and end where its process has gone."""

    def end_as_an_orphan(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:
            reporter.close()
            os._exit(1)

    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_as_an_orphan)
    signal.signal(cast("Any", HURRY), lambda number, frame: reporter.hurry())
    signal.signal(cast("Any", LEAVE_VIEW), lambda number, frame: reporter.close())
    signal.set_wakeup_fd(-1)
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    end_as_an_orphan(0, None)
