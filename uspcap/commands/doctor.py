"""`uspcap doctor`: what this host and a NIC can do, what costs them latency, and what changes it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from uspcap.doctor.changes import RECORD, Record, Settings, apply, undo
from uspcap.doctor.driver import KernelDriver
from uspcap.doctor.examination import examine
from uspcap.doctor.findings import Status
from uspcap.doctor.host_files import HostFiles
from uspcap.errors import UsageError
from uspcap.foreign_text import safe_text
from uspcap.notices import say
from uspcap.timestamps.kernel_calls import KernelCalls


@click.command("doctor")
@click.option("-i", "--interface", metavar="NAME", help="Look at this interface too.")
@click.option("--apply", "names", metavar="NAME,...", help="Change what these findings propose; all: every one.")
@click.option("--undo", "take_back", is_flag=True, help="Take back what --apply changed, and do nothing else.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RECORD,
    show_default=True,
    help="Where --apply remembers what it changed.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 where there is a warning or a problem.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(interface: str | None, names: str | None, take_back: bool, record: Path, strict: bool, form: str) -> None:
    """Tell what this host can do, what costs it latency, and which command changes that.

    Nothing is changed without --apply, and what that changed is put back by --undo, until the next boot.
    """
    if take_back and (names or interface):
        raise UsageError("--undo takes back everything that --apply changed: give it alone")
    files, driver = HostFiles(), KernelDriver()
    settings = Settings(files, driver)
    if take_back:
        lines, complete = undo(settings, Record(record))
        for line in lines or ["nothing was changed"]:
            click.echo(f"uspcap: {safe_text(line)}")
        sys.exit(0 if complete else 1)
    calls = KernelCalls()
    try:
        examination = examine(interface, files, driver, calls)
        if names is not None:
            chosen = tuple(name.strip() for name in names.split(","))
            for line in apply(examination.changes(chosen), settings, Record(record)):
                say(line)
            examination = examine(interface, files, driver, calls)
    finally:
        calls.close()
    if form == "json":
        from uspcap.report.json_report import write_json

        write_json(examination.as_document(), sys.stdout)
    else:
        from rich.console import Console

        from uspcap.report.doctor_report import render

        render(examination, Console())
    if strict and examination.worst in (Status.WARNING, Status.PROBLEM):
        sys.exit(1)
