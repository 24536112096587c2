"""Numbers of frames in their files, where analyses see frames in another order."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import CaptureFileError
from uspcap.frames import FrameBatch
from uspcap.system_errors import reason

_IN_MEMORY: Final = 16 << 20
"""Bytes beyond which what is kept of frames waits in a temporary file."""

_COUNTED_EVERY: Final = 1 << 16
"""Places between two counts of how many frames came from which input."""

NOT_KEPT: Final = 0xFFFF
"""Origin of a frame that was left out."""


class Numbers(ABC):
    """The number of a frame by its place in the order, from 1, for what analyses say of places."""

    @abstractmethod
    def of(self, place: int) -> int:
        """Return the number of the frame at a place; what is no place stays."""

    def in_tables(self, tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Mapping[str, Sequence[Any]]]:
        """Return tables with places turned into numbers in columns whose names end in `frame`."""
        return {
            name: {
                column: [value if value is None else self.of(value) for value in values]
                if column.endswith("frame")
                else values
                for column, values in columns.items()
            }
            for name, columns in tables.items()
        }


class Spool:
    """Bytes that are written in order and read anywhere: in memory, and in a temporary file where they are many.

    Parameters
    ----------
    among : int
        As many share what memory there is for them.
    """

    def __init__(self, among: int = 1) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY // among)  # noqa: SIM115, closed in `__del__`

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises
        ------
        CaptureFileError
            There is no room for them.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise CaptureFileError(
                f"cannot keep frame numbers in a temporary file in {tempfile.gettempdir()}: {reason(error)}; name a "
                "directory with more room in TMPDIR"
            ) from error

    def read(self, offset: int, size: int) -> bytes:
        """Return up to so many bytes; nothing may be written after."""
        self._file.seek(offset)
        return self._file.read(size)

    def __del__(self) -> None:
        # Results may be asked for as long as there is somebody who can ask.
        self._file.close()


class FrameNumbers(Numbers):
    """Frame numbers as they come: 8 bytes each."""

    def __init__(self) -> None:
        self._spool = Spool()

    def take(self, batch: FrameBatch) -> None:
        """Keep the numbers of a batch's frames, and number them by their place instead."""
        numbers = batch.storage("frame_number")[: batch.count]
        self._spool.write(numbers.data)
        self._spool.write(bytes(8 * (batch.frames_read - batch.count)))
        numbers[:] = np.arange(batch.frames_before + 1, batch.frames_before + batch.count + 1)

    def of(self, place: int) -> int:
        if place < 1:
            return place
        return int.from_bytes(self._spool.read(8 * (place - 1), 8), "little") or place


class Origins:
    """Which input each frame of a merge came from: 2 bytes each. Their numbers follow, as inputs go on in order.

    Parameters
    ----------
    inputs : int
    among : int
        As of `Spool`.

    Attributes
    ----------
    places : int
        Frames, those left out included.
    """

    def __init__(self, inputs: int, among: int = 1) -> None:
        self.places = 0
        self._spool = Spool(among)
        self._counts = np.zeros(inputs, np.int64)
        self._counted_at = [0]
        self._counted = [self._counts.copy()]

    def take(self, batch: FrameBatch, origins: NDArray[np.uint16]) -> None:
        """Keep where the frames of a batch came from, and number them by their place."""
        origins = origins[: batch.count]
        self._spool.write(origins.data)
        without = batch.frames_read - batch.count
        if without:
            self._spool.write(NOT_KEPT.to_bytes(2, "little") * without)
        batch.storage("frame_number")[: batch.count] = np.arange(self.places + 1, self.places + batch.count + 1)
        self.places += batch.frames_read
        self._counts += np.bincount(origins, minlength=len(self._counts))
        if self.places - self._counted_at[-1] >= _COUNTED_EVERY:
            self._counted_at.append(self.places)
            self._counted.append(self._counts.copy())

    def of(self, place: int) -> tuple[int, int] | None:
        """Return the input of the frame at a place, and how many of its frames came before; None for no frame."""
        counted = bisect_right(self._counted_at, place - 1) - 1
        start = self._counted_at[counted]
        origins = np.frombuffer(self._spool.read(2 * start, 2 * (place - start)), np.uint16)
        origin = int(origins[-1])
        if origin == NOT_KEPT:
            return None
        return origin, int(self._counted[counted][origin]) + int(np.count_nonzero(origins[:-1] == origin))


class Numbered(Protocol):
    """What numbers the frames of one slice."""

    @property
    def places(self) -> int:
        """Frames, those left out included."""

    def number_of(self, place: int) -> int | None:
        """Return the number of the frame at a place, from 1; None for no frame."""


class SlicedNumbers(Numbers):
    """Those of slices that follow each other."""

    def __init__(self, slices: Sequence[Numbered]) -> None:
        self._slices = slices
        self._ends = np.cumsum([one.places for one in slices]).tolist()

    def of(self, place: int) -> int:
        if not 1 <= place <= self._ends[-1]:
            return place
        at = bisect_right(self._ends, place - 1)
        start = self._ends[at - 1] if at else 0
        return self._slices[at].number_of(place - start) or place
