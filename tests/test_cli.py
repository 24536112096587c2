"""The command line as a whole: help, what it imports, and how errors become exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from support.command_line import PROGRAM, Ended, assert_one_clear_line, invoke, start

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
def test_a_full_disk_is_reported_in_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "uspcap: cannot write the output: No space left on device; free space or send it elsewhere\n"


def test_output_that_the_caller_closed_is_no_error_of_ours() -> None:
    def close() -> None:
        os.close(1)

    assert start("--version", preexec_fn=close) == (0, "", "")


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Run a command in which something fails that nobody foresaw."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(uspcap.cli.cli, "main", fail)
    return invoke("dump")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ZeroDivisionError("division by zero"), "internal error, ZeroDivisionError: division by zero; please report"),
        (AssertionError(), "internal error, AssertionError; please report"),
        (RecursionError("too deep\nin there \x1b[31m"), "internal error, RecursionError: too deep in there \\x1b[31m;"),
        (KeyError("x" * 1000), f"internal error, KeyError: '{'x' * 199}…; please report"),
        (MemoryError(), "out of memory: free some or raise the limit"),
        (ImportError("libfoo.so: cannot open", name="numpy"), "cannot load numpy (libfoo.so: cannot open): reinstall"),
        (UnicodeEncodeError("ascii", "µ", 0, 1, "ordinal"), "cannot write the output in ascii: set PYTHONIOENCODING"),
        (RuntimeError("can't start new thread"), "the system refuses to start another thread: raise its limit"),
        (OSError(24, "Too many open files"), "Too many open files; raise the limit of open files with 'ulimit -n'"),
        (OSError(24, "Too many open files", "/x"), "/x: Too many open files; raise the limit of open files with"),
        (OSError(28, "No space left on device"), "cannot write the output: No space left on device; free space or"),
        (OSError(5, "Input/output error"), "cannot write the output: Input/output error; the terminal is gone"),
        (OSError(17, "File exists", "/y"), "/y: File exists; please report this in "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_that_nobody_foresaw_is_one_sentence(
    error: BaseException, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_clear_line(failing_with(error, monkeypatch), 1, f"uspcap: {sentence}")


def test_what_is_to_be_reported_says_where_and_which_version(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = failing_with(ZeroDivisionError(), monkeypatch)
    assert "please report this in uspcap/cli.py, line " in ended.stderr
    assert (
        f" of version {uspcap.__version__}, with the command and what it prints with USPCAP_DEBUG=1 set" in ended.stderr
    )


def test_debugging_shows_the_traceback_of_the_cause_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USPCAP_DEBUG", "1")
    ended = failing_with(ZeroDivisionError("here"), monkeypatch)
    assert ended.code == 1
    first, *_, last = ended.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert "ZeroDivisionError: here" in ended.stderr
    assert last.startswith("uspcap: internal error")


def test_a_thread_that_fails_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        thread = threading.Thread(target=lambda: [][1])
        thread.start()
        thread.join()

    monkeypatch.setattr(uspcap.cli.cli, "main", work)
    assert_one_clear_line(invoke("dump"), 1, "uspcap: internal error, IndexError: list index out of range; please")


def test_an_error_that_could_be_raised_nowhere_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __del__(self) -> None:
            raise LookupError("late")

    def work(*_: object, **__: object) -> None:
        Failing()

    monkeypatch.setattr(uspcap.cli.cli, "main", work)
    assert_one_clear_line(invoke("dump"), 1, "uspcap: internal error, LookupError: late; please")


@pytest.mark.parametrize("words", [["--no\x1b[31m"], ["dump"], ["dump", "--frame", "\x1b[31m", SAMPLE], ["\x1b[31m"]])
def test_wrong_usage_never_steers_the_terminal(words: list[str]) -> None:
    assert_one_clear_line(start(*words), 2)


def test_a_signal_before_anything_is_imported_leaves_no_traceback() -> None:
    code = (
        "import sys, os, signal\n"
        "class Importer:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "sys.meta_path.insert(0, Importer())\n"
        "from uspcap.__main__ import run\n"
        "run()"
    )
    done = subprocess.run([sys.executable, "-c", code, "protocols"], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.startswith("uspcap: ended by SIGINT before it was done")
    assert done.stderr.count("\n") == 1


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "uspcap", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"uspcap {uspcap.__version__}\n")


ANY_COMMAND = (["analyze", SAMPLE], ["protocols"], ["doctor"], ["compare", SAMPLE, SAMPLE], ["dump", SAMPLE], ["-h"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_of_the_terminal_is_a_reason_to_fail(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    for words in ANY_COMMAND:
        done = subprocess.run([*PROGRAM, *words], env=environment, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b""), words
        done.stdout.decode(encoding)
