"""Numbers of frames in their files, where analyses see frames in another order."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from uspcap.errors import CaptureFileError
from uspcap.frames import FrameBatch
from uspcap.system_errors import reason

_IN_MEMORY: Final = 64 << 20
"""Bytes beyond which they wait in a temporary file, 8 for each frame."""


class FrameNumbers:
    """Frame numbers by their place in the order, from 1."""

    def __init__(self) -> None:
        self._spill = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115, closed in `__del__`

    def take(self, batch: FrameBatch) -> None:
        """Keep the numbers of a batch's frames, and number them by their place instead."""
        numbers = batch.storage("frame_number")[: batch.count]
        try:
            self._spill.write(numbers.tobytes())
            self._spill.write(bytes(8 * (batch.frames_read - batch.count)))
        except OSError as error:
            raise CaptureFileError(
                f"cannot keep frame numbers in a temporary file in {tempfile.gettempdir()}: {reason(error)}; name a "
                "directory with more room in TMPDIR"
            ) from error
        numbers[:] = np.arange(batch.frames_before + 1, batch.frames_before + batch.count + 1)

    def of(self, place: int) -> int:
        """Return the number of the frame at a place; what is no place stays."""
        if place < 1:
            return place
        self._spill.seek(8 * (place - 1))
        kept = self._spill.read(8)
        return int.from_bytes(kept, "little") or place

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

    def __del__(self) -> None:
        # Results may be asked for as long as there is somebody who can ask.
        self._spill.close()
