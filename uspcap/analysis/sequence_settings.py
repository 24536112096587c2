"""Whose sequence numbers are followed, apart from the analyses, which are loaded on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.protocols.feeds import FeedProtocol
    from uspcap.protocols.line_pairs import LinePair


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """What `sequence` and `arbitration` are asked for.

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

    def sequence(self, maximum_streams: int) -> Analysis:
        """Return the analysis `sequence`, which follows a sample of more streams than that."""
        from uspcap.analysis.stream_sequence import sequence_of

        return sequence_of(self.protocol, maximum_streams=maximum_streams, chosen_by=self.chosen_by)

    def arbitration(self) -> Analysis:
        """Return the analysis `arbitration`.

        Raises
        ------
        UsageError
            There are no pairs of lines.
        """
        from uspcap.analysis.arbitration import Arbitration

        if not self.pairs:
            raise UsageError(
                "arbitration needs to know which lines carry the same: give "
                "--pair A=239.1.1.1:30001,B=239.1.1.2:30001, or a file.toml of such pairs"
            )
        return Arbitration(self.protocol, self.pairs)
