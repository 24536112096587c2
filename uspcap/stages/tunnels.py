"""Whether what tunnels carry is decoded: as asked, or as the frames of all inputs have it, before any is analyzed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np

from uspcap.formats import open_capture
from uspcap.formats.reader import NO_LIMIT
from uspcap.formats.waking import Wake
from uspcap.frames import Decision, FrameBatch
from uspcap.protocols.headers import Layer
from uspcap.stages.reading import PlannedInput, is_read_once

SAMPLE_BYTES: Final = 256 * 1024
"""Looked at in the middle and at the end of a file, about."""

SAMPLE_FRAMES: Final = 2000
"""Most frames looked at in one place."""

TUNNELS: Final = {
    Layer.ERSPAN: "ERSPAN",
    Layer.GTP: "GTP-U",
    Layer.GENEVE: "GENEVE",
    Layer.VXLAN: "VXLAN",
    Layer.GRE: "GRE",
    Layer.IP_IN_IP: "IP in IP",
}
"""What is decoded only where tunnels are; a frame in several is named after the first of these."""


MPLS: Final = 0x8847
MPLS_MULTICAST: Final = 0x8848


@dataclass(frozen=True, slots=True)
class TunnelChoice:
    """Whether tunnels are decoded.

    Attributes
    ----------
    tunnels : bool
    decisions : tuple of Decision
        Where uspcap decided that they are.
    notes : tuple of tuple of str
        Files in which they are met and not decoded, each with a sentence without a full stop.
    """

    tunnels: bool
    decisions: tuple[Decision, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def sentences(self) -> list[str]:
        """What is to be said of it, without a full stop."""
        said = [f"{decision.file}: {decision.why} (as {decision.option})" for decision in self.decisions]
        return said + [note for _, note in self.notes]


@dataclass(slots=True)
class _Met:
    """What was seen of one input."""

    frames: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    bytes_in_all: int = 0

    @property
    def majority(self) -> Fraction:
        """By how many frames, of all that there are, those in tunnels are more than the others."""
        looked_at = Fraction(2 * self.tunnelled - self.frames)
        is_part = 0 < self.bytes_read < self.bytes_in_all
        return looked_at * self.bytes_in_all / self.bytes_read if is_part else looked_at

    @property
    def tunnelled(self) -> int:
        return self.kinds.total()

    def __str__(self) -> str:
        kinds = " and ".join(kind for kind, _ in self.kinds.most_common())
        return f"{self.tunnelled:,} of {self.frames:,} frames checked are in {kinds}"


def choose_tunnels(
    *captures: Sequence[PlannedInput], asked: bool | None, looks_inside: bool, wake: Wake | None = None
) -> TunnelChoice:
    """Decide for captures, each of one input or several, alike whether tunnels are decoded.

    They are where they carry most of the frames of a capture, however these are split over files, and where a filter
    or rule applies to innermost packets. Frames are looked at at the beginning, in the middle and at the end of each
    input, and stand for those that are not; of one that cannot be sought in only at the beginning, and of one that can
    be read only once nowhere.

    Parameters
    ----------
    captures : sequence of PlannedInput
    asked : bool or None
        What `--tunnels` or `--no-tunnels` say.
    looks_inside : bool
        A filter or a rule applies to the innermost packet.
    wake : Wake, optional

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be opened.
    """
    if asked is not None:
        return TunnelChoice(asked)
    looked_at = [[(planned.path, _look(planned, wake)) for planned in inputs] for inputs in captures]
    met = [(path, found) for capture in looked_at for path, found in capture if found.tunnelled]
    most = [capture for capture in looked_at if sum(found.majority for _, found in capture) > 0]
    if most:
        return TunnelChoice(
            True,
            tuple(
                Decision(path, "--tunnels", str(found))
                for capture in most
                for path, found in capture
                if found.tunnelled
            ),
        )
    if looks_inside:
        why = "a filter or rule applies to the innermost packet, and"
        return TunnelChoice(True, tuple(Decision(path, "--tunnels", f"{why} {found}") for path, found in met))
    more = "their outer headers are used; --tunnels uses the innermost"
    return TunnelChoice(False, notes=tuple((path, f"{path}: {found}: {more}") for path, found in met))


def _look(planned: PlannedInput, wake: Wake | None) -> _Met:
    met = _Met()
    if is_read_once(planned.path):
        return met
    selection = planned.selection()
    for batch in _samples(planned, met, wake):
        selection.apply(batch)
        batch.decode_tunnels = True
        layers = batch.headers.column("layers")
        met.frames += batch.count
        # Labels alone are looked through anyway, and leave their EtherType; a frame behind them has its own.
        ethertype = batch.headers.column("ethertype")
        behind = ((layers & np.uint32(Layer.MPLS)) != 0) & (ethertype != MPLS) & (ethertype != MPLS_MULTICAST)
        met.kinds["MPLS pseudowires"] += int(np.count_nonzero(behind))
        layers = np.where(behind, np.uint32(0), layers)
        for layer, name in TUNNELS.items():
            inside = (layers & np.uint32(layer)) != 0
            met.kinds[name] += int(np.count_nonzero(inside))
            layers = np.where(inside, np.uint32(0), layers)
    met.kinds = +met.kinds
    return met


def _samples(planned: PlannedInput, met: _Met, wake: Wake | None) -> Iterator[FrameBatch]:
    """Yield batches from three places of an input, and note how much of it they are."""
    with planned.open(wake) as reader:
        seen = 0
        for batch in reader.batches():
            seen += batch.frames_read
            yield batch
            if seen >= SAMPLE_FRAMES:
                break
        if reader.ended or not reader.source.seekable_plain or reader.size is None:
            return
        read_to, begin = reader.position, planned.stretch.begin if planned.stretch is not None else 0
        end = min(reader.size, NO_LIMIT if planned.stretch is None else planned.stretch.end)
        met.bytes_read, met.bytes_in_all = read_to - begin, end - begin
    for offset in (begin + (end - begin) // 2, end - SAMPLE_BYTES):
        if offset < read_to:
            continue
        with open_capture(planned.path, wake, unit=planned.unit) as reader:
            if not reader.jump_near(offset):
                continue
            reader.stop_at = offset + SAMPLE_BYTES
            seen, start = 0, reader.position
            for batch in reader.batches():
                seen += batch.frames_read
                yield batch
                if seen >= SAMPLE_FRAMES:
                    break
            met.bytes_read += reader.position - start
