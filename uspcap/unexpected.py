"""What nobody expected, in one sentence: missing memory, a broken installation, a fault of uspcap's own.

`USPCAP_DEBUG=1` in the environment shows the traceback as well.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from uspcap.errors import UnexpectedError, UspcapError
from uspcap.notices import say
from uspcap.system_errors import reason, remedy
from uspcap.version import __version__

DEBUG_VARIABLE: Final = "USPCAP_DEBUG"

_LONGEST_TEXT: Final = 200
"""Of an error's own text in a sentence; some hold whole arrays."""

_OUTPUT_ADVICE: Final = {
    errno.ENOSPC: "free space or send it elsewhere",
    errno.EDQUOT: "your disk quota is used up: free space or send it elsewhere",
    errno.EFBIG: "the limit for the size of one file is reached ('ulimit -f'): send it elsewhere",
    errno.EIO: "the terminal is gone, or the device fails: send it elsewhere",
    errno.EAGAIN: "it was set not to block, and its reader is slow: send it through a pipe of its own",
    errno.ECONNRESET: "its reader has gone",
    errno.EBADF: "it is not open for writing: send it elsewhere",
}
"""What writing to standard output can fail with; everywhere else whoever opened the file reports these."""


def explain(error: BaseException) -> UspcapError:
    """Return an error with one sentence for any exception: what happened, and what to do or to report.

    Those of uspcap's own are returned as they are; others become its cause.
    """
    if isinstance(error, UspcapError):
        return error
    explained = UnexpectedError(_sentence(error))
    explained.__cause__ = error
    return explained


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return (
            "out of memory: free some or raise the limit ('ulimit -v', the control group's); fewer threads (-j 1) and "
            "flows (--max-flows) need less"
        )
    if isinstance(error, ImportError):
        return f"cannot load {error.name or 'a module'} ({_text(error)}): reinstall uspcap and its dependencies"
    if isinstance(error, UnicodeEncodeError):
        return f"cannot write the output in {error.encoding}: set PYTHONIOENCODING=utf-8, or send it to a file"
    if isinstance(error, OSError):
        if error.errno in _OUTPUT_ADVICE and error.filename is None:
            return f"cannot write the output: {reason(error)}; {_OUTPUT_ADVICE[error.errno]}"
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{reason(error)}; {remedy(error, _reporting(error))}"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "the system refuses to start another thread: raise its limit ('ulimit -u', the control group's pids.max)"
    what = f"{type(error).__name__}: {_text(error)}" if str(error) else type(error).__name__
    return f"internal error, {what}; {_reporting(error)}"


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _reporting(error: BaseException) -> str:
    """Return what to report: version, place, and how to get the rest."""
    package = Path(__file__).parent
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(package):
            place = f" in {path.relative_to(package.parent)}, line {line}"
    return (
        f"please report this{place} of version {__version__}, with the command and what it prints with "
        f"{DEBUG_VARIABLE}=1 set"
    )


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error and its causes on standard error where that is asked for."""
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0") and sys.stderr is not None:
        traceback.print_exception(error, file=sys.stderr)


class Threads:
    """Whether exceptions ended threads, or could be raised nowhere.

    Attributes
    ----------
    failed : bool
    """

    def __init__(self) -> None:
        self.failed = False

    def take(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tell about an exception that nobody caught."""
        if kind is None or issubclass(kind, SystemExit):
            return
        self.failed = True
        error = kind() if error is None else error
        show_traceback(error.with_traceback(trace))
        say(str(explain(error)))


@contextmanager
def watch_threads() -> Iterator[Threads]:
    """Report in a sentence each what ends threads other than the main one; yield what knows whether there was any."""
    threads = Threads()
    before = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda end: threads.take(end.exc_type, end.exc_value, end.exc_traceback)
    sys.unraisablehook = lambda end: threads.take(end.exc_type, end.exc_value, end.exc_traceback)
    try:
        yield threads
    finally:
        threading.excepthook, sys.unraisablehook = before
