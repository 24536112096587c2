"""Files among captures that are no captures: each is a problem, and loses nothing of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import assert_one_clear_line, invoke
from support.untidy import course, pcap

import uspcap

FOREIGN = {
    "text": b"seq,price\n1,100\n",
    "header torn": bytes.fromhex("d4c3b2a1020004000000"),
    "version 7": bytes.fromhex("d4c3b2a1070004000000000000000000ffff000001000000"),
    "empty": b"",
    "gzip of text": bytes.fromhex("1f8b0800000000000003cb48cdc9c9070086a6103605000000"),
}


@pytest.fixture
def captures(tmp_path: Path) -> list[str]:
    frames = course(300)
    return [pcap(tmp_path / f"ring-{at}.pcap", frames[at::3]) for at in range(3)]


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_none_is_a_problem_and_the_others_are_analyzed(
    captures: list[str], tmp_path: Path, content: bytes
) -> None:
    foreign = tmp_path / "ring-1b.pcap"
    foreign.write_bytes(content)
    alone, among = (
        uspcap.analyze(files, only=("summary", "gaps")).document for files in (captures, [*captures, str(foreign)])
    )
    assert among["analyses"] == alone["analyses"]
    (problem,) = among["source"]["problems"]
    assert (problem["file"], problem["offset"]) == (str(foreign), 0)
    assert problem["what"].endswith(": left out")
    assert invoke("analyze", *captures, foreign, "--only", "gaps").code == 1


def test_a_directory_is_read_as_its_files_are(captures: list[str], tmp_path: Path) -> None:
    (tmp_path / "ring-1b.pcap").write_bytes(FOREIGN["header torn"])
    ended = invoke("analyze", tmp_path, "--only", "gaps")
    assert "packets     300" in ended.stdout and ended.code == 1


def test_a_side_of_a_comparison_too(captures: list[str], tmp_path: Path) -> None:
    foreign = tmp_path / "ring-1b.pcap"
    foreign.write_bytes(FOREIGN["text"])
    sides = [word for name in ("--a", "--b") for file in captures for word in (name, file)]
    ended = invoke("compare", *sides, "--b", foreign)
    assert ended.code == 1 and str(foreign) in " ".join(ended.stdout.split()) + ended.stderr


def test_where_none_is_a_capture_that_is_the_error(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.pcap", "b.pcap")]
    for file in files:
        file.write_bytes(FOREIGN["text"])
    assert_one_clear_line(invoke("analyze", *files), 1, str(files[0]))


def test_a_file_that_is_not_there_is_refused_before_others_are_read(captures: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "missing.pcap"
    assert_one_clear_line(invoke("analyze", *captures, missing), 1, str(missing))


def test_what_else_lies_in_a_directory_is_not_looked_at(captures: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(FOREIGN["text"])
    (tmp_path / "notes.txt.gz").write_bytes(FOREIGN["gzip of text"])
    assert invoke("analyze", tmp_path, "--only", "gaps").code == 0
