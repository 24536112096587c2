"""Timestamps that a tap or a switch put into frames: the formats, their detection, and their use.

A trailer is looked for between the end of what a frame's headers claim and the end of the frame, and its time must be
within 7 or 30 days of the file's: see `uspcap.timestamps.trailer_decoding` for the layouts and their sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from uspcap.errors import CaptureFileError, UsageError
from uspcap.frames import FrameBatch
from uspcap.saturating import difference_ns
from uspcap.timestamps.trailer_decoding import TrailerFormat, TrailerRows, TrailerStatus

FORMATS: Final = {kind.name.lower(): kind for kind in TrailerFormat if kind is not TrailerFormat.ERSPAN}
"""Formats of timestamps that are put into frames and taken out of them, by the names that options take."""

NAMED: Final = {**FORMATS, "erspan": TrailerFormat.ERSPAN}
"""All formats by the names that options take: ERSPAN's timestamp stands in what carries the frame, and stays there."""

DETECTABLE: Final = (TrailerFormat.METAMAKO, TrailerFormat.EXABLAZE, TrailerFormat.EXPCAP, TrailerFormat.ARISTA)
"""Formats that are found without being named; VSS is not, as too much else looks like it."""

FRAMES_LOOKED_AT: Final = 1000
"""Frames at the beginning of the first file in which a format is detected."""

FEWEST_FRAMES: Final = 10
"""With fewer frames that could hold a timestamp nothing is detected."""

NEARLY_ALL: Final = 0.95
"""Share of the frames that could hold a timestamp of a format and do."""

HARDLY_ANY: Final = 0.05
"""Share that another format may have at most, and steps backward within a port too."""

ANCHOR_FRAMES: Final = 20_000
"""Frames at the beginning of the first file in which ERSPAN's sessions are looked for."""

MOST_SESSIONS: Final = 64

_NOT_COUNTED = (
    TrailerStatus.CUT,
    TrailerStatus.UNKNOWN_LENGTH,
    TrailerStatus.NO_FILE_TIMESTAMP,
    TrailerStatus.OTHER_LINK,
    TrailerStatus.PADDING,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well one format explains the first frames.

    Attributes
    ----------
    format : TrailerFormat
    possible : int
        Frames that could hold a timestamp of it: captured to where it would be, of a length that is known.
    found : int
        Those that do.
    backward : int
        Timestamps found that are earlier than the one before of the same device and port.
    """

    format: TrailerFormat
    possible: int
    found: int
    backward: int

    @property
    def share(self) -> float:
        """Share of the possible frames that hold a timestamp; 0 where there are none."""
        return self.found / self.possible if self.possible else 0.0

    def __str__(self) -> str:
        return f"{self.format.name.lower()} {self.found} of {self.possible}"


@dataclass(frozen=True, slots=True)
class Detection:
    """What the first frames of a capture were found to hold.

    Attributes
    ----------
    frames : int
        Frames looked at.
    evidence : tuple of Evidence
        Of each format that can be detected, the likeliest first.
    """

    frames: int
    evidence: tuple[Evidence, ...]

    @property
    def format(self) -> TrailerFormat | None:
        """The format that nearly all frames agree on and no other has much of; None where there is none."""
        best, second = self.evidence[:2]
        agreed = (
            best.possible >= FEWEST_FRAMES
            and best.share >= NEARLY_ALL
            and best.backward <= HARDLY_ANY * best.found
            and second.share <= HARDLY_ANY
        )
        return best.format if agreed else None


@dataclass(frozen=True, slots=True)
class TrailerChoice:
    """Which timestamps are asked for.

    Attributes
    ----------
    format : TrailerFormat or None
        None has it detected in the first frames.
    detection : Detection or None
        What it was detected from; None where it was named.
    anchors : tuple of tuple of int
        Of ERSPAN: sessions, and the time of the tick 0 of each.
    """

    format: TrailerFormat | None
    detection: Detection | None = None
    anchors: tuple[tuple[int, int], ...] = ()


def parse_choice(text: str, others: Sequence[str] = ("file",)) -> TrailerChoice:
    """Return the choice that `trailer` or `trailer:FORMAT` says.

    Parameters
    ----------
    others : sequence of str
        What else may be written, for the message.

    Raises
    ------
    UsageError
        It says something else.
    """
    what, colon, name = text.partition(":")
    if what != "trailer" or (colon and name not in NAMED):
        raise UsageError(
            f"{text!r} is not a timestamp source; write {', '.join(others)}, trailer or trailer:FORMAT, of "
            f"{', '.join(NAMED)}"
        )
    return TrailerChoice(NAMED[name] if colon else None)


def detect(batches: Iterable[FrameBatch]) -> Detection:
    """Tell the format from the first `FRAMES_LOOKED_AT` frames; the batches are left as they are."""
    frames = 0
    possible = dict.fromkeys(DETECTABLE, 0)
    timestamps: dict[TrailerFormat, list[np.ndarray]] = {kind: [] for kind in DETECTABLE}
    for batch in batches:
        taken = min(batch.count, FRAMES_LOOKED_AT - frames)
        rows = TrailerRows(max(batch.count, 1))
        for kind in DETECTABLE:
            rows.look(batch, batch.headers, kind)
            status = rows.column("status")[:taken]
            possible[kind] += taken - int(np.isin(status, _NOT_COUNTED).sum())
            found = np.flatnonzero(status == TrailerStatus.FOUND)
            pairs = (rows.column("key")[found].astype(np.int64), rows.column("trailer_ns")[found])
            timestamps[kind].append(np.stack(pairs))
        frames += taken
        if frames == FRAMES_LOOKED_AT:
            break
    evidence = []
    for kind in DETECTABLE:
        keys, times = np.concatenate(timestamps[kind], axis=1) if timestamps[kind] else np.empty((2, 0), np.int64)
        order = np.argsort(keys, kind="stable")
        backward = (np.diff(keys[order]) == 0) & (np.diff(times[order]) < 0)
        evidence.append(Evidence(kind, possible[kind], len(keys), int(backward.sum())))
    return Detection(frames, tuple(sorted(evidence, key=lambda kind: -kind.share)))


def resolve(choice: TrailerChoice, file: str, batches: Iterable[FrameBatch]) -> TrailerChoice:
    """Return the choice with its format known.

    Parameters
    ----------
    file : str
        For the message.
    batches : iterable of FrameBatch
        Of the beginning of the first file; not touched where the format is named.

    Raises
    ------
    CaptureFileError
        The frames do not agree on one.
    """
    if choice.format is not None:
        return choice
    detection = detect(batches)
    if detection.format is None:
        evidence = ", ".join(map(str, detection.evidence))
        raise CaptureFileError(
            f"{file}: the first {detection.frames} frames do not agree on one format of timestamp trailers ({evidence} "
            "frames that could hold one); name it, as in --timestamps trailer:metamako, or leave the option out"
        )
    return TrailerChoice(detection.format, detection)


def anchors_of(batches: Iterable[FrameBatch]) -> tuple[tuple[int, int], ...]:
    """Return ERSPAN's sessions in the first frames, with the time of tick 0 by which the first frame has the file's.

    Of a session that begins later nothing is known, as of those beyond `MOST_SESSIONS`.
    """
    anchors: dict[int, int] = {}
    for batch in batches:
        rows = TrailerRows(max(batch.count, 1))
        batch.decode_tunnels = False
        rows.look(batch, batch.headers, TrailerFormat.ERSPAN)
        ticking = (rows.column("status") == TrailerStatus.FOUND) & (rows.column("session") != 0)
        sessions, first = np.unique(rows.column("session")[ticking], return_index=True)
        begins = difference_ns(rows.column("file_ns")[ticking], rows.column("trailer_ns")[ticking])
        for session, at in zip(sessions.tolist(), first.tolist(), strict=True):
            if len(anchors) < MOST_SESSIONS:
                anchors.setdefault(session, int(begins[at]))
        if batch.frames_before + batch.frames_read >= ANCHOR_FRAMES:
            break
    return tuple(anchors.items())


class TrailerStage:
    """Takes timestamps out of the frames of one stream and makes them the frames' own.

    Parameters
    ----------
    kind : TrailerFormat
    anchors : tuple of tuple of int
        As of `TrailerChoice`.
    """

    def __init__(self, kind: TrailerFormat, anchors: tuple[tuple[int, int], ...] = ()) -> None:
        self._kind = kind
        self._sessions = np.array([session for session, _ in anchors], np.uint64)
        self._anchors = np.array([begin for _, begin in anchors], np.int64)
        self._rows = TrailerRows(1)

    def apply(self, batch: FrameBatch) -> None:
        """Change timestamps, their source and lengths of frames that hold one; count them in `batch.trailers`.

        Records that exact-capture fills its blocks up with are no frames and are taken out; they stay counted as read.
        """
        if self._rows.capacity < batch.capacity:
            self._rows = TrailerRows(batch.capacity)
        rows = self._rows
        # What comes behind the innermost payload is for the outer headers to say.
        batch.decode_tunnels = False
        batch.refilled()
        rows.look(batch, batch.headers, self._kind, self._sessions, self._anchors)
        rows.strip(batch)
        if self._kind == TrailerFormat.EXPCAP:
            batch.select(rows.column("status") != TrailerStatus.PADDING)
        batch.refilled()
        batch.trailers = rows
