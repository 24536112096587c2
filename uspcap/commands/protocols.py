"""`uspcap protocols`: whose sequence numbers can be followed."""

from __future__ import annotations

import sys

import click

from uspcap.commands.output import format_option, put_out


@click.command("protocols")
@format_option
def command(form: str) -> None:
    """List whose sequence numbers `uspcap analyze --only sequence --protocol` follows, and where that is known from.

    Rules that no specification or capture has shown are applied with --unverified only.
    """
    from uspcap.protocols.feeds import find_protocol, protocols
    from uspcap.report.model import Output
    from uspcap.report.protocol_list import protocols_document, protocols_page

    listed = [find_protocol(name, unverified=True) for name in protocols()]
    put_out(Output(protocols_document(listed), lambda: protocols_page(listed)), form, sys.stdout)
