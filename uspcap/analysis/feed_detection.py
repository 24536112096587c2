"""Which feed protocol a capture holds: each is tried on its beginning, and what follows its numbers is counted."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np

from uspcap.analysis.sequence import Sequence
from uspcap.analysis.sequence_settings import SequenceSettings
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import UsageError
from uspcap.formats import open_capture
from uspcap.protocols.feeds import FeedProtocol, find_protocol, protocols

LOOKED_AT: Final = 20_000
"""Frames of the first file."""

FEWEST_PACKETS: Final = 10
"""Of a stream, before what its numbers do says anything."""

IN_ORDER: Final = 0.9
"""Part of a stream's packets that must follow the one before."""

ENOUGH: Final = 0.5
"""Part of the UDP packets that a protocol must explain to be proposed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """How well a protocol fits.

    Attributes
    ----------
    protocol : FeedProtocol
    explained : int
        Packets of streams whose numbers follow each other.
    packets : int
        UDP packets that were looked at.
    on_ports : int
        Of these, those from or to a port that is typical of the protocol.
    """

    protocol: FeedProtocol
    explained: int
    packets: int
    on_ports: int

    @property
    def share(self) -> float:
        return self.explained / self.packets if self.packets else 0.0


def candidates(path: str, expression: str, *, unverified: bool) -> list[Candidate]:
    """Try every protocol on the beginning of a file; the best comes first, of those alike the one whose ports are used.

    Raises
    ------
    CaptureFileError, NotACaptureFile, FilterError
        The file cannot be read, or the filter does not compile.
    """
    tried = [
        find_protocol(one.name, unverified=unverified)
        for one in (find_protocol(name, unverified=True) for name in protocols())
        if one.framing == "udp" and (unverified or one.verified)
    ]
    analyses = [Sequence(protocol) for protocol in tried]
    keep = FrameFilter(expression)
    packets = 0
    on_ports = np.zeros(len(tried), np.int64)
    with closing(open_capture(path)) as reader:
        for batch in reader.batches():
            keep.apply(batch)
            headers = batch.headers
            is_udp = (headers.column("protocol") == 17) & (headers.column("payload_length") > 0)
            packets += int(is_udp.sum())
            for at, protocol in enumerate(tried):
                if protocol.ports:
                    is_on = np.isin(headers.column("source_port"), protocol.ports)
                    is_on |= np.isin(headers.column("destination_port"), protocol.ports)
                    on_ports[at] += int((is_udp & is_on).sum())
            for analysis in analyses:
                analysis.update(batch)
            if batch.frames_before + batch.frames_read >= LOOKED_AT:
                break
    found = [
        Candidate(one.protocol, _explained(one), packets, int(on)) for one, on in zip(analyses, on_ports, strict=True)
    ]
    return sorted(found, key=lambda one: (-one.explained, -one.on_ports))


def _explained(analysis: Sequence) -> int:
    """Return the packets of streams whose numbers do what numbers do."""
    explained = 0
    for stream in analysis.result()["streams"]:
        packets = stream["packets"]
        disturbed = stream["gap_count"] + stream["resets"] + stream["duplicate"] + stream["before_joined"]
        if packets >= FEWEST_PACKETS and disturbed <= (1 - IN_ORDER) * packets and stream["messages"] >= packets:
            explained += packets + stream["heartbeats"]
    return explained


def detect(path: str, expression: str, *, unverified: bool) -> SequenceSettings:
    """Return the protocol that explains most of a file's beginning, and how sure that is.

    Raises
    ------
    UsageError
        None explains half of it.
    """
    best, *others = candidates(path, expression, unverified=unverified)
    if not best.packets:
        raise UsageError(
            f"{path}: no UDP among its first {LOOKED_AT:,} frames, and only feeds over UDP are told: name what TCP "
            "carries with --protocol, as fix, soupbintcp or tcp"
        )
    if best.share < ENOUGH:
        nearest = f" (the best is {best.protocol.name} with {100 * best.share:.3g} %)" if best.explained else ""
        raise UsageError(
            f"{path}: no known protocol explains half of its first {best.packets:,} UDP packets{nearest}: name one "
            "with --protocol, or say where numbers lie with --sequence"
        )
    alike = [one.protocol.name for one in others if one.explained == best.explained]
    said = f"auto: explains {100 * best.share:.3g} % of the first {best.packets:,} UDP packets"
    if best.on_ports:
        said += f", {best.on_ports:,} of them on its ports"
    if alike:
        said += f", as {' and '.join(alike)} would"
    return SequenceSettings(best.protocol, said)
