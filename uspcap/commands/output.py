"""How commands put out what they found: one option, and one place that knows the formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("text", "json")

format_option = click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
"""Gives a command the parameter `form`, for `put_out`."""


def console_on(stream: TextIO) -> Console:
    """Return a console on a stream, without any style where NO_COLOR is set (https://no-color.org)."""
    from rich.console import Console

    # Left alone, rich would drop the colours only and go on writing bold and dim.
    return Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto")


def put_out(
    document: Mapping[str, Any], form: str, stream: TextIO, show: Callable[[Console], None], *, one_line: bool = False
) -> None:
    """Write what was found to a stream.

    Parameters
    ----------
    document : mapping
        For JSON.
    form : str
        One of `FORMATS`.
    show : callable
        Shows the same on a console, for text.
    one_line : bool
        Write JSON as one of several lines.
    """
    if form == "json":
        from uspcap.report.json_report import write_json, write_json_line

        (write_json_line if one_line else write_json)(document, stream)
    else:
        show(console_on(stream))
