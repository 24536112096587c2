"""Reports as JSON: one document, or a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TextIO

from uspcap.records import Record, as_json
from uspcap.report.model import Output
from uspcap.report.renderers.base import Renderer


class JsonRenderer(Renderer):
    """Writes the document."""

    shows_page: ClassVar[bool] = False

    def write(self, output: Output, stream: TextIO) -> None:
        write_json(output.found, stream)

    def write_next(self, output: Output, stream: TextIO) -> None:
        write_json_line(output.found, stream)


def write_json(report: Record | Mapping[str, Any], stream: TextIO) -> None:
    """Write a report with its keys in the order given, indented by 2, in ASCII, with a newline at the end.

    Raises
    ------
    ValueError
        A number is NaN or infinite, which JSON cannot say; nothing is written.
    """
    stream.write(json.dumps(as_json(report), indent=2, allow_nan=False) + "\n")


def write_json_line(report: Record | Mapping[str, Any], stream: TextIO) -> None:
    """Write a report as one line, in ASCII, and flush: one of several in a stream (JSON lines).

    Raises
    ------
    ValueError
        A number is NaN or infinite, which JSON cannot say; nothing is written.
    """
    stream.write(json.dumps(as_json(report), allow_nan=False) + "\n")
    stream.flush()


RENDERER = JsonRenderer()
