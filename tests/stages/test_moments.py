"""Moments as people write them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import EARLIEST_NS, LATEST_NS
from uspcap.stages.moments import Kind, TimeRange, parse_moment, parse_zone, resolved

NEW_YORK = ZoneInfo("America/New_York")
HOUR_NS = 3600 * 10**9


def instant(text):
    """Return ns of an ISO time with an offset, by another way."""
    whole, _, fraction = text.partition(".")
    digits = fraction.rstrip("Z+-:0123456789") or "".join(c for c in fraction[:9] if c.isdigit())
    assert not fraction or digits
    return int(datetime.fromisoformat(whole).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-05T09:30:00-05:00", "2024-03-05T14:30:00+00:00"),
        ("2024-03-05T14:30:00Z", "2024-03-05T14:30:00+00:00"),
        ("2024-03-05 14:30", "2024-03-05T14:30:00+00:00"),
        ("2024-03-05T14:30", "2024-03-05T14:30:00+00:00"),
        ("2024-03-05", "2024-03-05T00:00:00+00:00"),
        ("2024-03-05T14:30:00+0530", "2024-03-05T09:00:00+00:00"),
        ("2024-03-05T14:30:00+05", "2024-03-05T09:30:00+00:00"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59+00:00"),
    ],
)
def test_dates_and_times_are_instants(text, expected):
    moment = parse_moment(text)
    assert (moment.kind, moment.ns) == (Kind.INSTANT, instant(expected))


@pytest.mark.parametrize(("fraction", "ns"), [(".5", 500_000_000), (".000000001", 1), (",25", 250_000_000)])
def test_fractions_are_exact_to_the_nanosecond(fraction, ns):
    assert parse_moment(f"2024-03-05T14:30:00{fraction}Z").ns % 10**9 == ns
    assert parse_moment(f"14:30:00{fraction}").ns % 10**9 == ns


def test_times_without_a_zone_are_of_the_zone_named():
    assert parse_moment("2024-03-05T09:30", NEW_YORK).ns == instant("2024-03-05T14:30:00+00:00")
    assert parse_moment("2024-07-05T09:30", NEW_YORK).ns == instant("2024-07-05T13:30:00+00:00")
    assert parse_moment("2024-07-05T09:30Z", NEW_YORK).ns == instant("2024-07-05T09:30:00+00:00")


def test_a_time_that_clocks_repeat_or_skip_is_refused():
    with pytest.raises(ValueError, match="two times"):
        parse_moment("2024-11-03T01:30", NEW_YORK)
    with pytest.raises(ValueError, match="put forward"):
        parse_moment("2024-03-10T02:30", NEW_YORK)
    assert parse_moment("2024-11-03T01:30-04:00", NEW_YORK).ns == instant("2024-11-03T05:30:00+00:00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5m",
        "14",
        "14:3",
        "24:00",
        "14:60",
        "14:30:60",
        "2024-13-01",
        "2024-02-30T10:00",
        "+5",
        "-1",
        "+x",
        "--1m",
        "2024-03-05T",
        "14:30Z",
        "0000-01-01",
        "9999-12-31T23:59:59-10:00x",
        "noon",
        "2024-03-05T14:30:00.1234567890Z",
    ],
)
def test_what_is_no_moment_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r".{20}"):
        parse_moment(text)


@given(st.text(alphabet="0123456789:-+TZ .,ms", max_size=30))
def test_any_text_is_a_moment_within_what_is_counted_or_refused(text):
    try:
        moment = parse_moment(text)
    except ValueError:
        return
    assert EARLIEST_NS <= moment.ns <= LATEST_NS


@given(
    st.datetimes(datetime(1830, 1, 1), datetime(2110, 1, 1)),
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_instants_with_offsets_are_those_of_the_standard_library(when, zone):
    aware = when.replace(microsecond=0, tzinfo=zone)
    expected = round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
    assert parse_moment(aware.isoformat()).ns == expected


def ends(first, last):
    return lambda: instant(first), lambda: instant(last)


DAY = ends("2024-03-05T09:00:00+00:00", "2024-03-05T17:00:00+00:00")
NIGHT = ends("2024-03-05T22:00:00+00:00", "2024-03-06T03:00:00+00:00")


def between(begin, end, capture, zone=UTC):
    moments = [None if text is None else parse_moment(text, zone) for text in (begin, end)]
    return resolved(*moments, *capture)


def test_offsets_count_from_the_first_and_the_last_frame():
    assert between("+5m", "-1m", DAY) == TimeRange(
        instant("2024-03-05T09:05:00+00:00"), instant("2024-03-05T16:59:00+00:00")
    )
    assert between("-1h", None, DAY).from_ns == instant("2024-03-05T16:00:00+00:00")
    assert between(None, "+1h", DAY).to_ns == instant("2024-03-05T10:00:00+00:00")


@pytest.mark.parametrize(
    ("begin", "end", "capture", "from_", "to"),
    [
        ("10:00", "11:00", DAY, "2024-03-05T10:00:00+00:00", "2024-03-05T11:00:00+00:00"),
        ("23:00", "01:00", NIGHT, "2024-03-05T23:00:00+00:00", "2024-03-06T01:00:00+00:00"),
        ("01:00", "02:00", NIGHT, "2024-03-06T01:00:00+00:00", "2024-03-06T02:00:00+00:00"),
        ("08:00", "10:00", DAY, "2024-03-05T08:00:00+00:00", "2024-03-05T10:00:00+00:00"),
        ("16:00", "18:00", DAY, "2024-03-05T16:00:00+00:00", "2024-03-05T18:00:00+00:00"),
        ("+1h", "11:00", DAY, "2024-03-05T10:00:00+00:00", "2024-03-05T11:00:00+00:00"),
    ],
)
def test_a_time_of_day_is_the_one_within_the_capture(begin, end, capture, from_, to):
    assert between(begin, end, capture) == TimeRange(instant(from_), instant(to))


def test_a_time_of_day_is_of_its_zone():
    assert between("10:00", None, DAY, NEW_YORK).from_ns == instant("2024-03-05T15:00:00+00:00")
    assert between("05:00", None, DAY, timezone(timedelta(hours=-5))).from_ns == instant("2024-03-05T10:00:00+00:00")


@pytest.mark.parametrize(
    ("begin", "end"), [("+2h", "+1h"), ("-1m", "-2m"), ("2024-03-06", "2024-03-05"), ("+1h", "+1h")]
)
def test_a_range_that_ends_before_it_begins_is_refused(begin, end):
    with pytest.raises(ValueError, match="nothing lies between"):
        between(begin, end, DAY)


def test_zones_are_named_or_offsets():
    assert parse_zone("UTC") is UTC
    assert parse_zone("-05:00").utcoffset(None) == timedelta(hours=-5)
    assert parse_zone("America/New_York") == NEW_YORK
    assert parse_zone("local") is not None
    for wrong in ("Mars/Phobos", "", "../../etc/passwd", "+25:99", "\0"):
        with pytest.raises(ValueError, match="no time zone"):
            parse_zone(wrong)


@given(st.integers(EARLIEST_NS, LATEST_NS), st.integers(EARLIEST_NS, LATEST_NS), st.integers(0, LATEST_NS))
def test_ranges_hold_from_the_first_to_before_the_second_and_move_within_bounds(from_ns, to_ns, by_ns):
    one = TimeRange(from_ns, to_ns)
    times = np.array([EARLIEST_NS, from_ns, to_ns, LATEST_NS], np.int64)
    assert one.holds(times).tolist() == [from_ns <= int(ns) < to_ns for ns in times]
    wider = one.moved(-by_ns, by_ns)
    assert EARLIEST_NS <= wider.from_ns <= from_ns
    assert to_ns <= wider.to_ns <= LATEST_NS + 1
    assert TimeRange().holds(times).all()
    assert TimeRange().moved(-5, 5) == TimeRange() == TimeRange().moved(5, -5)
