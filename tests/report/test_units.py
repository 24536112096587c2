"""Values of columns, and how people read them."""

from __future__ import annotations

import pytest

from uspcap.report.model import Column, Context
from uspcap.report.units import Unit


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.COUNT, 1_234_567, "1,234,567"),
        (Unit.BYTES, 1_500, "1.500 kB"),
        (Unit.DURATION, 250_000, "250.0 µs"),
        (Unit.EXACT_DURATION, 250_000, "250 µs"),
        (Unit.PERCENTILE, 250_000, "250 µs"),
        (Unit.INSTANT, 0, "1970-01-01T00:00:00.000000000Z"),
        (Unit.BIT_RATE, 10**9, "1.000 Gbit/s"),
        (Unit.PACKET_RATE, 2_500, "2.500 kpackets/s"),
        (Unit.RATIO, 12.34, "12.3×"),
        (Unit.SHARE, 0.5, "50.0 %"),
        (Unit.SHARE, (1, 3), "33.3 %"),
        (Unit.TEXT, "as it is", "as it is"),
    ],
)
def test_a_value_is_written_by_its_unit(unit: Unit, value: object, text: str) -> None:
    assert unit.text(value) == text


@pytest.mark.parametrize("unit", [unit for unit in Unit if unit is not Unit.TEXT])
def test_nothing_is_a_dash_and_text_stays(unit: Unit) -> None:
    assert unit.text(None) == "-"
    assert unit.text("n<10k") == "n<10k"


def test_every_unit_is_one_of_its_own() -> None:
    assert len({unit.name for unit in Unit}) == len(Unit.__members__)


def test_a_column_keeps_its_values_beside_what_is_shown() -> None:
    column = Column("gap", [1_500, None], unit=Unit.DURATION)
    assert (list(column.values), list(column.cells), column.unit.symbol) == ([1_500, None], ["1.500 µs", "-"], "ns")
    at = Context(one_day=True).instants("from", [1_000_000_000], 1)
    assert (list(at.values), at.unit, at.short) == ([1_000_000_000], Unit.INSTANT, ["00:00:01.000000000Z"])
