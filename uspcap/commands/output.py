"""How commands put out what they found: one option, and one call; the formats come from the registry of renderers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.report.renderers.registry import DEFAULT_FORMAT, check, formats, renderer

if TYPE_CHECKING:
    from uspcap.report.model import Output


def _checked(context: click.Context, parameter: click.Parameter, form: Any) -> Any:
    check(form)
    return form


format_option = click.option(
    "--format", "form", type=click.Choice(formats()), default=DEFAULT_FORMAT, show_default=True, callback=_checked
)
"""Gives a command the parameter `form`, for `put_out`."""


def put_out(output: Output, form: str, stream: TextIO, *, one_of_several: bool = False) -> None:
    """Write what was found to a stream.

    Parameters
    ----------
    output : Output
    form : str
        One of the formats that there are.
    stream : text stream
    one_of_several : bool
        There are other reports in the stream.
    """
    chosen = renderer(form)
    (chosen.write_next if one_of_several else chosen.write)(output, stream)
