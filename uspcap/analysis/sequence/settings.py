"""Whose sequence numbers are followed, apart from the analyses, which are loaded on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uspcap.protocols.feeds import FeedProtocol
    from uspcap.protocols.line_pairs import LinePair


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """Settings of `sequence` and `arbitration`.

    Attributes
    ----------
    protocol : FeedProtocol
    chosen_by : str
        How it was found, for the report.
    pairs : tuple of LinePair
        Lines that carry the same.
    """

    protocol: FeedProtocol
    chosen_by: str = "given"
    pairs: tuple[LinePair, ...] = ()
