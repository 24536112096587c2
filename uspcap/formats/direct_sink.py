"""Write a file past the page cache (O_DIRECT).

What comes is gathered in an aligned buffer and written in whole multiples of `ALIGNMENT`; only the end of the file,
less than that, goes through the page cache.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat

from uspcap.errors import CaptureFileError
from uspcap.formats.byte_sink import ByteSink, FileSink

ALIGNMENT = 4096
"""Of the buffer, of lengths and of offsets: what file systems and disks ask for at most (open(2), O_DIRECT)."""

BUFFER_BYTES = 1 << 20


class DirectSink(ByteSink):
    """A file that is created or emptied, and written past the page cache.

    Parameters
    ----------
    path : str
    mode : int, optional
    owner : tuple of int, optional
        As of `FileSink`.

    Raises
    ------
    CaptureFileError
        Where it cannot be opened for writing, is no regular file, or its file system has no O_DIRECT.
    """

    def __init__(self, path: str, *, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
        self._file = FileSink(path, mode=mode, owner=owner)
        self.name, self.place = self._file.name, self._file.place
        # Anonymous memory of its own begins at a page.
        self._buffer = memoryview(mmap.mmap(-1, BUFFER_BYTES))
        self._used = 0
        self._direct = False
        try:
            self._begin_direct()
        except BaseException:
            self._file.close()
            raise

    @property
    def position(self) -> int:
        return self._file.position + self._used

    @property
    def safe(self) -> int:
        return self._file.position

    def write(self, data: memoryview) -> None:
        while data:
            step = min(BUFFER_BYTES - self._used, len(data))
            self._buffer[self._used : self._used + step] = data[:step]
            self._used += step
            data = data[step:]
            if self._used == BUFFER_BYTES:
                self._flush()

    def truncate(self, position: int) -> bool:
        if position == self.position:
            return True
        if position > self.safe:
            return False
        # What follows does not begin at a multiple of ALIGNMENT any more.
        self._set_direct(False)
        self._used = 0
        return self._file.truncate(position)

    def idle(self) -> None:
        self._flush()

    def flush(self) -> None:
        """Write what is a multiple of ALIGNMENT; the rest would end writing past the page cache."""
        self._flush()

    def loss(self) -> str:
        return self._file.loss()

    def finish(self) -> None:
        self._flush()
        self._set_direct(False)
        self._file.write(self._buffer[: self._used])
        self._used = 0

    def close(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        """Write as much of the buffer as is a multiple of ALIGNMENT."""
        whole = self._used - self._used % ALIGNMENT if self._direct else self._used
        if not whole:
            return
        before = self._file.position
        try:
            self._file.write(self._buffer[:whole])
        finally:
            written = self._file.position - before
            rest = self._used - written
            self._buffer[:rest] = bytes(self._buffer[written : self._used])
            self._used = rest

    def _begin_direct(self) -> None:
        refusal = "it is not a regular file"
        try:
            if stat.S_ISREG(os.fstat(self._file.descriptor).st_mode):
                self._set_direct(True)
                return
        except OSError as error:
            refusal = f"its file system refuses O_DIRECT ({error.strerror})"
        raise CaptureFileError(f"cannot write {self.place} past the page cache: {refusal}; leave --direct out")

    def _set_direct(self, direct: bool) -> None:
        flags = fcntl.fcntl(self._file.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._file.descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
        self._direct = direct
