"""Quantities as people write them."""

from __future__ import annotations

import pytest

from uspcap.quantities import number


@pytest.mark.parametrize("text", ["x", "", "-1", "nan", "inf", "1e400", "0x10", "1_0", "9" * 5000])
def test_what_is_no_finite_number_is_refused_with_the_bound(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number of 0 or more$"):
        number(text, least=0)


def test_finite_numbers_are_taken_with_decimals_and_powers_of_ten() -> None:
    assert [number(text, least=0) for text in ("0", "0.5", " 1e3", "2.5e-1")] == [0, 0.5, 1000, 0.25]
