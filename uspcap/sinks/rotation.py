"""One capture in many files: when the next begins, what it is called, how many are kept.

Every frame goes into exactly one file, by its place in the stream: a file ends before the first frame that does not
belong to it, and that frame begins the next one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.writer import CaptureWriter
from uspcap.frames import NANOSECONDS, FrameBatch, Interface
from uspcap.sinks.post_rotate import PostRotateCommand

COMPRESSED_SUFFIX = ".zst"

_LATEST_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class RotationRules:
    """When a file is full; None where that does not matter. Whatever comes first counts.

    Attributes
    ----------
    file_bytes : int or None
        A file ends before the frame that might take it beyond so many bytes, as they are before compression. Its
        statistics at the end come on top.
    period_ns : int or None
        A file ends before the first frame that is timestamped so long after the file's period began, or later. Periods
        are counted from the timestamp of the first frame of the capture; a timestamp that steps back begins no file.
    aligned : bool
        Periods are counted from the epoch, UTC, instead.
    frames : int or None
        A file holds so many frames.
    keep : int or None
        So many files are kept; the oldest is deleted before one more is opened.
    """

    file_bytes: int | None = None
    period_ns: int | None = None
    aligned: bool = False
    frames: int | None = None
    keep: int | None = None


class FileNames:
    """Names of the files of one capture.

    A pattern with `%` is filled in as strftime(3) does, with a time in UTC; where that gives the same name as for the
    file before, `_00002` is put before the suffix. Without `%` it is `_00001_20260101120000` for every file.

    Parameters
    ----------
    pattern : str
        What the user gave as the file to write.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._number = 0
        self._time_ns = 0
        self._last = ""

    def next(self, time_ns: int) -> str:
        """Return the name of the next file.

        Parameters
        ----------
        time_ns : int
            When it begins, nanoseconds since the epoch, UTC. One before that of the last file counts as the last
            file's, so that no name comes again because timestamps step back.
        """
        self._number += 1
        self._time_ns = max(self._time_ns, time_ns)
        moment = time.gmtime(self._time_ns // NANOSECONDS)
        if "%" not in self._pattern:
            return self._with(self._pattern, f"_{self._number:05d}_{time.strftime('%Y%m%d%H%M%S', moment)}")
        name = time.strftime(self._pattern, moment)
        again, self._last = name == self._last, name
        return self._with(name, f"_{self._number:05d}") if again else name

    @staticmethod
    def _with(name: str, added: str) -> str:
        path = Path(name)
        suffix = path.suffix
        if suffix == COMPRESSED_SUFFIX:
            suffix = path.with_suffix("").suffix + suffix
        return f"{name[: len(name) - len(suffix)]}{added}{suffix}"


class FileRing:
    """Deletes the oldest of the files that a capture made.

    Parameters
    ----------
    keep : int
        Files that stay, the one that is written among them.

    Attributes
    ----------
    warning : str
        The first file that could not be deleted, in a sentence; empty where there is none.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._paths: deque[str] = deque()
        self.warning = ""

    def opening(self, path: str) -> None:
        """Count a file that is about to be opened, and delete what is too much then."""
        if path in self._paths:
            self._paths.remove(path)
        self._paths.append(path)
        while len(self._paths) > self._keep:
            oldest = self._paths.popleft()
            try:
                # What is no longer there was moved, by the command that is run on each file for instance.
                Path(oldest).unlink(missing_ok=True)
            except OSError as error:
                self.warning = self.warning or (
                    f"{oldest} should have been deleted but remains: {error.strerror}; more files than "
                    "-W allows may be left"
                )


class RotatingWriter:
    """Writes one file after the other.

    The first file is opened with the first frame, or on closing where none came.

    Parameters
    ----------
    writer : CaptureWriter
        Has no file yet.
    rules : RotationRules
    names : FileNames
    interfaces : sequence of Interface
        The first interfaces of every file.
    statistics : callable
        Returns what each file but the last says of its interfaces at its end.
    ring : FileRing, optional
        Notified of each file by the writer's output.
    command : PostRotateCommand, optional
        Given each file by the writer's output.
    """

    def __init__(
        self,
        writer: CaptureWriter,
        rules: RotationRules,
        names: FileNames,
        *,
        interfaces: Sequence[Interface] = (),
        statistics: Callable[[], Mapping[int, InterfaceStatistics] | None] = lambda: None,
        ring: FileRing | None = None,
        command: PostRotateCommand | None = None,
    ) -> None:
        self._writer = writer
        self._rules = rules
        self._names = names
        self._interfaces = interfaces
        self._statistics = statistics
        self._ring = ring
        self._command = command
        self._opened = False
        self._newest_ns = 0
        self._period_start_ns = 0
        self._period_end_ns = _LATEST_NS
        self.files = 0

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces of the present file."""
        return self._writer.interfaces

    @property
    def frames_written(self) -> int:
        """Frames that are whole in the files."""
        return self._writer.frames_written

    @property
    def frames_dropped(self) -> int:
        """Frames left out because the output had no room for them."""
        return self._writer.frames_dropped

    @property
    def refusal(self) -> str:
        """Why frames that were written are not in the files, where some are not."""
        return self._writer.refusal

    def look_at_file(self) -> None:
        """Look whether the present file is still in its place; where not, that is in `losses` soon."""
        self._writer.look_at_file()

    @property
    def losses(self) -> Sequence[str]:
        """What happened to files while they were written, a sentence each; complete once closed."""
        return self._writer.losses

    def flush(self) -> None:
        """Begin a new file now, where there is one to finish; raises as `write`."""
        if self._opened:
            self._begin_file(self._newest_ns)

    @property
    def warnings(self) -> list[str]:
        """What did not go as asked for and harmed no frame, one sentence each; complete after `wait`."""
        said = [self._ring.warning if self._ring else "", self._command.warning if self._command else ""]
        return [sentence for sentence in said if sentence]

    def write(self, batch: FrameBatch) -> None:
        """Write the frames of a batch, in its order, beginning files as the rules say.

        Raises
        ------
        CaptureFileError
            Where a file cannot be opened or written.
        """
        row = 0
        while row < batch.count:
            if not self._writer.has_room():
                self._writer.drop(batch.count - row)
                return
            end = self._end_row(batch, row) if self._opened else row
            if end > row:
                reached = self._writer.write_rows(batch, row, end, self._rules.file_bytes)
                full, row = reached < end, reached
            else:
                full = True
            if full:
                self._begin_file(int(batch.timestamp_ns[row]))
        if batch.count:
            self._newest_ns = int(batch.timestamp_ns[batch.count - 1])

    def close(self, statistics: Mapping[int, InterfaceStatistics] | None = None) -> None:
        """Finish the last file; may be called again.

        Raises
        ------
        CaptureFileError
            Where the end of the file cannot be written.
        """
        try:
            if not self._opened:
                self._begin_file(time.time_ns())
        finally:
            self._writer.close(statistics)

    def wait(self) -> None:
        """Wait for the command that is run on each file, once closed; what it still runs goes on if this ends early."""
        if self._command is not None:
            self._command.wait()

    def _end_row(self, batch: FrameBatch, row: int) -> int:
        """Return the row that begins the next file, or the end of the batch."""
        end = batch.count
        if self._rules.frames is not None:
            end = min(end, row + max(self._rules.frames - self._writer.file_frames, 0))
        if self._rules.period_ns is not None:
            late = batch.timestamp_ns[row:end] >= self._period_end_ns
            if late.any():
                end = row + int(np.argmax(late))
        return end

    def _begin_file(self, timestamp_ns: int) -> None:
        """Finish the present file and open one whose first frame has this timestamp."""
        if timestamp_ns <= 0:
            timestamp_ns = time.time_ns()  # no timestamp at all
        began_ns = timestamp_ns
        period_ns = self._rules.period_ns
        if period_ns is not None:
            if not self._opened:
                self._period_start_ns = timestamp_ns - timestamp_ns % period_ns if self._rules.aligned else timestamp_ns
            elif timestamp_ns >= self._period_end_ns:
                self._period_start_ns += (timestamp_ns - self._period_start_ns) // period_ns * period_ns
            self._period_end_ns = min(self._period_start_ns + period_ns, _LATEST_NS)
            if self._rules.aligned:
                began_ns = self._period_start_ns
        if self._opened:
            self._writer.finish_file(self._statistics())
        self._opened = True
        self._writer.open_file(self._names.next(began_ns))
        self.files += 1
        if self.files == 1:
            self._writer.add_interfaces(self._interfaces)
