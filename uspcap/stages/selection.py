"""Frames of some interfaces, and of a range of time, as a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import FrameBatch, Interface, Problem, TimestampSource
from uspcap.stages.moments import TimeRange

_LISTED: Final = 10
"""Interfaces that a message names."""


class FrameSelection:
    """Keeps the frames of each batch that belong to a selection.

    Parameters
    ----------
    interfaces : sequence of str
        Names, or numbers from 0 as tshark's `frame.interface_id` has them where no interface has such a name; none
        stands for all.
    time_range : TimeRange, optional
        A frame without a timestamp is in no range.
    taps : callable, optional
        Given the number of interfaces, returns the tap of each.

    Attributes
    ----------
    without_timestamp : int
        Frames that were left out of a range because they have none.
    found : set of str
        Those of `interfaces` that there are.
    """

    def __init__(
        self,
        interfaces: Sequence[str] = (),
        time_range: TimeRange | None = None,
        taps: Callable[[int], NDArray[np.uint16]] | None = None,
    ) -> None:
        self._wanted = tuple(interfaces)
        self._range = time_range
        self._table: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._taps = taps
        self.without_timestamp = 0
        self.found: set[str] = set()

    def apply(self, batch: FrameBatch, interfaces: Sequence[Interface] | None = None) -> None:
        """Take what does not belong to the selection out of a batch; `frames_read` stays.

        Parameters
        ----------
        batch : FrameBatch
        interfaces : sequence of Interface, optional
            What the `interface` column points into, where that is not the batch's own: further ones are added at the
            end only.
        """
        self.apply_interfaces(batch, interfaces)
        self.apply_range(batch)

    def apply_interfaces(self, batch: FrameBatch, interfaces: Sequence[Interface] | None = None) -> None:
        """Take frames of other interfaces out, and say at which tap the others were seen; as `apply`."""
        known = batch.interfaces if interfaces is None else interfaces
        if self._taps is not None:
            batch.set_taps(self._taps(len(known)))
        if self._wanted:
            if len(known) != len(self._table):
                self._learn(known)
            _keep(batch, self._table[batch.interface])

    def apply_range(self, batch: FrameBatch) -> None:
        """Take out frames that are not in the range of time; to come after they were put in order."""
        if self._range is not None and batch.count:
            _keep(batch, self._in_range(batch, self._range))

    def append(self, later: FrameSelection) -> None:
        """Take in what the selection found of the part of the file that comes directly after."""
        self.found |= later.found
        self.without_timestamp += later.without_timestamp

    def problems(self, path: str, known: Sequence[Interface]) -> list[Problem]:
        """Return what is wrong once a file was read: interfaces that were named and that it does not have."""
        missing = [wanted for wanted in self._wanted if wanted not in self.found]
        if not missing:
            return []
        listed = ", ".join(
            f"{number} ({interface.name or 'unnamed'})" for number, interface in list(enumerate(known))[:_LISTED]
        )
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        return [Problem(path, 0, f"there is no interface {', '.join(missing)}; there are {listed or 'none'}{more}")]

    def notes(self, path: str) -> list[str]:
        """Return what is to be said once a file was read, sentences without a full stop."""
        if not self.without_timestamp:
            return []
        return [f"{path}: {self.without_timestamp} frames have no timestamp, and so are in no time range"]

    def _learn(self, interfaces: Sequence[Interface]) -> None:
        """Find out for each interface whether it is wanted."""
        self._table = np.zeros(len(interfaces), np.bool_)
        for name in self._wanted:
            table = wanted_interfaces((name,), interfaces)
            if table.any():
                self.found.add(name)
                self._table |= table

    def _in_range(self, batch: FrameBatch, time_range: TimeRange) -> NDArray[np.bool_]:
        kept = time_range.holds(batch.timestamp_ns)
        without_timestamp = batch.timestamp_source >= TimestampSource.NONE
        if without_timestamp.any():
            self.without_timestamp += int(np.count_nonzero(without_timestamp))
            kept &= ~without_timestamp
        return kept


def wanted_interfaces(wanted: Sequence[str], interfaces: Sequence[Interface]) -> NDArray[np.bool_]:
    """Return which interfaces some names or numbers mean: ndarray of bool, shape (interfaces,)."""
    table = np.zeros(len(interfaces), np.bool_)
    names = [interface.name for interface in interfaces]
    for name in wanted:
        numbers = [number for number, known in enumerate(names) if known == name]
        if not numbers and name.isascii() and name.isdigit() and int(name) < len(names):
            numbers = [int(name)]
        table[numbers] = True
    return table


def _keep(batch: FrameBatch, kept: NDArray[np.bool_]) -> None:
    if not kept.all():
        batch.keep(kept)
