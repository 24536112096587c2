"""`uspcap protocols`: whose sequence numbers can be followed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from uspcap.commands.output import format_option, put_out

if TYPE_CHECKING:
    from rich.console import Console

    from uspcap.protocols.feeds import FeedProtocol


@click.command("protocols")
@format_option
def command(form: str) -> None:
    """List whose sequence numbers `uspcap analyze --only sequence --protocol` follows, and where that is known from.

    Rules that no specification or capture has shown are applied with --unverified only.
    """
    from uspcap.protocols.feeds import find_protocol, protocols

    listed = [find_protocol(name, unverified=True) for name in protocols()]
    put_out(_document(listed), form, sys.stdout, lambda console: _show(listed, console))


def _document(listed: Sequence[FeedProtocol]) -> dict[str, Any]:
    return {
        "schema": "uspcap.protocols/1",
        "protocols": [
            {
                "name": one.name,
                "title": one.title,
                "over": one.over,
                "numbers": one.numbers,
                "ports": list(one.ports),
                "verified": one.verified,
                "unverified_rules": list(one.unverified),
                "source": one.source,
            }
            for one in listed
        ],
    }


def _show(listed: Sequence[FeedProtocol], console: Console) -> None:
    from rich.text import Text

    from uspcap.report.model import Column
    from uspcap.report.terminal_table import print_line, print_paragraph, print_table

    print_table(
        console,
        [
            Column("name", [one.name for one in listed], left=True),
            Column("over", [one.over for one in listed], left=True),
            Column("numbers", [one.numbers for one in listed], left=True),
            Column("ports", [", ".join(map(str, one.ports)) or "-" for one in listed], left=True),
            Column("verified", ["yes" if one.verified else "no" for one in listed], left=True),
            Column("with --unverified, too", [", ".join(one.unverified) for one in listed], left=True, rank=1),
            Column("protocol", [one.title for one in listed], left=True),
        ],
    )
    print_line(console, Text())
    for one in listed:
        print_paragraph(console, f"{one.name}: {one.source}", style="dim")
