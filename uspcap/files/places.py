"""Where a path leads, component by component, without being led astray.

In a directory that others may write to, what a path names can be theirs: a symbolic link to a file of ours, a FIFO
or a file of theirs that waits for our data. A symbolic link is followed only where it belongs to root or to the
caller, in any directory; that is the kernel's rule for sticky directories (protected_symlinks), which may be switched
off and ends there. A file or FIFO that is there already is opened only under the rule of protected_regular and
protected_fifos. Each component is opened relative to the directory before it and looked at through its descriptor,
so that nobody can exchange it in between.

References
----------
Documentation/admin-guide/sysctl/fs.rst; open(2); path_resolution(7); proc_pid_fd(5).
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST_LINKS: Final = 40
"""As many as the kernel follows (linux/namei.h, MAXSYMLINKS)."""

_MOST_TRIES: Final = 100
"""Opening is tried again where somebody creates or removes the file in between."""

_LOOK_S: Final = 0.05
"""A FIFO without a reader is tried so often."""

_PARTS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Untrusted(PermissionError):
    """What a path names may have been put there by somebody else.

    Attributes
    ----------
    remedy : str
        What to do.
    """

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(errno.EACCES, why)
        self.remedy = remedy


@dataclass(slots=True)
class Place:
    """Where a path leads.

    Attributes
    ----------
    directory : int
        Descriptor of the directory (O_PATH).
    name : str
        Within it; no symbolic link when it was looked at.
    status : stat_result or None
        None where there is nothing of that name.
    magic : bool
        It is one of the links by which procfs leads to a process's open files; `status` is that file's.
    own_descriptor : int
        For /dev/stdout, /proc/self/fd/3 and the like, the number; -1 for others.
    """

    directory: int
    name: str
    status: os.stat_result | None
    magic: bool = False
    own_descriptor: int = -1

    @property
    def replaceable(self) -> bool:
        """A regular file, or none yet: another can take its place."""
        return not self.magic and (self.status is None or stat.S_ISREG(self.status.st_mode))

    @property
    def shared(self) -> bool:
        """Others may make files in the directory."""
        mode = os.fstat(self.directory).st_mode
        return bool(mode & stat.S_IWOTH or (mode & stat.S_ISVTX and mode & stat.S_IWGRP))


@contextmanager
def place_of(path: str | os.PathLike[str]) -> Iterator[Place]:
    """Give the place that a path leads to; its directory is closed at the end.

    Raises
    ------
    Untrusted
        A symbolic link on the way belongs to neither root nor the caller.
    OSError
        A directory on the way is not there, or may not be searched.
    ValueError
        The path holds a null character.
    """
    name = os.fspath(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if "\0" in name:
        raise ValueError("embedded null byte")
    directory = _start(name)
    waiting = deque(_components(name))
    links = 0
    try:
        while True:
            component = waiting.popleft()
            try:
                found = os.open(component, _PARTS, dir_fd=directory)
            except FileNotFoundError:
                if waiting:
                    raise
                yield Place(directory, component, None)
                return
            try:
                status = os.fstat(found)
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    if _is_procfs(directory):
                        # Not a path but the kernel's own way to a process's files; nobody else can make one.
                        os.close(found)
                        found = -1
                        found = os.open(component, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
                        status = os.fstat(found)
                        if not waiting:
                            yield Place(directory, component, status, True, _own_descriptor(directory, component))
                            return
                    else:
                        _check_link(component, status)
                        target = os.readlink("", dir_fd=found)
                        waiting.extendleft(reversed(_components(target)))
                        if target.startswith("/"):
                            directory = _moved(directory, _start(target))
                        continue
                if not waiting:
                    yield Place(directory, component, status)
                    return
                directory, found = _moved(directory, found), -1
            finally:
                if found >= 0:
                    os.close(found)
    finally:
        os.close(directory)


def open_place(
    place: Place, mode: int = 0o666, waiting: Callable[[], None] = lambda: None
) -> tuple[int, os.stat_result, bool]:
    """Open a place for writing, and create the file where there is none. Nothing is emptied.

    With a FIFO, wait until somebody reads it.

    Parameters
    ----------
    place : Place
    mode : int
        Of a new file, less the umask.
    waiting : callable
        Called once where a FIFO has no reader.

    Returns
    -------
    descriptor : int
        Of a FIFO, pipe or device with O_NONBLOCK.
    status : stat_result
    created : bool

    Raises
    ------
    Untrusted
        What is there may be somebody else's.
    OSError
    """
    if place.own_descriptor >= 0:
        descriptor = os.dup(place.own_descriptor)
        return descriptor, os.fstat(descriptor), False
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if place.magic else os.O_NOFOLLOW)
    has_waited = False
    tries = 0
    while True:
        if not place.magic:
            with suppress(FileExistsError):
                descriptor = os.open(place.name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=place.directory)
                return descriptor, os.fstat(descriptor), True
        try:
            descriptor = os.open(place.name, flags, dir_fd=place.directory)
        except OSError as error:
            tries += 1
            if error.errno == errno.ENOENT and tries < _MOST_TRIES:
                continue
            if error.errno != errno.ENXIO or not _is_fifo(place):
                raise
            if not has_waited:
                has_waited = True
                waiting()
            time.sleep(_LOOK_S)
            continue
        try:
            status = os.fstat(descriptor)
            check_existing(place, status)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status, False


def check_existing(place: Place, status: os.stat_result) -> None:
    """Refuse a file or FIFO that somebody else may have put into a directory that many write to.

    Raises
    ------
    Untrusted
    """
    if place.magic or not place.shared or not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        return
    advice = "remove it, or write into a directory of your own"
    if not _trusted(status) and status.st_uid != os.fstat(place.directory).st_uid:
        raise Untrusted(f"it exists, belongs to {owner_name(status)}, and others may write to its directory", advice)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise Untrusted("it exists under another name too, and others may write to its directory", advice)


def owner_name(status: os.stat_result) -> str:
    """Return whose a file is: `user bob`, or the number where it has no name."""
    with suppress(KeyError):
        return f"user {pwd.getpwuid(status.st_uid).pw_name}"
    return f"user {status.st_uid}"


def _trusted(status: os.stat_result) -> bool:
    """Whether something belongs to root or the caller."""
    # In a user namespace root's files belong to a user that it does not know; what is at the top is root's.
    return status.st_uid in (0, os.geteuid(), Path("/").stat().st_uid)


def _check_link(component: str, status: os.stat_result) -> None:
    if not _trusted(status):
        raise Untrusted(
            f"{component!r} in its path is a symbolic link of {owner_name(status)}, not of root or you",
            "name its target",
        )


def _is_fifo(place: Place) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(place.name, dir_fd=place.directory, follow_symlinks=place.magic).st_mode)
    except OSError:
        return False


def _start(path: str) -> int:
    return os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _components(path: str) -> list[str]:
    """Return what to look up one after the other; a path that names a directory ends with `.`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.endswith(("/", "/.")):
        parts.append(".")
    return parts


def _moved(before: int, after: int) -> int:
    os.close(before)
    return after


def _is_procfs(directory: int) -> bool:
    try:
        return os.fstat(directory).st_dev == Path("/proc/self/fd").stat().st_dev
    except OSError:
        return False


def _own_descriptor(directory: int, component: str) -> int:
    """Return N for an entry `N` of /proc/self/fd, -1 for any other."""
    if not component.isascii() or not component.isdigit():
        return -1
    try:
        ours = Path("/proc/self/fd").stat()
    except OSError:
        return -1
    here = os.fstat(directory)
    return int(component) if (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino) else -1
