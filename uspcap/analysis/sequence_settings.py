"""Whose sequence numbers are followed, apart from the analysis, which is loaded on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uspcap.protocols.feeds import FeedProtocol


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """What `sequence` is asked for.

    Attributes
    ----------
    protocol : FeedProtocol
    chosen_by : str
        How it was found, for the report.
    """

    protocol: FeedProtocol
    chosen_by: str = "given"
