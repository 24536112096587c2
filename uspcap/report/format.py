"""Numbers, times and foreign text as people read them.

Everything returned is one line without control characters. Units are chosen by value and rounding never
shows a number that its unit cannot hold (999,999 ns is `1.000 ms`, not `1000 µs`).
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction

from uspcap.foreign_text import encodable as encodable
from uspcap.foreign_text import safe_text as safe_text

SIGNIFICANT_DIGITS = 4

MISSING = "-"
"""Shown where there is no value."""

_DURATION_UNITS = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND, _LAST_SECOND = (
    int((datetime(year, month, day, tzinfo=UTC) - _EPOCH).total_seconds())
    for year, month, day in ((1000, 1, 1), (9999, 12, 31))
)


def count(value: int | None) -> str:
    """Return an exact whole number with thousands separators."""
    return MISSING if value is None else f"{value:,}"


def duration(nanoseconds: int | None, digits: int = SIGNIFICANT_DIGITS) -> str:
    """Return a time span in the unit that suits it.

    Whole ns below 1 µs are exact; from 1,000 s on the span is written as two of days, hours, minutes and
    seconds, from 100 days on as days.

    Parameters
    ----------
    nanoseconds : int or None
    digits : int
        Significant digits between the two, at least 3.
    """
    if nanoseconds is None:
        return MISSING
    sign, size = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    if size < 1_000:
        return f"{nanoseconds} ns"
    for unit_ns, unit in _DURATION_UNITS[1:]:
        text = _significant(Fraction(size, unit_ns), digits)
        if text is not None:
            return f"{sign}{text} {unit}"
    return sign + _long_duration(Fraction(size, _SECOND))


def _long_duration(seconds: Fraction) -> str:
    """Return a span of 1,000 s and more."""
    for size, unit, part, part_unit in ((60, "min", 1, "s"), (3_600, "h", 60, "min"), (86_400, "d", 3_600, "h")):
        wholes, parts = divmod(round(seconds / part), size // part)
        if wholes * size < 86_400 and not (unit == "min" and wholes >= 60):
            return f"{wholes} {unit} {parts} {part_unit}"
    return f"{wholes} d {parts} h" if wholes < 100 else f"{round(seconds / 86_400):,} d"


def exact_duration(nanoseconds: int | None) -> str:
    """Return a span without rounding, in the largest unit that holds it as a whole number: `10 µs`."""
    if nanoseconds is None:
        return MISSING
    unit_ns, unit = next(
        ((size, name) for size, name in reversed(_DURATION_UNITS) if nanoseconds and nanoseconds % size == 0), (1, "ns")
    )
    return f"{nanoseconds // unit_ns:,} {unit}"


def scaled(value: float | None, unit: str, digits: int = SIGNIFICANT_DIGITS) -> str:
    """Return a quantity with a decimal prefix: `1.234 Gbit/s`, `52.10 kB`.

    Whole numbers below 1,000 are exact; others have so many significant digits, at least 3.
    """
    if value is None:
        return MISSING
    sign, size = ("-" if value < 0 else ""), abs(Fraction(value))
    if size < 1_000 and size.denominator == 1:
        return f"{sign}{int(size)} {unit}"
    if size < Fraction(1, 2):
        return f"{sign}{float(size):.{digits}g} {unit}"
    for power, prefix in enumerate(_PREFIXES):
        text = _significant(size / 1_000**power, digits)
        if text is not None:
            return f"{sign}{text} {prefix}{unit}"
    return f"{sign}{round(size / 1_000**6):,} {_PREFIXES[-1]}{unit}"


def byte_count(value: int | None) -> str:
    """Return a number of bytes with a decimal prefix (1 kB is 1,000 bytes)."""
    return scaled(value, "B")


def bit_rate(bits_per_second: float | None) -> str:
    """Return bits a second with a decimal prefix."""
    return scaled(bits_per_second, "bit/s")


def packet_rate(packets_per_second: float | None) -> str:
    """Return packets a second with a decimal prefix."""
    return scaled(packets_per_second, "packets/s")


def ratio(value: float | None) -> str:
    """Return how many times one thing is another, to three significant digits: `12.3×`, `4.56 k×`."""
    if value is None:
        return MISSING
    return f"{value:.3g}×" if value < 999.5 else scaled(value, "×", 3)


def share(part: float | None, whole: float = 1) -> str:
    """Return `part` of `whole` in per cent.

    What is more than nothing never reads as 0, and what is less than everything never as 100.
    """
    if part is None or not whole:
        return MISSING
    if part == 0:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "<0.1 %"
    if percent < 100 and f"{percent:.1f}" == "100.0":
        return ">99.9 %"
    return f"{percent:,.1f} %"


_ZONE: ContextVar[tzinfo] = ContextVar("zone", default=UTC)


def show_times_in(zone: tzinfo) -> None:
    """Have text show times in a zone from now on; UTC otherwise."""
    _ZONE.set(zone)


def timestamp(nanoseconds: int | None) -> str:
    """Return an instant in ISO 8601 with all nine decimals and its zone: `2026-11-23T09:30:00.000000001Z`.

    The zone is that of `show_times_in`. An instant outside of the years 1000 to 9999, which no frame has, stays a
    number.
    """
    if nanoseconds is None:
        return MISSING
    date, time, zone = _shown(nanoseconds)
    return f"{date}T{time}{zone}" if date else time


def clock(nanoseconds: int | None) -> str:
    """Return the time of day of an instant, as `timestamp` without the date."""
    if nanoseconds is None:
        return MISSING
    _, time, zone = _shown(nanoseconds)
    return f"{time}{zone}"


def _shown(nanoseconds: int) -> tuple[str, str, str]:
    """Return date, time of day and zone of an instant, the first and the last '' where it stays a number."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        return "", f"{nanoseconds} ns since 1970", ""
    instant = _EPOCH + timedelta(seconds=seconds)
    zone = _ZONE.get()
    if zone is not UTC:
        try:
            instant = instant.astimezone(zone)
        except OverflowError:
            zone = UTC
    offset = "Z" if zone is UTC else instant.isoformat()[19:]
    return f"{instant:%Y-%m-%d}", f"{instant:%H:%M:%S}.{rest:09d}", offset


def compact_count(value: int) -> str:
    """Return a round number shortly: `10k`, `1M`; others exactly."""
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value and value % size == 0:
            return f"{value // size}{suffix}"
    return f"{value}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 frame`, `2 frames`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _significant(value: Fraction, digits: int) -> str | None:
    """Return a positive value with so many digits (3 or more), None where it rounds to 1,000 or more."""
    if value >= 1_000:
        return None
    for whole_digits in (1, 2, 3):
        decimals = digits - whole_digits
        units = round(value * 10**decimals)
        if units < 10**digits:
            fraction = f".{units % 10**decimals:0{decimals}d}" if decimals else ""
            return f"{units // 10**decimals}{fraction}"
    return None
