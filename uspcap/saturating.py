"""Arithmetic of times on arrays of int64, which wraps in numpy and says nothing: the counterpart of saturating.pxd.

What does not fit is taken as the nearest value that does, as the compiled loops do.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import EARLIEST_NS, LATEST_NS

Int64Array = NDArray[np.int64]

_LARGEST: Final = int(np.iinfo(np.int64).max)
_LOW_WORD: Final = 0xFFFF_FFFF
_FLOAT_END: Final = 2.0**63 - 1024
"""The largest float below 2^63."""


def difference_ns(later: Int64Array, earlier: Int64Array) -> Int64Array:
    """Return `later - earlier`; where that fits with neither sign, the nearest that does."""
    difference = np.subtract(later, earlier)
    overflow = ((later ^ earlier) & (later ^ difference)) < 0
    return np.maximum(np.where(overflow, np.where(later > earlier, _LARGEST, -_LARGEST), difference), -_LARGEST)


def added_ns(some: Int64Array, more: Int64Array) -> Int64Array:
    """Return `some + more`; where that fits with neither sign, the nearest that does."""
    total = np.add(some, more)
    overflow = ((some ^ total) & (more ^ total)) < 0
    return np.maximum(np.where(overflow, np.where(some > 0, _LARGEST, -_LARGEST), total), -_LARGEST)


def summed_ns(values: Int64Array) -> Int64Array:
    """Return the sums over the last axis of what is not negative, of less than 2^31 values each."""
    high, low = (values >> 32).sum(axis=-1), (values & _LOW_WORD).sum(axis=-1)
    high += low >> 32
    return np.where(high >> 31, _LARGEST, high << 32 | low & _LOW_WORD)


def exact_sum(values: Int64Array) -> int:
    """Return the sum of less than 2^31 values."""
    return (int((values >> 32).sum()) << 32) + int((values & _LOW_WORD).sum())


def clipped_ns(value: int) -> int:
    """Return the nearest to `value` of what fits an int64 with either sign."""
    return max(-_LARGEST, min(_LARGEST, value))


def clamped_ns(values: Int64Array) -> Int64Array:
    """Return timestamps clamped to `EARLIEST_NS` … `LATEST_NS`."""
    return np.clip(values, EARLIEST_NS, LATEST_NS)


def whole_ns(values: NDArray[np.float64]) -> Int64Array:
    """Return whole numbers as int64; of one that does not fit, the nearest float that does."""
    return np.clip(values, -_FLOAT_END, _FLOAT_END).astype(np.int64)


def median_ns(values: Int64Array) -> int:
    """Return the median to the ns, which a float of today's time does not hold; of two, their mean rounded down."""
    middle = len(values) // 2
    ordered = np.partition(values, (middle - 1, middle) if len(values) > 1 else middle)
    return int(ordered[middle]) if len(values) % 2 else (int(ordered[middle - 1]) + int(ordered[middle])) // 2
