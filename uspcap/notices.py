"""Lines for whoever runs a command, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

from uspcap.foreign_text import safe_text


def say(text: str) -> None:
    """Print one line, `uspcap: …`, with everything in it that is no visible character escaped.

    Where nobody takes it (the terminal has gone, the disk of a log is full) the line is lost and nothing else.
    """
    stream = sys.stderr
    if stream is None:
        return
    with suppress(OSError, ValueError):
        stream.write(f"uspcap: {safe_text(text)}\n")
        stream.flush()
