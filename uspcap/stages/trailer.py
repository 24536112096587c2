"""Stamps in frames, as a stage: which are taken is decided before, and loaded only where some are."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from uspcap.formats import open_capture

if TYPE_CHECKING:
    from uspcap.timestamps.trailers import TrailerChoice, TrailerStage


def trailer_stage(choice: TrailerChoice | None) -> TrailerStage | None:
    """Return what takes stamps out of the frames; None where none are asked for, or their format is not known."""
    if choice is None or choice.format is None:
        return None
    from uspcap.timestamps.trailers import TrailerStage

    return TrailerStage(choice.format, choice.anchors)


def resolved_trailer(choice: TrailerChoice, path: str) -> TrailerChoice:
    """Return the choice with what the beginning of a file says: the format where none is named, and ERSPAN's anchors.

    Raises
    ------
    CaptureFileError, NotACaptureFile
        The file cannot be read, or its frames do not agree on a format.
    """
    from uspcap.timestamps.trailers import NAMED, anchors_of, resolve

    if choice.format == NAMED["erspan"]:
        with closing(open_capture(path)) as reader:
            return replace(choice, anchors=anchors_of(reader.batches()))
    if choice.format is not None:
        return choice
    with closing(open_capture(path)) as reader:
        return resolve(choice, path, reader.batches())
