"""`uspcap protocols`: whose sequence numbers can be followed."""

from __future__ import annotations

import sys

import click


@click.command("protocols")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(form: str) -> None:
    """List whose sequence numbers `uspcap analyze --only sequence --protocol` follows, and where that is known from.

    Rules that no specification or capture has shown are applied with --unverified only.
    """
    from uspcap.protocols.feeds import find_protocol, protocols

    listed = [find_protocol(name, unverified=True) for name in protocols()]
    if form == "json":
        from uspcap.report.json_report import write_json

        write_json(
            {
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
            },
            sys.stdout,
        )
        return
    from rich.console import Console
    from rich.text import Text

    from uspcap.report.terminal_table import Column, print_line, print_paragraph, print_table

    console = Console()
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
