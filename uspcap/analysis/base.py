"""The law of analyses.

Every analysis is a monoid: cut a capture anywhere, analyse the parts apart, merge in order, and the
result equals that of the whole. State that crosses a cut (the last timestamp of a flow, an open run) is
part of the analysis and is stitched by `merge`. State is bounded, and what the bound cost is in the
result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import FrameBatch
from uspcap.records import Record
from uspcap.stats.histogram import Histogram

Table = Mapping[str, Sequence[Any]]
"""Column name to values, all of one length; times in ns are int and named `…_ns`."""


class Result(Record):
    """What an analysis found; `docs/analyses.md` says what its fields may be."""

    caveats: Annotated[
        tuple[str, ...],
        "Warnings about the input that apply to the figures; empty where there are none.",
    ] = ()

    def __init_subclass__(cls, **further: Any) -> None:
        super().__init_subclass__(**further)
        fields = dict(cls.__dataclass_fields__)
        fields["caveats"] = fields.pop("caveats")
        cls.__dataclass_fields__ = fields

    def with_run(self, source: Mapping[str, Any], longest_unread_ns: int | None) -> Self:
        """Return it with the figures that only the whole run has; unchanged where there are none.

        Parameters
        ----------
        source : mapping
            As `report.document.build_report` is given it.
        longest_unread_ns : int or None
            The longest time for which a ring went unread.
        """
        return self


def clock_stepped(source: Mapping[str, Any]) -> bool:
    """Tell of a report's source whether steps of the clock lie between its earliest and its latest timestamp."""
    order = source.get("order")
    return order is not None and order["step_count"] > 0


def grown(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """Return rows with room for double as many, or `most`."""
    room = np.zeros(min(2 * len(rows), most), rows.dtype)
    room[: len(rows)] = rows
    return room


class Analysis(ABC):
    """One question asked of a stream of frames.

    Frames are numbered from 1 in the stream that an instance has seen, whatever the sources count; `merge`
    moves the numbers of the later part up by `frames_read`.
    """

    name: ClassVar[str]
    """Key in the report's `analyses`."""

    rests_on_timestamps: ClassVar[bool] = True
    """Some of its figures are made of timestamps."""

    def __init__(self) -> None:
        self.frames_read = 0
        """Frames that the source has consumed so far, filtered-out ones included."""
        self.clamped = 0
        """Timestamps that were clamped, of frames that it was given."""

    def update(self, batch: FrameBatch) -> None:
        """Take the next batch; nothing of the batch is kept."""
        self._update(batch)
        self.frames_read += batch.frames_read
        self.clamped += batch.clamped

    def _shift(self, batch: FrameBatch) -> int:
        """Return the offset from the batch's frame numbers to those of this instance's stream."""
        return self.frames_read - batch.frames_before

    def merge(self, later: Self) -> None:
        """Append the state of the directly following frames; `later` is used up."""
        self._merge(later)
        self.frames_read += later.frames_read
        self.clamped += later.clamped

    @abstractmethod
    def _update(self, batch: FrameBatch) -> None: ...

    @abstractmethod
    def _merge(self, later: Self) -> None: ...

    @abstractmethod
    def result(self) -> Result:
        """Return the result for the report; may be called at any time, and repeatedly."""

    def caveats(self) -> list[str]:
        """Return warnings about the input that apply to the result: whole sentences without a full stop."""
        if not (self.clamped and self.rests_on_timestamps):
            return []
        many = "1 frame has a timestamp" if self.clamped == 1 else f"{self.clamped} frames have timestamps"
        return [
            f"{many} outside of the supported range (1823 to 2116), clamped to its nearer end: times, spans and rates "
            "that include them are wrong"
        ]

    def histograms(self) -> dict[str, Histogram]:
        """Return whole histograms, for the HdrHistogram tools: name to histogram."""
        return {}

    def tables(self) -> dict[str, Table]:
        """Return the long form, for CSV: table name to columns."""
        return {}
