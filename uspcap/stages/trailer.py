"""Timestamps in frames, as a stage: which are taken is decided before, and loaded only where some are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from uspcap.errors import CaptureFileError
from uspcap.stages.beginning import beginning
from uspcap.stages.reading import is_read_once

if TYPE_CHECKING:
    from uspcap.timestamps.trailers import TrailerChoice, TrailerStage


def trailer_stage(choice: TrailerChoice | None) -> TrailerStage | None:
    """Return what takes timestamps out of the frames; None where none are asked for, or their format is not known."""
    if choice is None or choice.format is None:
        return None
    from uspcap.timestamps.trailers import TrailerStage

    return TrailerStage(choice.format, choice.anchors)


def resolved_trailer(choice: TrailerChoice, paths: Sequence[str]) -> TrailerChoice:
    """Return the choice with what the beginning of files says: the format where none is named, and ERSPAN's anchors.

    Where the first frames of all files together do not agree on a format, as lines of which one comes from a tap, the
    files decide of which the first frames do, if they agree with each other.

    Raises
    ------
    CaptureFileError, NotACaptureFile
        A file cannot be read, or frames do not agree on a format.
    """
    from uspcap.timestamps.trailers import (
        ANCHOR_FRAMES,
        FRAMES_LOOKED_AT,
        NAMED,
        TrailerChoice,
        anchors_of,
        detect,
        resolve,
    )

    if choice.format == NAMED["erspan"]:
        with closing(beginning(paths, ANCHOR_FRAMES)) as batches:
            return replace(choice, anchors=anchors_of(batches))
    if choice.format is not None:
        return choice
    try:
        with closing(beginning(paths, FRAMES_LOOKED_AT)) as batches:
            return resolve(choice, " and ".join(paths[:2]), batches)
    except CaptureFileError:
        agreed = []
        for path in paths if len(paths) > 1 and not any(map(is_read_once, paths)) else ():
            with closing(beginning([path], FRAMES_LOOKED_AT)) as batches:
                agreed.append(detect(batches))
        agreed = [detection for detection in agreed if detection.format is not None]
        if len({detection.format for detection in agreed}) != 1:
            raise
        best = max(agreed, key=lambda detection: (detection.evidence[0].share, detection.frames))
        return TrailerChoice(best.format, best)
