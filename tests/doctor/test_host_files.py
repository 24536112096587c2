"""Reading /proc and /sys, and whatever may stand in their place."""

import os
from pathlib import Path

import pytest

from uspcap.doctor.host_files import MOST_BYTES, HostFiles


def test_files_of_this_host_are_read_as_cat_reads_them() -> None:
    files = HostFiles()
    for path in ("/proc/sys/kernel/osrelease", "/proc/cpuinfo", "/sys/devices/system/cpu/online"):
        assert files.text(path) == Path(path).read_text().strip()
        assert files.why_not(path) == ""
    setting = Path("/proc/sys/net/core/bpf_jit_enable")
    if setting.exists():
        assert str(files.number(str(setting))) == setting.read_text().strip()


@pytest.mark.parametrize(
    ("content", "number"),
    [(b"12\n", 12), (b"-1", -1), (b"", None), (b"1 2", None), (b"0x1", None), ("１".encode(), None), (b"9" * 21, None)],
)
def test_numbers_are_whole_and_written_in_digits(tmp_path: Path, content: bytes, number: int | None) -> None:
    (tmp_path / "file").write_bytes(content)
    assert HostFiles(tmp_path).number("/file") == number


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    before = sorted(Path("/proc/self/fd").iterdir())
    assert files.why_not("/empty") == "/empty is empty"
    assert files.why_not("/none") == "/none: No such file or directory"
    assert files.why_not("/directory") == "/directory: Is a directory"
    assert files.why_not("/loop") == "/loop: Too many levels of symbolic links"
    assert files.why_not("/fifo") == "/fifo is empty"
    assert "null" in files.why_not("/nu\0l")
    assert files.text("/none") is None
    assert not files.exists("/nu\0l")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_file_without_an_end_is_read_in_part() -> None:
    assert len(HostFiles().text("/dev/zero") or "") == MOST_BYTES
