"""The report as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO


def write_json(report: Mapping[str, Any], stream: TextIO) -> None:
    """Write a report with its keys in the order given, indented by 2, in ASCII, with a newline at the end.

    Raises
    ------
    ValueError
        A number is NaN or infinite, which JSON cannot say; nothing is written.
    """
    stream.write(json.dumps(report, indent=2, allow_nan=False) + "\n")


def write_json_line(report: Mapping[str, Any], stream: TextIO) -> None:
    """Write a report as one line, in ASCII, and flush: one of several in a stream (JSON lines).

    Raises
    ------
    ValueError
        A number is NaN or infinite, which JSON cannot say; nothing is written.
    """
    stream.write(json.dumps(report, allow_nan=False) + "\n")
    stream.flush()
