"""Where the bytes of a capture file go: a file or standard output.

A sink knows bytes, not records: the writer decides what is whole, and asks the sink to cut back to it.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from uspcap.errors import CaptureFileError
from uspcap.files.places import open_place, place_of
from uspcap.notices import say
from uspcap.system_errors import reason, remedy

NEW_FILE_MODE: Final = 0o600
"""Frames hold what others may not read."""

STALL_S: Final = 2.0
"""A pipe's reader that has taken nothing for so long is given up, once writing is to end."""

LOOK_MS: Final = 100
"""So often it is looked whether writing is to end, where a pipe's reader takes nothing."""

BUFFER_BYTES: Final = 1 << 20
"""Written to a pipe at a time where that never blocks."""


class ByteSink(ABC):
    """Takes the bytes of one file.

    Attributes
    ----------
    name : str
        The path as given.
    place : str
        How messages call it.
    """

    name: str
    place: str

    @property
    @abstractmethod
    def position(self) -> int:
        """Bytes taken so far."""

    @property
    @abstractmethod
    def safe(self) -> int:
        """How many of these the file holds, and `truncate` can cut back to."""

    @abstractmethod
    def write(self, data: memoryview) -> None:
        """Take all of `data`, a contiguous view of bytes.

        Raises
        ------
        OSError
            As from write(2); `safe` says how much got through.
        """

    @abstractmethod
    def truncate(self, position: int) -> bool:
        """Cut the output back to `position` bytes, `safe` or fewer; False where that cannot be done (a pipe)."""

    def idle(self) -> None:
        """Bring to the file what is held back; called when nothing came for a while. Raises as `write`."""
        return

    def flush(self) -> None:
        """Bring to the file everything that can be: what is there must stay whole. Raises as `write`."""
        return

    def loss(self) -> str:
        """Return what has happened to the file since it was opened, empty where it is still in its place."""
        return ""

    def finish(self) -> None:
        """Write the end; nothing follows but `close`. Raises as `write`."""
        return

    @abstractmethod
    def close(self) -> None:
        """Close the file; may be called again.

        Raises
        ------
        CaptureFileError
            Where the system reports only now that it could not keep what was written.
        """


class Patience:
    """How long writing to a pipe waits for a reader that takes nothing: for ever, until `end` was called.

    Parameters
    ----------
    clock : callable
        Seconds that never step back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at_s = math.inf

    def end(self, after_s: float = 0.0) -> None:
        """From then on wait for `STALL_S` only; may be called by any thread and by a signal handler."""
        self._ends_at_s = min(self._ends_at_s, self._clock() + after_s)

    def now(self) -> float:
        return self._clock()

    def is_over(self, since_s: float) -> bool:
        """Tell whether a reader that has taken nothing since then is to be given up."""
        return self._clock() >= max(self._ends_at_s, since_s) + STALL_S


class FileSink(ByteSink):
    """A file that is created or emptied, standard output, or a FIFO or device.

    Parameters
    ----------
    path : str
        Path of the file, which symbolic links lead to as `uspcap.files.places` says; `-` for standard output, which is
        left open on `close`.
    mode : int, optional
        Of a new file, whatever the umask; where not given, readable and writable for its owner, as far as the umask
        lets it be. One that exists keeps its own.
    owner : tuple of int, optional
        User and group that a new file is given to.
    patience : Patience, optional
        With the readers of pipes; without end where not given.

    Attributes
    ----------
    descriptor : int
        Of the open file, for who sets its flags; -1 once it is closed.

    Raises
    ------
    CaptureFileError
        Where it cannot be opened for writing.
    """

    def __init__(
        self,
        path: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.name = path
        self.place = "standard output" if path == "-" else path
        self.descriptor = -1
        self._patience = patience or Patience()
        self._count = 0
        try:
            self._open(mode, owner)
            self._status = os.fstat(self.descriptor)
            self._regular = stat.S_ISREG(self._status.st_mode)
            self._base = self._first_offset() if self._regular else 0
            # A write of no more than that does not block once poll(2) has said that there is room (pipe(7)).
            self._piece = BUFFER_BYTES if os.get_blocking(self.descriptor) is False else select.PIPE_BUF
        except (OSError, ValueError) as error:
            self._close_descriptor()
            advice = remedy(error, "name a file in a directory that you may write to")
            raise CaptureFileError(f"cannot write {self.place}: {reason(error)}; {advice}") from error
        except BaseException:
            self._close_descriptor()
            raise

    def _open(self, mode: int | None, owner: tuple[int, int] | None) -> None:
        if self.name == "-":
            self.descriptor = _own_view(1)
            return
        with place_of(self.name) as place:
            if place.own_descriptor >= 0:
                self.descriptor = _own_view(place.own_descriptor)
                return
            creation = NEW_FILE_MODE if mode is None else mode & NEW_FILE_MODE
            self.descriptor, status, created = open_place(place, creation, self._tell_of_waiting)
            if created:
                if owner is not None:
                    os.fchown(self.descriptor, *owner)
                if mode is not None:
                    os.fchmod(self.descriptor, mode)
            elif stat.S_ISREG(status.st_mode):
                os.ftruncate(self.descriptor, 0)

    def _tell_of_waiting(self) -> None:
        say(f"{self.place} is a FIFO: waiting for a reader")

    def _first_offset(self) -> int:
        appending = fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_APPEND
        return os.lseek(self.descriptor, 0, os.SEEK_END if appending else os.SEEK_CUR)

    @property
    def position(self) -> int:
        """Bytes that the system has taken so far."""
        # The kernel's offset is right even where a signal handler raised just after os.write.
        return os.lseek(self.descriptor, 0, os.SEEK_CUR) - self._base if self._regular else self._count

    @property
    def safe(self) -> int:
        return self.position

    def write(self, data: memoryview) -> None:
        while data:
            if self._regular:
                taken = os.write(self.descriptor, data)
            else:
                self._wait_for_reader()
                try:
                    taken = os.write(self.descriptor, data[: self._piece])
                except BlockingIOError:
                    continue
            self._count += taken
            data = data[taken:]

    def _wait_for_reader(self) -> None:
        """Wait until the pipe has room; raises TimeoutError where it is not to be waited for any longer."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        since_s = self._patience.now()
        while not poll.poll(LOOK_MS):
            if self._patience.is_over(since_s):
                raise TimeoutError(errno.ETIMEDOUT, f"its reader has taken nothing for {STALL_S:g} s")

    def truncate(self, position: int) -> bool:
        if position == self.position:
            return True
        if not self._regular:
            return False
        try:
            os.ftruncate(self.descriptor, self._base + position)
            os.lseek(self.descriptor, self._base + position, os.SEEK_SET)
        except OSError:
            return False
        self._count = position
        return True

    def loss(self) -> str:
        if not self._regular or self.name == "-":
            return ""
        try:
            if not os.fstat(self.descriptor).st_nlink:
                return "was deleted"
            there = os.stat(self.name)  # noqa: PTH116
        except FileNotFoundError:
            return "was moved away or renamed"
        except OSError:
            return ""
        if (there.st_dev, there.st_ino) != (self._status.st_dev, self._status.st_ino):
            return "was replaced by another file"
        return ""

    def close(self) -> None:
        try:
            self._close_descriptor()
        except OSError as error:
            raise CaptureFileError(
                f"cannot finish {self.place}: {reason(error)}; what was written last may be lost, "
                f"{remedy(error, 'check the file system')}"
            ) from error

    def _close_descriptor(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _own_view(descriptor: int) -> int:
    """Return a descriptor of our own for one that others may share: of a pipe, with O_NONBLOCK for us alone."""
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            # Another user's pipe may not be opened; nor one without a reader, of which writing will tell.
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(descriptor)
