"""The command that is run on each finished file."""

import os
import sys
from pathlib import Path

import pytest

from uspcap.errors import UsageError
from uspcap.sinks.post_rotate import PostRotateCommand


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "a script.py"
    path.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    path.chmod(0o755)
    return f"'{path}'"


def test_command_gets_each_file_without_a_shell_and_all_are_waited_for(tmp_path: Path) -> None:
    marker = "open(sys.argv[-1] + '.seen', 'w').write(repr((sys.argv[1:], os.getpgid(0) == os.getpid(), os.nice(0))))"
    command = PostRotateCommand(script(tmp_path, f"import time; time.sleep(0.05); {marker}") + " '$HOME' -v")
    paths = [str(tmp_path / f"file {number}; exit 1") for number in range(9)]
    for path in paths:
        command.run(path)
    command.wait()
    for path in paths:
        assert Path(f"{path}.seen").read_text() == repr((["$HOME", "-v", path], True, 19))
    assert command.warning == ""


def test_failures_are_one_sentence_with_the_first_reason(tmp_path: Path) -> None:
    command = PostRotateCommand(script(tmp_path, "sys.exit(3 if sys.argv[1][-1] in '12' else 0)"))
    for number in range(4):
        command.run(f"f{number}")
        command.wait()
    assert command.warning == (
        f"\"'{tmp_path}/a script.py'\" failed for 2 of 4 files, first for f1 (exit code 3); "
        "the files are as they were written, or as it left them"
    )


def test_command_that_a_signal_ends_or_that_cannot_start_has_failed(tmp_path: Path) -> None:
    killed = PostRotateCommand(script(tmp_path, "os.kill(os.getpid(), 9)"))
    killed.run("f")
    killed.wait()
    assert "first for f (it was killed by signal 9)" in killed.warning
    no_program = tmp_path / "empty"
    no_program.write_bytes(b"\x7fELF")
    no_program.chmod(0o755)
    refused = PostRotateCommand(str(no_program))
    refused.run("f")
    refused.wait()
    assert "failed for 1 of 1 files, first for f (Exec format error)" in refused.warning


def test_name_that_looks_like_an_option_is_none(tmp_path: Path) -> None:
    command = PostRotateCommand(script(tmp_path, f"open({str(tmp_path / 'seen')!r}, 'w').write(sys.argv[1])"))
    command.run("-rf.pcapng")
    command.wait()
    assert (tmp_path / "seen").read_text() == "./-rf.pcapng"


@pytest.mark.parametrize("words", ["", "no-such-program-here -x", "'open quote", os.devnull])
def test_what_cannot_be_run_is_refused_at_the_start(words: str) -> None:
    with pytest.raises(UsageError, match=r"^cannot run"):
        PostRotateCommand(words)
