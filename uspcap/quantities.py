"""Quantities as people write them, with their units: lengths of time, bit rates, whole numbers.

Each function takes text and returns a number, or raises ValueError with a sentence that says what to write instead.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

from uspcap.frames import LATEST_NS

NUMBER: Final = r"[0-9]{1,40}(?:\.[0-9]{1,40})?"
"""Python itself refuses to read a number of thousands of digits."""

_DURATION_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

_RATE_BPS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

_LONGEST_NS: Final = LATEST_NS
"""A time and any length of time fit 64 bits together."""


def duration_ns(text: str) -> int:
    """Return a length of time such as `250us` or `1.5ms` in ns; a bare number is refused, as nobody agrees on its unit.

    Raises
    ------
    ValueError
    """
    match = re.fullmatch(rf"\s*({NUMBER})\s*(ns|us|µs|ms|s|m|h)\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and ns, us, ms, s, m or h, as in 250us")
    nanoseconds = Fraction(match[1]) * _DURATION_NS[match[2]]
    if nanoseconds.denominator != 1 or nanoseconds > _LONGEST_NS:
        raise ValueError(f"{text!r} is not a whole number of nanoseconds up to 146 years; write another, as 250us")
    return int(nanoseconds)


def bit_rate(text: str) -> int:
    """Return a bit rate such as `10G` or `2.5Gbit` in bits a second; `B` is refused, because bytes are not bits.

    Raises
    ------
    ValueError
    """
    match = re.fullmatch(rf"\s*({NUMBER})\s*([kmgtKMGT]?)(?:[bB]it/s|[bB]its?|b/s|bps)?\s*", text)
    rate = int(Fraction(match[1]) * _RATE_BPS[match[2].lower()]) if match else 0
    if rate <= 0:
        raise ValueError(f"{text!r} is not a bit rate; write a number and k, M, G or T, as in 10G")
    return rate


def whole_number(text: str, least: int, most: int | None = None) -> int:
    """Return a whole number within bounds.

    Raises
    ------
    ValueError
    """
    number = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,40}\s*", text) else None
    if number is None or number < least or (most is not None and number > most):
        raise ValueError(f"{text!r} is not a whole number {within(least, most)}; write one, as {least or 1}")
    return number


def number(text: str, least: float) -> float:
    """Return a finite number such as `0.5`, not below a bound.

    Raises
    ------
    ValueError
    """
    value = float(text) if re.fullmatch(rf"\s*{NUMBER}(?:[eE][+-]?[0-9]{{1,3}})?\s*", text) else math.nan
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{text!r} is not a number {within(least, None)}")
    return value


def within(low: float | None, high: float | None) -> str:
    """Return bounds as a sentence has them."""
    if high is None:
        return f"of {low:,} or more"
    return f"from {low:,} to {high:,}"
