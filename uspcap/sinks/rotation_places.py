"""The directories of a capture's many files: tried before the first frame, made where their names hold a time."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from uspcap.errors import CaptureFileError
from uspcap.files.places import place_of
from uspcap.system_errors import reason, remedy


def check_directory(pattern: str) -> None:
    """Try to make a file where the first one will be; it is removed at once.

    Where the directory's name holds a time, the last one on its way that is there is tried.

    Parameters
    ----------
    pattern : str
        Of the names, as strftime(3) takes it.

    Raises
    ------
    CaptureFileError
        No file can be made there.
    """
    directory = _fixed(pattern)
    try:
        for component in _below(directory, time.strftime(pattern, time.gmtime())):
            if not (directory / component).is_dir():
                break
            directory /= component
        with place_of(directory / f".uspcap-{secrets.token_hex(8)}") as place:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(place.name, flags, 0o600, dir_fd=place.directory))
            os.unlink(place.name, dir_fd=place.directory)
    except (OSError, ValueError) as error:
        why = "it is not a directory" if isinstance(error, NotADirectoryError) else reason(error)
        advice = remedy(error, "name a file in a directory that you may write to")
        raise CaptureFileError(f"cannot write {pattern}: {directory}: {why}; {advice}") from error


def make_directories(pattern: str, path: str) -> None:
    """Make the directories of a file that are missing and whose names hold a time in the pattern.

    Parameters
    ----------
    pattern : str
    path : str
        What it gave for this file.

    Raises
    ------
    CaptureFileError
        One cannot be made.
    """
    directory = _fixed(pattern)
    for component in _below(directory, path):
        directory /= component
        try:
            with place_of(directory) as place:
                if place.status is None:
                    os.mkdir(place.name, dir_fd=place.directory)
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            advice = remedy(error, "create it, or leave times out of its name")
            raise CaptureFileError(
                f"cannot write {path}: its directory {directory} cannot be created: {reason(error)}; {advice}"
            ) from error


def _fixed(pattern: str) -> Path:
    """Return the directory of a pattern's files up to the first component that holds a time."""
    fixed = Path(pattern).parent
    while "%" in str(fixed):
        fixed = fixed.parent
    return fixed


def _below(directory: Path, path: str) -> tuple[str, ...]:
    """Return the directories between one and a file below it."""
    return Path(path).parent.relative_to(directory).parts
