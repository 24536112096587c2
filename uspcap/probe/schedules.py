"""When probes are due: at a constant rate, at random as Poisson has it, or as the frames of a capture came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats import open_capture
from uspcap.frames import NANOSECONDS, TimestampSource
from uspcap.probe.send_times import SendTimes

Kind = Literal["constant", "poisson"]

_HIGHEST_RATE = 10**9


@dataclass(frozen=True, slots=True)
class Schedule:
    """When probes are due, and how to say so.

    Attributes
    ----------
    times : SendTimes
    about : dict
        The report's form.
    """

    times: SendTimes
    about: dict[str, Any]


def at_rate(rate: Fraction, kind: Kind, seed: int) -> Schedule:
    """Return an endless schedule.

    Parameters
    ----------
    rate : Fraction
        Frames a second, on average; one in 100 days to a thousand million.
    kind : str
    seed : int
        Of the gaps of `poisson`, below 2^64.

    Raises
    ------
    UsageError
        The rate or the seed is out of range.
    """
    if not Fraction(1, 100 * 86_400) <= rate <= _HIGHEST_RATE:
        raise UsageError(f"cannot send {rate} frames per second: give a rate from one in 100 days to {_HIGHEST_RATE:,}")
    if not 0 <= seed < 1 << 64:
        raise UsageError("a seed is a whole number below 2^64")
    period = NANOSECONDS / rate
    if max(period.numerator, period.denominator) >> 62:
        raise UsageError("the rate has too many decimals: use fewer")
    times = SendTimes(kind, period_numerator=period.numerator, period_denominator=period.denominator, seed=seed)
    about: dict[str, Any] = {"kind": kind, "rate_per_s": float(rate)}
    return Schedule(times, about | ({"seed": seed} if kind == "poisson" else {}))


def like(paths: Sequence[str]) -> Schedule:
    """Return the timing of capture files, one after the other: each frame as long after the first as in the file.

    Frames without a timestamp are left out. A frame with an earlier timestamp than one before it is due at once. Eight
    bytes a frame are held in memory.

    Raises
    ------
    CaptureFileError
        A file cannot be read, or there is no frame with a timestamp in them.
    """
    parts = []
    without = 0
    for path in paths:
        with open_capture(path) as reader:
            for batch in reader.batches():
                timestamped = batch.timestamp_source != TimestampSource.NONE
                parts.append(batch.timestamp_ns[timestamped])
                without += batch.count - len(parts[-1])
            problems = reader.facts.all_problems(path)
        if problems:
            raise CaptureFileError(
                f"{path}: {problems[0].place}: {problems[0].what}; repair or truncate the file first"
            )
    timestamps = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if not len(timestamps):
        raise CaptureFileError(f"there is no frame with a timestamp in {', '.join(paths)}: choose another file")
    due = np.maximum.accumulate(timestamps)
    backwards = int(np.count_nonzero(due != timestamps))
    times = due - due[0]
    about = {
        "kind": "like",
        "files": list(paths),
        "frames": len(times),
        "without_timestamp": without,
        "backwards": backwards,
    }
    return Schedule(SendTimes("list", times_ns=times), about)
