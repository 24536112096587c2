"""Files that a user has asked for a report or a table in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from uspcap.errors import UspcapError
from uspcap.files.whole import whole_file
from uspcap.notices import say
from uspcap.system_errors import reason, remedy


class ReportFileError(UspcapError):
    """A report or a table cannot be written."""


def cannot_write(
    path: str | os.PathLike[str], what: str, error: OSError | ValueError, advice: str = "name another file"
) -> ReportFileError:
    """Return the error for a file that cannot be written; parameters are as in `report_file`."""
    return ReportFileError(f"{path}: cannot write {what}: {reason(error)}; {remedy(error, advice)}")


@contextmanager
def report_file(
    path: str | os.PathLike[str], what: str, *, advice: str = "name another file", newline: str | None = None
) -> Iterator[TextIO]:
    """Give a text stream for a file that appears whole or not at all, as `whole_file` does.

    Parameters
    ----------
    path : path
    what : str
        How messages call it: `the report`.
    advice : str
        For an error that does not say what to do.
    newline : str, optional
        As for open().

    Raises
    ------
    ReportFileError
        It cannot be written.
    """

    def tell_of_waiting() -> None:
        say(f"{path} is a FIFO: waiting for a program that reads it")

    with ExitStack() as opened:
        try:
            stream = opened.enter_context(whole_file(path, newline=newline, waiting=tell_of_waiting))
        except (OSError, ValueError) as error:
            raise cannot_write(path, what, error, advice) from error
        try:
            yield stream
            opened.close()
        except OSError as error:
            raise cannot_write(path, what, error, advice) from error
