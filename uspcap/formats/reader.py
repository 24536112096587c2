"""What every capture file reader has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.byte_source import ByteSource
from uspcap.formats.window import Window
from uspcap.frames import FrameBatch, Problem, SourceFacts

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

BOUNDARY_CHAIN = 64
"""Records in a row that must look right there."""


class CaptureReader(ABC):
    """Reads one capture file as batches.

    Attributes
    ----------
    name : str
        The file as the user named it.
    format : str
        `pcap` or `pcapng`.
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
    """

    format: str

    def __init__(self, source: ByteSource, window: Window) -> None:
        self.name = source.name
        self.facts = SourceFacts()
        self.stop_at = NO_LIMIT
        self.began_at = 0
        self.initial_knowledge = 0
        self._source = source
        self._window = window
        self.ended = False

    @property
    def position(self) -> int:
        """Bytes of the underlying file consumed so far, for progress."""
        return self._source.position

    @property
    def size(self) -> int | None:
        """Bytes of the underlying file, None where it has no end that is known."""
        return self._source.size

    @property
    def stopped_at(self) -> int:
        """Offset of the first byte that was not used."""
        return self._window.position

    @property
    def source(self) -> ByteSource:
        """Where the bytes come from."""
        return self._source

    @property
    @abstractmethod
    def knowledge(self) -> int:
        """Describing blocks read so far: two readers of a file that have read as many know the same."""

    def jump_near(self, offset: int) -> bool:
        """Go on at the first place from `offset` on that looks like the start of a record.

        It is a guess: only when the reader of what comes before arrives exactly at `began_at`, knowing as much,
        is it right. Frames are numbered from 1 again. False where nothing looks like a record.
        """
        start = self._find_start(offset)
        if start < 0:
            return False
        self._window.start = start
        self.began_at = self._window.position
        self.initial_knowledge = self.knowledge
        self._restart_numbers()
        return True

    def _look_at(self, offset: int) -> NDArray[np.uint8]:
        """Move the window to `offset` and return its bytes, enough to look for a record."""
        self._window.jump(offset)
        self._window.require(BOUNDARY_SEARCH)
        return self._window.data[: self._window.end]

    @abstractmethod
    def _find_start(self, offset: int) -> int:
        """Move the window to `offset` and return where in it a record seems to start, or -1."""

    @abstractmethod
    def _restart_numbers(self) -> None:
        """Number frames from 1 again."""

    @abstractmethod
    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames; the same batch each time, filled anew.

        Damage ends the iteration, or is stepped over, and is then in `facts`; it never raises.

        Raises
        ------
        CaptureFileError
            The system cannot read the file.
        ReadingEnded
            The `Wake` that it was opened with is set.
        """

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _problem(self, offset: int, what: str) -> None:
        self.facts.add_problem(Problem(self.name, offset, what))

    def _source_ended(self, left: int, what: str) -> None:
        """Say what is wrong with an end of input that leaves `left` bytes unused."""
        if self._source.problem is not None:
            self.facts.truncated = True
            self._problem(self._window.offset + self._window.end, self._source.problem)
        elif left:
            self.facts.truncated = True
            self._problem(self._window.position, f"the file ends {left} bytes into {what}")
