"""Tables that fit the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from uspcap.report.model import Column, names
from uspcap.report.renderers.terminal import fit, print_line, print_paragraph, print_table, shorten, width_of

FLOW = "UDP [2001:db8:85a3::8a2e:370:7334]:12345 > [ff02::1:3]:5355"


def printed(columns: list[Column], width: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_table(Console(file=stream, width=width), columns)
    stream.seek(0)
    return stream.read().splitlines()


def columns() -> list[Column]:
    return [
        names("flow", [FLOW, "ARP"]),
        Column("packets", ["1,234", "5"]),
        Column("from", ["2026-11-23T09:30:00.000000001Z", "-"], left=True, short=["09:30:00.000000001Z", "-"], rank=1),
        Column("jitter", ["1.234 µs", "-"], rank=2),
    ]


def test_everything_is_shown_where_there_is_room() -> None:
    lines = printed(columns(), 140)
    assert [line.split() for line in lines] == [
        ["flow", "packets", "from", "jitter"],
        [*FLOW.split(), "1,234", "2026-11-23T09:30:00.000000001Z", "1.234", "µs"],
        ["ARP", "5", "-", "-"],
    ]
    assert len({len(line) for line in lines}) == 1, "numbers end in one column"
    assert lines[1].index("2026") == lines[0].index("from")


def test_times_are_shortened_before_names_fold_before_columns_go() -> None:
    assert "  09:30:00" in printed(columns(), 105)[1]
    folded = printed(columns(), 85)
    assert folded[1].startswith("  UDP [2001:db8:85a3::8a2e:370:7334]:12345    1,234  09:30:00")
    assert folded[2] == "    > [ff02::1:3]:5355"
    assert "jitter" in folded[0]
    assert printed(columns(), 79)[0].split() == ["flow", "packets", "from"]
    assert printed(columns(), 60)[0].split() == ["flow", "packets"]


def test_names_are_cut_in_the_middle_when_nothing_else_can_go() -> None:
    lines = printed(columns(), 40)
    assert all(cell_len(line) <= 40 for line in lines)
    assert lines[1].startswith("  UDP [2001:db8") and "…" in lines[1] and ":12345" in lines[1]


def test_numbers_are_never_cut_however_narrow() -> None:
    lines = printed(columns(), 10)
    assert any("1,234" in line for line in lines)


def test_a_table_without_rows_shows_nothing() -> None:
    assert printed([Column("a", [])], 80) == []
    assert printed([], 80) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.booleans(), st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=8
    ),
    st.integers(20, 200),
)
def test_what_does_not_stay_fits_or_could_not(shape: list[tuple[int, bool, int, int]], width: int) -> None:
    made = [
        Column("t", ["x" * wide], left=left, short=["x" * min(short, wide)], rank=rank)
        for wide, left, rank, short in shape
    ]
    chosen = fit(made, width)
    total = sum(width_of(column) for column in chosen) + 2 * (len(chosen) - 1)
    assert [column.rank for column in made if not column.rank] == [column.rank for column in chosen if not column.rank]
    if total > width:
        assert not any(column.rank for column in chosen)
    for column in chosen:
        if not column.left:
            assert "…" not in column.cells[0]


@given(st.text(st.characters(exclude_categories=["C"]), max_size=40), st.integers(3, 40))
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert short == text if cell_len(text) <= width else cell_len(short) <= width


@pytest.mark.parametrize(
    ("text", "width", "short"), [("abcdefghij", 7, "abc…hij"), ("abc", 3, "abc"), ("abcd", 3, "a…d")]
)
def test_text_is_shortened_in_the_middle(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short


def test_lines_are_spelt_in_ascii_where_the_encoding_asks_and_keep_their_styles() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, force_terminal=True, color_system="standard")
    print_line(console, Text.assemble(("µ", "red"), "plain", ("█", "bold")))
    stream.seek(0)
    assert stream.read() == "  \x1b[31mu\x1b[0mplain\x1b[1m#\x1b[0m\n"


def test_paragraphs_wrap_at_words_and_hang() -> None:
    stream = io.StringIO()
    print_paragraph(Console(file=stream, width=24), "one two three four five \x1b[2J six", lead="[1] ")
    assert stream.getvalue().splitlines() == [
        "  [1] one two three four",
        "      five \\x1b[2J six",
    ]
