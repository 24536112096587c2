"""Reading a capture file: what the formats have in common, and going on where another file's header stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import CaptureFileError
from uspcap.formats.byte_source import ByteSource
from uspcap.formats.window import Window
from uspcap.frames import FrameBatch, Problem, SourceFacts

TimestampUnit = Literal["auto", "us", "ns"]
"""What a pcap file's fractions of a second are counted in: as its magic number says, unless they cannot be ('auto')."""

BATCH_FRAMES = 4096
"""Rows of a batch."""

NO_LIMIT = (1 << 62) - 1

LONGEST_FRAME = 262_144
"""Longest captured length, libpcap's MAXIMUM_SNAPLEN; a record that claims more is damage."""

LONGEST_BIG_FRAME = 128 * 1024 * 1024
"""The same for the link types to which libpcap allows more (its max_snaplen_for_dlt)."""

BIG_FRAME_LINK_TYPES = frozenset({231, 249, 279})
"""LINKTYPE_DBUS, LINKTYPE_USBPCAP and LINKTYPE_EBHSCR."""

BOUNDARY_SEARCH = 2 * 1024 * 1024
"""Bytes that are looked at for the start of a record."""

FIRST_LOOK = 128 * 1024
"""Bytes in which it is looked for first; frames of 1,500 bytes need 100 kB to be recognized for sure."""

BOUNDARY_CHAIN = 64
"""Records in a row that must look right there."""


class FormatReader(ABC):
    """Reads frames of one format, from the file header in the window on, for a `CaptureReader`.

    Parameters
    ----------
    file : CaptureReader
        Whose window, facts and limits it uses.

    Attributes
    ----------
    format : str
        `pcap` or `pcapng`.
    alignment : int
        Records start at multiples of it.

    Raises
    ------
    CaptureFileError
        The file header is cut short or of a version that is not known.
    """

    format: str
    alignment = 1

    def __init__(self, file: CaptureReader) -> None:
        self._file = file
        self._window = file.window
        self.at_header = False

    @property
    @abstractmethod
    def knowledge(self) -> int:
        """Describing blocks and file headers read so far."""

    @abstractmethod
    def find_start(self, data: NDArray[np.uint8]) -> int:
        """Return where in `data`, which is what the window holds, a record seems to start, or -1."""

    @abstractmethod
    def prepare(self) -> bool:
        """Learn what must be known before one may go on in the middle of the file; False where that ended it."""

    @abstractmethod
    def restart_numbers(self) -> None:
        """Number frames from 1 again, and forget what was counted."""

    @property
    @abstractmethod
    def bytes_before_frame(self) -> int:
        """Bytes of a record before the frame in it, of one with a timestamp."""

    def release(self) -> None:  # noqa: B027, most have nothing to let go of
        """Let go of what memory reading took: nothing is read any more."""

    @abstractmethod
    def batches(self) -> Iterator[FrameBatch]:
        """Yield frames up to the file's `stop_at`, its end, or the header of another file: `at_header` is set then."""


FormatOf = Callable[[bytes], type[FormatReader] | None]
"""Returns what reads a file that starts with these bytes, None for no format that is known."""


class CaptureReader:
    """Reads one capture file as batches, through all files that were concatenated in it.

    Parameters
    ----------
    source : ByteSource
    window : Window
        At the start of the file, with four bytes in it.
    format_of : callable
    unit : {'auto', 'us', 'ns'}
        Of fractions of a second in pcap files.
    batch_frames : int
        Rows of a batch.

    Attributes
    ----------
    name : str
        The file as the user named it.
    format : str
        `pcap` or `pcapng`: that of the first header.
    facts : SourceFacts
        Interfaces, problems and notes; complete once `batches` is exhausted.
    stop_at : int
        Records that start at or beyond this offset are left to another reader; `batches` may be called
        again after it was raised.
    began_at : int
        Where the first record was looked for: 0, or what `jump_near` found.
    initial_knowledge : int
        What `knowledge` was there.
    ended : bool
        There is nothing more to read: the end of the file, or damage that nothing can be read after.

    Raises
    ------
    CaptureFileError
        The file header is cut short or of a version that is not known.
    """

    def __init__(
        self,
        source: ByteSource,
        window: Window,
        format_of: FormatOf,
        unit: TimestampUnit = "auto",
        batch_frames: int = BATCH_FRAMES,
    ) -> None:
        self.name = source.name
        self.batch_frames = batch_frames
        self.facts = SourceFacts()
        self.stop_at = NO_LIMIT
        self.began_at = 0
        self.initial_knowledge = 0
        self.ended = False
        self.source = source
        self.window = window
        self.unit = unit
        self._format_of = format_of
        self._knowledge_before = 0
        reader = format_of(window.peek(4))
        assert reader is not None
        self._reader = reader(self)
        self.format = self._reader.format

    @property
    def position(self) -> int:
        """Bytes of the underlying file consumed so far, for progress."""
        return self.source.position

    @property
    def size(self) -> int | None:
        """Bytes of the underlying file, None where it has no end that is known."""
        return self.source.size

    @property
    def stopped_at(self) -> int:
        """Offset of the first byte that was not used."""
        return self.window.position

    @property
    def knowledge(self) -> int:
        """Describing blocks and file headers read so far: two readers of a file that have read as many know the same.

        What stands in the file between the places that they have read is the same, too.
        """
        return self._knowledge_before + self._reader.knowledge

    def jump_near(self, offset: int, look_at: int = BOUNDARY_SEARCH) -> bool:
        """Go on at the first place from `offset` on that looks like the start of a record.

        It is a guess: only when the reader of what comes before arrives exactly at `began_at`, knowing as much,
        is it right. Frames are numbered from 1 again. False where nothing in `look_at` bytes looks like a record.
        """
        if not self._reader.prepare():
            return False
        window = self.window
        for look in (min(FIRST_LOOK, look_at, window.size), min(FIRST_LOOK, look_at), look_at):
            window.jump(offset + -offset % self._reader.alignment)
            window.require(look, no_more=True)
            start = self._reader.find_start(window.data[: window.end])
            if start >= 0 or window.at_end:
                break
        if start < 0:
            return False
        window.start = start
        if len(window.data) > window.size:
            window.jump(window.position)
        self.ended = False
        self.began_at = window.position
        self.initial_knowledge = self.knowledge
        self._reader.restart_numbers()
        self.facts = SourceFacts(interfaces=self.facts.interfaces, decisions=self.facts.decisions)
        return True

    def record_at(self, batch: FrameBatch, row: int) -> int:
        """Return where the record of a frame starts that has a timestamp, of the batch that was yielded last."""
        return self.window.offset + int(batch.offset[row]) - self._reader.bytes_before_frame

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames; the same batch each time, refilled.

        Damage ends the iteration, or is stepped over, and is then in `facts`; it never raises.

        Raises
        ------
        CaptureFileError
            The system cannot read the file.
        ReadingEnded
            The `Wake` that it was opened with is set.
        """
        while True:
            yield from self._reader.batches()
            if not self._reader.at_header or not self._begin_next():
                return

    def _begin_next(self) -> bool:
        """Read on from the header of another file; False where it cannot be."""
        at = self.window.position
        reader = self._format_of(self.window.peek(4))
        self._knowledge_before += self._reader.knowledge
        try:
            assert reader is not None
            self._reader = reader(self)
        except CaptureFileError as error:
            self.problem(at, f"a second file header begins here, but: {error}")
            self.ended = True
            return False
        headers = self.facts.headers
        headers.first = headers.first or (at, self._reader.format)
        headers.count += 1
        return True

    def close(self) -> None:
        """Close the file, and let go of what memory reading it took."""
        self.source.close()
        # Reader and format refer to each other, and may stay until somebody looks for such cycles.
        self.window.release()
        self._reader.release()

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def problem(self, offset: int, what: str) -> None:
        """Keep what is wrong with the file."""
        self.facts.add_problem(Problem(self.name, offset, what))

    def source_ended(self, left: int, what: str) -> None:
        """Say what is wrong with an end of input that leaves `left` bytes unused."""
        if self.source.problem is not None:
            self.facts.truncated = True
            self.problem(self.window.offset + self.window.end, self.source.problem)
        elif left:
            self.facts.truncated = True
            self.problem(self.window.position, f"the file ends {left} bytes into {what}")
