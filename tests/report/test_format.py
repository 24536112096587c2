"""Numbers, times and foreign text as people read them."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.report import format as fmt

INT64 = st.integers(-(2**63), 2**63 - 1)
UNITS_NS = {"ns": 1, "µs": 1_000, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
PREFIXES = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def spoken_ns(text: str) -> Fraction:
    """The obvious reading of a duration."""
    words = text.removeprefix("-").replace(",", "").split()
    total = sum(
        (Fraction(number) * UNITS_NS[unit] for number, unit in zip(words[::2], words[1::2], strict=True)), Fraction()
    )
    return -total if text.startswith("-") else total


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (None, "-"),
        (0, "0 ns"),
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1.000 µs"),
        (9_999, "9.999 µs"),
        (99_999, "100.0 µs"),
        (999_949, "999.9 µs"),
        (999_960, "1.000 ms"),
        (12_345_678, "12.35 ms"),
        (999_999_999, "1.000 s"),
        (999_940_000_000, "999.9 s"),
        (999_999_999_999, "16 min 40 s"),
        (3_599_600_000_000, "1 h 0 min"),
        (86_399_000_000_000, "1 d 0 h"),
        (90_000_000_000_000, "1 d 1 h"),
        (8_640_000_000_000_000, "100 d"),
        (-1_500, "-1.500 µs"),
    ],
)
def test_durations_have_the_unit_that_suits_them(nanoseconds: int | None, text: str) -> None:
    assert fmt.duration(nanoseconds) == text


@given(INT64, st.integers(3, 4))
def test_durations_read_back_within_half_of_their_last_digit(nanoseconds: int, digits: int) -> None:
    text = fmt.duration(nanoseconds, digits)
    error = abs(spoken_ns(text) - nanoseconds)
    if abs(nanoseconds) < 1_000:
        assert error == 0
    elif abs(nanoseconds) < 999_000_000_000:
        assert error <= Fraction(abs(nanoseconds), 2 * 10 ** (digits - 1))
    else:
        # Two units of time: half of the smaller is at most a thirtieth of the whole from 1,000 s on.
        assert error <= Fraction(abs(nanoseconds), 30)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_longer_durations_never_read_as_shorter(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert spoken_ns(fmt.duration(shorter)) <= spoken_ns(fmt.duration(longer))


@given(INT64)
def test_exact_durations_lose_nothing(nanoseconds: int) -> None:
    assert spoken_ns(fmt.exact_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(None, "-"), (0, "0 ns"), (10_000, "10 µs"), (10**9, "1 s"), (1_500, "1,500 ns")]
)
def test_exact_durations_take_the_largest_whole_unit(nanoseconds: int | None, text: str) -> None:
    assert fmt.exact_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.000 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.000 MB"),
        (12_345_678_901, "12.35 GB"),
        (0.000246, "0.000246 B"),
        (1.5, "1.500 B"),
        (-2_500, "-2.500 kB"),
        (10**22, "10,000 EB"),
    ],
)
def test_quantities_have_a_decimal_prefix(value: float | None, text: str) -> None:
    assert fmt.scaled(value, "B") == text


@given(st.floats(0.0001, 1e20))
def test_quantities_read_back_within_half_of_their_last_digit(value: float) -> None:
    number, unit = fmt.scaled(value, "B").replace(",", "").split()
    spoken = Fraction(number) * 1_000 ** PREFIXES[unit[:-1]]
    assert abs(spoken - Fraction(value)) <= Fraction(value) / 1_000


def test_rates_name_their_unit() -> None:
    assert fmt.bit_rate(1.25e9) == "1.250 Gbit/s"
    assert fmt.packet_rate(52_100) == "52.10 kpackets/s"
    assert fmt.byte_count(1_500) == "1.500 kB"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (None, 1, "-"),
        (1, 0, "-"),
        (0, 5, "0 %"),
        (1, 10**6, "<0.1 %"),
        (1, 3, "33.3 %"),
        (999_999, 10**6, ">99.9 %"),
        (5, 5, "100.0 %"),
        (1.5, 1, "150.0 %"),
    ],
)
def test_shares_never_round_to_nothing_or_everything(part: float | None, whole: float, text: str) -> None:
    assert fmt.share(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.0, "1×"), (12.34, "12.3×"), (999.4, "999×"), (999.6, "1.00 k×"), (1.23e7, "12.3 M×")],
)
def test_ratios_have_three_digits(value: float | None, text: str) -> None:
    assert fmt.ratio(value) == text


@given(INT64)
def test_timestamps_read_back_to_the_nanosecond(nanoseconds: int) -> None:
    text = fmt.timestamp(nanoseconds)
    assert text.endswith("Z") and text[19] == "."
    seconds = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert (seconds.days * 86_400 + seconds.seconds) * 10**9 + int(text[20:29]) == nanoseconds
    assert text == f"{text[:11]}{fmt.clock(nanoseconds)}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(20, "20"), (100, "100"), (1_000, "1k"), (10_000, "10k"), (1_000_000, "1M"), (1_500, "1500"), (0, "0")],
)
def test_round_counts_are_short(value: int, text: str) -> None:
    assert fmt.compact_count(value) == text


def test_plurals() -> None:
    assert [fmt.plural(number, "flow") for number in (0, 1, 1_000)] == ["0 flows", "1 flow", "1,000 flows"]
    assert fmt.plural(2, "box", "boxes") == "2 boxes"


@given(st.text(st.characters()))
def test_safe_text_has_no_character_that_acts(text: str) -> None:
    safe = fmt.safe_text(text)
    assert not any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in safe)
    safe.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("eth0 [red]µ", "eth0 [red]µ"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\u202ec", "a\\x0ab\\u202ec"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_safe_text_escapes_visibly(text: str, safe: str) -> None:
    assert fmt.safe_text(text) == safe


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encodable_text_encodes(text: str) -> None:
    assert fmt.encodable(text, "utf-8") == text
    fmt.encodable(text, "ascii").encode("ascii")


def test_symbols_have_ascii_stand_ins() -> None:
    assert fmt.encodable("1.5 µs, 3×, ≤2 é", "ascii") == "1.5 us, 3x, <=2 \\xe9"


@given(st.integers())
def test_an_instant_of_any_size_is_one_line(nanoseconds: int) -> None:
    text = fmt.timestamp(nanoseconds)
    if abs(nanoseconds) < 2**63:
        second, rest = divmod(nanoseconds, 10**9)
        assert datetime.fromisoformat(text[:19] + "+00:00").timestamp() == second
        assert text[19:] == f".{rest:09d}Z"
    assert fmt.clock(nanoseconds) in text
    assert text.isprintable()
