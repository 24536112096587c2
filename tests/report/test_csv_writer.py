"""CSV that neither runs in a spreadsheet nor steers a terminal."""

from __future__ import annotations

import csv
import io
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uspcap.report.csv_writer import CsvWriter, cell

ATTACKS = [
    "=cmd|'/c calc'!A1",
    "@SUM(1)",
    "+1",
    "-1+1",
    "-5",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "   @x",
    "\u00a0=1",
    "\u3000=1",
    '"=1"',
    "'=1",
    "“=1",
    "＝1",
    "＋1",
    "－1",
    "＠SUM(1)",
    "−1",
    "x;=1",
    'x; "=1',
    "1;+1;@x",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_text_that_a_spreadsheet_would_run_is_made_text(text: str) -> None:
    for part in cell(text).split(";"):
        ahead = part.lstrip("".join(char for char in part if char.isspace()) + '"“')
        assert not ahead or ahead[0] not in "=+-@＝＋－＠−\t\r\n"


@pytest.mark.parametrize(
    "text", ["", "abc", "10.0.0.1:80 > 10.0.0.2:90", "a=b", "x-1", "a,b", 'a"b', "<script>", "1-2"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def spreadsheet_cells(text: str) -> list[str]:
    """Cells as programs find them that part at commas, semicolons or tabs, quoted or not."""
    rows = csv.reader(io.StringIO(text))
    found = [value for row in rows for value in row]
    return [part for value in found for part in value.replace("\t", ";").split(";")]


@given(st.text(st.characters(codec=None) | st.sampled_from("=+-@＝＋－＠\t\r\n\x1b\x9b;,\"' ")), st.integers())
@example("\x1b[31mRED", -1)
@example("a\nb\rc", 1)
def test_no_text_runs_or_steers_and_numbers_stay_numbers(text: str, number: int) -> None:
    stream = io.StringIO()
    CsvWriter(stream, ["text", text, "number"]).write([[text], ["x"], [number]])
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert not any(unicodedata.category(char)[0] == "C" for char in written.replace("\n", ""))
    *_, last = csv.reader(io.StringIO(written))
    assert last[2] == str(number)
    for found in spreadsheet_cells(written):
        bare = found.strip().lstrip('"`‘’“”«»＂＇').strip()
        assert found == str(number) or not bare or bare[0] not in "=+-@＝＋－＠"


def test_columns_of_every_kind_are_written() -> None:
    stream = io.StringIO()
    table = CsvWriter(stream, ["i", "u", "f", "b", "s", "o"])
    table.write(
        [
            np.array([-1, 2], np.int64),
            np.array([2**64 - 1, 0], np.uint64),
            np.array([-0.5, 1e300]),
            np.array([True, False]),
            np.array(["=x", "y"]),
            ["-x", None],
        ]
    )
    table.write([[], [], [], [], [], []])
    assert stream.getvalue() == ("i,u,f,b,s,o\n-1,18446744073709551615,-0.5,True,'=x,'-x\n2,0,1e+300,False,y,\n")


def test_many_rows_are_all_there() -> None:
    stream = io.StringIO()
    CsvWriter(stream, ["n"]).write([np.arange(10_000)])
    assert stream.getvalue() == "n\n" + "".join(f"{number}\n" for number in range(10_000))
