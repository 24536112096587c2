"""The files in which a kernel describes its host, below a root that tests can choose."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from uspcap.system_errors import reason

MOST_BYTES: Final = 16 << 20
"""That are read of a file: /proc/interrupts and /proc/cpuinfo of the largest hosts have a part of it."""

_READ_BYTES: Final = 1 << 16
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")


class HostFiles:
    """Reads /proc and /sys, or a copy of them.

    Parameters
    ----------
    root : Path
        What stands for `/`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Return what a file holds, without white space at its ends; None where it cannot be read.

        Bytes that are no UTF-8 become U+FFFD, and what is beyond `MOST_BYTES` is left out.
        """
        try:
            return self._read(path)
        except (OSError, ValueError):
            return None

    def why_not(self, path: str) -> str:
        """Return why a file says nothing: that it is missing, masked, empty, ...; empty where it does say something."""
        try:
            return "" if self._read(path) else f"{path} is empty"
        except (OSError, ValueError) as error:
            return f"{path}: {reason(error)}"

    def number(self, path: str) -> int | None:
        """Return the whole number that a file holds; None where there is none."""
        text = self.text(path) or ""
        return int(text) if _NUMBER.fullmatch(text) else None

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            return self._at(path).exists()
        except (OSError, ValueError):
            return False

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that a glob pattern matches, in natural order of their numbers."""
        try:
            found = [f"/{path.relative_to(self._root)}" for path in self._root.glob(pattern.lstrip("/"))]
        except (OSError, ValueError):
            return []
        return sorted(found, key=lambda path: (len(path), path))

    def target(self, path: str) -> str | None:
        """Return the last part of what a symbolic link points to; None where there is none."""
        try:
            return self._at(path).readlink().name
        except (OSError, ValueError):
            return None

    def write(self, path: str, value: str) -> None:
        """Write a value into a file that is there; raises OSError as the kernel refuses it."""
        # As a shell's `>` does it, but for making a file that is not there.
        descriptor = os.open(self._at(path), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode("ascii"))
        finally:
            os.close(descriptor)

    def processes(self) -> frozenset[str]:
        """Return the names of the processes that run."""
        return frozenset(filter(None, (self.text(path) for path in self.matching("/proc/[0-9]*/comm"))))

    def _read(self, path: str) -> str:
        """Return what a file holds; raises OSError where it cannot be read."""
        # What is put in the place of a file of /proc or /sys may have no end, or wait for somebody to write.
        descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            parts: list[bytes] = []
            left = MOST_BYTES
            # The kernel refuses to read more at once from files below /proc/sys.
            while left and (part := os.read(descriptor, min(left, _READ_BYTES))):
                parts.append(part)
                left -= len(part)
        finally:
            os.close(descriptor)
        return b"".join(parts).decode("utf-8", "replace").strip()

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")
