"""`uspcap doctor`: what this host and a NIC can do, what costs them latency, and what changes it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from uspcap.commands.output import format_option, put_out
from uspcap.doctor.applying import Changer
from uspcap.doctor.driver import KernelDriver
from uspcap.doctor.examination import examine
from uspcap.doctor.findings import Status
from uspcap.doctor.host import Host
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.record import RECORD, Record
from uspcap.errors import UsageError
from uspcap.foreign_text import safe_text
from uspcap.notices import say
from uspcap.timestamps.kernel_calls import KernelCalls


@click.command("doctor")
@click.option("-i", "--interface", metavar="NAME", help="Also check this interface.")
@click.option(
    "--apply", "names", metavar="NAME,...", help="Apply the changes that these findings propose; all: every one."
)
@click.option("--undo", "take_back", is_flag=True, help="Undo what --apply changed, and do nothing else.")
@click.option("--forget", is_flag=True, help="With --undo: remove from the record what cannot be undone.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    default=RECORD,
    show_default=True,
    help="File in which --apply records its changes.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning or a problem.")
@format_option
def command(
    interface: str | None, names: str | None, take_back: bool, forget: bool, record: Path, strict: bool, form: str
) -> None:
    """Check what this host can do and what costs it latency, and show the commands that improve it.

    Nothing is changed without --apply. --undo restores what --apply changed, until the next boot.
    """
    if take_back and (names or interface):
        raise UsageError("--undo restores everything that --apply changed: give it alone")
    if forget and not take_back:
        raise UsageError("--forget says what --undo does with changes that cannot be restored: give it with --undo")
    files, driver = HostFiles(), KernelDriver()
    if take_back:
        restored = Changer(files, driver, Record(record), _say).undo(forget=forget)
        sys.exit(0 if restored or forget else 1)
    complete = True
    calls = KernelCalls()
    try:
        examination = examine(interface, Host.here(files), driver, calls)
        if names is not None:
            chosen = [name.strip() for name in names.split(",")]
            changes, complete = examination.changes(chosen, say)
            complete &= Changer(files, driver, Record(record), say).apply(changes)
            examination = examine(interface, Host.here(files), driver, calls)
    finally:
        calls.close()
    from uspcap.report.doctor_report import examination_page
    from uspcap.report.model import Output

    put_out(Output(examination.as_document(), lambda: examination_page(examination)), form, sys.stdout)
    if not complete or (strict and examination.worst in (Status.WARNING, Status.PROBLEM)):
        sys.exit(1)


def _say(line: str) -> None:
    click.echo(f"uspcap: {safe_text(line)}")
