"""Moments as people write them: a date and time, a time of day, so long after the beginning or before the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import EARLIEST_NS, LATEST_NS, NANOSECONDS
from uspcap.quantities import duration_ns

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_NS: Final = 86_400 * NANOSECONDS
_TIME: Final = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
_ZONE: Final = r"Z|[+-]\d{2}(?::?\d{2})?"

HOW_TO_WRITE: Final = (
    "write a date and time (2024-03-05T09:30:00-05:00, 2024-03-05T14:30), a time of day (14:30), or a time after the "
    "first frame (+5m) or before the last (-1m)"
)


class Kind(Enum):
    """What a moment is counted from."""

    INSTANT = "instant"
    TIME_OF_DAY = "time of day"
    AFTER_BEGIN = "after the first frame"
    BEFORE_END = "before the last frame"


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, which may need to know when a capture begins or ends.

    Attributes
    ----------
    text : str
        As it was written.
    kind : Kind
    ns : int
        Since the epoch, UTC, for an instant; else since midnight or from the beginning or end.
    zone : tzinfo
        Of a time of day.
    """

    text: str
    kind: Kind
    ns: int
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Frames from one time to another.

    Attributes
    ----------
    from_ns : int
        The first that belongs to it, UTC.
    to_ns : int
        The first after it.
    """

    from_ns: int = EARLIEST_NS
    to_ns: int = LATEST_NS + 1

    def moved(self, from_by_ns: int, to_by_ns: int) -> TimeRange:
        """Return the range with its ends moved; one without an end on a side stays so."""
        first, after = EARLIEST_NS, LATEST_NS + 1
        return TimeRange(
            first if self.from_ns == first else min(max(self.from_ns + from_by_ns, first), after),
            after if self.to_ns == after else min(max(self.to_ns + to_by_ns, first), after),
        )

    def holds(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which times belong to it."""
        held: NDArray[np.bool_] = (times_ns >= self.from_ns) & (times_ns < self.to_ns)
        return held


def parse_zone(text: str) -> tzinfo:
    """Return a time zone: `UTC`, `local`, an offset such as `-05:00`, or a name such as `America/New_York`.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    from zoneinfo import ZoneInfo

    if text.upper() in ("UTC", "Z"):
        return UTC
    try:
        if re.fullmatch(_ZONE, text):
            zone = datetime.fromisoformat(f"2024-01-01T00:00{text}").tzinfo
            assert zone is not None
            return zone
        return ZoneInfo("localtime") if text == "local" else ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        if text == "local":
            local = datetime.now().astimezone().tzinfo
            assert local is not None
            return local
        raise ValueError(
            f"there is no time zone {text!r} here; write UTC, local, an offset (-05:00) or a name (America/New_York)"
        ) from None


def parse_moment(text: str, zone: tzinfo = UTC) -> Moment:
    """Return the moment that a text names.

    Parameters
    ----------
    text : str
    zone : tzinfo
        Of dates and times that say none.

    Raises
    ------
    ValueError
        It names none, or a time that the clocks of the zone skip or repeat.
    """
    stripped = text.strip()
    if stripped[:1] in ("+", "-"):
        kind = Kind.AFTER_BEGIN if stripped[0] == "+" else Kind.BEFORE_END
        return Moment(stripped, kind, duration_ns(stripped[1:]))
    if match := re.fullmatch(_TIME, stripped):
        return Moment(stripped, Kind.TIME_OF_DAY, _since_midnight(stripped, match.groups()), zone)
    match = re.fullmatch(rf"(\d{{4}})-(\d\d)-(\d\d)(?:[T ]{_TIME}\s*({_ZONE})?)?", stripped)
    if match is None:
        raise ValueError(f"{text!r} is not a time; {HOW_TO_WRITE}")
    year, month, day, *clock, own = match.groups()
    try:
        day_named = date(int(year), int(month), int(day))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date: {error}") from None
    since_midnight = _since_midnight(stripped, clock) if clock[0] else 0
    instant_ns = _instant_ns(stripped, day_named, since_midnight, parse_zone(own) if own else zone)
    return Moment(stripped, Kind.INSTANT, min(max(instant_ns, EARLIEST_NS), LATEST_NS))


def _since_midnight(text: str, clock: tuple[str | None, ...] | list[str | None]) -> int:
    hour, minute, second, fraction = clock
    numbers = int(hour or 0), int(minute or 0), int(second or 0)
    if numbers[0] > 23 or numbers[1] > 59 or numbers[2] > 59:
        raise ValueError(f"{text!r} is not a time of day: hours go to 23, minutes and seconds to 59")
    seconds = numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
    return seconds * NANOSECONDS + int((fraction or "").ljust(9, "0"))


def _instant_ns(text: str, day: date, since_midnight_ns: int, zone: tzinfo) -> int:
    """Return when the clocks of a zone show so much since midnight of a day.

    Raises
    ------
    ValueError
        They never do, or do so two times.
    """
    seconds, below_ns = divmod(since_midnight_ns, NANOSECONDS)
    shown = datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)
    found = []
    for fold in (0, 1):
        try:
            instant = shown.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            back = instant.astimezone(zone).replace(tzinfo=None)
        except OverflowError:
            raise ValueError(f"{text!r} is outside the calendar; give a time within it") from None
        if back == shown and instant not in found:
            found.append(instant)
    if not found:
        raise ValueError(
            f"{text!r} does not exist in {zone}, where clocks are put forward; give the offset, as in -05:00"
        )
    if len(found) > 1:
        raise ValueError(
            f"{text!r} occurs two times in {zone}, where clocks are put back; give the offset, as in -05:00"
        )
    since = found[0] - _EPOCH
    return (since.days * 86_400 + since.seconds) * NANOSECONDS + below_ns


def resolved(
    begin: Moment | None, end: Moment | None, first_ns: Callable[[], int], last_ns: Callable[[], int]
) -> TimeRange:
    """Return the range between two moments of a capture.

    Parameters
    ----------
    begin, end : Moment or None
        None is the capture's beginning or end.
    first_ns, last_ns : callable
        Return when the capture begins and ends; called where that must be known.

    Raises
    ------
    ValueError
        The range ends before it begins.
    """
    whole = TimeRange()
    from_ns = whole.from_ns if begin is None else _resolved(begin, first_ns, last_ns, None)
    to_ns = whole.to_ns if end is None else _resolved(end, first_ns, last_ns, from_ns if begin is not None else None)
    if to_ns <= from_ns:
        raise ValueError(
            f"nothing lies between {begin.text if begin else 'the beginning'} and {end.text if end else 'the end'}: "
            "the range ends before it begins"
        )
    return TimeRange(from_ns, to_ns)


def _resolved(moment: Moment, first_ns: Callable[[], int], last_ns: Callable[[], int], after_ns: int | None) -> int:
    if moment.kind is Kind.AFTER_BEGIN:
        ns = first_ns() + moment.ns
    elif moment.kind is Kind.BEFORE_END:
        ns = last_ns() - moment.ns
    elif moment.kind is Kind.TIME_OF_DAY:
        ns = _time_of_day(moment, first_ns(), last_ns(), after_ns)
    else:
        ns = moment.ns
    return min(max(ns, EARLIEST_NS), LATEST_NS)


def _time_of_day(moment: Moment, first_ns: int, last_ns: int, after_ns: int | None) -> int:
    """Return when clocks first show a time of day within a capture, after `after_ns` where that is given.

    Where they show it only before or after the capture, the day on which it begins counts.
    """
    least_ns = first_ns if after_ns is None else max(first_ns, after_ns + 1)
    started = (_EPOCH + timedelta(seconds=least_ns // NANOSECONDS)).astimezone(moment.zone).date()
    last_days = max(0, min(last_ns - least_ns, 2 * _DAY_NS)) // _DAY_NS + 1
    first_day: int | None = None
    for days in range(int(last_days) + 1):
        ns = _instant_ns(moment.text, started + timedelta(days=days), moment.ns, moment.zone)
        first_day = ns if first_day is None else first_day
        if least_ns <= ns <= last_ns:
            return ns
    assert first_day is not None
    if after_ns is not None and first_day <= after_ns:
        return _instant_ns(moment.text, started + timedelta(days=1), moment.ns, moment.zone)
    return first_day
