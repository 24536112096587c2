"""What the system refuses, in words: the reason, and the advice that fits it."""

from __future__ import annotations

import errno
import os
from typing import Final

_LIMITS: Final = {
    errno.EMFILE: "raise the limit of open files with 'ulimit -n', or have uspcap open fewer at a time",
    errno.ENFILE: "the whole system has too many files open: close some, or raise fs.file-max",
}
"""Advice that holds for every call; what else an error means depends on what was called."""

_OF_FILES: Final = {
    errno.ENOSPC: "make room or write elsewhere",
    errno.EDQUOT: "your disk quota is used up: make room or write elsewhere",
    errno.EFBIG: "the limit for the size of one file is reached ('ulimit -f' or the file system's): write less",
    errno.EROFS: "the file system is mounted read-only: write elsewhere",
    errno.ENOMEM: "free memory, or raise the limit ('ulimit -v', the control group's)",
    errno.EIO: "the device fails or the terminal is gone: see dmesg",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "symbolic links lead in a circle, or one was put there just now: name the file that is meant",
    errno.ESTALE: "the file server has lost the file: mount it again",
}
"""Advice for files, whatever was done with them; what else is to be said depends on that, and is the caller's."""


def reason(error: OSError | ValueError) -> str:
    """Return why a call failed, as the system says it."""
    if isinstance(error, OSError):
        return error.strerror or (os.strerror(error.errno) if error.errno else str(error)) or type(error).__name__
    return str(error)


def limit_remedy(number: int | None, otherwise: str) -> str:
    """Return what to do about an error of any system call, by its number: `otherwise`, unless a limit is reached."""
    return _LIMITS.get(number or 0, otherwise)


def remedy(error: OSError | ValueError, otherwise: str) -> str:
    """Return what to do about an error with a file.

    Parameters
    ----------
    error : OSError or ValueError
        One that has a `remedy` of its own gives that.
    otherwise : str
        For errors whose cause lies in what was asked for, such as a wrong path or a missing permission.
    """
    own = getattr(error, "remedy", None)
    if isinstance(own, str):
        return own
    number = getattr(error, "errno", None) or 0
    return limit_remedy(number, _OF_FILES.get(number, otherwise))


def error_text(number: int) -> str:
    """Return an error number as `EPERM (Operation not permitted)`; empty for 0."""
    if not number:
        return ""
    # Python knows EOPNOTSUPP by its other name only, which manual pages of Linux do not use.
    name = "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, f"error {number}")
    return f"{name} ({os.strerror(number)})"
