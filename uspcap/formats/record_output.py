"""Where whole records go: the sink of one file after the other, cut back to a whole record where a write fails.

A capture writer formats into the buffer that `make_room` chose and calls `take`: `FileOutput` writes it at once,
`uspcap.sinks.disk_writer.QueuedOutput` leaves that to a thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from uspcap.errors import CaptureFileError
from uspcap.formats.byte_sink import ByteSink, FileSink
from uspcap.formats.record_formatter import RecordFormatter
from uspcap.system_errors import reason, remedy

Whole = Callable[[memoryview], tuple[int, int]]
"""Says how many bytes of a view are whole records, and how many frames these hold."""


class RecordOutput(ABC):
    """Takes the records of a capture writer, for one file after the other."""

    @abstractmethod
    def know_records(self, whole: Whole) -> None:
        """Set what finds the ends of records; the writer does that before anything else, as it knows the format."""

    @property
    @abstractmethod
    def place(self) -> str:
        """How messages call the present file."""

    @property
    @abstractmethod
    def frames_written(self) -> int:
        """Frames that are whole in the files so far."""

    @property
    @abstractmethod
    def broken(self) -> bool:
        """A write failed so that nothing more can be written."""

    @property
    @abstractmethod
    def refusal(self) -> str:
        """Why frames that were handed over are not in a file, where some are not."""

    def tell_failure(self) -> None:
        """Raise what failed meanwhile, where it was not raised yet."""
        return

    @abstractmethod
    def flush(self) -> None:
        """Bring to the present file all that was taken, as far as that can be done; raises as `take`."""

    @abstractmethod
    def look_at_file(self) -> None:
        """Look whether the present file is still in its place; where not, that is in `losses` soon."""

    @property
    @abstractmethod
    def losses(self) -> Sequence[str]:
        """What happened to files while they were written, a sentence each; complete once closed."""

    @abstractmethod
    def make_room(self, formatter: RecordFormatter) -> bool:
        """Give the formatter a place for at least some record; False where there is none now."""

    @abstractmethod
    def take(self, formatter: RecordFormatter) -> int:
        """Take what the last call of the formatter made, and return how many bytes that is.

        Raises
        ------
        CaptureFileError
            Where the file cannot be written; it is cut back to its last whole frame.
        """

    @abstractmethod
    def put(self, data: bytes) -> None:
        """Take bytes without frames, which are written altogether or not at all; raises as `take`."""

    @abstractmethod
    def open_file(self, path: str) -> None:
        """Begin a file, which is created or emptied; the one before was finished.

        Raises
        ------
        CaptureFileError
            Where it cannot be opened for writing.
        """

    @abstractmethod
    def finish_file(self) -> None:
        """Close the present file; may be called again.

        Raises
        ------
        CaptureFileError
            Where the system reports only now that it could not keep what was written.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the present file and give everything back; may be called again. Raises as `finish_file`."""


class FileOutput(RecordOutput):
    """Writes each piece before `take` returns.

    Parameters
    ----------
    open_sink : callable
        Opens a sink for a path.
    opening : callable, optional
        Called with the path of each file before it is opened.
    finished : callable, optional
        Called with the path of each file that was closed in good order.
    """

    def __init__(
        self,
        open_sink: Callable[[str], ByteSink] = FileSink,
        *,
        opening: Callable[[str], None] | None = None,
        finished: Callable[[str], None] | None = None,
    ) -> None:
        self._open_sink = open_sink
        self._opening = opening
        self._finished = finished
        self._sink: ByteSink | None = None
        self._place = "the capture"
        self._broken = False
        self._refusal = "the file could not take them"
        self._frames_before = 0
        self._lost: ByteSink | None = None
        self._losses: list[str] = []
        # Ends of pieces, from the last one that is safe on: position in the file, and frames of all files up to there.
        self._marks: list[tuple[int, int]] = [(0, 0)]

    def know_records(self, whole: Whole) -> None:
        self._whole = whole

    @property
    def place(self) -> str:
        return self._place

    @property
    def frames_written(self) -> int:
        return self._marks[-1][1]

    @property
    def broken(self) -> bool:
        return self._broken

    @property
    def refusal(self) -> str:
        return self._refusal

    def make_room(self, formatter: RecordFormatter) -> bool:
        return True

    def take(self, formatter: RecordFormatter) -> int:
        self.emit(formatter.buffer.data[: formatter.used], formatter.frames)
        return formatter.used

    def put(self, data: bytes) -> None:
        self.emit(memoryview(data), 0)

    def open_file(self, path: str) -> None:
        try:
            if self._opening is not None:
                self._opening(path)
            self._sink = self._open_sink(path)
        except BaseException:
            self._broken = True
            raise
        self._place = self._sink.place
        self._frames_before = self.frames_written
        self._marks = [(0, self._frames_before)]

    def finish_file(self) -> None:
        self.look_at_file()
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            sink.finish()
        except OSError as error:
            raise self._repaired(sink, error, memoryview(b""), 0) from error
        finally:
            sink.close()
        if self._finished is not None and not self._broken and sink is not self._lost:
            self._finished(sink.name)

    def close(self) -> None:
        self.finish_file()

    def idle(self) -> None:
        """Let the sink bring to the file what it holds back; raises as `take`."""
        if self._sink is not None and not self._broken:
            self._guarded(self._sink, self._sink.idle, memoryview(b""), 0)

    def flush(self) -> None:
        if self._sink is not None and not self._broken:
            self._guarded(self._sink, self._sink.flush, memoryview(b""), 0)

    def look_at_file(self) -> None:
        sink = self._sink
        loss = "" if sink is None or sink is self._lost else sink.loss()
        if loss:
            self._lost = sink
            self._losses.append(f"{self._place} {loss} while it was written")

    @property
    def losses(self) -> Sequence[str]:
        return self._losses

    def emit(self, data: memoryview, frames: int) -> None:
        """Write whole records; where that fails, cut the file back to the last whole one.

        Without frames, `data` is written altogether or not at all.
        """
        sink = self._sink
        assert sink is not None
        self._guarded(sink, lambda: sink.write(data), data, frames)
        self._marks.append((sink.position, self._marks[-1][1] + frames))
        safe = sink.safe
        while len(self._marks) > 1 and self._marks[1][0] <= safe:
            del self._marks[0]

    def _guarded(self, sink: ByteSink, write: Callable[[], None], data: memoryview, frames: int) -> None:
        """Do what writes; where that fails, repair the file and raise."""
        try:
            write()
        except OSError as error:
            raise self._repaired(sink, error, data, frames) from error
        except BaseException:
            self._broken = not self._cut_back(sink, data, frames)
            raise

    def _repaired(self, sink: ByteSink, error: OSError, data: memoryview, frames: int) -> CaptureFileError:
        self._broken = True
        return self._write_error(error, self._cut_back(sink, data, frames))

    def _cut_back(self, sink: ByteSink, data: memoryview, frames: int) -> bool:
        """Cut the file back to its last whole record; False where it cannot be cut, as a pipe."""
        start, frames_before = self._marks[-1]
        safe = sink.safe
        if safe >= start:
            whole, whole_frames = self._whole(data[: safe - start]) if frames else (0, 0)
            self._marks = [(start + whole, frames_before + whole_frames)]
        else:
            self._marks = [mark for mark in self._marks if mark[0] <= safe][-1:]
        return sink.truncate(self._marks[0][0])

    def _write_error(self, error: OSError, mended: bool) -> CaptureFileError:
        frames = self.frames_written - self._frames_before
        if isinstance(error, BrokenPipeError):
            self._refusal = "its reader has gone"
            return CaptureFileError(f"cannot write {self._place}: its reader has gone after {frames} frames")
        if isinstance(error, TimeoutError):
            self._refusal = "its reader did not take them"
            return CaptureFileError(
                f"cannot write {self._place}: {reason(error)}; it was given {frames} whole frames, and no more"
            )
        state = "ends with a whole frame" if mended else "ends in the middle of a frame"
        return CaptureFileError(
            f"cannot write {self._place}: {reason(error)}; it holds {frames} frames and "
            f"{state}; {remedy(error, 'check the file system')}"
        )
