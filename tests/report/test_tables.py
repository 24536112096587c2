"""Tables and histograms as files of a directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.reports import suite_of
from support.streams import START_NS, Frame

from uspcap.report.report_file import ReportFileError
from uspcap.report.tables import write_tables
from uspcap.stats.histogram import Histogram

FRAMES = [Frame(START_NS + 1_000 * at * at, 60 + at % 3, 1 + at % 2) for at in range(400)]


def test_every_table_of_every_analysis_is_a_file_that_pandas_reads_back(tmp_path: Path) -> None:
    analyses = suite_of(FRAMES).analyses
    written = write_tables(analyses, tmp_path / "made" / "on the way")
    tables = {f"{name}.{table}.csv" for name, one in analyses.items() for table in one.tables()}
    histograms = {f"{name}.{histogram}.hgrm" for name, one in analyses.items() for histogram in one.histograms()}
    assert histograms
    made = {path.name for path in written}
    assert made == tables | histograms == {path.name for path in written[0].parent.iterdir()}
    for path in written:
        if path.suffix != ".csv":
            assert "Percentile" in path.read_text(encoding="utf-8").splitlines()[0]
            continue
        name, table_name, _ = path.name.split(".")
        table = analyses[name].tables()[table_name]
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        assert list(frame.columns) == list(table)
        for column, values in table.items():
            read = [None if pd.isna(value) else value for value in frame[column]]
            assert read == list(values), (path.name, column)


def test_files_are_replaced_whole_and_as_readable_as_the_umask_lets_them_be(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        first = write_tables(suite_of(FRAMES).analyses, tmp_path)
        again = write_tables(suite_of(FRAMES[:3]).analyses, tmp_path)
    finally:
        os.umask(before)
    assert first == again
    assert sorted(tmp_path.iterdir()) == sorted(first), "nothing temporary stays"
    assert {stat.S_IMODE(path.stat().st_mode) for path in first} == {0o640}
    assert len((tmp_path / "inter_arrival.flows.csv").read_text().splitlines()) == 1 + 2


def test_a_table_without_columns_makes_no_file(tmp_path: Path) -> None:
    written = {path.name for path in write_tables(suite_of([]).analyses, tmp_path)}
    assert "bursts.windows.csv" not in written
    assert (tmp_path / "gaps.gaps.csv").read_text().count("\n") == 1


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportFileError, match=r"file/tables: cannot make this directory .*Not a directory.*; name one"):
        write_tables({}, tmp_path / "file" / "tables")


def test_a_table_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "summary.protocols.csv" / "in the way").mkdir(parents=True)
    with pytest.raises(
        ReportFileError,
        match=r"protocols\.csv: cannot write this table: Is a directory; name another",
    ):
        write_tables(suite_of(FRAMES).analyses, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.protocols.csv"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\0b", "\x1b[31m", "x" * 300, "µ" * 200, ".", "..", "a\nb", "=cmd"]
)
def test_names_that_others_chose_stay_in_the_directory(tmp_path: Path, name: str) -> None:
    target = tmp_path / "tables"
    analyses: Any = {"sequence": Named(name)}
    written = write_tables(analyses, target)
    assert sorted(written) == sorted(target.iterdir())
    assert len(written) == 2
    for path in written:
        assert path.name.isprintable()
        assert path.name.startswith("sequence.")
        assert path.suffix in (".csv", ".hgrm")
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_long_names_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    analyses: Any = {"a": Named("x" * 300), "b": Named("x" * 300 + "y")}
    assert len(set(write_tables(analyses, tmp_path))) == 4


class Named:
    """An analysis with a table and a histogram of a name that others chose."""

    def __init__(self, name: str) -> None:
        self._name = name

    def tables(self) -> dict[str, dict[str, list[int]]]:
        return {self._name: {"value": [1]}}

    def histograms(self) -> dict[str, Histogram]:
        return {self._name: Histogram()}
