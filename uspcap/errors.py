"""Every error that uspcap raises on purpose.

    UspcapError                 exit code 1
      CaptureFileError          a capture file cannot be read or written
        NotACaptureFile         the first bytes are of no known format
      CaptureError              a live capture cannot start or go on
      MissingFeature            this build, host or kernel lacks something
      UnexpectedError           an error of another kind, whose cause it has: a fault of uspcap's, no memory
      BpfError                  the kernel refused a bpf(2) call; carries its errno
        PermissionDenied        a capability is missing; the message names it
        HookOccupied            another's XDP program is attached to the interface
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


class CaptureError(UspcapError):
    """A live capture cannot start, or cannot go on."""


class MissingFeature(UspcapError):
    """Something optional is not there: a package, a library, a kernel feature."""


class UnexpectedError(UspcapError):
    """Something failed that nobody foresaw; `uspcap.unexpected` makes it of any other exception, its `__cause__`."""


class BpfError(UspcapError):
    """The kernel refused a bpf(2) call.

    Attributes
    ----------
    errno : int
        The call's error number, 0 where none was involved.
    verifier_log : str
        Everything the verifier said, empty where it said nothing.
    """

    def __init__(self, message: str, errno: int = 0, verifier_log: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.verifier_log = verifier_log


class PermissionDenied(BpfError):
    """The process lacks a capability."""


class HookOccupied(BpfError):
    """The XDP hook of an interface is taken by another's program, which is never replaced."""


class FilterError(UspcapError):
    """A filter expression does not compile for a link type."""

    exit_code = 2


class UsageError(UspcapError):
    """Options that do not go together, or a value that no option takes."""

    exit_code = 2
