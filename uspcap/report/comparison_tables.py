"""CSV tables of a comparison of two captures: every matched pair, and every frame that is not matched."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from uspcap._native.matching import KIND_AMBIGUOUS, KIND_DUPLICATE, KIND_ONLY
from uspcap.errors import CaptureFileError

PAIR_COLUMNS: Final = ("a_frame", "b_frame", "a_timestamp_ns", "b_timestamp_ns", "delay_ns")
MISS_COLUMNS: Final = ("frame", "timestamp_ns", "wire_bytes", "kind")

_KINDS: Final = np.array(["", "", "", "", ""], dtype="U9")
"""By the number of the kind; matched frames are in the other table."""
_KINDS[[KIND_ONLY, KIND_DUPLICATE, KIND_AMBIGUOUS]] = ["only", "duplicate", "ambiguous"]


class ComparisonTables:
    """Writes the tables that are asked for, as the comparison goes on; a context manager that closes them.

    Parameters
    ----------
    pairs : str or None
        Path of the table of pairs, in B's order.
    misses : mapping of str to str or None
        Side, `a` or `b`, to the path of the table of its frames that match none, in its order.

    Raises
    ------
    CaptureFileError
        A file cannot be written.
    """

    def __init__(self, pairs: str | None, misses: Mapping[str, str | None]) -> None:
        self._files = ExitStack()
        try:
            self._pairs = None if pairs is None else self._open(pairs, PAIR_COLUMNS)
            self._misses = {side: self._open(path, MISS_COLUMNS) for side, path in misses.items() if path is not None}
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def matched(self, pairs: NDArray[np.void], delays_ns: NDArray[np.int64]) -> None:
        """Take matched pairs, as `compare_captures` tells of them."""
        if self._pairs is not None:
            stamps = (pairs["partner_timestamp_ns"], pairs["timestamp_ns"])
            columns = (pairs["partner_frame"], pairs["frame"], *stamps, delays_ns)
            _append(self._pairs, dict(zip(PAIR_COLUMNS, columns, strict=True)))

    def missed(self, side: str, events: NDArray[np.void]) -> None:
        """Take frames of a side that are not matched, as `compare_captures` tells of them."""
        if side in self._misses:
            kinds = _KINDS[events["kind"]]
            columns = (events["frame"], events["timestamp_ns"], events["length"], kinds)
            _append(self._misses[side], dict(zip(MISS_COLUMNS, columns, strict=True)))

    def _open(self, path: str, columns: tuple[str, ...]) -> TextIO:
        try:
            file = Path(path).open("w", encoding="ascii", newline="")  # noqa: SIM115
        except OSError as error:
            raise CaptureFileError(f"{path}: cannot be written: {error.strerror}; name another file") from error
        self._files.enter_context(file)
        file.write(",".join(columns) + "\n")
        return file


def _append(file: TextIO, columns: dict[str, object]) -> None:
    import pandas as pd  # takes longer than a short comparison, and most write no table

    pd.DataFrame(columns).to_csv(file, header=False, index=False)
