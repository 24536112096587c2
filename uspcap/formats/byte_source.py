"""Where the bytes of a capture file come from: a file or standard input, compressed or not.

A plain file is read straight into the caller's buffer. A compressed one is decompressed by a thread of
its own, ahead of the reader by a few pieces: the decompressors let go of Python's lock, so that this
overlaps with the analysis.
"""

from __future__ import annotations

import os
import stat
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from uspcap.errors import CaptureFileError
from uspcap.formats import decompression
from uspcap.formats.waking import Wake
from uspcap.system_errors import reason, remedy

_Read = TypeVar("_Read", int, bytes)

READ_BYTES = 256 << 10
"""Compressed bytes read at a time."""

PIECES_AHEAD = 4
"""Decompressed pieces (`decompression.PIECE_BYTES` each) that may wait for the reader."""


class ByteSource(ABC):
    """The bytes of one capture file, in order, once.

    Attributes
    ----------
    name : str
        As the user gave it; `-` is standard input.
    size : int or None
        Bytes of the underlying, still compressed file; None where it has no size (a pipe).
    seekable_plain : bool
        True for an uncompressed regular file that was opened by name.
    compression : str
        '' or 'gzip', 'bzip2', 'zstd', 'xz', 'lz4'; found by content, never by name.
    problem : str or None
        What is wrong with the compressed data, one sentence without a full stop. It is set at the
        latest when `readinto` returns 0; everything before the damage has been delivered then.
    """

    compression = ""
    seekable_plain = False
    problem: str | None = None

    def __init__(self, file: _RawFile) -> None:
        self._file = file
        self.name = file.name
        self.size = file.size

    @property
    @abstractmethod
    def position(self) -> int:
        """Bytes of the underlying file behind what was delivered, for progress."""

    @abstractmethod
    def readinto(self, buffer: memoryview) -> int:
        """Fill a writable buffer of bytes from its start.

        Returns
        -------
        int
            Bytes written to `buffer`; may be fewer than fit; 0 only at the end (or for no room).

        Raises
        ------
        CaptureFileError
            Where the system cannot read the file.
        ReadingEnded
            Where the `Wake` that it was opened with is set.
        """

    def seek(self, offset: int) -> None:
        """Go on at a byte offset; only where `seekable_plain` is true.

        Raises
        ------
        CaptureFileError
            The file cannot be read at any place one likes.
        """
        raise CaptureFileError(f"cannot read {self.name} from byte {offset}: it can only be read from its start")

    def park(self) -> None:  # noqa: B027, most have nothing to give back
        """Give the file's descriptor back until the next read, where the file can be opened again."""

    def close(self) -> None:
        """Let go of the file; may be called again."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_byte_source(path: str, wake: Wake | None = None) -> ByteSource:
    """Open a capture file, compressed or not.

    Parameters
    ----------
    path : str
        Path of the file; `-` for standard input.
    wake : Wake, optional
        Ends reading, by whoever set it: every read raises from then on. Closed by its owner, after the source.

    Raises
    ------
    CaptureFileError
        Where it cannot be opened or read.
    MissingFeature
        Where it is compressed and the package for that is not installed.
    ReadingEnded
        Where `wake` was set.
    """
    file = _RawFile(path, wake)
    try:
        compression = decompression.detect(file.peek())
        if compression:
            return _CompressedSource(file, compression)
        return _PlainSource(file)
    except BaseException:
        file.close()
        raise


class _RawFile:
    """The file itself: reads with clear errors, and a look at the first bytes."""

    def __init__(self, path: str, wake: Wake | None) -> None:
        self.name = path
        self.position = 0
        self._peeked = b""
        self._descriptor = -1
        self._parked = False
        self.wake = Wake(wake)
        try:
            if path == "-":
                self._descriptor = os.dup(0)
            else:
                # The wait for a FIFO's writer is in reading, where it can be ended.
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            status = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:
            self.close()
            raise self._failed("open", error) from error
        self._identity = status.st_dev, status.st_ino
        self.regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.regular else None
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise CaptureFileError(f"cannot read {self._place}: it is a directory; name a capture file in it")
        if self.regular:
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    @property
    def _place(self) -> str:
        return "standard input" if self.name == "-" else self.name

    def _failed(self, verb: str, error: OSError | ValueError) -> CaptureFileError:
        advice = "check the path and the file system"
        if isinstance(error, FileNotFoundError):
            advice = "check the path"
        elif isinstance(error, PermissionError):
            advice = "ask for read permission or run as its owner"
        at = f" at byte {self.position}" if verb == "read" else ""
        return CaptureFileError(f"cannot {verb} {self._place}{at}: {reason(error)}; {remedy(error, advice)}")

    def peek(self) -> bytes:
        """Return the first bytes, as many as tell the compression, without consuming them."""
        # Not more than that: a capture arriving through a pipe may send no more for a while.
        while len(self._peeked) < decompression.MAGIC_BYTES:
            piece = self._read(lambda: os.read(self._descriptor, decompression.MAGIC_BYTES - len(self._peeked)))
            if not piece:
                break
            self._peeked += piece
        return self._peeked

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; empty at the end."""
        if self._peeked:
            data, self._peeked = self._peeked[:count], self._peeked[count:]
        else:
            data = self._read(lambda: os.read(self._descriptor, count))
        self.position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from its start and return how far; 0 at the end."""
        taken = 0
        if self._peeked:
            taken = min(len(buffer), len(self._peeked))
            buffer[:taken] = self._peeked[:taken]
            self._peeked = self._peeked[taken:]
        else:
            taken = self._read(lambda: os.readv(self._descriptor, [buffer]))
        self.position += taken
        return taken

    def park(self) -> None:
        """Give the descriptor of a regular file back until the next read."""
        if self.regular and self.name != "-" and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._parked = True

    def _open_again(self) -> None:
        self._parked = False
        try:
            self._descriptor = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            status = os.fstat(self._descriptor)
            os.lseek(self._descriptor, self.position + len(self._peeked), os.SEEK_SET)
        except OSError as error:
            raise self._failed("open", error) from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise CaptureFileError(f"{self.name} was replaced after it was opened: start again")

    def seek(self, offset: int) -> None:
        """Go on at a byte offset."""
        if self._parked:
            self._open_again()
        self._peeked = b""
        self.position = os.lseek(self._descriptor, offset, os.SEEK_SET)

    def _read(self, call: Callable[[], _Read]) -> _Read:
        """Read once there is something, or raise ReadingEnded where nothing is to be read any more."""
        if self._parked:
            self._open_again()
        while True:
            try:
                if self.regular:
                    self.wake.check()
                else:
                    # A pipe may stay silent for ever.
                    self.wake.wait_readable(self._descriptor)
                return call()
            except BlockingIOError:
                continue  # another reader of the same pipe was faster
            except OSError as error:
                raise self._failed("read", error) from error

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self.wake.close()


class _PlainSource(ByteSource):
    """Uncompressed bytes, read straight into the caller's buffer."""

    def __init__(self, file: _RawFile) -> None:
        super().__init__(file)
        self.seekable_plain = file.regular and file.name != "-"

    @property
    def position(self) -> int:
        return self._file.position

    def readinto(self, buffer: memoryview) -> int:
        return self._file.readinto(buffer) if len(buffer) else 0

    def park(self) -> None:
        self._file.park()

    def seek(self, offset: int) -> None:
        if not self.seekable_plain:
            super().seek(offset)
        self._file.seek(offset)


class _CompressedSource(ByteSource):
    """Decompressed bytes, made by a thread that starts with the first read.

    The thread owns the file from then on and hands over (piece, position) pairs through `_ready`, a
    deque of at most `PIECES_AHEAD`, guarded by `_condition`. What ends the stream (`problem`, an error)
    is set before `_ended`.
    """

    def __init__(self, file: _RawFile, compression: str) -> None:
        super().__init__(file)
        self.compression = compression
        self._pieces = decompression.decompress(compression, lambda: file.read(READ_BYTES), file.name)
        self._condition = threading.Condition()
        self._ready: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self._closed = False
        self._damage: str | None = None
        self._error: BaseException | None = None
        self._piece = memoryview(b"")
        self._position = 0
        self._thread: threading.Thread | None = None

    @property
    def position(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        if not self._piece and not (len(buffer) and self._next_piece()):
            return 0
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _next_piece(self) -> bool:
        """Take the next piece from the thread; False at the end."""
        if self._closed:
            raise ValueError(f"{self.name} is closed")
        self._file.wake.check()
        if self._thread is None:
            self._thread = threading.Thread(target=self._decompress, name="decompress", daemon=True)
            self._thread.start()
        with self._condition:
            while not self._ready and not self._ended:
                self._condition.wait()
            if self._ready:
                piece, self._position = self._ready.popleft()
                self._piece = memoryview(piece)
                self._condition.notify()
                return True
        if self._error is not None:
            raise self._error
        self.problem = self._damage
        self._position = self._file.position
        return False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            with self._condition:
                self._file.wake.set()
                self._condition.notify()
            self._thread.join()
        self._ready.clear()
        self._piece = memoryview(b"")
        super().close()

    def _decompress(self) -> None:
        """Decompress everything: the body of the thread."""
        try:
            for piece in self._pieces:
                self._hand_over(piece)
        except decompression.Damage as damage:
            at = self._file.position - damage.unread
            self._damage = f"{damage} near byte {at} of the compressed file"
        except BaseException as error:  # whatever it is, it belongs to the reader
            self._error = error
        with self._condition:
            self._ended = True
            self._condition.notify()

    def _hand_over(self, piece: bytes) -> None:
        with self._condition:
            while len(self._ready) >= PIECES_AHEAD and not self._file.wake.is_set:
                self._condition.wait()
            self._file.wake.check()
            self._ready.append((piece, self._file.position))
            self._condition.notify()
