"""Every error that uspcap raises on purpose.

    UspcapError                 exit code 1
      CaptureFileError          a capture file cannot be read or written
        NotACaptureFile         the first bytes are of no known format
      MissingFeature            this build, host or kernel lacks something
      FilterError               a filter expression does not compile (exit code 2)
      UsageError                options that contradict each other (exit code 2)

Each message is one sentence that says what failed, on what, and what to do next.
"""

from __future__ import annotations


class UspcapError(Exception):
    """Base of the tree; the command line prints its message and exits with `exit_code`."""

    exit_code = 1


class CaptureFileError(UspcapError):
    """A capture file cannot be opened, read or written."""


class NotACaptureFile(CaptureFileError):
    """The first bytes are of no format that uspcap reads."""


class MissingFeature(UspcapError):
    """Something optional is not there: a package, a library, a kernel feature."""


class FilterError(UspcapError):
    """A filter expression does not compile for a link type."""

    exit_code = 2


class UsageError(UspcapError):
    """Options that do not go together, or a value that no option takes."""

    exit_code = 2
