"""Runs of requests given directly to the compiled modules, in parts of a capture that are merged."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from support.request_reference import Event, EventFinder, feed

from uspcap.analysis.requests.request_ledger import RequestLedger
from uspcap.analysis.requests.request_runs import POLICIES, RequestRuns
from uspcap.frames import FrameBatch

TIMEOUT_NS = 1000


class DirectTrack:
    """Runs and a ledger, as a caller of the two keeps them."""

    def __init__(self, finder: EventFinder, policy: str, maximum: int, rows_kept: int) -> None:
        self.runs = RequestRuns(TIMEOUT_NS, POLICIES[policy], maximum)
        self.ledger = RequestLedger(rows_kept)
        self._finder = finder
        self._rounds = policy == "rounds"

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        self.runs.update(batch, frame_shift, *self._finder.find(batch))
        self.ledger.take(self.runs.take_over(), self._rounds)

    def merge(self, later: DirectTrack, frames_read: int, *, pickled: bool) -> None:
        if pickled:
            self.runs, self.ledger = pickle.loads(pickle.dumps((self.runs, self.ledger)))
            later.runs, later.ledger = pickle.loads(pickle.dumps((later.runs, later.ledger)))
        self.runs.merge(later.runs)
        self.ledger.absorb(later.ledger, frames_read)
        self.ledger.take(self.runs.take_over(), self._rounds)

    def whole(self) -> RequestLedger:
        """Return the ledger that there would be if the capture ended here."""
        ledger = RequestLedger(self.ledger.rows_kept)
        ledger.absorb(self.ledger, 0)
        ledger.take(self.runs.open_runs(), self._rounds)
        return ledger


def tracked(
    events: Sequence[Event],
    frames: int,
    policy: str,
    *,
    maximum: int = 1 << 20,
    cuts: Sequence[int] = (),
    batch_frames: int = 4096,
    rows_kept: int = 1000,
    pickled: bool = False,
) -> DirectTrack:
    """Take a capture of so many frames in parts, which begin behind the frames of `cuts`."""
    merged: DirectTrack | None = None
    for before, last in pairwise([0, *sorted(min(cut, frames) for cut in cuts), frames]):
        finder = EventFinder(events)
        part = DirectTrack(finder, policy, maximum, rows_kept)
        numbers = range(before + 1, last + 1)
        feed(part, finder, [event for event in events if event.number in numbers], numbers, batch_frames)
        if merged is None:
            merged = part
        else:
            merged.merge(part, before, pickled=pickled)
    assert merged is not None
    return merged


def frames_of(rows: Any, *names: str) -> list[tuple[int, ...]]:
    return [tuple(int(row[name]) for name in names) for row in rows]
