"""Text files that appear whole, or not at all: what reports, tables and records are written with."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final, TextIO

from uspcap.files.places import Place, check_existing, open_place, place_of
from uspcap.signals import before_the_end

_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""No file may be made in the directory."""

_FIXED: Final = frozenset({errno.EBUSY, errno.EXDEV})
"""What is there is a mount of its own, as a container's file can be: no other takes its place."""


@contextmanager
def whole_file(
    path: str | os.PathLike[str],
    *,
    newline: str | None = None,
    mode: int = 0o666,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[TextIO]:
    """Give a text stream whose content stands at `path` once the block has ended without an exception.

    A regular file is written under another name beside it, brought to the disk, and then takes the place of the one
    that is there, whose permissions and owner it gets; until then, and where anything fails, the old one stays. A new
    file gets the permissions that the umask leaves of `mode`. The old file is overwritten, at the end, only where the
    system lets it be written and not replaced, or its owner could not be kept. What is no regular file (a pipe, FIFO,
    device or terminal; /dev/stdout and /proc/self/fd/N, whatever they are) is written as it comes.

    Parameters
    ----------
    path : path
        Symbolic links are followed as `uspcap.files.places` says.
    newline : str, optional
        As for open().
    mode : int
        Permissions of a file that is new.
    waiting : callable
        Called once where a FIFO has no reader yet, before waiting for one.

    Raises
    ------
    Untrusted
        Somebody else may have put there what the path leads to.
    OSError
        It cannot be written.
    ValueError
        The path holds a null character.
    """
    with place_of(path) as place:
        if not place.replaceable:
            descriptor, _, _ = open_place(place, waiting=waiting)
            if place.own_descriptor < 0:
                os.set_blocking(descriptor, True)
            with _text(descriptor, newline) as stream:
                yield stream
            return
        if place.status is not None:
            check_existing(place, place.status)
        with closing(_Replacement(place, mode)) as new:
            with _text(os.dup(new.descriptor), newline) as stream:
                yield stream
            new.take_the_place()


@contextmanager
def _text(descriptor: int, newline: str | None) -> Iterator[TextIO]:
    stream = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline=newline)  # noqa: SIM115
    try:
        yield stream
    except BaseException:
        # What could not be written cannot be on closing either: the first error is the one to report.
        with suppress(OSError):
            stream.close()
        raise
    stream.close()


class _Replacement:
    """A new file beside an existing one or beside nothing, removed on `close` where it has not taken that place.

    Attributes
    ----------
    descriptor : int
    """

    def __init__(self, place: Place, mode: int) -> None:
        self._place = place
        self._name = f".uspcap-{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = mode if place.status is None else 0o600
        self._forget = before_the_end(self._remove)
        try:
            self.descriptor = os.open(self._name, flags, mode, dir_fd=place.directory)
        except OSError as error:
            self._forget()
            if place.status is None or error.errno not in _REFUSED:
                raise
            self._name = ""
            with tempfile.TemporaryFile() as nameless:
                self.descriptor = os.dup(nameless.fileno())

    def take_the_place(self) -> None:
        """Put it where the path leads; raises OSError, and then what is there stays."""
        directory = self._place.directory
        if self._name and self._adopt_owner():
            os.fsync(self.descriptor)
            try:
                os.replace(self._name, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError as error:
                if error.errno not in _FIXED:
                    raise
            else:
                self._name = ""
                return
        self._overwrite()

    def close(self) -> None:
        os.close(self.descriptor)
        self._remove()
        self._forget()

    def _adopt_owner(self) -> bool:
        """Take permissions and owner of the file that is there; False where the system does not allow that."""
        old = self._place.status
        if old is None:
            return True
        new = os.fstat(self.descriptor)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            try:
                os.fchown(self.descriptor, old.st_uid, old.st_gid)
            except OSError:
                return False
        os.fchmod(self.descriptor, stat.S_IMODE(old.st_mode))
        return True

    def _overwrite(self) -> None:
        target, _, _ = open_place(self._place)
        with open(target, "wb") as old, open(os.dup(self.descriptor), "rb") as new:  # noqa: PTH123
            os.ftruncate(target, 0)
            new.seek(0)
            shutil.copyfileobj(new, old)
            old.flush()
            os.fsync(target)

    def _remove(self) -> None:
        if self._name:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._place.directory)
