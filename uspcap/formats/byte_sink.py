"""Where the bytes of a capture file go: a file or standard output.

A sink knows bytes, not records: the writer decides what is whole, and asks the sink to cut back to it.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
from abc import ABC, abstractmethod

from uspcap.errors import CaptureFileError


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


class FileSink(ByteSink):
    """A file that is created or emptied, or standard output.

    Parameters
    ----------
    path : str
        Path of the file; `-` for standard output, which is left open on `close`.

    Raises
    ------
    CaptureFileError
        Where it cannot be opened for writing.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self.place = "standard output" if path == "-" else path
        self._descriptor = -1
        try:
            if path == "-":
                self._descriptor = os.dup(1)
            else:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            self._base = self._first_offset() if self._regular else 0
        except (OSError, ValueError) as error:
            self._close_descriptor()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CaptureFileError(
                f"cannot write {self.place}: {reason}; name a file in a directory that you may write to"
            ) from error
        self._count = 0

    def _first_offset(self) -> int:
        appending = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_APPEND
        return os.lseek(self._descriptor, 0, os.SEEK_END if appending else os.SEEK_CUR)

    @property
    def position(self) -> int:
        """Bytes that the system has taken so far."""
        # The kernel's offset is right even where a signal handler raised just after os.write.
        return os.lseek(self._descriptor, 0, os.SEEK_CUR) - self._base if self._regular else self._count

    @property
    def safe(self) -> int:
        return self.position

    @property
    def descriptor(self) -> int:
        """Of the open file, for who sets its flags; -1 once it is closed."""
        return self._descriptor

    def write(self, data: memoryview) -> None:
        while data:
            try:
                taken = os.write(self._descriptor, data)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
                continue
            self._count += taken
            data = data[taken:]

    def truncate(self, position: int) -> bool:
        if position == self.position:
            return True
        if not self._regular:
            return False
        try:
            os.ftruncate(self._descriptor, self._base + position)
            os.lseek(self._descriptor, self._base + position, os.SEEK_SET)
        except OSError:
            return False
        self._count = position
        return True

    def close(self) -> None:
        try:
            self._close_descriptor()
        except OSError as error:
            raise CaptureFileError(
                f"cannot finish {self.place}: {error.strerror}; what was written last may be lost, "
                "check the file system"
            ) from error

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
