"""One table as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from uspcap.report.renderers.csv import write_table


def test_values_with_commas_and_quotes_come_back() -> None:
    stream = io.StringIO()
    write_table({"name": ['a,"b"', None], "value": [1, -2]}, stream)
    assert list(csv.reader(io.StringIO(stream.getvalue()))) == [["name", "value"], ['a,"b"', "1"], ["", "-2"]]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_table({"one": [1], "two": []}, io.StringIO())
