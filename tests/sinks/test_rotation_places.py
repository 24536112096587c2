"""Directories of many files: tried at the start, made where their names hold a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.unprivileged import NOBODY

from uspcap.errors import CaptureFileError
from uspcap.sinks.rotation_places import check_directory, make_directories


def below(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.mark.parametrize("pattern", ["x", "x_%H.pcap", "%Y/x", "a/%Y/%m/x", "a/../a/%Y-%m-%d/x", "%D.pcap"])
def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "a").mkdir()
    check_directory(str(tmp_path / pattern))
    assert below(tmp_path) == ["a"]


def test_a_place_relative_to_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for pattern in ("x", "./x", "%Y/x"):
        check_directory(pattern)
        make_directories(pattern, pattern.replace("%Y", "2026"))
    assert below(tmp_path) == ["2026"]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("none/x", "{0}/none: No such file or directory; name a file in"),
        ("none/%Y/x", "{0}/none: No such file or directory; name a file in"),
        ("file/x", "{0}/file: it is not a directory; name a file in"),
        ("file/%Y/x", "{0}/file: it is not a directory; name a file in"),
        ("a\0b/x", "embedded null"),
        ("y" * 300 + "/x", "File name too long; give a shorter name"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, pattern: str, sentence: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CaptureFileError) as raised:
        check_directory(str(tmp_path / pattern))
    assert str(raised.value).startswith(f"cannot write {tmp_path / pattern}: ")
    assert sentence.format(tmp_path) in str(raised.value)


def test_a_file_system_that_takes_nothing_is_reported() -> None:
    with pytest.raises(CaptureFileError, match="cannot write /proc/x: /proc: "):
        check_directory("/proc/x")


def test_a_directory_with_todays_name_is_tried_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda pattern, moment: pattern.replace("%Y", "2026"))
    (tmp_path / "2026").touch()
    check_directory(str(tmp_path / "%Y" / "x"))
    (tmp_path / "2026").unlink()
    (tmp_path / "2026").mkdir()
    original = os.open

    def refuse(name: str, *rest: int, **where: int) -> int:
        if name.startswith(".uspcap") and Path(f"/proc/self/fd/{where['dir_fd']}").readlink().name == "2026":
            raise PermissionError(13, "Permission denied")
        return original(name, *rest, **where)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CaptureFileError, match="2026: Permission denied"):
        check_directory(str(tmp_path / "%Y" / "x"))


@pytest.mark.parametrize(
    ("pattern", "path", "made"),
    [
        ("x", "x", []),
        ("%Y/x", "2026/x", ["2026"]),
        ("%Y/%m/x_%H", "2026/01/x_09", ["2026", "2026/01"]),
        ("%D.pcap", "01/02/26.pcap", ["01", "01/02"]),
    ],
)
def test_directories_named_by_time_are_made_and_no_others(
    tmp_path: Path, pattern: str, path: str, made: list[str]
) -> None:
    for _ in range(2):
        make_directories(str(tmp_path / pattern), str(tmp_path / path))
        assert below(tmp_path) == made


def test_a_fixed_directory_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CaptureFileError, match=r"its directory .*/none/2026 cannot be created: No such file"):
        make_directories(str(tmp_path / "none" / "%Y" / "x"), str(tmp_path / "none" / "2026" / "x"))
    assert below(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes links that are another's")
def test_nothing_is_made_behind_a_link_of_another(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "2026").symlink_to("secret")
    os.chown(tmp_path / "2026", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(CaptureFileError, match="symbolic link of user nobody"):
        make_directories(str(tmp_path / "%Y" / "%m" / "x"), str(tmp_path / "2026" / "01" / "x"))
    assert below(tmp_path / "secret") == []
