"""What was changed and not restored yet, in a file that outlives the process that changed it.

The file is one JSON document. A new one takes the place of the old one in one step, so that whoever reads it, at
whatever moment the writer was killed, reads a whole one. Whoever changes settings holds a lock on a file beside it.
It is read as root and says what root is to write: only files of root's or the reader's own are taken, and only
settings that the doctor changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uspcap.doctor.changes import Change
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.errors import CaptureError
from uspcap.files.whole import whole_file
from uspcap.system_errors import reason, remedy

RECORD: Final = Path("/run/uspcap/doctor.json")
"""Where it is remembered what was changed; gone after a boot, as are the settings."""

SCHEMA: Final = "uspcap.doctor-record/1"
MOST_BYTES: Final = 16 << 20
"""A host with a thousand CPUs has settings for less than a tenth of this."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change in the record.

    Attributes
    ----------
    change : Change
    namespace : NetworkNamespace
        That it was made in.
    ifindex : int
        Of its interface; 0 for a file.
    device : str
        What the interface is: bus and address, or the kind of a virtual one; empty for a file.
    boot : str
        /proc/sys/kernel/random/boot_id; empty where it could not be read.
    made : bool
        False while it was only going to be made: the process that was about to ended before it could say how it went.
    """

    change: Change
    namespace: NetworkNamespace
    ifindex: int = 0
    device: str = ""
    boot: str = ""
    made: bool = False

    def as_document(self) -> dict[str, Any]:
        """Return the form in the file."""
        change = self.change
        return {
            **{name: getattr(change, name) for name in ("kind", "where", "what", "before", "after")},
            "namespace": {"inode": self.namespace.inode, "cookie": self.namespace.cookie},
            **{name: getattr(self, name) for name in ("ifindex", "device", "boot", "made")},
        }

    @classmethod
    def from_document(cls, document: Any) -> Entry:
        """Return the change of `as_document`.

        Raises
        ------
        ValueError
            It is none.
        """
        _check_members(document, _MEMBERS, "a change")
        _check_members(document["namespace"], {"inode": int, "cookie": int}, "a namespace")
        change = Change(*(document[name] for name in ("kind", "where", "what", "before", "after")))
        if change.flaw():
            raise ValueError(change.flaw())
        if document["ifindex"] < 0 or (change.kind == "file") == bool(document["ifindex"]):
            raise ValueError(f"{change.setting!r} cannot have the ifindex {document['ifindex']}")
        namespace = NetworkNamespace(**document["namespace"])
        return cls(change, namespace, *(document[name] for name in ("ifindex", "device", "boot", "made")))


_MEMBERS: Final = {
    **dict.fromkeys(("kind", "where", "what", "before", "after", "device", "boot"), str),
    **{"namespace": dict, "ifindex": int, "made": bool},
}


def _check_members(document: Any, members: dict[str, type], what: str) -> None:
    if not isinstance(document, dict) or document.keys() != members.keys():
        raise ValueError(f"{what} has the members {', '.join(members)}")
    for name, kind in members.items():
        if type(document[name]) is not kind:
            raise ValueError(f"{name} of {what} is {document[name]!r:.40}")


class Record:
    """The changes that were made and not taken back.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path = RECORD) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether there may be changes in it; False only where there is no such file."""
        try:
            self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing settings, from reading the record to writing it.

        Raises
        ------
        CaptureError
            Another does so now, or the lock cannot be had.
        """
        descriptor = self._lock()
        try:
            yield
        finally:
            # Removed while it is held: whoever opened it meanwhile finds that it is not the one at this path.
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            os.close(descriptor)

    def read(self) -> list[Entry]:
        """Return the changes, oldest first.

        Raises
        ------
        CaptureError
            The file cannot be read, is another user's, or is not one of these.
        """
        try:
            text = self._text()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CaptureError(
                f"cannot read {self.path}: {reason(error)}; {remedy(error, 'run as the user who changed it')}"
            ) from error
        try:
            document = json.loads(text)
            _check_members(document, {"schema": str, "changes": list}, "a record")
            if document["schema"] != SCHEMA:
                raise ValueError(f"its schema is {document['schema']!r:.40}, and not {SCHEMA}")
            return [Entry.from_document(entry) for entry in document["changes"]]
        except (ValueError, RecursionError) as error:
            raise CaptureError(
                f"{self.path} is not a record of changes ({error}): put the settings back by hand, then remove it"
            ) from error

    def write(self, entries: Iterable[Entry]) -> None:
        """Keep these and no others; without any, the file goes.

        Raises
        ------
        CaptureError
            It cannot be written; what was there before still is.
        """
        kept = [entry.as_document() for entry in entries]
        try:
            if kept:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with whole_file(self.path, mode=0o600) as file:
                    file.write(json.dumps({"schema": SCHEMA, "changes": kept}, indent=1) + "\n")
            else:
                self.path.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise CaptureError(
                f"cannot record changes in {self.path}: {reason(error)}; "
                f"{remedy(error, 'run as root, or choose another file with --record')}; nothing more is changed"
            ) from error

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _lock(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(self._lock_path, flags, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._is_at(self._lock_path, descriptor):
                        os.ftruncate(descriptor, 0)
                        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
                        return descriptor
                except BlockingIOError:
                    owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                    os.close(descriptor)
                    process = f" (process {owner})" if owner.isdecimal() else ""
                    raise CaptureError(
                        f"another uspcap doctor{process} is changing settings: wait until it has ended"
                    ) from None
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)
        except OSError as error:
            raise CaptureError(
                f"cannot lock {self._lock_path}: {reason(error)}; "
                f"{remedy(error, 'run as root, or choose another file with --record')}"
            ) from error

    @staticmethod
    def _is_at(path: Path, descriptor: int) -> bool:
        """Whether an open file is the one at a path."""
        try:
            return os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            return False

    def _text(self) -> str:
        """Return what the file holds.

        Raises
        ------
        OSError
            It cannot be read.
        CaptureError
            What it says is not to be done: another may have written it.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CaptureError(f"{self.path} is not a regular file, and so not a record of changes: remove it")
            if status.st_uid not in (0, os.geteuid()):
                raise CaptureError(
                    f"{self.path} belongs to user {status.st_uid}, who is neither root nor you: it is not "
                    "applied; inspect it, then remove it"
                )
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CaptureError(
                    f"others than the owner may write {self.path}: it is not applied; inspect it, then "
                    f"'chmod 600 {self.path}' or remove it"
                )
            with os.fdopen(os.dup(descriptor), "rb") as file:
                content = file.read(MOST_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(content) > MOST_BYTES:
            raise CaptureError(f"{self.path} is longer than {MOST_BYTES >> 20} MiB, and so not a record of changes")
        return content.decode("utf-8", "replace")
