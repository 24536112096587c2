"""The order of the runs of an experiment, and their warm-up and cool-down."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import UsageError


def schedule(runs: int, paths: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return which path each run takes: blocks of ABBA or BAAB, chosen at random.

    A block is the paths in random order, and then in the reverse of it, so that whatever drifts evenly over a block
    falls on all of them alike. The n-th run of one path and the n-th run of another lie in the same half of a block:
    they make a pair.

    Parameters
    ----------
    runs : int
        Of each path. Where it is odd, the last block is a half.
    paths : sequence of str
        At least two, all different.
    seed : int
        The same seed gives the same order, in every version of Python (random.Random.random is specified).

    Returns
    -------
    tuple of str, of length runs * len(paths)

    Raises
    ------
    UsageError
        There are no runs, or the paths are fewer than two or not different.
    """
    if runs < 1:
        raise UsageError(f"{runs} runs are too few: give at least one of each path")
    if len(paths) < 2 or len(set(paths)) != len(paths):
        raise UsageError(f"cannot compare {', '.join(paths) or 'no path'}: name two or more paths, each once")
    generator = random.Random(seed)
    order: list[str] = []
    for at in range(0, runs, 2):
        keys = [generator.random() for _ in paths]
        half = [path for _, path in sorted(zip(keys, paths, strict=True))]
        order += half
        if at + 1 < runs:
            order += reversed(half)
    return tuple(order)


@dataclass(frozen=True, slots=True)
class Trim:
    """What to leave out of a run; both conditions of an end must be over.

    Attributes
    ----------
    warm_up_ns, warm_up_frames : int
        At the start: frames within this time of the first, and this number of frames.
    cool_down_ns, cool_down_frames : int
        At the end: frames within this time of the last, and this number of frames.
    """

    warm_up_ns: int = 0
    warm_up_frames: int = 0
    cool_down_ns: int = 0
    cool_down_frames: int = 0

    def __post_init__(self) -> None:
        if min(self.warm_up_ns, self.warm_up_frames, self.cool_down_ns, self.cool_down_frames) < 0:
            raise UsageError("warm-up and cool-down are times and numbers of frames of 0 or more")


@dataclass(frozen=True, slots=True)
class Kept:
    """Which frames of a run count.

    Attributes
    ----------
    start, stop : int
        Frames start … stop - 1 count; those before are warm-up, those from stop on are cool-down.
    frames : int
        In the whole run.
    """

    start: int
    stop: int
    frames: int

    def as_slice(self) -> slice:
        """Return the slice of the run's columns with the frames that count."""
        return slice(self.start, self.stop)

    def as_dict(self) -> dict[str, int]:
        """Return the report's form."""
        return {"warm_up": self.start, "counted": self.stop - self.start, "cool_down": self.frames - self.stop}


def trim(sent_ns: NDArray[np.int64], settings: Trim) -> Kept:
    """Tell which frames of a run count.

    Parameters
    ----------
    sent_ns : ndarray of int64, shape (frames,)
        When each frame was to be sent, never falling: by that time, not by arrival, so that a frame is not left out
        for being late.
    settings : Trim

    Returns
    -------
    Kept
        Empty where the two ends meet.
    """
    frames = len(sent_ns)
    if not frames:
        return Kept(0, 0, 0)
    if np.any(np.diff(sent_ns) < 0):
        raise ValueError("intended send times must not fall")
    start = settings.warm_up_frames
    if settings.warm_up_ns:
        start = max(start, int(np.searchsorted(sent_ns, sent_ns[0] + settings.warm_up_ns, "left")))
    stop = frames - settings.cool_down_frames
    if settings.cool_down_ns:
        stop = min(stop, int(np.searchsorted(sent_ns, sent_ns[-1] - settings.cool_down_ns, "right")))
    start = min(start, frames)
    return Kept(start, max(start, stop), frames)
