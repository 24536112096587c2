"""The command line: one group whose commands are imported when they are used."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

# numpy's BLAS starts threads on import that spin for work it never gets from us; said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from uspcap.foreign_text import safe_text
from uspcap.notices import say
from uspcap.signals import Interrupted, end_at_once, end_by, ended_by
from uspcap.unexpected import explain, show_traceback, watch_threads
from uspcap.version import __version__

COMMANDS = {
    "capture": "Capture frames on an interface into a file, a report or both.",
    "analyze": "Report histograms, gaps and bursts of capture files.",
    "dump": "Print decoded frames, one per line.",
    "compare": "Match two captures frame by frame: delay, loss, order.",
    "protocols": "List the feeds whose sequence numbers can be followed.",
    "doctor": "Check host and NIC: what they can do, what costs latency.",
    "probe": "Send timestamped test traffic on a schedule, or answer it.",
}
"""Command to its one line of help; each is `uspcap.commands.<name>.command`."""


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is looked up by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"uspcap.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """Capture packets past the kernel, timestamp every frame, and report latency, gaps and bursts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the input or the system failed, 2 wrong usage.

    What a signal ended ends by that signal.
    """
    if sys.stdout is None:
        # The caller closed it; what is opened next must not take its place.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    with suppress(AttributeError, ValueError):
        # What a terminal's encoding cannot say is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with watch_threads() as threads:
        code = _run_command(arguments)
    sys.exit(code or int(threads.failed))


def _run_command(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code, after one sentence about whatever ended it early."""
    try:
        try:
            ended = cli.main(None if arguments is None else list(arguments), prog_name="uspcap", standalone_mode=False)
            code = ended if isinstance(ended, int) else 0
        except SystemExit as ending:
            code = _code(ending)
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        _show_usage_error(error)
        return error.exit_code
    except (Interrupted, click.Abort) as interruption:
        number = interruption.number if isinstance(interruption, Interrupted) else signal.SIGINT
        end_by(number, ended_by(number))
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        explained = explain(error)
        show_traceback(explained)
        say(str(explained))
        return explained.exit_code


def _code(ending: SystemExit) -> int:
    return ending.code if isinstance(ending.code, int) else int(ending.code is not None)


def _show_usage_error(error: click.ClickException) -> None:
    """Show what click has to say about the command line, which may hold names of files as they are."""
    shown = io.StringIO()
    error.show(shown)
    with suppress(OSError, ValueError):
        for line in shown.getvalue().splitlines():
            click.echo(safe_text(line), err=True)


def run() -> NoReturn:
    """Run the command line as a process of its own.

    The process ends without taking the interpreter apart, which costs more time than a short analysis: the kernel
    takes the memory back at once, and everything that must be written is.
    """
    end_at_once()
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = _code(ended)
    try:
        sys.stdout.flush()
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)
