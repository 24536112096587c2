"""The command line: one group whose commands are imported when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from uspcap import __version__
from uspcap.errors import UspcapError

COMMANDS = {
    "capture": "Capture frames on an interface into a file, a report or both.",
    "analyze": "Histograms, gaps and bursts of capture files.",
    "dump": "Print frames decoded, one line each.",
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
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="uspcap")
    except UspcapError as error:
        click.echo(f"uspcap: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
