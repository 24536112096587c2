"""UDP datagrams in IP fragments, as analyses count and report them (`uspcap.messages.fragments` puts them together)."""

from __future__ import annotations

from typing import Final

from uspcap.frames import FrameBatch
from uspcap.messages.fragments import Datagrams, has_fragments

MOST_KEPT: Final = 8192
MOST_KEPT_BYTES: Final = 1 << 24
"""Fragments, what comes between them, and bytes of that, that a part of a capture keeps for the part before."""


def is_over(kept: int, kept_bytes: int) -> bool:
    """Tell whether a part of a capture that keeps so much can keep no more; the bytes are with what would come."""
    return kept >= MOST_KEPT or kept_bytes > MOST_KEPT_BYTES


def fragment_counts(datagrams: Datagrams, cut: int) -> dict[str, int]:
    """Return what became of datagrams in fragments, as reports have it."""
    return {
        "put_together": datagrams.complete,
        "incomplete": datagrams.incomplete,
        "discarded": datagrams.discarded,
        "copies": datagrams.copies,
        "cut": cut,
    }


def fragment_caveats(counts: dict[str, int]) -> list[str]:
    """Return what results must be read with because of datagrams that could not be put together."""
    found = []
    incomplete, discarded = counts["incomplete"], counts["discarded"]
    if incomplete or discarded:
        whole = incomplete + discarded + counts["put_together"]
        lack = "lacks" if incomplete == 1 else "lack"
        void = f", and {discarded:,} had fragments that contradict each other" if discarded else ""
        found.append(
            f"{incomplete:,} of {whole:,} UDP datagrams in IP fragments {lack} some{void}: what they carried counts as "
            "missing; a filter on ports leaves out all fragments but the first"
        )
    if counts["cut"]:
        found.append(
            f"{counts['cut']:,} IP fragments at the beginnings of parts of the capture were more than is kept: what "
            "they carried may count as missing"
        )
    return found


class FragmentedDatagrams:
    """Counts of datagrams in fragments, for analyses that read the first fragment only.

    Attributes
    ----------
    cut : int
        Fragments at the heads of parts that were left out, as more were kept already.
    """

    def __init__(self, *, is_known: bool = False) -> None:
        self._datagrams = Datagrams(is_known)
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self.cut = 0

    def update(self, batch: FrameBatch, frame_shift: int) -> None:
        """Count those of the next batch, whose frame numbers are moved by so many."""
        headers = batch.headers
        if not has_fragments(batch, headers):
            return
        first = 0
        while first < batch.count:
            last = self._datagrams.take(batch, headers, frame_shift, first)
            if last < batch.count:
                self._keep(self._datagrams.event(batch, headers, frame_shift, last))
            first = last + 1

    def _keep(self, event: bytes) -> None:
        if is_over(len(self._kept), self._kept_bytes + len(event)):
            self.cut += 1
            return
        self._kept_bytes += len(event)
        self._kept.append(event)

    def absorb(self, later: FragmentedDatagrams, frame_shift: int) -> None:
        """Append those of what came directly after, whose frame numbers are moved by so many."""
        for event in later._kept:
            kept = self._datagrams.take_event(event, frame_shift)
            if kept is not None:
                self._keep(kept)
        self._datagrams.absorb(later._datagrams, frame_shift)
        self.cut += later.cut

    def counts(self) -> dict[str, int]:
        """Return what became of them if nothing came before; the state stays as it is."""
        whole = FragmentedDatagrams(is_known=True)
        whole.absorb(self, 0)
        return fragment_counts(whole._datagrams, whole.cut)
