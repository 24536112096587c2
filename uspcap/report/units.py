"""Units of a table's columns, and how people read them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final

from uspcap.report.format import (
    bit_rate,
    byte_count,
    count,
    duration,
    exact_duration,
    packet_rate,
    ratio,
    share,
    timestamp,
)

PERCENTILE_DIGITS: Final = 3
"""Significant figures that the histograms hold; more would be made up."""


def _share(value: float | tuple[float, float] | None) -> str:
    return share(*value) if isinstance(value, tuple) else share(value)


class Unit(Enum):
    """The unit of a value, empty for a plain number, and how it is written for people.

    Values are None where there is none, or text where there is something else to say than a value.
    """

    TEXT = "", str
    COUNT = "", count
    BYTES = "bytes", byte_count
    DURATION = "ns", duration
    EXACT_DURATION = "ns", exact_duration
    PERCENTILE = "ns", partial(duration, digits=PERCENTILE_DIGITS)
    INSTANT = "ns since 1970, UTC", timestamp
    BIT_RATE = "bits/s", bit_rate
    PACKET_RATE = "packets/s", packet_rate
    RATIO = "", ratio
    SHARE = "", _share
    """A number up to 1, or a part and the whole."""

    def __init__(self, symbol: str, form: Callable[[Any], str]) -> None:
        self.symbol = symbol
        self._form = form

    def text(self, value: Any) -> str:
        """Return a value as people read it: `250 µs`."""
        return value if isinstance(value, str) else self._form(value)
