"""The command line: one group whose commands are imported when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

# numpy's BLAS starts threads on import that spin for work it never gets from us; said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from uspcap import __version__
from uspcap.errors import UspcapError
from uspcap.report.format import safe_text

COMMANDS = {
    "capture": "Capture frames on an interface into a file, a report or both.",
    "analyze": "Histograms, gaps and bursts of capture files.",
    "dump": "Print frames decoded, one line each.",
    "compare": "Match two captures frame by frame: delay, loss, order.",
    "protocols": "List the feeds whose sequence numbers can be followed.",
    "doctor": "What host and NIC can do, and what costs latency.",
    "probe": "Send numbered, stamped test traffic on a schedule, or answer it.",
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
    """Capture packets past the kernel, stamp every frame, and report latency, gaps and bursts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the input or the system failed, 2 wrong usage."""
    if sys.stdout is None:
        # The caller closed it; what is opened next must not take its place.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        try:
            cli.main(args=None if arguments is None else list(arguments), prog_name="uspcap")
        finally:
            sys.stdout.flush()
    except UspcapError as error:
        click.echo(f"uspcap: {safe_text(str(error))}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # What the system refuses to the layers below is an UspcapError by now; what is left is our own output.
        click.echo(f"uspcap: cannot write the output: {error.strerror}; free space or send it elsewhere", err=True)
        sys.exit(1)


def run() -> NoReturn:
    """Run the command line as a process of its own.

    The process ends without taking the interpreter apart, which costs more time than a short analysis: the kernel
    takes the memory back at once, and everything that must be written is.
    """
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    try:
        sys.stdout.flush()
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)
