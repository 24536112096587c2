"""The command line as a whole: help, what it imports, and how errors become exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.command_line import PROGRAM, assert_one_clear_line, invoke, start

import uspcap.cli
from uspcap import errors
from uspcap.cli import COMMANDS

README = Path(__file__).parents[1] / "README.md"
SAMPLE = str(README.parent / "sample_captures" / "microburst.pcap")
HEAVY = ("numpy", "pandas", "rich", "dpkt", "pyroute2", "cypcap")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(name: str, option: str) -> None:
    ended = invoke(name, option)
    assert ended.code == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith(f"Usage: uspcap {name} ")
    assert all(len(line) <= 100 for line in ended.lines)
    command = uspcap.cli.cli.get_command(click.Context(uspcap.cli.cli), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.opts[-1] in ended.stdout


def test_help_lists_every_command_with_its_line() -> None:
    ended = invoke("--help")
    assert ended.code == 0
    for name, line in COMMANDS.items():
        assert any(shown.split(maxsplit=1) == [name, line] for shown in ended.lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"uspcap {name}" in README.read_text(encoding="utf-8")


def imported_by(*words: str) -> set[str]:
    """Return the packages that a command has imported when it ends."""
    code = (
        "import sys\nfrom uspcap.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    imported = imported_by(option)
    assert "uspcap" in imported
    assert not set(HEAVY) & imported


@pytest.mark.parametrize("words", [["analyze", SAMPLE], ["compare", SAMPLE, SAMPLE]])
def test_reading_files_imports_nothing_of_the_kernel_or_of_tables(words: list[str]) -> None:
    imported = imported_by(*words)
    assert "numpy" in imported
    assert not {"pyroute2", "pandas", "scipy"} & imported


def test_version_is_that_of_the_package() -> None:
    assert invoke("--version") == (0, f"uspcap {importlib.metadata.version('uspcap')}\n", "")


def test_an_unknown_command_is_wrong_usage() -> None:
    assert_one_clear_line(invoke("analyse"), 2, "analyse")


def every_error(root: type[errors.UspcapError]) -> list[type[errors.UspcapError]]:
    return [root, *(deeper for kind in root.__subclasses__() for deeper in every_error(kind))]


@pytest.mark.parametrize("kind", every_error(errors.UspcapError), ids=lambda kind: kind.__name__)
def test_every_error_becomes_its_exit_code_and_one_line(
    kind: type[errors.UspcapError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("the\nfile \x1b[31mis red")

    monkeypatch.setattr(uspcap.cli.cli, "main", fail)
    assert invoke("dump") == (kind.exit_code, "", "uspcap: the\\x0afile \\x1b[31mis red\n")
    assert kind.exit_code == (2 if kind in (errors.UsageError, errors.FilterError) else 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine lacks /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("dump", "--help")])
def test_a_full_disk_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "uspcap: cannot write the output: No space left on device; free space or send it elsewhere\n"


def test_output_that_the_caller_closed_is_no_error_of_ours() -> None:
    def close() -> None:
        os.close(1)

    assert start("--version", preexec_fn=close) == (0, "", "")


def test_an_error_that_is_not_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(uspcap.cli.cli, "main", fail)
    with pytest.raises(ZeroDivisionError):
        uspcap.cli.main(["dump"])
