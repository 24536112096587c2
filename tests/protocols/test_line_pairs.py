"""Pairs of lines as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from uspcap.errors import UsageError
from uspcap.protocols.line_pairs import parse_pairs


def test_pairs_come_from_words_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "pairs.toml"
    file.write_text(
        '[unit-1]\nA = "239.1.1.3:1"\nB = "239.1.1.4:2"\n\n[unit-2]\nleft = "[ff02::1]:3"\nright = "239.1.1.5:3"\n'
    )
    pairs = parse_pairs(["A=239.1.1.1:30001,B=239.1.1.2:30001", str(file)])
    assert [pair.name for pair in pairs] == ["239.1.1.1:30001,239.1.1.2:30001", "unit-1", "unit-2"]
    assert pairs[0].lines[1].address == b"\0" * 10 + b"\xff\xff\xef\1\1\2"
    assert [line.label for line in pairs[2].lines] == ["left", "right"]
    assert str(pairs[2].lines[0]) == "[ff02::1]:3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=239.1.1.1:1", "two lines, not 1"),
        ("A=239.1.1.1:1,B=239.1.1.2:1,C=239.1.1.3:1", "two lines, not 3"),
        ("A=239.1.1.1:1,A=239.1.1.2:1", "not understood"),
        ("239.1.1.1:1,239.1.1.2:1", "not understood"),
        ("A=239.1.1.1,B=239.1.1.2:1", "is not a line"),
        ("A=239.1.1.1:0,B=239.1.1.2:1", "is not a line"),
        ("A=239.1.1.1:65536,B=239.1.1.2:1", "is not a line"),
        ("A=ff02::1:1,B=239.1.1.2:1", "is not a line"),
        ("A=feed.example:1,B=239.1.1.2:1", "is not a line"),
        ("A=239.1.1.1:1,B=239.1.1.1:1", "two times"),
        ("/nosuch/pairs.toml", "cannot read"),
    ],
)
def test_what_is_no_pair_is_one_clear_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_pairs([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "not TOML"),
        ("", "has 0 pairs"),
        ("x = 1", "a table of two lines"),
        ("[x]\nA = 1", "x.A is the number 1; it must be"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "pairs.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        parse_pairs([str(file)])
