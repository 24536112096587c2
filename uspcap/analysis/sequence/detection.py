"""Which feed protocol a capture holds: each is tried on its beginning, and the most plausible numbers win."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np

from uspcap.analysis.sequence.analysis import Sequence as SequenceAnalysis
from uspcap.analysis.sequence.gaps import MOST_DROPPED
from uspcap.analysis.sequence.settings import SequenceSettings
from uspcap.analysis.sequence.streams import sequence_of
from uspcap.bpf.filters import filter_of_files
from uspcap.errors import UsageError
from uspcap.protocols.feeds import FeedProtocol, find_protocol, protocols
from uspcap.stages.beginning import beginning

UDP, TCP = 17, 6

LOOKED_AT: Final = 20_000
"""Frames of the beginning."""

FEWEST_PACKETS: Final = 10
"""Of a stream, before what its numbers do says anything."""

IN_ORDER: Final = 0.9
"""Part of a stream's packets that must follow the one before."""

ENOUGH: Final = 0.5
"""Part of the UDP packets that a protocol must explain to be proposed."""


ENOUGH_OVER_TCP: Final = 0.25
"""As many messages as this part of the TCP segments with payload; mostly only one direction is numbered."""

DETECTED_OVER_TCP: Final = ("fix", "soupbintcp")


@dataclass(frozen=True, slots=True)
class Candidate:
    """How well a protocol fits.

    Attributes
    ----------
    protocol : FeedProtocol
    explained : int
        Packets, or messages in TCP streams, of streams whose numbers follow each other.
    packets : int
        UDP packets or TCP segments with payload, as the protocol is carried, that were looked at.
    on_ports : int
        Of these, those from or to a port that is typical of the protocol.
    score : float
        The explained packets, those of each stream times the part of its numbers that came of all that it should have
        brought.
    numbers, missing : int
        Of all streams that are not refused: numbers that came, and numbers that did not, without the few plausible gaps
        of streams that are in order.
    """

    protocol: FeedProtocol
    explained: int
    packets: int
    on_ports: int
    score: float
    numbers: int
    missing: int

    @property
    def share(self) -> float:
        return self.explained / self.packets if self.packets else 0.0

    @property
    def is_plausible(self) -> bool:
        """It does not lose more than it sees."""
        return self.missing <= self.numbers

    @property
    def is_enough(self) -> bool:
        return self.is_plausible and self.share >= (ENOUGH if self.protocol.over == "udp" else ENOUGH_OVER_TCP)

    def evidence(self) -> str:
        """Return how sure it is, for the report."""
        if self.protocol.over == "tcp":
            found = f"{self.explained:,} numbered messages and heartbeats"
            return f"auto: {found} in the first {self.packets:,} TCP segments with payload"
        said = f"auto: explains {100 * self.share:.3g} % of the first {self.packets:,} UDP packets"
        return said + (f", {self.on_ports:,} of them on its ports" if self.on_ports else "")


def candidates(paths: Sequence[str], expression: str, *, unverified: bool) -> list[Candidate]:
    """Try every protocol on the beginning of files, whichever of them has it.

    Feeds over UDP come first, those that lose more than they see last, and before the others the one whose numbers are
    most plausible, of those alike the one whose ports are used, and then the one that asks most of a packet; then what
    TCP carries.

    Raises
    ------
    CaptureFileError, NotACaptureFile, FilterError
        The file cannot be read, or the filter does not compile.
    """
    tried = [
        find_protocol(one.name, unverified=unverified)
        for one in (find_protocol(name, unverified=True) for name in protocols())
        if (one.framing == "udp" or one.name in DETECTED_OVER_TCP) and (unverified or one.verified)
    ]
    analyses = [sequence_of(protocol) for protocol in tried]
    keep = filter_of_files(expression)
    packets = {"udp": 0, "tcp": 0}
    on_ports = np.zeros(len(tried), np.int64)
    with closing(beginning(paths, LOOKED_AT)) as batches:
        for batch in batches:
            # As it is for the run where tunnels carry most frames: here it is about half of the packets, too.
            batch.decode_tunnels = True
            keep.apply(batch)
            headers = batch.headers
            carried = headers.column("payload_length") > 0
            is_udp = (headers.column("protocol") == UDP) & carried
            packets["udp"] += int(is_udp.sum())
            packets["tcp"] += int(((headers.column("protocol") == TCP) & carried).sum())
            for at, protocol in enumerate(tried):
                if protocol.ports:
                    is_on = np.isin(headers.column("source_port"), protocol.ports)
                    is_on |= np.isin(headers.column("destination_port"), protocol.ports)
                    on_ports[at] += int((is_udp & is_on).sum())
            for analysis in analyses:
                analysis.update(batch)
    found = [_candidate(one, packets[one.protocol.over], int(on)) for one, on in zip(analyses, on_ports, strict=True)]
    return sorted(found, key=_order)


def _order(one: Candidate) -> tuple[bool, bool, float, int, int]:
    return one.protocol.over != "udp", not one.is_plausible, -one.score, -one.on_ports, -one.protocol.conditions


def _candidate(analysis: SequenceAnalysis, packets: int, on_ports: int) -> Candidate:
    """Count the packets of streams with plausible numbers, and the numbers that these skip."""
    explained = numbers = missing = 0
    score = 0.0
    for stream in analysis.result().streams:
        of_stream, came = stream.packets, stream.messages
        absent = stream.lost + stream.undetermined
        disturbed = stream.gap_count + stream.resets + stream.duplicate + stream.before_joined
        disturbed += stream.implausible + stream.unconfirmed
        in_order = disturbed <= (1 - IN_ORDER) * of_stream
        numbers += came
        if not in_order or absent > MOST_DROPPED * stream.gap_count:
            missing += absent
        if of_stream >= FEWEST_PACKETS and in_order and came >= of_stream:
            explained += of_stream + stream.heartbeats
            score += (of_stream + stream.heartbeats) * (came / (came + absent))
    return Candidate(analysis.protocol, explained, packets, on_ports, score, numbers, missing)


def detect(paths: Sequence[str], expression: str, *, unverified: bool) -> SequenceSettings:
    """Return the protocol that explains most of the beginning of files, and how sure that is.

    Raises
    ------
    UsageError
        None explains enough of it.
    """
    found = candidates(paths, expression, unverified=unverified)
    best = next((candidate for candidate in found if candidate.is_enough), None)
    if best is None:
        nearest = found[0]
        said = f" (the best is {nearest.protocol.name} with {100 * nearest.share:.3g} %)" if nearest.explained else ""
        raise UsageError(
            f"{' and '.join(paths[:2])}: no known protocol explains half of the first {nearest.packets:,} UDP "
            f"packets{said}, and there is no FIX or SoupBinTCP over TCP: name a protocol with --protocol, or give the "
            "position of the numbers with --sequence"
        )
    alike = [
        one.protocol.name
        for one in found
        if one is not best and one.protocol.over == best.protocol.over and one.score == best.score and one.is_plausible
    ]
    also = f", as {' and '.join(alike)} would" if alike else ""
    return SequenceSettings(best.protocol, best.evidence() + also)
